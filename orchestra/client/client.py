"""The client: ``runtime.client`` inside a runtime, or a stand-alone one in a process without
orchestrations.

::

    async with Client(SqliteProvider("app.db")) as client:
        info = await client.get_instance_info("watch-1")

This module has the public methods and their promises. Each subject has a module for the work behind
them: :mod:`~orchestra.client.instances`, :mod:`~orchestra.client.messages`,
:mod:`~orchestra.client.waiting`, :mod:`~orchestra.client.versions`,
:mod:`~orchestra.client.maintenance`. :class:`Client` and :class:`Handle` share a module because
each names the other.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Final, Generic, Literal, Self, TypeVar, Unpack, overload

from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider
from typing_extensions import TypeForm

from orchestra.client.access import Access
from orchestra.client.arguments import (
    check_author,
    check_id,
    check_provider,
    check_reason,
    check_registry,
)
from orchestra.client.audit import Audit, OperationPage
from orchestra.client.bulk import BulkReport, Bulks
from orchestra.client.control import Control
from orchestra.client.hinted import StoreWatch
from orchestra.client.history import HistoryEvent
from orchestra.client.info import (
    ExecutionInfo,
    InstanceInfo,
    InstancePage,
    InstanceStatus,
    NodeInfo,
    PolicyInfo,
    PurgeReport,
    RewindInfo,
    UnreadMessage,
)
from orchestra.client.instances import Instances
from orchestra.client.keys import KeyInfo, keys_of
from orchestra.client.maintenance import Maintenance
from orchestra.client.messages import Messages
from orchestra.client.port import Port
from orchestra.client.preflights import preflight
from orchestra.client.requests import Requests
from orchestra.client.schedules import Schedules
from orchestra.client.selecting import Conditions, Selecting, selected
from orchestra.client.selections import InstanceCounts, OrderBy, Selection
from orchestra.client.starts import Orchestration, StartOptions, Starts
from orchestra.client.streams import StreamInfo, StreamItem, list_streams, read_stream
from orchestra.client.summaries import StoreSummary, read_store_summary
from orchestra.client.sweeping import SweepReport, sweep
from orchestra.client.version_reports import VersionInfo, read_version_report
from orchestra.client.versions import Versions
from orchestra.client.waiting import result_of, wait_for_end
from orchestra.client.watching import InstanceChange, watch, watch_instances
from orchestra.clock import Clock, SystemClock, from_micros
from orchestra.codec import DEFAULT_PAYLOAD_LIMIT, decoder
from orchestra.context import OrchestrationContext
from orchestra.operations.bulk import Bulk
from orchestra.operations.preflight import PreflightReport
from orchestra.options import POSITIVE, check_count, check_duration
from orchestra.payloads import Pipeline, SealingProvider, with_payloads
from orchestra.registry import OrchestrationRegistry
from orchestra.store.inbox_limits import InboxLimits
from orchestra.store.port import Provider
from orchestra.store.routes import DEFAULT_QUEUE
from orchestra.telemetry import Recorder, recorder_for
from orchestra.versions import Policy

__all__ = ["Client", "Handle"]

R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)

_AS_STARTED: Final = object()


class Client:
    """Asynchronous access to a store. A stand-alone client is an async context manager.

    It may be used from any event loop and thread of its process, also from others than the one in
    which it was entered.

    Every method that changes something returns once the change is durable (I1).

    Operators' acts take a ``reason`` and an author, ``by``: by default the client or the node.
    :meth:`list_operations` shows both.

    Args:
        provider: the store.
        registry: the names of functions, so that :meth:`start` takes functions, and the types of
            their inputs. Without it, :meth:`start` takes names, and checks of the input only that
            it can be stored.
        inbox_limit: how many unread messages an instance may have; the store refuses more. One name
            may take nine tenths.
        inbox_bytes: how many bytes the payloads of its unread messages may have together; likewise.
        payload_limit: bytes that one value may have.
        payloads: what is done to values of users before they are stored: as the runtimes have it.
            Values that do not open are shown as unreadable.
        tracer_provider: where spans go; by default OpenTelemetry's global one, as it is when the
            client is entered.
        meter_provider: where metrics go; likewise.

    Raises:
        InvalidArgument: the provider is none (a path, say), the registry is a builder that was not
            built, or a limit is no whole number, or less than 1.
    """

    def __init__(
        self,
        provider: Provider,
        *,
        registry: OrchestrationRegistry | None = None,
        inbox_limit: int = 10_000,
        inbox_bytes: int = 256 * 1024 * 1024,
        payload_limit: int = DEFAULT_PAYLOAD_LIMIT,
        payloads: Pipeline | None = None,
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
        provider = with_payloads(provider, payloads)
        self._provider = provider
        self._telemetry = tracer_provider, meter_provider
        self._access = Access(provider, clock or SystemClock())
        limits = InboxLimits(inbox_limit, inbox_bytes)
        self._instances = Instances(self._access)
        self._starts = Starts(self._access, registry, limits, payload_limit)
        self._messages = Messages(self._access, limits, payload_limit)
        self._requests = Requests(self._access, limits, payload_limit)
        self._versions = Versions(self._access)
        self._selecting = Selecting(self._access)
        self._control = Control(self._access)
        self._audit = Audit(self._access)
        self._bulks = Bulks(self._access, self._starts)
        self._maintenance = Maintenance(self._access)
        self.schedules: Schedules = Schedules(
            self._access, self._starts, self._instances, limits, payload_limit
        )
        """The schedules of the store."""

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
        clock: Clock | None = None,
    ) -> Client:
        """Return the client of a runtime; the runtime opens and closes."""
        client = cls(
            provider,
            clock=clock,
            registry=registry,
            inbox_limit=inbox_limit,
            inbox_bytes=inbox_bytes,
            payload_limit=payload_limit,
        )
        client._access.attach(port, name)
        return client

    def use(self, registry: OrchestrationRegistry) -> None:
        """Know the names and types of another registry from now on."""
        self._starts.use(registry)
        self._access.forget_catalogue()

    def record_with(self, recorder: Recorder) -> None:
        """Record starts and events with this recorder: the runtime's own."""
        self._access.recorder = recorder

    async def __aenter__(self) -> Self:
        if not self._access.is_attached:
            await self._access.open()
            self.record_with(recorder_for(*self._telemetry, self._access.clock))
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        await self._access.close()

    # --- starting ---

    @overload
    async def start(
        self,
        orchestration: Callable[[OrchestrationContext, S], Awaitable[R]],
        input: S,
        **options: Unpack[StartOptions],
    ) -> Handle[R]: ...
    @overload
    async def start(
        self,
        orchestration: Callable[[OrchestrationContext, None], Awaitable[R]],
        **options: Unpack[StartOptions],
    ) -> Handle[R]: ...
    @overload
    async def start(
        self,
        orchestration: str,
        input: Any = None,
        *,
        returns: type[T],
        **options: Unpack[StartOptions],
    ) -> Handle[T]: ...
    @overload
    async def start(
        self,
        orchestration: str,
        input: Any = None,
        *,
        returns: TypeForm[T],
        **options: Unpack[StartOptions],
    ) -> Handle[T]: ...
    @overload
    async def start(
        self, orchestration: str, input: Any = None, **options: Unpack[StartOptions]
    ) -> Handle[Any]: ...
    async def start(
        self,
        orchestration: Orchestration,
        input: Any = None,  # noqa: A002 - the term of DESIGN
        *,
        returns: Any = None,
        instance_id: str | None = None,
        version: str | None = None,
        queue: str = DEFAULT_QUEUE,
        labels: Mapping[str, str] | None = None,
        request_id: str | None = None,
        if_running: Literal["error", "return", "terminate"] | None = None,
        if_ended: Literal["error", "return", "restart", "restart_if_failed"] = "error",
        events: Sequence[tuple[str, Any]] = (),
        written_by: str | None = None,
        not_before: datetime | None = None,
        allow_unregistered: bool = False,
        trace: Literal["link", "continue"] = "link",
    ) -> Handle[Any]:
        """Start an instance, durably, and return its handle.

        Args:
            orchestration: a registered function, whose input is checked then by type checkers as
                well, or a name.
            input: the first state.
            returns: for a name, the type for :meth:`Handle.result`; plain JSON by default. A
                function's own annotation counts.
            instance_id: its id, which never changes; by default a random one, or one made from
                ``request_id``.
            version: exactly this one; by default what the name's policy gives.
            queue: only nodes that serve this queue run it, in all its laps
                (``Runtime(queues=...)``).
            labels: small facts to list by.
            request_id: the caller's own id of this request. Repeating a start with the same one
                returns the handle.
            if_running: what to do if an instance with this id runs: raise, return its handle, or
                terminate it and begin it again in one write. By default raise, or return where
                ``events`` are given.
            if_ended: what to do if it has ended: raise, return its handle, or begin it again, in
                one write: always, or unless it has completed. Of two callers at once, one begins it
                again, and the other finds it running. Its executions are numbered on, and the
                earlier ones stay until retention deletes them; its labels, its pin and its custom
                status are those of the new life.
            events: names and payloads, put into its inbox in the same write: of a new instance, of
                one that begins again, or, with ``if_running="return"``, of the one that runs. All
                of them or none.
            written_by: the version whose shape the input has, where this client was deployed before
                or after the workers; by default the version that is chosen now. Migrations lead
                from it to the version that opens the input.
            not_before: its first turn does not run earlier, by the store's clock; by default it
                runs at once. Events that come earlier wait, and do not start it. A cancel or a
                terminate ends it at once, without running code.
            allow_unregistered: start it also where no node has it yet, such as before the first
                worker has ever lived. It waits for one that has the ``version``, or for the first
                that has the name in its queue. A misspelt name waits for ever. Without ``version``
                and ``written_by`` the input counts as written by the version that this client's
                registry chooses, or else by the one that opens it.
            trace: how its first execution belongs to the caller's trace: by a link, in a trace of
                its own, or as a part of it (``"continue"``), below the span of the start. Later
                executions have traces of their own in either case.

        Raises:
            UnknownOrchestration: the function is not registered in this client's registry, or it
                has none.
            InvalidFunction: the function is registered under several names.
            UnresolvableAnnotation: ``returns`` names no type that can be read.
            NoVersionInRange: they have the name, but no version in the range of its policy.
            UnreadablePolicy: a newer library has set the version policy of the name.
            UnknownOrchestration, UnknownVersion: no living node that serves the queue has
                registered it, and ``allow_unregistered`` is false. (If none of these has the name
                now, an earlier start in the queue is enough: the instance begins once a node with
                the name lives. If no node lives at all, an earlier start in any queue is enough.)
            InstanceExists: the id is taken, and ``if_running`` or ``if_ended`` says that this is an
                error, or its instance is one of another orchestration.
            InboxFull: the running instance has no room for the events; it got none of them.
            NewerLibraryNeeded: the instance to terminate has what only a newer library knows.
            InvalidArgument: the name, an id, a label or the queue is not text of 1 to 1,024
                characters; or ``not_before`` is no aware datetime.
            InvalidVersion: ``version`` is not semver.
            EncodeError, DecodeError, PayloadTooLarge: the input cannot travel, or does not fit the
                orchestration.
        """
        instance, annotation = await self._starts.start(
            orchestration,
            input,
            returns,
            instance_id=instance_id,
            version=version,
            queue=queue,
            labels=labels,
            request_id=request_id,
            if_running=if_running,
            if_ended=if_ended,
            events=events,
            written_by=written_by,
            not_before=not_before,
            allow_unregistered=allow_unregistered,
            trace=trace,
        )
        return Handle(self, instance, annotation)

    async def rerun(
        self,
        of: str,
        /,
        version: str | None = None,
        instance_id: str | None = None,
        *,
        reason: str = "",
        by: str = "",
    ) -> Handle[Any]:
        """Start a new instance from the first input of another one, which may have ended: with its
        labels, in its queue. Who made the new one is "rerun of" and the old id.

        Args:
            of: the id of the other one.
            version: exactly this one; by default what the name's policy gives. Migrations lead
                there from the version that wrote the input.
            instance_id: the id of the new one; by default a random one.
            reason: why, for the audit.
            by: who; by default the client or the node.

        Raises:
            InstanceNotFound: there is none with this id.
            InvalidArgument: retention has deleted its first lap, or an id cannot be one.
            InstanceExists: the new id is taken.
            UnknownOrchestration, UnknownVersion: no living node that serves its queue has it.
        """
        check_reason(reason)
        check_author(by)
        started = await self._starts.rerun(of, version, instance_id, by=by, reason=reason)
        return Handle(self, started, Any)

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
        """Return an instance.

        Raises:
            InstanceNotFound: there is none with this id.
            InvalidArgument: the id cannot be one: it is not text of 1 to 1,024 characters.
        """
        return await self._instances.info(instance_id)

    async def list_instances(
        self,
        selection: Selection | None = None,
        *,
        order_by: OrderBy | str = OrderBy.NEWEST,
        limit: int = 100,
        page: str | None = None,
        search_limit: int | None = None,
        **conditions: Unpack[Conditions],
    ) -> InstancePage:
        """Return instances, the newest first, or in another order.

        Args:
            selection: which; by default all. Single conditions may be given as keywords instead,
                without a selection: ``list_instances(name="watch", held=True)``.
            limit: how many at most, 1 or more.
            page: ``next_page`` of the page before, of the same order.
            search_limit: how many instances to look at, at most, where no index finds those that
                meet the conditions: the page may then have fewer than ``limit``, or none, and
                ``next_page`` goes on. By default all are looked at. 100,000 take some 100 ms.

        Raises:
            InvalidArgument: ``page`` is no page of this order, ``limit`` is below 1, a condition is
                none or cannot hold (see :class:`Selection`), or a selection and keywords are both
                given.
        """
        return await self._selecting.find(
            selected(selection, conditions), order_by, limit, page, search_limit
        )

    def watch(self, instance_id: str) -> AsyncGenerator[InstanceInfo]:
        """Yield an instance as it is now, and again at each change that a reader can see: of its
        status, lap, hold, labels, custom status, pin, unread messages, of what it waits for, and of
        its children.

        Changes that follow each other within 20 ms are coalesced: the last one counts. So a loop
        that laps all the time costs a watcher little, and no writer anything. Changes by this
        process, and in the file of a SQLite store by others, are seen at once; those of other
        nodes on PostgreSQL within a second.

        It ends after the info of the end, and does not follow a restart of the instance.

        Raises:
            InstanceNotFound: there is none with this id, or it was deleted meanwhile.
            InvalidArgument: the id is not text of 1 to 1,024 characters.
        """
        return watch(self._access, self._instances, instance_id)

    def watch_instances(
        self,
        selection: Selection | None = None,
        *,
        order_by: OrderBy | str = OrderBy.NEWEST,
        limit: int = 100,
        search_limit: int | None = None,
        **conditions: Unpack[Conditions],
    ) -> AsyncGenerator[InstanceChange]:
        """Yield the changes of a list, as :meth:`list_instances` shows it: what has entered it,
        first all that is in it now, what has changed in it, and what has left it.

        Changes are coalesced, as by :meth:`watch`. Only the first ``limit`` instances of the order
        are watched, and kept in memory. It never ends by itself.

        Args:
            search_limit: how many instances each look at the list searches, at most, as for
                :meth:`list_instances`: what lies behind them is not in the list. By default all.

        Raises:
            InvalidArgument: as :meth:`list_instances` does.
        """
        chosen = selected(selection, conditions)
        return watch_instances(self._access, self._selecting, chosen, order_by, limit, search_limit)

    async def count_instances(
        self,
        selection: Selection | None = None,
        *,
        group_by: Sequence[str] = (),
        at_most: int | None = None,
        search_limit: int | None = None,
        **conditions: Unpack[Conditions],
    ) -> InstanceCounts:
        """Count instances in the store, by groups.

        ::

            counts = await client.count_instances(name="watch", group_by=("version", "status"))

        Args:
            selection: which, as for :meth:`list_instances`; by default all.
            group_by: any of ``name``, ``version``, ``queue``, ``status``, ``held`` (the kind of
                hold), and ``label:`` with the key of a label. The 1,000 largest groups are
                returned.
            at_most: stop there: a total of this number means that there are at least so many.
                Conditions that many instances meet are then counted at a bounded cost. Counts of
                all, of names, versions and queues are numbers that the store keeps, and exact; with
                them it counts by status and hold without a look at the others.
            search_limit: how many instances to look at, at most, the newest, where no index finds
                those that meet the conditions: ``searched`` then says that it has stopped there.

        Raises:
            InvalidArgument: a key or a condition is none, ``at_most`` or ``search_limit`` below 1,
                or ``at_most`` was given together with ``group_by``.
        """
        return await self._selecting.count(
            selected(selection, conditions), group_by, at_most, search_limit
        )

    async def summarize_store(self) -> StoreSummary:
        """Return what the store holds, in numbers: what lives, is held, drifts, has ended, and
        when boundaries are due. Its ``versions`` are those of :meth:`version_report`.

        The cost does not grow with the instances that only wait. It grows with those that are held.

        Raises:
            StoreError: the store cannot be read.
        """
        return await read_store_summary(self._access)

    def watch_store(
        self, longest: timedelta = timedelta(seconds=1)
    ) -> AbstractContextManager[StoreWatch]:
        """Return a watch on the whole store, for one that shows it to many: it says when anything
        may have changed, and reads nothing.

        ::

            with client.watch_store() as watch:
                while True:
                    told = await watch.wait()      # False: only the time is over

        Changes by this process are told at once, and those of others in the file of a SQLite store
        within half a second; not those of other nodes on PostgreSQL. So look after ``longest`` as
        well, which bounds each wait. It waits in real time, also for a test runtime.

        Raises:
            InvalidArgument: ``longest`` is no positive duration.
        """
        check_duration(longest, "longest", least=POSITIVE)
        return StoreWatch(self._access.provider.stream_hints, longest.total_seconds())

    async def list_executions(
        self, instance_id: str, *, after: int = 0, limit: int = 1000
    ) -> tuple[ExecutionInfo, ...]:
        """Return an instance's executions in ascending order, beginning behind number ``after``.

        Raises:
            InstanceNotFound: there is none with this id.
            InvalidArgument: the id cannot be one, ``limit`` is below 1, or a number is larger than
                any that can be.
        """
        return await self._instances.executions(instance_id, after, limit)

    async def get_history(
        self, instance_id: str, execution_id: int | None = None
    ) -> tuple[HistoryEvent, ...]:
        """Return the events of one execution, by default of the current one. Retention may have
        deleted them: then none.

        An event that this library cannot read is returned as well, and says so.

        Raises:
            InstanceNotFound: there is none with this id.
            InvalidArgument: the id cannot be one, or the number is larger than any that can be.
        """
        return await self._instances.history(instance_id, execution_id)

    async def export_history(self, instance_id: str, execution_id: int | None = None) -> str:
        """Return the histories of an instance as JSON, for
        :func:`orchestra.testing.replay_history`: of all executions that retention has left, or of
        one.

        It holds the stored values as they are, opened. Secrets hold masks of the same JSON types:
        code that decides by what a secret holds does not replay on them.

        Raises:
            InstanceNotFound: there is none with this id.
            InvalidArgument: the id or the number cannot be one.
            PayloadUnreadable: a value does not open here; a key is missing, say.
        """
        return await self._instances.export(instance_id, execution_id)

    async def preflight(
        self,
        registry: OrchestrationRegistry,
        name: str | None = None,
        *,
        replay: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> PreflightReport:
        """Return what a deploy of a registry would do to the live instances of the store. It
        changes nothing.

        It says which versions open executions need and the registry lacks; which states do not
        migrate to the version that their instance would take next, with the field; whose code or
        shape has changed under a version that runs; and how many instances would move. It judges
        the state that each open lap began with. The versions are those of the registry alone, as if
        every node ran it; the policies are those of the store.

        Args:
            name: only instances of this orchestration.
            replay: whether open executions are replayed too.
            progress: is called with the number of instances that were judged so far.

        Raises:
            InvalidArgument: the registry is a builder that was not built, or the name is none.
            StoreError: the store cannot be read.
        """
        return await preflight(self._access, registry, name, replay=replay, progress=progress)

    async def version_report(self, name: str | None = None) -> tuple[VersionInfo, ...]:
        """Return, for each version of each orchestration, who needs it, who has it, and whether it
        may be retired; by name and version, the lowest first.

        The store counts. Instances that only wait cost nothing, however many there are.

        Args:
            name: only the versions of this orchestration.

        Raises:
            InvalidArgument: the name cannot be one.
            StoreError: the store cannot be read.
        """
        return await read_version_report(self._access, name)

    async def list_nodes(self) -> tuple[NodeInfo, ...]:
        """Return the nodes that work on this store, the one that has run longest first.

        A node whose process was lost stays in the list until another node buries it; after three
        leases, ``alive`` is false.
        """
        return await self._instances.nodes()

    async def now(self) -> datetime:
        """Return the store's time, by which timers fire and instants are recorded. Ages of what the
        client returns count from it.
        """
        return from_micros((await self._access.catalogue(0)).now)

    async def wait_for_completion(
        self,
        instance_id: str,
        timeout: timedelta | None = None,  # noqa: ASYNC109 - a promise about the wait, not about the caller's scope
    ) -> InstanceInfo:
        """Wait until the instance has ended, over all its boundaries, and return it.

        Raises:
            InstanceNotFound: there is none with this id.
            WaitTimeout: it has not ended in time; it goes on.
            InstanceHeld: (a WaitTimeout) an error of its code holds it: at the timeout or, without
                one, once it has been held for ten seconds.
            InvalidArgument: the id cannot be one, or ``timeout`` is no timedelta.
        """
        await wait_for_end(self._access, instance_id, timeout)
        return await self._instances.info(instance_id)

    # --- sending ---

    async def raise_event(
        self, instance_id: str, name: str, payload: Any = None, *, message_id: str | None = None
    ) -> None:
        """Send an event. The inbox keeps it, over boundaries, until code waits for its name.

        Events of one name are delivered in order of arrival, each once.

        Args:
            message_id: the caller's own id of this message; the same one again has no effect
                (remembered for an hour after delivery).

        Raises:
            InstanceNotFound: there is none with this id.
            InstanceCompleted: it has ended.
            InboxFull: its inbox is full, or has as much of this name as it may. Nothing was stored.
            InvalidArgument: the id, ``name`` or ``message_id`` is not text of 1 to 1,024
                characters.
            EncodeError, PayloadTooLarge: the payload cannot travel.
        """
        await self._messages.raise_event(instance_id, name, payload, message_id)

    @overload
    async def request(
        self,
        instance_id: str,
        name: str,
        value: Any = None,
        *,
        timeout: timedelta | None = None,  # noqa: ASYNC109
        request_id: str | None = None,
    ) -> Any: ...
    @overload
    async def request(
        self,
        instance_id: str,
        name: str,
        value: Any = None,
        *,
        returns: type[T],
        timeout: timedelta | None = None,  # noqa: ASYNC109
        request_id: str | None = None,
    ) -> T: ...
    @overload
    async def request(
        self,
        instance_id: str,
        name: str,
        value: Any = None,
        *,
        returns: TypeForm[T],
        timeout: timedelta | None = None,  # noqa: ASYNC109
        request_id: str | None = None,
    ) -> T: ...
    async def request(
        self,
        instance_id: str,
        name: str,
        value: Any = None,
        *,
        returns: Any = Any,
        timeout: timedelta | None = None,  # noqa: ASYNC109 - a promise about the wait, not about the caller's scope
        request_id: str | None = None,
    ) -> Any:
        """Send a request, and wait for the answer of the instance's code.

        The request is on disk before the wait begins. It waits in the inbox, over boundaries and
        crashes, until code answers it. A wait that ends early cancels nothing: the same
        ``request_id`` waits for the same answer again.

        Args:
            returns: the type of the answer; plain JSON by default.
            timeout: how long to wait; by default without a limit.
            request_id: the caller's own id of this request. The same one again is the same request
                while it is open, and for an hour after the answer; then a new one.

        Raises:
            RequestRejected: the code has rejected it, or its value does not fit what the code
                awaits, or an operator has dropped it.
            InstanceCompleted: the instance has ended without an answer.
            WaitTimeout: it was not answered in time; ``request_id`` asks again.
            InstanceNotFound: there is none with this id, or it was deleted.
            InboxFull: its inbox is full, or has as much of this name as it may. Nothing was stored.
            LevelTooLow: a node with an older library lives, which knows nothing of requests.
            DecodeError: the answer does not fit ``returns``.
            InvalidArgument: the id, ``name`` or ``request_id`` is not text of 1 to 1,024
                characters, or ``timeout`` is no timedelta.
            EncodeError, PayloadTooLarge: the value cannot travel.
        """
        return await self._requests.request(instance_id, name, value, returns, timeout, request_id)

    async def list_messages(
        self, instance_id: str, *, after: int = 0, limit: int = 1000
    ) -> tuple[UnreadMessage, ...]:
        """Return the unread events, the open requests and the unread ends of background children of
        an instance, in the order of their arrival, beginning behind number ``after``. Code may have
        a request in hand already.

        Among them are those that were set aside, with the reason: the code awaited them and could
        not decode them. The newest 1,000 of these are kept, of 16 MiB in all, until the end.

        Raises:
            InstanceNotFound: there is none with this id.
            InvalidArgument: the id cannot be one, or a number is out of range.
        """
        return await self._messages.unread(instance_id, after, limit)

    async def drop_messages(
        self,
        instance_id: str,
        name: str | None = None,
        message_ids: Collection[str] | None = None,
        *,
        reason: str = "",
        by: str = "",
    ) -> int:
        """Remove unread events, those included that were set aside, open requests, and unread ends
        of background children: those of a name, or those with these ids, or both conditions
        together. Return how many were removed.

        The sender of a dropped request gets ``RequestRejected`` with the reason. An event that the
        instance has received already is not touched. Sending a removed one again, with its message
        id, has no effect for a while, as for one that was received.

        Raises:
            InstanceNotFound, InstanceCompleted: there is none with this id, or it has ended.
            NewerLibraryNeeded: it has what only a newer library knows.
            InvalidArgument: neither a name nor ids are given, or the id cannot be one.
            OutcomeUnknown: a running loop was written all the time; try again.
        """
        return await self._messages.drop(instance_id, name, message_ids, reason, by)

    @overload
    def read_stream(
        self,
        instance_id: str,
        name: str,
        type: type[T],
        *,
        after: int = 0,
        follow: bool = True,
    ) -> AsyncGenerator[StreamItem[T]]: ...
    @overload
    def read_stream(
        self,
        instance_id: str,
        name: str,
        type: TypeForm[T],
        *,
        after: int = 0,
        follow: bool = True,
    ) -> AsyncGenerator[StreamItem[T]]: ...
    @overload
    def read_stream(
        self, instance_id: str, name: str, *, after: int = 0, follow: bool = True
    ) -> AsyncGenerator[StreamItem[Any]]: ...
    def read_stream(
        self,
        instance_id: str,
        name: str,
        type: Any = Any,  # noqa: A002
        *,
        after: int = 0,
        follow: bool = True,
    ) -> AsyncGenerator[StreamItem[Any]]:
        """Yield the items of a stream of an instance, in order, from the one behind ``after`` on.

        The stream goes on over boundaries and restarts of the instance, and its offsets with it, on
        whatever node it runs. A reader that was cut off goes on with the offset of its last item.
        Any number of readers may read a stream. A slow one costs the writers nothing: it reads a
        page at a time.

        Args:
            instance_id: the instance.
            name: the stream. One to which nothing was published yet has no items.
            type: what to read the values as.
            after: the offset of the last item that the caller has. 0: from the beginning.
            follow: wait for further items, until the instance has ended and its last item was
                read. If false, end with the last item that there is now.

        Raises:
            InstanceNotFound: there is no such instance, or it was deleted meanwhile.
            StreamTruncated: retention has cut the item behind ``after``;
                see :class:`~orchestra.StreamRetention`.
            DecodeError: a value does not fit the type.
            InvalidArgument: an id, a name or ``after`` cannot be one.
        """
        return read_stream(self._access, instance_id, name, type, after, follow=follow)

    async def list_streams(self, instance_id: str) -> tuple[StreamInfo, ...]:
        """Return the streams of an instance, by their names.

        Raises:
            InstanceNotFound: there is no such instance.
        """
        return await list_streams(self._access, instance_id)

    async def cancel(self, instance_id: str, reason: str = "", *, by: str = "") -> None:
        """Ask an instance to stop: ``Cancelled`` is raised at its current await. A second cancel
        changes nothing.

        An instance that has not begun ends without running code. The request stays over boundaries.
        An instance that is held, or whose version no living node has, learns of it once it goes on;
        :meth:`terminate` ends it now.

        Raises:
            InstanceNotFound: there is none with this id.
            AlreadyCompleted: it has ended.
            InvalidArgument: the id cannot be one, or the reason is not text of at most 1,024
                characters.
        """
        await self._messages.cancel(instance_id, reason, by)

    # --- operating ---

    async def terminate(self, instance_id: str, reason: str = "", *, by: str = "") -> None:
        """End an instance at once. Its code does not run again; its activities are aborted.

        If its owner writes it all the time, such as a loop that never waits, the client marks it
        and the owner ends it. The call returns once the instance has ended. A caller that is
        cancelled before that leaves the mark.

        Raises:
            InstanceNotFound: there is none with this id.
            AlreadyCompleted: it has ended.
            NewerLibraryNeeded: it has what only a newer library knows. :meth:`cancel` it instead:
                its next owner learns of it.
            InvalidArgument: the id cannot be one, or the reason is not text of at most 1,024
                characters.
        """
        await self._maintenance.terminate(instance_id, reason, by)

    async def delete(self, instance_id: str, *, reason: str = "", by: str = "") -> None:
        """Delete an ended instance and everything that belongs to it. Its id is free again.

        Raises:
            InstanceNotFound: there is none with this id.
            InstanceStillOpen: it has not ended; terminate it first.
            NewerLibraryNeeded: only a newer library knows its status.
            InvalidArgument: the id cannot be one, or the reason is not text of at most 1,024
                characters.
        """
        await self._maintenance.delete(instance_id, reason, by)

    async def hold(self, instance_id: str, *, reason: str = "", by: str = "") -> None:
        """Pause an instance until :meth:`release`: no turn runs, no timer fires, no activity
        begins. A second hold changes nothing.

        What runs for it is cancelled, and its attempt does not count. Messages still arrive. A
        cancel waits for the release; :meth:`terminate` ends it now. What came due meanwhile fires
        once after the release.

        Args:
            reason: why, for ``info.hold`` and the audit.
            by: who; by default the client or the node.

        Raises:
            InstanceNotFound, AlreadyCompleted: there is none, or it has ended.
            NewerLibraryNeeded: it has what only a newer library knows.
            LevelTooLow: a living node has a library that would not respect the hold.
            InvalidArgument: the id cannot be one, or the reason or the author is no text of at
                most 1,024 characters.
        """
        await self._control.hold(instance_id, reason, by)

    async def release(self, instance_id: str, *, reason: str = "", by: str = "") -> None:
        """End what holds an instance: an operator's hold, or a fault, so that the deployed code
        tries it once more.

        Changed code tries by itself what a fault holds. Call this if the cause was elsewhere.

        Raises:
            InstanceNotFound, AlreadyCompleted: there is none, or it has ended.
            InstanceNotHeld: nothing holds it, or what holds it is derived and not stored (code that
                is not deployed, a crash loop).
            NewerLibraryNeeded: it is held for a reason that only a newer library knows, or has
                other rows of one.
            InvalidArgument: the id cannot be one, or the reason or the author is no text of at
                most 1,024 characters.
        """
        await self._control.release(instance_id, reason, by)

    async def rewind(
        self,
        instance_id: str,
        execution_id: int,
        version: str | None = None,
        *,
        pin: bool = True,
        children: Literal["abandon", "cancel"] = "abandon",
        reason: str = "",
        by: str = "",
        request_id: str | None = None,
    ) -> RewindInfo:
        """Go back: end the current execution, and begin a former one again, from the state that it
        began with.

        The id stays. The executions are numbered on, and the history shows the rewind. Events that
        were received since that boundary are unread again, in their order, and so are the ends of
        background children that its state has handles of. A cancel request is removed, and what
        held the instance by a fault is over. An instance that has ended begins a new life, without
        its parent: its background children that still run have no one to tell.

        To name an execution that an earlier rewind has undone is allowed: what its state has read
        is read again, and all that came since is unread.

        Args:
            execution_id: the execution whose state begins again: 1, 2, ... Its row must not have
                been deleted by retention; its history may.
            version: the version that the new execution runs; by default the one that execution had.
                Migrations lead there from the version that wrote the state.
            pin: pin the instance to that version. Without it the next boundary follows the policy.
            children: what happens to open children that were started since: nothing, or a cancel.
                Their ends reach no one.
            reason: why, for the history, the pin and the audit.
            by: who; by default the client or the node.
            request_id: the caller's id of this request. The same one again has no effect, also
                after a lost reply.

        Raises:
            InstanceNotFound: there is none with this id.
            InvalidVersion: ``version`` is not semver.
            NewerLibraryNeeded: it has what only a newer library knows.
            LevelTooLow: a living node has a library that cannot read a rewind.
            InvalidArgument: it has no such execution, or retention has deleted it; or an argument
                cannot be one.
            OutcomeUnknown: its owner writes it all the time; nothing was rewound, try again.
        """
        return await self._control.rewind(
            instance_id,
            execution_id,
            version=version,
            pin=pin,
            children=children,
            reason=reason,
            by=by,
            request_id=request_id,
        )

    async def set_labels(
        self,
        instance_id: str,
        labels: Mapping[str, str | None],
        *,
        reason: str = "",
        by: str = "",
    ) -> Mapping[str, str]:
        """Set labels of an instance, also of one that has ended, and remove those that are
        ``None``. Return all labels that it has now.

        The instance goes on undisturbed. Its code may change them as well (``ctx.set_labels``); the
        last change of a label counts.

        Raises:
            InstanceNotFound: there is none with this id.
            InvalidArgument: they are no mapping; a key is not text of 1 to 1,024 characters; a
                value is neither ``None`` nor text of at most 1,024; or it would have more than 64
                labels.
        """
        return await self._control.set_labels(instance_id, labels, reason, by)

    async def list_operations(
        self,
        *,
        subject: str | None = None,
        action: str | None = None,
        by: str | None = None,
        limit: int = 100,
        page: str | None = None,
    ) -> OperationPage:
        """Return what operators did, the newest first; every condition that is given must hold.

        The store keeps the last 100,000 acts, each from the transaction that did it: ``cancel``,
        ``terminate``, ``release``, ``pin``, ``unpin``, ``nudge``, ``rerun``, ``delete``, ``purge``,
        ``drop messages``, ``set labels``, ``set policy`` and others. What was refused, or had been
        done before, is not among them.

        Args:
            subject: the id of an instance, or the name of an orchestration.
            limit: how many at most, 1 or more.
            page: ``next_page`` of the page before.

        Raises:
            InvalidArgument: ``page`` is no page, ``limit`` is below 1, or a condition is no text.
        """
        return await self._audit.list(subject, action, by, limit, page)

    async def bulk(
        self,
        act: Bulk,
        selection: Selection,
        *,
        dry_run: bool = True,
        reason: str = "",
        by: str = "",
        version: str | None = None,
        request_id: str | None = None,
        progress: Callable[[BulkReport], None] | None = None,
    ) -> BulkReport:
        """Do one thing to all instances of a selection, a hundred at a time. By default it only
        says what that would be.

        Each act is that of the single method, conditional on the instance and recorded in the audit
        with author and reason. An act that was done before is skipped. So a job that was cut off is
        run again as it was, and two operators may run the same one at once.

        Args:
            act: ``Bulk.CANCEL``, ``TERMINATE``, ``HOLD``, ``RELEASE``, ``PIN``, ``UNPIN``,
                ``NUDGE``, ``REWIND``, ``RERUN`` or ``DELETE``.
            dry_run: only count, and name the first hundred.
            by: who; by default the client or the node.
            version: of a pin; of a rerun, by default that of the policy. With it a rewind goes
                back to where the instance left this version, and pins it there; without it, a
                rewind begins the current lap again.
            request_id: your own id of the job. A rerun, and a rewind without a version, need one:
                the same one again does nothing twice.
            progress: is called after each hundred with the report so far.

        Raises:
            StoreUnavailable, RuntimeClosed: it was cut off; run it again. What failed on single
                instances is in the report.
            InvalidArgument: the act, a condition or an argument is none, or the version or the
                request id is missing or out of place.
        """
        return await self._bulks.run(
            act,
            selection,
            dry_run=dry_run,
            reason=reason,
            by=by,
            version=version,
            request_id=request_id,
            progress=progress,
        )

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
        by: str = "",
    ) -> PurgeReport:
        """Delete instances that ended before a moment, with all that belongs to them; every
        condition given must hold.

        It deletes a few at a time, so that nodes and other clients need not wait for the store. A
        purge that is cancelled has deleted some of them. ``Retention(finished=...)`` deletes ended
        instances without a call.

        Args:
            status: which ends; all of them by default. Instances that have not ended are never
                touched.
            limit: how many at most, the newest first.
            dry_run: only report what would be deleted. This is the default: nothing brings a
                deleted instance back.
            by: who; by default the client or the node.

        Raises:
            InvalidArgument: ``completed_before`` is no aware datetime, ``status`` is no status,
                ``limit`` is below 1, the reason or the author is no text of at most 1,024
                characters, or a condition cannot be an id, a name or a label.
        """
        return await self._maintenance.purge(
            completed_before=completed_before,
            name=name,
            status=status,
            id_prefix=id_prefix,
            labels=labels,
            limit=limit,
            dry_run=dry_run,
            reason=reason,
            by=by,
        )

    # --- versions ---

    async def list_keys(self, *, limit: int = 1000) -> tuple[KeyInfo, ...]:
        """Return the keys that stored values are sealed with, and for each how many instances need
        it. A key that none needs may go: see the guide to payloads.

        The cost grows with ``limit``, not with the store.

        Args:
            limit: how far to count the instances of each key and kind of value.

        Raises:
            InvalidArgument: the limit is no whole number, or less than 1.
        """
        check_count(limit, "limit")
        uses = await self._access.read(lambda directory: directory.keys(limit))
        provider = self._access.provider
        return keys_of(uses, provider.pipeline if isinstance(provider, SealingProvider) else None)

    async def sweep_payloads(
        self,
        *,
        older_than: timedelta = timedelta(days=7),
        dry_run: bool = True,
    ) -> SweepReport:
        """Delete what the external storage of this client's pipeline has and no stored value refers
        to: values of deleted instances and pruned laps, and of writes that were never committed.

        It reads every sealed value of the store, and lists the storage. Run it now and then, on
        one client at a time. Two stores must not share one storage: each would delete the other's
        values.

        Args:
            older_than: younger objects stay: the write that refers to them may be under way.
            dry_run: only count.

        Raises:
            InvalidArgument: the pipeline has no external storage, or this one cannot be swept, or
                ``older_than`` is less than an hour.
            StorageUnavailable: the storage did not answer. Run it again.
        """
        return await sweep(self._access, older_than, dry_run=dry_run)

    async def set_version_policy(
        self,
        name: str,
        policy: Policy,
        *,
        reason: str = "",
        by: str = "",
        expected_revision: int | None = None,
        allow_missing: bool = False,
    ) -> PolicyInfo:
        """Set which version starts and boundaries of a name take. Running executions are not
        touched.

        Starts of this client follow at once. Boundaries follow on each node once it has looked at
        the store: within its poll, a second by default. Executions that are held and have not begun
        follow as well, if a policy had chosen their version. ``Exact`` leads exactly there.
        ``Latest`` leads to the newest version of a living node, and ``Range`` to the newest one in
        its range, but neither below the version that wrote the state. ``moved``
        is how many of them this call has given another version. Nodes that learn of the policy do
        the same with the rest. Nodes take an execution to a higher version by themselves.

        Args:
            reason: why, for :meth:`list_version_policies` and the audit.
            by: who; by default the client or the node.
            expected_revision: set it only if the present policy has this revision; 0: if none was
                ever set. To repeat the same call after a lost reply is safe: if the next revision
                has the same policy, the call succeeds and changes nothing.
            allow_missing: also set a policy ahead of a deploy: an ``Exact`` version, or a ``Range``
                of versions, that no living node with this name has. Executions that take the exact
                version are held until then. The range refuses starts until then.

        Raises:
            UnknownVersion: living nodes have the name, and none has the ``Exact`` version. Nothing
                was changed.
            NoVersionInRange: ... and none has a version in the ``Range``. Nothing was changed.
            PolicyChangedMeanwhile: the present policy has another revision than the expected one.
                Nothing was changed.
            LevelTooLow: a living node has a library that cannot read a ``Range``, or no node with
                this library has lived on the store yet. Nothing was changed.
            InvalidArgument: ``policy`` is none, the revision is no number from 0 on, or the name,
                the reason or the author is no text.
        """
        return await self._versions.set_policy(
            name, policy, reason, by, expected_revision, allow_missing=allow_missing
        )

    async def follow_policy(self, name: str) -> int:
        """Move executions of a name that are held and have not begun to the version of its policy.
        Return how many moved.

        :meth:`set_version_policy` does it, and so does each node once it has learnt of the new
        policy.
        """
        return await self._versions.follow_policy(name)

    async def get_version_policy(self, name: str) -> PolicyInfo:
        """Return the policy of a name: ``Latest()`` at revision 0 if none was ever set.

        An :class:`~orchestra.UnknownPolicy` is a newer library's policy that this one cannot read.

        Raises:
            InvalidArgument: the name cannot be one.
        """
        return await self._versions.get_policy(name)

    async def list_version_policies(self, name: str) -> tuple[PolicyInfo, ...]:
        """Return the policies that a name has and had, the newest first: the present one, and up to
        1,000 before it. None if no policy was ever set.

        A library before 0.2 left no history of what it replaced.

        Raises:
            InvalidArgument: the name cannot be one.
        """
        return await self._versions.list_policies(name)

    async def pin(
        self,
        instance_id: str,
        version: str,
        until: datetime | None = None,
        *,
        reason: str = "",
        by: str = "",
    ) -> None:
        """Pin an instance to a version from its next boundary on, against the policy.

        An execution that has not begun yet (no node has its version, or it is held) takes the
        pinned version at once, unless the caller or the code had named one. That releases its hold.
        At a boundary from ``until`` on, by the store's clock, the pin does not count any more.

        Args:
            until: when the pin expires; by default never.
            reason: why, for ``info.pin`` and the audit.
            by: who; by default the client or the node.

        Raises:
            InvalidVersion: ``version`` is not semver.
            InstanceNotFound, AlreadyCompleted: there is none, or it has ended.
            InvalidArgument: the id cannot be one, or the reason is not text of at most 1,024
                characters.
        """
        await self._versions.pin(instance_id, version, until, reason, by)

    async def unpin(self, instance_id: str, *, reason: str = "", by: str = "") -> None:
        """Let the policy choose again. An execution that has not begun yet, with the pinned
        version, follows at once.

        Raises:
            InstanceNotFound, AlreadyCompleted: there is none, or it has ended.
            InvalidArgument: the id cannot be one, or the reason is not text of at most 1,024
                characters.
        """
        await self._versions.unpin(instance_id, reason, by)

    async def nudge(
        self,
        instance_id: str,
        *,
        reason: str = "",
        by: str = "",
        execution_id: int | None = None,
    ) -> bool:
        """Ask an instance to reach its boundary soon: ``ctx.boundary_requested`` turns true, and
        ``ctx.wait_for_boundary_request()`` returns.

        It is for code that hears it; other code goes on as before. A nudge means the execution that
        runs now. It is void after that execution's boundary, and an execution is asked once at
        most. An execution that has not begun is asked with its first turn. A held instance keeps
        the nudge until it goes on. Return whether it was asked by this call: otherwise the
        execution was asked before, or has reached its boundary meanwhile.

        Args:
            reason: why, for the code, the audit, and people who read the history.
            by: who asks; by default the name of this client.
            execution_id: which execution is meant; by default the current one.

        Raises:
            InstanceNotFound, AlreadyCompleted: there is none, or it has ended.
            LevelTooLow: a node with an older library lives, which cannot read it.
            InvalidArgument: the id or the execution's number cannot be one, or the reason or the
                author is not text of at most 1,024 characters.
        """
        return await self._versions.nudge(instance_id, execution_id, reason, by)


