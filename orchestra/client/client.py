"""Talks to instances: inside a runtime as ``runtime.client``, or alone in a process that has no orchestrations of its own.

::

    async with Client(SqliteProvider("app.db")) as client:
        info = await client.get_instance_info("watch-1")
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Final, Literal, NoReturn, Self, TypeVar, overload

import anyio
import anyio.to_thread
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider
from typing_extensions import TypeForm

from orchestra.client.arguments import (
    check_choice,
    check_filters,
    check_id,
    check_limit,
    check_name,
    check_number,
    check_policy,
    check_provider,
    check_reason,
    check_registry,
    check_start,
    check_text,
    read_page,
    read_statuses,
)
from orchestra.client.changes import (
    check_target,
    chosen_version,
    following,
    id_of_request,
    raise_unless_known,
    require_known,
    retargeting,
    termination,
)
from orchestra.client.direct import DirectPort
from orchestra.client.handle import Handle
from orchestra.client.history import HistoryEvent, history_event
from orchestra.client.info import (
    ExecutionInfo,
    InstanceInfo,
    InstancePage,
    InstanceStatus,
    NodeInfo,
    PurgeReport,
    child_info,
    execution_info,
    instance_info,
    node_infos,
    unserved_kinds,
    untold_activities,
)
from orchestra.client.port import End, Port
from orchestra.client.waiting import Patience, no_end
from orchestra.clock import Clock, SystemClock, new_id, to_micros
from orchestra.codec import DEFAULT_PAYLOAD_LIMIT, decoder, encode
from orchestra.context import OrchestrationContext
from orchestra.errors import (
    AlreadyCompleted,
    InboxFull,
    InstanceCompleted,
    InstanceExists,
    InstanceNotFound,
    InstanceNotHeld,
    InstanceStillOpen,
    OrchestraError,
    RuntimeClosed,
    StoreError,
    UnknownOrchestration,
)
from orchestra.events import FORMAT, EventKind, EventRecord
from orchestra.loops import current_loop
from orchestra.options import check_count, check_duration, check_moment
from orchestra.providers.inboxes import Full, InboxLimits
from orchestra.providers.interfaces import Provider
from orchestra.providers.rows import (
    DEFAULT_QUEUE,
    Append,
    AppendRefused,
    Cancel,
    Catalogue,
    ExecutionRow,
    Granted,
    InstanceQuery,
    InstanceRecord,
    Kind,
    Recover,
    Recovered,
    Refusal,
    Release,
    Resolution,
    ResolvedBy,
    Standing,
    Start,
    StartExists,
    Status,
    Unknown,
)
from orchestra.registry import OrchestrationRegistry
from orchestra.resolution import policy_of, resolution_level, stored_policy
from orchestra.signatures import called, plain_function
from orchestra.telemetry import Recorder, recorder_for
from orchestra.versions import Policy, UnknownPolicy, parse_version

__all__ = ["Client", "Handle"]

R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")

_CATALOGUE_AGE: Final = 1.0
_HELD_AGE: Final = 0.05
"""How old the catalogue may be where it makes an instance look held: a deploy must not make a dashboard flicker."""
_OPERATOR_TRIES: Final = 50
_TRIES_BEFORE_MARK: Final = 8
"""How often the client writes a terminate itself before it marks the instance for its owner."""
_SHORTEST_LOOK: Final = 0.01
_LONGEST_LOOK: Final = 0.5
"""Seconds between looks at an instance that is marked for its end: an owner on another node learns it with its next poll."""
_CHILDREN: Final = 1_000
_NAMED: Final = 100
_RETARGETED_AT_ONCE: Final = 100
_DELETED_AT_ONCE: Final = 25
"""Instances that a purge deletes in one transaction: each may have thousands of rows."""
_STATUS_OF: Final = {
    InstanceStatus.COMPLETED: Status.COMPLETED,
    InstanceStatus.FAILED: Status.FAILED,
    InstanceStatus.CANCELLED: Status.CANCELLED,
    InstanceStatus.TERMINATED: Status.TERMINATED,
    InstanceStatus.PENDING: Status.OPEN,
    InstanceStatus.RUNNING: Status.OPEN,
    InstanceStatus.HELD: Status.OPEN,
}
_STANDING_OF: Final = {
    InstanceStatus.PENDING: Standing.PENDING,
    InstanceStatus.RUNNING: Standing.RUNNING,
    InstanceStatus.HELD: Standing.HELD,
}


class Client:
    """Asynchronous access to a store. An async context manager where it stands alone.

    It may be used from any event loop and thread of its process, also from others than the one in which it was entered.

    Every method that changes something returns once the change is durable (I1).

    Args:
        provider: the store.
        registry: what the orchestrations' functions are called, so that :meth:`start` takes functions, and what their inputs
            must be. Where it is not given, names and plain checks do.
        inbox_limit: unread messages that an instance may have; beyond it senders are refused. One name may take nine tenths.
        inbox_bytes: bytes that the payloads of its unread messages may have together; likewise.
        payload_limit: bytes that one value may have.
        tracer_provider: where spans go; by default OpenTelemetry's global one, as it is when the client is entered.
        meter_provider: where metrics go; likewise.

    Raises:
        InvalidArgument: the provider is none (a path, say), the registry is a builder that was not built, or a limit is no
            whole number, or less than 1.
    """

    def __init__(
        self,
        provider: Provider,
        *,
        registry: OrchestrationRegistry | None = None,
        inbox_limit: int = 10_000,
        inbox_bytes: int = 256 * 1024 * 1024,
        payload_limit: int = DEFAULT_PAYLOAD_LIMIT,
        clock: Clock | None = None,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        check_provider(provider)
        if registry is not None:
            check_registry(registry)
        check_count(inbox_limit, "inbox_limit")
        check_count(inbox_bytes, "inbox_bytes")
        check_count(payload_limit, "payload_limit")
        self._provider = provider
        self._inbox_limits = InboxLimits(inbox_limit, inbox_bytes)
        self._payload_limit = payload_limit
        self._clock = clock or SystemClock()
        self._registry = registry
        self._attached: Port | None = None
        self._own: DirectPort | None = None
        self._catalogue: tuple[Catalogue, float] | None = None
        """With the moment from which it is. Replaced as a whole: several threads may read it."""
        self._catalogue_reads: dict[object, _CatalogueRead] = {}
        """By event loop: a task can wait only for what happens in its own."""
        self._name = "client"
        self._providers = tracer_provider, meter_provider
        self._recorder = Recorder()

    @classmethod
    def attached(
        cls,
        provider: Provider,
        port: Port,
        registry: OrchestrationRegistry,
        name: str,
        *,
        inbox_limit: int,
        inbox_bytes: int,
        payload_limit: int,
    ) -> Client:
        """Return the client of a runtime; the runtime opens and closes."""
        client = cls(provider, registry=registry, inbox_limit=inbox_limit, inbox_bytes=inbox_bytes, payload_limit=payload_limit)
        client._attached, client._name = port, name
        return client

    def record_with(self, recorder: Recorder) -> None:
        """Tell this recorder of starts and events: the runtime's own."""
        self._recorder = recorder

    async def __aenter__(self) -> Self:
        if self._attached is None:
            if self._own is not None:
                raise RuntimeClosed("this client is open already; enter it once, or make another one")
            self._own = DirectPort(self._provider)  # first, so that of two that enter at once one is refused
            try:
                await anyio.to_thread.run_sync(self._provider.open)
            except BaseException:
                self._own = None
                raise
            self.record_with(recorder_for(*self._providers, self._clock))
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        own, self._own = self._own, None
        if own is not None:
            own.close()
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._provider.close)

    @property
    def _port(self) -> Port:
        port = self._attached or self._own
        if port is None:
            raise RuntimeClosed("the client is not open; use `async with Client(provider) as client:`")
        return port

    # --- starting ---

    @overload
    async def start(
        self,
        orchestration: Callable[[OrchestrationContext, S], Awaitable[R]],
        input: S,
        *,
        instance_id: str | None = None,
        version: str | None = None,
        queue: str = DEFAULT_QUEUE,
        labels: Mapping[str, str] | None = None,
        request_id: str | None = None,
        existing: Literal["error", "return"] = "error",
    ) -> Handle[R]: ...
    @overload
    async def start(
        self,
        orchestration: Callable[[OrchestrationContext, None], Awaitable[R]],
        *,
        instance_id: str | None = None,
        version: str | None = None,
        queue: str = DEFAULT_QUEUE,
        labels: Mapping[str, str] | None = None,
        request_id: str | None = None,
        existing: Literal["error", "return"] = "error",
    ) -> Handle[R]: ...
    @overload
    async def start(
        self,
        orchestration: str,
        input: Any = None,
        *,
        returns: type[T],
        instance_id: str | None = None,
        version: str | None = None,
        queue: str = DEFAULT_QUEUE,
        labels: Mapping[str, str] | None = None,
        request_id: str | None = None,
        existing: Literal["error", "return"] = "error",
    ) -> Handle[T]: ...
    @overload
    async def start(
        self,
        orchestration: str,
        input: Any = None,
        *,
        returns: TypeForm[T],
        instance_id: str | None = None,
        version: str | None = None,
        queue: str = DEFAULT_QUEUE,
        labels: Mapping[str, str] | None = None,
        request_id: str | None = None,
        existing: Literal["error", "return"] = "error",
    ) -> Handle[T]: ...
    @overload
    async def start(
        self,
        orchestration: str,
        input: Any = None,
        *,
        instance_id: str | None = None,
        version: str | None = None,
        queue: str = DEFAULT_QUEUE,
        labels: Mapping[str, str] | None = None,
        request_id: str | None = None,
        existing: Literal["error", "return"] = "error",
    ) -> Handle[Any]: ...
    async def start(
        self,
        orchestration: str | Callable[[OrchestrationContext, Any], Awaitable[Any]],
        input: Any = None,  # noqa: A002 - the term of DESIGN
        *,
        returns: Any = None,
        instance_id: str | None = None,
        version: str | None = None,
        queue: str = DEFAULT_QUEUE,
        labels: Mapping[str, str] | None = None,
        request_id: str | None = None,
        existing: Literal["error", "return"] = "error",
    ) -> Handle[Any]:
        """Start an instance, durably, and return its handle.

        Args:
            orchestration: a registered function, whose input is checked then by type checkers as well, or a name.
            input: the first state.
            returns: for a name, what :meth:`Handle.result` reads the result as; plain JSON by default. A function's own
                annotation counts.
            instance_id: its id for ever; by default a random one, or one that is made from ``request_id``.
            version: exactly this one; by default what the name's policy gives.
            queue: which nodes are to run it, for all its laps: those that serve this queue (``Runtime(queues=...)``).
            labels: small facts to list by.
            request_id: the caller's own id of this request. Repeating a start with the same one answers with the handle.
            existing: what to do where the id is taken: raise, or return the handle of the instance that has it.

        Raises:
            UnknownOrchestration: the function is not registered in this client's registry, or it has none.
            InvalidFunction: the function is registered under several names.
            UnresolvableAnnotation: ``returns`` names no type that can be read.
            UnreadablePolicy: a newer library has set the version policy of the name.
            UnknownOrchestration, UnknownVersion: no living node that serves the queue has registered it. (Where none of these
                has the name now, an instance with which it was started there before will do: it begins once a node lives that
                has it. Where no node lives at all, one in any queue will do.)
            InstanceExists: the id is taken. It is free again only after ``delete``.
            InvalidArgument: the name, an id, a label or the queue is not text of 1 to 1,024 characters.
            InvalidVersion: ``version`` is not semver.
            EncodeError, DecodeError, PayloadTooLarge: the input cannot travel, or does not fit the orchestration.
        """
        name, returned = self._called(orchestration)
        returned = returned if returns is None else decoder(returns).annotation
        check_name(name, "an orchestration's name")
        check_start(instance_id, request_id, labels)
        check_name(queue, "a queue")
        check_choice(existing, "existing", ("error", "return"))
        catalogue = await self._fresh_catalogue()
        try:
            chosen = chosen_version(catalogue, name, version, queue)
        except UnknownOrchestration:
            catalogue = await self._fresh_catalogue(0)  # it may have been registered within the last second
            chosen = chosen_version(catalogue, name, version, queue)
        definition = self._registry.find(name, chosen) if self._registry else None
        if definition is None:
            payload = encode(input, subject=f"input of {name!r}", limit=self._payload_limit)
        else:
            subject = f"input of {name!r} {chosen}"
            payload = definition.state.encode_input(input, subject=subject, limit=self._payload_limit)
        how = ResolvedBy.POLICY if version is None else ResolvedBy.EXPLICIT
        resolution = Resolution(how, self._name, policy_of(catalogue, name)[1])
        change = Start(
            instance_id=instance_id or (new_id() if request_id is None else id_of_request(name, request_id)),
            incarnation=new_id(),
            request_id=request_id or new_id(),
            kind=Kind(queue, name, chosen, FORMAT, version is None, resolution_level(catalogue, how)),
            execution=ExecutionRow(1, name, chosen, resolution, payload, None, created_at=catalogue.now),
            created_by=self._name,
            labels=dict(labels or {}),
        )
        with self._recorder.starting(name, chosen, change.instance_id) as traceparent:
            outcome = await self._port.submit(change if traceparent is None else replace(change, traceparent=traceparent))
            if isinstance(outcome, StartExists) and not outcome.same and existing == "error":
                raise InstanceExists(
                    f"instance {change.instance_id!r} exists; choose another id, delete it once it has ended, or pass "
                    "existing='return'",
                    instance_id=change.instance_id,
                )
        return Handle(self, change.instance_id, returned)

    def _called(self, orchestration: str | Callable[[OrchestrationContext, Any], Awaitable[Any]]) -> tuple[str, Any]:
        """Return the name of an orchestration, and the annotation of its result."""
        if inspect.iscoroutine(orchestration):
            plain_function(orchestration, "what is started")
        if isinstance(orchestration, str) or not callable(orchestration):
            return orchestration, Any
        if self._registry is None:
            shown = called(orchestration)
            raise UnknownOrchestration(
                f"this client has no registry that could tell the name of {shown}; give the name, or make the client with "
                "Client(provider, registry=registry)",
                name=shown,
            )
        name, result = self._registry.called(orchestration)
        return name, result.annotation

    @overload
    def handle(self, instance_id: str) -> Handle[Any]: ...
    @overload
    def handle(self, instance_id: str, returns: type[T]) -> Handle[T]: ...
    @overload
    def handle(self, instance_id: str, returns: TypeForm[T]) -> Handle[T]: ...
    def handle(self, instance_id: str, returns: Any = Any) -> Handle[Any]:
        """Return a handle for an id, without looking whether it exists.

        Args:
            returns: what :meth:`Handle.result` reads the result as; plain JSON by default.

        Raises:
            InvalidArgument: the id cannot be one.
            UnresolvableAnnotation: ``returns`` names no type that can be read.
        """
        check_id(instance_id)
        return Handle(self, instance_id, decoder(returns).annotation)

    # --- looking ---

    async def get_instance_info(self, instance_id: str) -> InstanceInfo:
        """Return an instance as it stands now.

        Raises:
            InstanceNotFound: there is none with this id.
            InvalidArgument: the id cannot be one: it is not text of 1 to 1,024 characters.
        """
        check_id(instance_id)
        record, children, scheduled = await self._port.call(lambda: self._read_whole(instance_id))
        if record is None:
            _raise_not_found(instance_id)
        info = instance_info(record, await self._fresh_catalogue(), children, scheduled)
        held = InstanceStatus.HELD
        if info.status is held or any(child.status is held for child in info.children):
            # Perhaps only by nodes that have come within the last second.
            info = instance_info(record, await self._fresh_catalogue(_HELD_AGE), children, scheduled)
        return info

    def _read_whole(self, instance_id: str) -> tuple[InstanceRecord | None, list[InstanceRecord], list[EventRecord]]:
        """Return an instance, its children, and the events of activities that its summary has no room for."""
        record, children = self._read_family(instance_id)
        untold = [] if record is None else untold_activities(record)
        if record is None or not untold:
            return record, children, []
        scheduled = self._provider.directory.envelopes(instance_id, record.row.execution, untold)
        # Read at another moment: the id may be a new instance's by now.
        return record, children, [event for event in scheduled if event.kind == EventKind.ACTIVITY_SCHEDULED]

    def _read_family(self, instance_id: str) -> tuple[InstanceRecord | None, list[InstanceRecord]]:
        """Return an instance, and the children that its current execution has asked for, in their order."""
        directory = self._provider.directory
        record = directory.get(instance_id)
        if record is None:
            return None, []
        row = record.row
        found: list[InstanceRecord] = []
        query = InstanceQuery(parent=instance_id, parent_execution=row.execution, limit=_CHILDREN)
        while page := directory.list(query):
            found.extend(page)
            query = replace(query, after=(page[-1].created_at, page[-1].row.instance_id))
            if len(page) < _CHILDREN:
                break
        links = [(child.row.parent, child) for child in found]
        own = [(link.event_id, child) for link, child in links if link is not None and link.incarnation == row.incarnation]
        return record, [child for _, child in sorted(own, key=lambda pair: pair[0])]

    async def list_instances(
        self,
        *,
        name: str | None = None,
        version: str | None = None,
        queue: str | None = None,
        status: InstanceStatus | Sequence[InstanceStatus] | None = None,
        held: bool | None = None,
        id_prefix: str | None = None,
        created_from: datetime | None = None,
        created_until: datetime | None = None,
        labels: Mapping[str, str] | None = None,
        parent: str | None = None,
        limit: int = 100,
        page: str | None = None,
    ) -> InstancePage:
        """Return instances, the newest first; every condition that is given must hold.

        Args:
            queue: only those that are run by the nodes of this queue.
            status: one or several; as it is shown in :attr:`InstanceInfo.status`.
            held: only held ones, or only those that are not.
            parent: only children of the instance with this id, of all its executions.
            limit: how many at most, 1 or more.
            page: ``next_page`` of the page before.

        Raises:
            InvalidArgument: ``page`` is not one, ``limit`` is below 1, ``status`` is none, a datetime is naive, or what is to
                be found cannot be an id, a name, a version, a queue or a label.
        """
        check_limit(limit)
        check_filters(name=name, version=version, queue=queue, id_prefix=id_prefix, parent=parent, labels=labels)
        check_moment(created_from, "created_from", optional=True)
        check_moment(created_until, "created_until", optional=True)
        after = read_page(page)
        catalogue = await self._fresh_catalogue(_HELD_AGE)
        wanted = read_statuses(status)
        standings = {_STANDING_OF[one] for one in wanted or () if one in _STANDING_OF}
        query = InstanceQuery(
            name=name,
            version=version,
            queue=queue,
            statuses=None if wanted is None else tuple({_STATUS_OF[one] for one in wanted if one in _STATUS_OF}),
            other_statuses=wanted is not None and InstanceStatus.UNKNOWN in wanted,
            standings=tuple(standings) if 0 < len(standings) < len(_STANDING_OF) else None,
            held=held,
            unserved=unserved_kinds(catalogue),
            id_prefix=id_prefix,
            created_from=None if created_from is None else to_micros(created_from),
            created_until=None if created_until is None else to_micros(created_until),
            labels=dict(labels or {}),
            parent=parent,
            limit=limit + 1,
            after=after,
        )
        records = await self._port.call(lambda: self._provider.directory.list(query))
        items = tuple(instance_info(record, catalogue) for record in records[:limit])
        last = records[limit - 1] if len(records) > limit else None
        return InstancePage(items, None if last is None else f"{last.created_at}:{last.row.instance_id}")

    async def list_executions(self, instance_id: str, *, after: int = 0, limit: int = 1000) -> tuple[ExecutionInfo, ...]:
        """Return an instance's executions in ascending order, beginning behind number ``after``.

        Raises:
            InstanceNotFound: there is none with this id.
            InvalidArgument: the id cannot be one, ``limit`` is below 1, or a number is larger than any that can be.
        """
        check_id(instance_id)
        check_limit(limit)
        check_number(after, "after")
        rows = await self._port.call(lambda: self._provider.directory.executions(instance_id, after, limit))
        if not rows:
            await self._record(instance_id)
        return tuple(execution_info(instance_id, row) for row in rows)

    async def get_history(self, instance_id: str, execution_id: int | None = None) -> tuple[HistoryEvent, ...]:
        """Return the events of one execution, by default of the current one; none where they are not kept any more.

        Events that this library cannot read are returned as well, and say so.

        Raises:
            InstanceNotFound: there is none with this id.
            InvalidArgument: the id cannot be one, or the number is larger than any that can be.
        """
        check_id(instance_id)
        if execution_id is not None:
            check_number(execution_id, "execution_id")
        number = (await self._record(instance_id)).row.execution if execution_id is None else execution_id
        records = await self._port.call(lambda: self._provider.directory.history(instance_id, number))
        if not records:
            await self._record(instance_id)
        return tuple(history_event(record, self._provider.library) for record in records)

    async def list_nodes(self) -> tuple[NodeInfo, ...]:
        """Return the nodes that work on this store, the one that has run longest first.

        One whose process was lost stays, with ``alive=False`` after three leases, until another node buries it.
        """
        return await self._port.call(self._read_nodes)

    def _read_nodes(self) -> tuple[NodeInfo, ...]:
        # Two reads: what changes hands in between may be counted with neither or with both. Nobody acts on it.
        directory = self._provider.directory
        catalogue = directory.catalogue()
        return node_infos(catalogue, directory.count_owned([node.record.node_id for node in catalogue.nodes]))

    async def wait_for_completion(
        self,
        instance_id: str,
        timeout: timedelta | None = None,  # noqa: ASYNC109 - a promise about the wait, not about the caller's scope
    ) -> InstanceInfo:
        """Wait until the instance has ended, over all its boundaries, and return it.

        Raises:
            InstanceNotFound: there is none with this id.
            WaitTimeout: it has not ended in time; it goes on.
            InstanceHeld: (a WaitTimeout) an error of its code holds it: at the timeout or, without one, once it has been held
                for ten seconds.
            InvalidArgument: the id cannot be one, or ``timeout`` is no timedelta.
        """
        await self._wait_for_end(instance_id, timeout)
        return await self.get_instance_info(instance_id)

    async def _wait_for_end(self, instance_id: str, timeout: timedelta | None = None) -> End:  # noqa: ASYNC109
        """Wait like :meth:`wait_for_completion`; return only how it has ended."""
        check_id(instance_id)
        # Any will do: who gives no time, or one that is over, is told how it stands now.
        check_duration(timeout, "timeout", least=timedelta.min, most=timedelta.max, optional=True)
        with self._port.watch(instance_id, math.inf if timeout is None else timeout.total_seconds()) as watch:
            # Who gives no time is told how it stands now: it may have ended elsewhere.
            look = not watch.known_open or watch.late
            patience = Patience(self._clock) if timeout is None else None
            while watch.end is None:
                late = watch.late
                if look:
                    record = await self._record(instance_id)
                    if isinstance(record.status, Unknown):
                        require_known(record, self._provider.library)
                    elif record.status is not Status.OPEN:
                        return End(record.status, record.execution.output, record.execution.error)
                    if late or (patience is not None and patience.is_over(record)):
                        raise no_end(record, timeout)
                look = True
                await watch.wait()
            return watch.end

    # --- sending ---

    async def raise_event(self, instance_id: str, name: str, payload: Any = None, *, message_id: str | None = None) -> None:
        """Send an event: it is kept until code waits for its name, over boundaries, and delivered once, in order of arrival.

        Args:
            message_id: the caller's own id of this message; the same one again has no effect (remembered for an hour
                after delivery).

        Raises:
            InstanceNotFound: there is none with this id.
            InstanceCompleted: it has ended.
            InboxFull: as many messages or bytes wait as may, in its inbox or under this name. Nothing was stored.
            InvalidArgument: the id, ``name`` or ``message_id`` is not text of 1 to 1,024 characters.
            EncodeError, PayloadTooLarge: the payload cannot travel.
        """
        check_id(instance_id)
        check_name(name, "an event's name")
        check_text(message_id, "a message id")
        encoded = encode(payload, subject=f"event {name!r} for {instance_id!r}", limit=self._payload_limit)
        with self._recorder.sending(name, instance_id) as trace:
            change = Append(instance_id, message_id or new_id(), name, encoded, self._name, self._inbox_limits, trace)
            await self._send(change, InstanceCompleted)

    async def cancel(self, instance_id: str, reason: str = "") -> None:
        """Ask an instance to stop: ``Cancelled`` is raised at its current await. A second cancel changes nothing.

        One that has not begun ends without running code. The mark stays over boundaries. One that is held, or whose version no
        living node has, is told once it goes on; :meth:`terminate` ends it now.

        Raises:
            InstanceNotFound: there is none with this id.
            AlreadyCompleted: it has ended.
            InvalidArgument: the id cannot be one, or the reason is not text of at most 1,024 characters.
        """
        check_id(instance_id)
        check_reason(reason)
        await self._send(Cancel(instance_id, reason, self._name), AlreadyCompleted)

    async def _send(self, change: Append | Cancel, closed: type[InstanceCompleted]) -> None:
        outcome = await self._port.submit(change)
        if not isinstance(outcome, AppendRefused):
            return
        instance_id = change.instance_id
        match outcome.reason:
            case Refusal.NOT_FOUND:
                raise _not_found(instance_id)
            case Refusal.CLOSED:
                raise closed(f"instance {instance_id!r} has ended and takes nothing any more", instance_id=instance_id)
            case Refusal.FULL:
                assert isinstance(change, Append)
                assert outcome.full is not None
                raise _inbox_full(change, outcome.full)

    # --- operating ---

    async def terminate(self, instance_id: str, reason: str = "") -> None:
        """End an instance at once. None of its code runs any more; its activities are aborted.

        One that is written all the time, such as a loop that never waits, is marked, and its owner ends it. This returns once
        it has ended; a caller that is cancelled before that leaves the mark.

        Raises:
            InstanceNotFound: there is none with this id.
            AlreadyCompleted: it has ended.
            NewerLibraryNeeded: it holds what only a newer library knows. :meth:`cancel` is for its next owner to see.
            InvalidArgument: the id cannot be one, or the reason is not text of at most 1,024 characters.
        """
        check_id(instance_id)
        check_reason(reason)
        record: InstanceRecord | None = await self._record(instance_id)
        incarnation = record.row.incarnation
        require_known(record, self._provider.library)
        for number in itertools.count():
            status = None if record is None or record.row.incarnation != incarnation else record.status
            if record is None or status is not Status.OPEN:
                if number > _TRIES_BEFORE_MARK and status in (None, Status.TERMINATED):
                    return  # for the mark; where it is kept no longer, it has been deleted since
                how = "" if status is None else f" ({status.name.lower()})"
                raise AlreadyCompleted(f"instance {instance_id!r} has ended{how}", instance_id=instance_id)
            if await self._terminate_now(record, reason, raced=number > 0):
                return
            if number == _TRIES_BEFORE_MARK:
                # It is written all the time. A mark races with nothing: no owner runs its code any more once it has seen it.
                await self._port.submit(Cancel(instance_id, reason, self._name, terminate=True, incarnation=incarnation))
            if number >= _TRIES_BEFORE_MARK:
                await anyio.sleep(min(_LONGEST_LOOK, _SHORTEST_LOOK * (number - _TRIES_BEFORE_MARK + 1)))
            record = await self._port.call(lambda: self._provider.directory.get(instance_id))

    async def _terminate_now(self, record: InstanceRecord, reason: str, *, raced: bool) -> bool:
        """End an instance, if it is still as it was read; return whether this write has ended it."""
        row = record.row
        if raced and row.owner is not None:
            # A loop that hardly waits is written again before this write comes. Raising the revision in its owner's name
            # makes the owner's next write be refused (rule 1), and nobody else may write it meanwhile.
            outcome = await self._port.submit(Recover(row.instance_id, row.owner))
            if not isinstance(outcome, Recovered) or outcome.snapshot is None:
                return False  # it has been parked or has ended
            row = outcome.snapshot.row
            if row.incarnation != record.row.incarnation:
                return False  # it has ended, and another one has its id
        library = self._provider.library
        raise_unless_known(row, library)
        catalogue = await self._port.call(self._provider.directory.catalogue)
        writer = library.events.writer(row.kind.format, catalogue.levels.write)
        change = termination(row, reason, max(catalogue.now, record.updated_at), writer)
        if not isinstance(await self._port.submit(change), Granted):
            return False
        self._recorder.terminated(row.kind.name, record.execution.version)
        return True

    async def delete(self, instance_id: str, *, reason: str = "") -> None:
        """Delete an ended instance and everything that belongs to it. Its id is free again.

        Raises:
            InstanceNotFound: there is none with this id.
            InstanceStillOpen: it has not ended; terminate it first.
            NewerLibraryNeeded: it stands in a way that only a newer library knows.
            InvalidArgument: the id cannot be one, or the reason is not text of at most 1,024 characters.
        """
        check_id(instance_id)
        check_reason(reason)
        record = await self._record(instance_id)
        incarnation = record.row.incarnation
        if record.status is Status.OPEN:
            raise InstanceStillOpen(f"instance {instance_id!r} has not ended; terminate it first", instance_id=instance_id)
        require_known(record, self._provider.library)
        # What has ended stays so: if it cannot be deleted, somebody else has deleted it meanwhile.
        if not await self._delete(instance_id, incarnation, reason):
            raise _not_found(instance_id)

    async def release(self, instance_id: str) -> None:
        """Let the code that is there try once more with a held instance.

        Deployed code whose fingerprint has changed tries by itself; this is for a cause that lies elsewhere.

        Raises:
            InstanceNotFound, AlreadyCompleted: there is none, or it has ended.
            InstanceNotHeld: nothing holds it, or what holds it is no stored hold (code that is not deployed, a crash loop).
            NewerLibraryNeeded: it is held for a reason that only a newer library knows, or holds other rows of one.
            InvalidArgument: the id cannot be one.
        """
        check_id(instance_id)
        record = await self._record(instance_id)
        if record.status is not Status.OPEN:
            raise AlreadyCompleted(f"instance {instance_id!r} has ended", instance_id=instance_id)
        row = record.row
        require_known(record, self._provider.library)
        change = Release(instance_id, row.incarnation, row.revision)
        if not record.held or not isinstance(await self._port.submit(change), Granted):
            raise InstanceNotHeld(f"instance {instance_id!r} has no stored hold to release", instance_id=instance_id)

    async def purge(
        self,
        *,
        completed_before: datetime,
        name: str | None = None,
        status: InstanceStatus | Sequence[InstanceStatus] | None = None,
        id_prefix: str | None = None,
        labels: Mapping[str, str] | None = None,
        limit: int | None = None,
        dry_run: bool = True,
        reason: str = "",
    ) -> PurgeReport:
        """Delete instances that ended before a moment, with all that belongs to them; every condition given must hold.

        They go in small parts, so that whoever works on the store is not kept waiting; a purge that is cancelled has deleted
        some of them. What is to go by itself is better said once: ``Retention(finished=...)``.

        Args:
            status: which ends; all of them by default. Instances that have not ended are never touched.
            limit: how many at most, the newest first.
            dry_run: only say what would be deleted. The default, for nothing brings a deleted instance back.

        Raises:
            InvalidArgument: ``completed_before`` is no aware datetime, ``status`` is none, ``limit`` is below 1, the reason is
                not text of at most 1,024 characters, or what is to be found cannot be an id, a name or a label.
        """
        check_reason(reason)
        check_filters(name=name, version=None, queue=None, id_prefix=id_prefix, parent=None, labels=labels)
        check_moment(completed_before, "completed_before")
        if limit is not None:
            check_limit(limit)
        wanted = read_statuses(status)
        ends = tuple(one for one in (InstanceStatus if wanted is None else wanted) if one.is_final)
        count, first = 0, list[str]()
        page: str | None = None
        while ends and (limit is None or count < limit):
            found = await self.list_instances(name=name, status=ends, id_prefix=id_prefix, labels=labels, page=page)
            old = [info for info in found.items if info.completed_at is not None and info.completed_at < completed_before]
            chosen = [info.instance_id for info in old[: None if limit is None else limit - count]]
            if not dry_run and chosen:
                incarnations = {info.instance_id: info.incarnation for info in old}
                # Those that somebody else has deleted meanwhile are not counted.
                chosen = await self._delete_all([(instance_id, incarnations[instance_id]) for instance_id in chosen], reason)
            count += len(chosen)
            first.extend(chosen[: _NAMED - len(first)])
            page = found.next_page
            if page is None:
                break
        return PurgeReport(dry_run, count, tuple(first))

    async def _delete_all(self, instances: Sequence[tuple[str, str]], reason: str) -> list[str]:
        """Delete a page of instances, few in each transaction."""
        deleted: list[str] = []
        for start in range(0, len(instances), _DELETED_AT_ONCE):
            part = instances[start : start + _DELETED_AT_ONCE]
            deleted += await self._port.call(
                lambda part=part: self._provider.admin.delete_all(part, by=self._name, reason=reason)
            )
        return deleted

    async def _delete(self, instance_id: str, incarnation: str, reason: str) -> bool:
        return await self._port.call(
            lambda: self._provider.admin.delete(instance_id, incarnation, by=self._name, reason=reason)
        )

    async def set_version_policy(self, name: str, policy: Policy, *, reason: str = "", allow_missing: bool = False) -> int:
        """Set which version starts and boundaries of a name take. Running executions are not touched.

        Starts of this client follow at once, boundaries on each node once it has looked at the store: within its poll, a second
        by default. Executions that are held and have not begun follow as well, where the policy had chosen their version:
        ``Exact`` leads exactly there, ``Latest`` to the newest version of a living node, but to none below the one that wrote
        the state. Returns how many of them this call has given another version. Nodes that learn of the policy do the same with
        what is left; and what is to go upwards, they take by themselves.

        Args:
            allow_missing: also set an ``Exact`` version that none of the living nodes with this name has, ahead of its
                deploy. What takes it is held until then.

        Raises:
            UnknownVersion: living nodes have the name, and none has the ``Exact`` version. Nothing was changed.
            InvalidArgument: ``policy`` is neither ``Latest()`` nor ``Exact(...)``, or the name or the reason is no text.
        """
        check_name(name, "an orchestration's name")
        check_policy(policy)
        check_reason(reason)
        if not allow_missing:
            check_target(await self._fresh_catalogue(0), name, policy)
        text = stored_policy(await self._fresh_catalogue(), policy)
        await self._port.call(lambda: self._provider.admin.set_policy(name, text, by=self._name, reason=reason))
        self._forget_catalogue()
        try:
            return await self.follow_policy(name)
        finally:
            self._port.written_past()  # now, for this node has them follow as well

    async def follow_policy(self, name: str) -> int:
        """Have the executions of a name that are held and have not begun follow its policy as it stands now.

        :meth:`set_version_policy` does it, and each node once it has learnt of the new policy. Returns how many have followed.
        """
        count = 0
        query = InstanceQuery(name=name, statuses=(Status.OPEN,), held=True, limit=_RETARGETED_AT_ONCE)
        while True:
            catalogue = await self._fresh_catalogue(0)
            part = replace(query, unserved=unserved_kinds(catalogue))
            records = await self._port.call(lambda part=part: self._provider.directory.list(part))
            count += await self._have_follow(records, catalogue)
            if len(records) < _RETARGETED_AT_ONCE:
                return count
            query = replace(query, after=(records[-1].created_at, records[-1].row.instance_id))

    async def _have_follow(self, records: Sequence[InstanceRecord], catalogue: Catalogue) -> int:
        """Have those of a page follow the policy that are to, in one group. Return how many have."""
        followed: list[str] = []
        errors: list[OrchestraError] = []

        async def follow(record: InstanceRecord | None, catalogue: Catalogue) -> None:
            try:
                for _ in range(_OPERATOR_TRIES):
                    if record is None or child_info(record, catalogue).status is not InstanceStatus.HELD:
                        return
                    change = following(record, catalogue, self._name)
                    if change is None:
                        return
                    if isinstance(await self._port.submit(change), Granted):
                        followed.append(change.instance_id)
                        return
                    # Written since it was read (rule 6): perhaps it has gone on, or somebody else has had it follow.
                    catalogue = await self._fresh_catalogue(0)
                    instance_id = change.instance_id
                    record = await self._port.call(lambda instance_id=instance_id: self._provider.directory.get(instance_id))
            except OrchestraError as error:
                errors.append(error)

        async with anyio.create_task_group() as group:
            for record in records:
                group.start_soon(follow, record, catalogue)
        if errors:
            raise errors[0]
        return len(followed)

    async def get_version_policy(self, name: str) -> Policy | UnknownPolicy:
        """Return the policy of a name: ``Latest()`` where none was ever set.

        An :class:`~orchestra.UnknownPolicy` is one that a newer library has set, and that this one cannot read.

        Raises:
            InvalidArgument: the name cannot be one.
        """
        check_name(name, "an orchestration's name")
        return policy_of(await self._fresh_catalogue(), name)[0]

    async def pin(self, instance_id: str, version: str, *, reason: str = "") -> None:
        """Tie an instance to a version from its next boundary on, whatever the policy says.

        An execution that has not begun yet (nobody has its version, or it is held) takes the pinned version at once, unless
        the caller or the code had named one; a hold of it is released thereby.

        Raises:
            InvalidVersion: ``version`` is not semver.
            InstanceNotFound, AlreadyCompleted: there is none, or it has ended.
            InvalidArgument: the id cannot be one, or the reason is not text of at most 1,024 characters.
        """
        check_id(instance_id)
        parse_version(version)
        check_reason(reason)
        await self._set_pin(instance_id, version, reason)

    async def unpin(self, instance_id: str, *, reason: str = "") -> None:
        """Let the policy choose again; at once for an execution that has not begun yet and was to take the pinned version.

        Raises:
            InstanceNotFound, AlreadyCompleted: there is none, or it has ended.
            InvalidArgument: the id cannot be one, or the reason is not text of at most 1,024 characters.
        """
        check_id(instance_id)
        check_reason(reason)
        await self._set_pin(instance_id, None, reason)

    async def _set_pin(self, instance_id: str, version: str | None, reason: str) -> None:
        if not await self._port.call(lambda: self._provider.admin.set_pin(instance_id, version, by=self._name, reason=reason)):
            await self._record(instance_id)
            raise AlreadyCompleted(f"instance {instance_id!r} has ended", instance_id=instance_id)
        self._port.written_past()
        await self._retarget(instance_id)

    async def _retarget(self, instance_id: str) -> None:
        """Have an execution that has not begun follow the pin as it stands now, whoever has set or removed it."""
        for _ in range(_OPERATOR_TRIES):
            record = await self._record(instance_id)
            change = retargeting(record, await self._fresh_catalogue(0), self._name)
            # Refused: it was claimed, and perhaps begun, since it was read (rule 6).
            if change is None or isinstance(await self._port.submit(change), Granted):
                return
        raise StoreError(
            f"instance {instance_id!r} is written so often that the execution which has not begun did not get its new version; "
            "try again"
        )

    # --- reading ---

    async def _record(self, instance_id: str) -> InstanceRecord:
        record = await self._port.call(lambda: self._provider.directory.get(instance_id))
        return record if record is not None else _raise_not_found(instance_id)

    async def _fresh_catalogue(self, age: float = _CATALOGUE_AGE) -> Catalogue:
        """Return the catalogue, at most ``age`` seconds old. Whoever asks while it is being read waits for that read."""
        asked_at = self._clock.monotonic()
        while (known := self._catalogue) is None or asked_at - known[1] > age:
            loop = current_loop().native
            read = self._catalogue_reads.get(loop)
            if read is None:
                await self._read_catalogue(loop)
            else:
                await read.done.wait()
                if read.error is not None:
                    raise read.error
        return known[0]

    async def _read_catalogue(self, loop: object) -> None:
        read = self._catalogue_reads[loop] = _CatalogueRead(self._clock.monotonic())
        try:
            catalogue = await self._port.call(self._provider.directory.catalogue)
            if self._catalogue_reads.get(loop) is read:
                self._catalogue = catalogue, read.begun_at
        except Exception as error:
            read.error = error
            raise
        finally:  # also where this caller was cancelled: then another one reads
            if self._catalogue_reads.get(loop) is read:
                del self._catalogue_reads[loop]
            read.done.set()

    def _forget_catalogue(self) -> None:
        """Have it read anew; what is being read now may be from before a change."""
        self._catalogue_reads = {}
        self._catalogue = None


