"""What an act would do to one instance: for dry runs of single acts."""

from __future__ import annotations

from dataclasses import dataclass

from orchestra.client.info import InstanceInfo, InstanceStatus
from orchestra.operations.bulk import Bulk

__all__ = ["PlannedAct", "planned_act"]


@dataclass(frozen=True, slots=True)
class PlannedAct:
    """What an act would do to an instance as it stands now; the act itself decides again.

    Attributes:
        would_change: whether it would change anything.
        detail: what it would do, or why it would not.
    """

    act: Bulk
    instance_id: str
    would_change: bool
    detail: str
    dry_run: bool = True


def planned_act(act: Bulk, info: InstanceInfo, version: str | None = None) -> PlannedAct:
    """Return what an act would do to an instance.

    Args:
        version: that of a pin.
    """
    reason = _in_the_way(act, info, version)
    stands = f"it is {info.status.value}, in lap {info.execution_id:,} on {info.version}"
    return PlannedAct(act, info.instance_id, reason is None, reason or stands)


def _in_the_way(act: Bulk, info: InstanceInfo, version: str | None) -> str | None:
    """Return why an act would change nothing."""
    if act in {Bulk.REWIND, Bulk.RERUN}:
        return None
    if act is Bulk.DELETE:
        return None if info.status.is_final else "it has not ended; terminate it first"
    if info.status.is_final:
        return f"it has ended: {info.status.value}"
    hold = info.hold
    match act:
        case Bulk.CANCEL if info.cancel_requested:
            return "a cancel was requested before"
        case Bulk.HOLD if hold is not None and hold.kind == "operator":
            return f"{hold.by} holds it already"
        case Bulk.RELEASE if info.status is not InstanceStatus.HELD:
            return "nothing holds it"
        case Bulk.PIN if info.pinned_version == version:
            return f"it is pinned to {version} already"
        case Bulk.UNPIN if info.pin is None:
            return "it has no pin"
        case Bulk.NUDGE if info.boundary_requested is not None:
            return "it was asked before"
        case _:
            return None