@dataclass(frozen=True, slots=True)
class Handle(Generic[R_co]):
    """A started instance. ``Handle[R]``: its result is an ``R``, as far as is known."""

    client: Client
    instance_id: str
    returns: Any = field(default=Any, compare=False, repr=False)
    """The default type for :meth:`result`: a type, or ``Any`` for plain JSON."""

    async def info(self) -> InstanceInfo:
        """Return the instance."""
        return await self.client.get_instance_info(self.instance_id)

    @overload
    async def result(self, *, timeout: timedelta | None = None) -> R_co: ...  # noqa: ASYNC109
    @overload
    async def result(self, type: type[T], *, timeout: timedelta | None = None) -> T: ...  # noqa: ASYNC109
    @overload
    async def result(self, type: TypeForm[T], *, timeout: timedelta | None = None) -> T: ...  # noqa: ASYNC109
    async def result(self, type: Any = _AS_STARTED, *, timeout: timedelta | None = None) -> Any:  # noqa: A002, ASYNC109
        """Wait for the instance's end, over all its boundaries, and return its output, read as
        ``type``.

        Args:
            type: by default the annotation of the started function, or the ``returns`` of its
                start.
            timeout: how long to wait; by default without a limit.

        Raises:
            InstanceFailed, InstanceCancelled, InstanceTerminated: it ended in that way.
            WaitTimeout: it has not ended in time.
            InstanceHeld: (a WaitTimeout, and an InstanceFailed) an error of its code holds it: at
                the timeout or, without one, once it has been held for ten seconds.
            DecodeError: the output does not fit ``type``.
            InvalidArgument: ``timeout`` is no timedelta.
            InstanceNotFound: there is no such instance, or it was deleted.
        """
        end = await wait_for_end(self.client._access, self.instance_id, timeout)
        return result_of(end, self.instance_id, self.returns if type is _AS_STARTED else type)

    async def wait(self, timeout: timedelta | None = None) -> InstanceInfo:  # noqa: ASYNC109
        """Wait for its end, however it ends, and return it; see
        :meth:`Client.wait_for_completion`.
        """
        return await self.client.wait_for_completion(self.instance_id, timeout)

    async def raise_event(
        self, name: str, payload: Any = None, *, message_id: str | None = None
    ) -> None:
        """Send it an event; see :meth:`Client.raise_event`. The same ``message_id`` again has no
        effect.
        """
        await self.client.raise_event(self.instance_id, name, payload, message_id=message_id)

    @overload
    async def request(
        self,
        name: str,
        value: Any = None,
        *,
        timeout: timedelta | None = None,  # noqa: ASYNC109
        request_id: str | None = None,
    ) -> Any: ...
    @overload
    async def request(
        self,
        name: str,
        value: Any = None,
        *,
        returns: type[T],
        timeout: timedelta | None = None,  # noqa: ASYNC109
        request_id: str | None = None,
    ) -> T: ...
    @overload
    async def request(
        self,
        name: str,
        value: Any = None,
        *,
        returns: TypeForm[T],
        timeout: timedelta | None = None,  # noqa: ASYNC109
        request_id: str | None = None,
    ) -> T: ...
    async def request(
        self,
        name: str,
        value: Any = None,
        *,
        returns: Any = Any,
        timeout: timedelta | None = None,  # noqa: ASYNC109
        request_id: str | None = None,
    ) -> Any:
        """Send it a request, and wait for the answer; see :meth:`Client.request`."""
        return await self.client.request(
            self.instance_id,
            name,
            value,
            returns=returns,
            timeout=timeout,
            request_id=request_id,
        )

    @overload
    def read_stream(
        self,
        name: str,
        type: type[T],
        *,
        after: int = 0,
        follow: bool = True,
    ) -> AsyncGenerator[StreamItem[T]]: ...
    @overload
    def read_stream(
        self,
        name: str,
        type: TypeForm[T],
        *,
        after: int = 0,
        follow: bool = True,
    ) -> AsyncGenerator[StreamItem[T]]: ...
    @overload
    def read_stream(
        self, name: str, *, after: int = 0, follow: bool = True
    ) -> AsyncGenerator[StreamItem[Any]]: ...
    def read_stream(
        self,
        name: str,
        type: Any = Any,  # noqa: A002
        *,
        after: int = 0,
        follow: bool = True,
    ) -> AsyncGenerator[StreamItem[Any]]:
        """Yield the items of a stream; see :meth:`Client.read_stream`."""
        return self.client.read_stream(self.instance_id, name, type, after=after, follow=follow)

    async def list_streams(self) -> tuple[StreamInfo, ...]:
        """Return the streams of the instance; see :meth:`Client.list_streams`."""
        return await self.client.list_streams(self.instance_id)

    async def cancel(self, reason: str = "", *, by: str = "") -> None:
        """Ask it to stop; see :meth:`Client.cancel`."""
        await self.client.cancel(self.instance_id, reason, by=by)

    async def terminate(self, reason: str = "", *, by: str = "") -> None:
        """End it at once; see :meth:`Client.terminate`."""
        await self.client.terminate(self.instance_id, reason, by=by)

    async def release(self, *, reason: str = "", by: str = "") -> None:
        """End its hold, so that the deployed code tries it once more; see
        :meth:`Client.release`.
        """
        await self.client.release(self.instance_id, reason=reason, by=by)

    async def hold(self, *, reason: str = "", by: str = "") -> None:
        """Pause it until :meth:`release`; see :meth:`Client.hold`."""
        await self.client.hold(self.instance_id, reason=reason, by=by)

    async def delete(self, *, reason: str = "", by: str = "") -> None:
        """Delete it, once it has ended; see :meth:`Client.delete`."""
        await self.client.delete(self.instance_id, reason=reason, by=by)

    def watch(self) -> AsyncGenerator[InstanceInfo]:
        """Yield its info now and at each change, until it has ended; see :meth:`Client.watch`."""
        return self.client.watch(self.instance_id)

    async def history(self, execution_id: int | None = None) -> tuple[HistoryEvent, ...]:
        """Return the events of one of its executions, by default of the current one; see
        :meth:`Client.get_history`.
        """
        return await self.client.get_history(self.instance_id, execution_id)
