"""What a step asks of other instances: to start or cancel children."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from orchestra.codec import Packed, UserText
from orchestra.engine.owned import OwnedInstance
from orchestra.errors import ErrorInfo, InstanceExists, UnknownOrchestration
from orchestra.events import FORMAT, ChildStarted, DetachedStarted, OnParentClose, error_to_bytes
from orchestra.ids import digest
from orchestra.resolution import LOWEST_VERSION, policy_of, resolution_level, start_version
from orchestra.retry import type_name
from orchestra.store.catalogue import Catalogue
from orchestra.store.changes import ChildCancel, ChildStart, IfEnded, Start, Write
from orchestra.store.executions import ExecutionRow, Resolution
from orchestra.store.instances import ParentLink
from orchestra.store.kinds import ResolvedBy
from orchestra.store.routes import Kind

__all__ = ["child_cancel", "child_link", "child_start", "resolve_again"]

_GIVEN_UP: Final = UserText("its parent has given it up")


def child_link(instance: OwnedInstance, event: ChildStarted | DetachedStarted) -> ParentLink:
    """Return the link to a command of the instance's current execution."""
    return ParentLink(instance.instance_id, instance.incarnation, instance.current.number, event.id)


def child_start(
    instance: OwnedInstance,
    link: ParentLink,
    event: ChildStarted | DetachedStarted,
    catalogue: Catalogue,
    node: str,
    now: int,
    shape: Callable[[str, str], str | None],
) -> ChildStart:
    """Return the start that the store makes for a command, on the version that it gets (scenario
    6).

    A child of a name that no node has cannot be started, and its parent gets the error. A detached
    start waits for the name to be deployed, for its error would reach no one.

    Args:
        link: which command it is.
        shape: returns the hash of a version's state, if this node has the version.
    """
    queue = event.queue or instance.kind.queue
    version = event.version or start_version(catalogue, event.name, queue)
    if version is None and isinstance(event, ChildStarted):
        reason = (
            f"no living node has registered orchestration {event.name!r}; start a runtime that "
            "has it"
        )
        refusal = _error(UnknownOrchestration, reason)
        return ChildStart(event.child_id, link, None, refusal, _is_kept(event))
    version = version or LOWEST_VERSION
    how = ResolvedBy.POLICY if event.version is None else ResolvedBy.EXPLICIT
    resolution = Resolution(how, node, policy_of(catalogue, event.name)[1])
    attached = isinstance(event, ChildStarted)
    # The command's own name, so that the store knows the start again if it is repeated (I1).
    request_id = str(link)
    start = Start(
        instance_id=event.child_id,
        # As good as random, for it is made of the parent's incarnation. Wherever the step is
        # repeated, it is the same.
        incarnation=digest(request_id),
        request_id=request_id,
        kind=Kind(
            queue,
            event.name,
            version,
            FORMAT,
            event.version is None,
            resolution_level(catalogue, how),
        ),
        execution=ExecutionRow(
            1,
            event.name,
            version,
            resolution,
            event.input,
            # The placeholder of an unknown name has written nothing: the version that opens it has.
            None if version == LOWEST_VERSION and event.version is None else version,
            created_at=now,
            state_shape=shape(event.name, version),
            request_id=request_id,
        ),
        created_by=request_id,
        labels=event.labels,
        traceparent=instance.current.traceparent,
        parent=link if attached else None,
        root_id=(instance.root_id or instance.instance_id) if attached else None,
        on_parent_close=event.on_parent_close
        if isinstance(event, ChildStarted)
        else OnParentClose.ABANDON,
        if_ended=_if_ended(event),
    )
    taken = (
        f"instance {event.child_id!r} exists: it still runs, or another start made it; choose "
        "another id"
    )
    refusal = _error(InstanceExists, taken) if attached else None
    return ChildStart(event.child_id, link, start, refusal, _is_kept(event))


def _is_kept(event: ChildStarted | DetachedStarted) -> bool:
    return isinstance(event, ChildStarted) and event.on_parent_close is OnParentClose.KEEP


def _if_ended(event: ChildStarted | DetachedStarted) -> IfEnded:
    """Return what happens to an ended instance with the id. A lap may use the id of an earlier
    lap's child that has ended.
    """
    match event.if_ended:
        case "restart":
            return IfEnded.RESTART
        case "restart_if_failed":
            return IfEnded.RESTART_IF_FAILED
        case _:
            return IfEnded.RESTART_OWN if isinstance(event, ChildStarted) else IfEnded.LEAVE


def resolve_again(
    instance: OwnedInstance,
    write: Write,
    unknown: Mapping[ParentLink, ChildStarted | DetachedStarted],
    catalogue: Catalogue,
    node: str,
    now: int,
    shape: Callable[[str, str], str | None],
) -> Write:
    """Return the write with the starts of unknown names resolved once more."""
    starts = (
        child_start(instance, start.parent, event, catalogue, node, now, shape)
        if (event := unknown.get(start.parent)) is not None
        else start
        for start in write.extras.starts
    )
    return replace(write, extras=replace(write.extras, starts=tuple(starts)))


def child_cancel(instance: OwnedInstance, event: ChildStarted) -> ChildCancel:
    """Return what cancels a child that its parent has given up."""
    return ChildCancel(event.child_id, child_link(instance, event), _GIVEN_UP)


def _error(kind: type[Exception], message: str) -> Packed:
    return error_to_bytes(ErrorInfo(type_name(kind), message))
