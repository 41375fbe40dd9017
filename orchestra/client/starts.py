"""Start instances, by names or functions."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypedDict

from orchestra.client.access import Access
from orchestra.client.arguments import (
    check_choice,
    check_events,
    check_id,
    check_name,
    check_start,
)
from orchestra.clock import new_id, to_micros
from orchestra.codec import Payload, UserText, decoder, encode
from orchestra.context import OrchestrationContext
from orchestra.errors import InvalidArgument, UnknownOrchestration
from orchestra.operations.begin import (
    IF_ENDED,
    IF_RUNNING,
    ChoiceIfEnded,
    ChoiceIfRunning,
    begin,
    new_start,
)
from orchestra.operations.start import chosen_version, id_of_request
from orchestra.options import check_moment
from orchestra.registry import OrchestrationRegistry
from orchestra.resolution import LOWEST_VERSION
from orchestra.signatures import called, plain_function
from orchestra.store.audit import Record
from orchestra.store.catalogue import Catalogue
from orchestra.store.changes import Append, Start
from orchestra.store.inbox_limits import InboxLimits, Waiting
from orchestra.store.kinds import DELAYED_START_LEVEL, ResolvedBy
from orchestra.store.outcomes import Started
from orchestra.store.receipts import inbox_full
from orchestra.versions import parse_version

__all__ = ["Orchestration", "StartOptions", "Starts"]

Orchestration = str | Callable[[OrchestrationContext, Any], Awaitable[Any]]
"""The target of a start: a name, or a registered function."""


ChoiceOfTrace = Literal["link", "continue"]
"""How the first execution of an instance belongs to the trace of its start."""


class StartOptions(TypedDict, total=False):
    """The keyword arguments of :meth:`Client.start`."""

    instance_id: str | None
    version: str | None
    queue: str
    labels: Mapping[str, str] | None
    request_id: str | None
    if_running: ChoiceIfRunning | None
    if_ended: ChoiceIfEnded
    events: Sequence[tuple[str, Any]]
    written_by: str | None
    not_before: datetime | None
    allow_unregistered: bool
    trace: ChoiceOfTrace


class Starts:
    """Starts instances, and begins ended ones again."""

    def __init__(
        self,
        access: Access,
        registry: OrchestrationRegistry | None,
        limits: InboxLimits,
        payload_limit: int,
    ) -> None:
        self._access = access
        self._registry = registry
        self._limits = limits
        self._payload_limit = payload_limit

    def use(self, registry: OrchestrationRegistry) -> None:
        """Know the names and types of another registry from now on."""
        self._registry = registry

    async def start(
        self,
        orchestration: Orchestration,
        state: Any,
        returns: Any,
        *,
        instance_id: str | None,
        version: str | None,
        queue: str,
        labels: Mapping[str, str] | None,
        request_id: str | None,
        if_running: ChoiceIfRunning | None,
        if_ended: ChoiceIfEnded,
        events: Sequence[tuple[str, Any]],
        written_by: str | None,
        not_before: datetime | None,
        allow_unregistered: bool,
        trace: ChoiceOfTrace,
    ) -> tuple[str, Any]:
        """Start an instance; return its id, and the annotation of its result. See
        :meth:`Client.start`.
        """
        name, annotation = self._called(orchestration)
        annotation = annotation if returns is None else decoder(returns).annotation
        check_name(name, "an orchestration's name")
        check_start(instance_id, request_id, labels)
        check_name(queue, "a queue")
        if events:
            check_events(events)
        if if_running is None:
            if_running = "return" if events else "error"
        check_choice(if_running, "if_running", IF_RUNNING)
        check_choice(if_ended, "if_ended", IF_ENDED)
        check_choice(trace, "trace", ("link", "continue"))
        check_moment(not_before, "not_before", optional=True)
        access = self._access
        catalogue, chosen = await self._choose(
            name, version, queue, allow_unregistered=allow_unregistered
        )
        writer = (
            self._writer(name, chosen) if written_by is None else str(parse_version(written_by))
        )
        first_turn = None if not_before is None else to_micros(not_before)
        is_delayed = first_turn is not None and catalogue.levels.lowest_reader < DELAYED_START_LEVEL
        state = self._encoded(state, name, writer)
        if instance_id is None:
            instance_id = new_id() if request_id is None else id_of_request(name, request_id)
        request_id = request_id or new_id()
        with access.recorder.starting(name, chosen, instance_id) as origin:
            appends = self._appends(events, instance_id, request_id, origin) if events else ()
            _raise_unless_room(appends)
            start = new_start(
                catalogue,
                name,
                chosen,
                ResolvedBy.POLICY if version is None else ResolvedBy.EXPLICIT,
                state,
                by=access.name,
                queue=queue,
                instance_id=instance_id,
                incarnation=new_id(),
                request_id=request_id,
                written_by=writer,
                shape=None
                if self._registry is None or writer is None
                else self._registry.shape(name, writer),
                level=DELAYED_START_LEVEL if is_delayed else 0,  # no older node may claim it
                labels=labels,
                not_before=first_turn,
                if_running=if_running,
                if_ended=if_ended,
                events=appends,
                traceparent=origin,
                continues_trace=trace == "continue",
            )
            await self._begin(start, if_running, if_ended)
        return instance_id, annotation

    async def rerun(
        self,
        instance_id: str,
        version: str | None,
        new_instance_id: str | None,
        *,
        request_id: str | None = None,
        by: str = "",
        reason: str = "",
    ) -> str:
        """Start a new instance from an old one's first input; see :meth:`Client.rerun`."""
        check_id(instance_id)
        check_start(new_instance_id, None, None)
        access = self._access
        record = await access.record(instance_id)
        rows = await access.read(lambda directory: directory.executions(instance_id, 0, 1))
        if not rows or rows[0].number != 1:
            raise InvalidArgument(
                f"retention has deleted the first lap of {instance_id!r}, and its input with it; "
                "start a new instance with a state of its own"
            )
        first, queue = rows[0], record.row.kind.queue
        catalogue, chosen = await self._choose(first.name, version, queue)
        new_instance_id = new_instance_id or new_id()
        detail = {"instance_id": new_instance_id}
        with access.recorder.starting(first.name, chosen, new_instance_id) as trace:
            start = new_start(
                catalogue,
                first.name,
                chosen,
                ResolvedBy.POLICY if version is None else ResolvedBy.EXPLICIT,
                first.state,
                by=access.name,
                queue=queue,
                instance_id=new_instance_id,
                incarnation=new_id(),
                request_id=request_id or new_id(),
                written_by=first.state_version,
                shape=first.state_shape,
                labels=record.labels,
                created_by=f"rerun of {instance_id}",
                traceparent=trace,
                record=Record(by or access.name, "rerun", instance_id, detail, UserText(reason)),
            )
            await self._begin(start, "error", "error")
        return new_instance_id

    async def _begin(
        self, start: Start, if_running: ChoiceIfRunning, if_ended: ChoiceIfEnded
    ) -> None:
        access = self._access
        outcome = await access.port.submit(start)
        if not isinstance(outcome, Started):
            library = access.provider.library
            await access.perform(
                begin(
                    start,
                    outcome,
                    if_running,
                    if_ended,
                    library,
                    full=lambda bound: inbox_full(start.events[0], bound),
                )
            )

    def _appends(
        self,
        events: Sequence[tuple[str, Any]],
        instance_id: str,
        request_id: str,
        trace: str | None,
    ) -> tuple[Append, ...]:
        """Return the events of a start. Their ids come from its request id, so that a repeated
        request sends none twice.
        """
        return tuple(
            Append(
                instance_id,
                f"{request_id}/{number}",
                name,
                encode(
                    payload,
                    subject=f"event {name!r} for {instance_id!r}",
                    limit=self._payload_limit,
                ),
                self._access.name,
                self._limits,
                trace,
            )
            for number, (name, payload) in enumerate(events, start=1)
        )

    def _called(self, orchestration: Orchestration) -> tuple[str, Any]:
        """Return the name of an orchestration, and the annotation of its result."""
        if inspect.iscoroutine(orchestration):
            plain_function(orchestration, "what is started")
        if isinstance(orchestration, str) or not callable(orchestration):
            return orchestration, Any
        if self._registry is None:
            shown = called(orchestration)
            raise UnknownOrchestration(
                f"this client has no registry that could tell the name of {shown}; give the "
                "name, or make the client with Client(provider, registry=registry)",
                name=shown,
            )
        name, result = self._registry.called(orchestration)
        return name, result.annotation

    async def prepare(
        self, name: str, version: str | None, queue: str, state: Any, *, allow_unregistered: bool
    ) -> tuple[Payload, str | None, str | None]:
        """Return the input of later starts, the version that wrote it, and the hash of its type.

        Raises:
            UnknownOrchestration, UnknownVersion, NoVersionInRange, UnreadablePolicy: as for a start
                that was made now.
            EncodeError, DecodeError, PayloadTooLarge: the input cannot travel, or does not fit.
        """
        _, chosen = await self._choose(name, version, queue, allow_unregistered=allow_unregistered)
        writer = self._writer(name, chosen)
        shape = (
            None if self._registry is None or writer is None else self._registry.shape(name, writer)
        )
        return self._encoded(state, name, writer), writer, shape

    async def _choose(
        self, name: str, version: str | None, queue: str, *, allow_unregistered: bool = False
    ) -> tuple[Catalogue, str]:
        """Return the version that a start takes, and the catalogue that says so."""
        catalogue = await self._access.catalogue()
        try:
            return catalogue, chosen_version(catalogue, name, version, queue)
        except UnknownOrchestration:
            # It may have been registered within the last second.
            catalogue = await self._access.catalogue(0)
        chosen = chosen_version(
            catalogue, name, version, queue, allow_unregistered=allow_unregistered
        )
        return catalogue, chosen

    def _writer(self, name: str, chosen: str) -> str | None:
        """Return the version whose shape the input of a start has; ``None``: that of the version
        that opens it, whichever that will be.
        """
        if chosen != LOWEST_VERSION:
            return chosen
        registry = self._registry
        return registry.resolve(name) if registry is not None and name in registry.names else None

    def _encoded(self, state: Any, name: str, version: str | None) -> Payload:
        definition = self._registry.find(name, version) if self._registry and version else None
        if definition is None:
            return encode(state, subject=f"input of {name!r}", limit=self._payload_limit)
        return definition.state.encode_input(
            state, subject=f"input of {name!r} {version}", limit=self._payload_limit
        )


def _raise_unless_room(appends: Sequence[Append]) -> None:
    """Raise if even a new inbox has no room for all of a start's events.

    Raises:
        InboxFull: it has none. The store takes all of them or none.
    """
    whole, named = Waiting(), dict[str, Waiting]()
    for append in appends:
        size, of_name = len(append.payload.data), named.get(append.name, Waiting())
        full = append.limits.met_by(whole, of_name, size)
        if full is not None:
            raise inbox_full(append, full)
        whole, named[append.name] = whole.plus(size), of_name.plus(size)
