"""Boundaries that are due: when they are, and what happens then."""

from __future__ import annotations

from typing import Final

from orchestra.boundaries import BoundaryDue
from orchestra.clock import from_micros, micros
from orchestra.codec import UserText
from orchestra.engine.owned import OwnedInstance
from orchestra.store.catalogue import Catalogue
from orchestra.store.instances import CancelMark, Nudge, OperatorHold
from orchestra.store.kinds import NUDGE_LEVEL

__all__ = ["BOUNDARY_DUE", "acts_at", "due_act", "due_at", "due_hold"]

BOUNDARY_DUE: Final = "boundary due"
"""The author of what a boundary does that is due."""


def due_at(boundary: BoundaryDue | None, now: int, catalogue: Catalogue) -> int | None:
    """Return when the boundary of an execution is due that opens now; ``None``: never.

    While a node with an older library lives, it never is: that node would not clear it.
    """
    if boundary is None or catalogue.levels.write < NUDGE_LEVEL:
        return None
    return now + micros(boundary.after)


def acts_at(instance: OwnedInstance, boundary: BoundaryDue | None) -> int | None:
    """Return when something happens to an open execution because its boundary is due; ``None``:
    nothing does, or it has happened.
    """
    due = instance.boundary_due
    if due is None or boundary is None or instance.execution is None:
        return None
    match boundary.then:
        case "report":
            return None
        case "nudge":
            asked = instance.execution.commands.boundary_request is not None
            return None if asked else due
        case "cancel":
            return None if instance.cancel is not None else due
        case "hold":
            held = instance.operator_hold
            # An operator who has released it since then knows that it is due.
            return None if held is not None and held.since >= due else due


def due_act(
    instance: OwnedInstance, boundary: BoundaryDue | None, now: int
) -> Nudge | CancelMark | None:
    """Return what the code hears with its next turn because its boundary is due, and have the
    instance know it.
    """
    due = acts_at(instance, boundary)
    if due is None or due > now or boundary is None:
        return None
    reason = UserText(_reason(due))
    if boundary.then == "nudge":
        if instance.request is not None:
            return None  # an operator has asked before
        instance.nudge = Nudge(instance.current.number, now, BOUNDARY_DUE, reason)
        return instance.nudge
    if boundary.then == "cancel":
        instance.cancel = CancelMark(now, reason, BOUNDARY_DUE)
        return instance.cancel
    return None


def due_hold(
    instance: OwnedInstance, boundary: BoundaryDue | None, now: int
) -> OperatorHold | None:
    """Return the hold of an execution that has made its turn and not reached its boundary, although
    that is due.
    """
    due = acts_at(instance, boundary)
    if due is None or due > now or boundary is None or boundary.then != "hold":
        return None
    return OperatorHold(now, BOUNDARY_DUE, UserText(_reason(due)))


def _reason(due: int) -> str:
    return f"its boundary was due at {from_micros(due):%Y-%m-%d %H:%M:%S} UTC"