class _CatalogueRead:
    """A read that several callers wait for: a thousand starts at once need the catalogue once."""

    __slots__ = ("begun_at", "done", "error")

    def __init__(self, begun_at: float) -> None:
        self.begun_at = begun_at
        self.done = anyio.Event()
        self.error: Exception | None = None


def _inbox_full(append: Append, full: Full) -> InboxFull:
    """Return the error that says which bound an event has met."""
    option = "inbox_limit" if full.bound == "messages" else "inbox_bytes"
    waits = f"{full.waiting:,} unread messages" if full.bound == "messages" else f"{full.waiting:,} bytes of unread messages"
    size = "" if full.bound == "messages" else f", and this event has {len(append.payload.data):,}"
    if full.of_name:
        most = f"of one name may be {full.limit:,} (nine tenths of {option})"
        remedy = f"Let it wait for {append.name!r}, send less, or raise {option}; events of other names still get in"
    else:
        most = f"{full.limit:,} may be ({option})"
        remedy = f"Let it read them, send less, or raise {option}"
    named = f" of the name {append.name!r}" if full.of_name else ""
    return InboxFull(
        f"event {append.name!r} for instance {append.instance_id!r} was not stored: there are {waits}{named}, {most}{size}. "
        f"{remedy}",
        instance_id=append.instance_id,
        name=append.name if full.of_name else None,
        bound=full.bound,
        limit=full.limit,
    )


def _not_found(instance_id: str) -> InstanceNotFound:
    return InstanceNotFound(f"there is no instance {instance_id!r}", instance_id=instance_id)


def _raise_not_found(instance_id: str) -> NoReturn:
    raise _not_found(instance_id)
