"""Whether a nudge reaches the execution that it means (protocol rules 6 and 40)."""

from __future__ import annotations

from enum import Enum

from orchestra.store.hot_row import HotRow
from orchestra.store.instances import Nudge

__all__ = ["Nudged", "decide_nudge"]


class Nudged(Enum):
    """The outcome of a nudge."""

    ASKED = "asked"
    """It is stored, and the instance is ready."""
    STANDING = "standing"
    """The execution has been asked before. Nothing changes."""
    PASSED = "passed"
    """The execution has ended, so the nudge is dropped."""
    CLOSED = "closed"
    """There is no such instance, or it has ended."""


def decide_nudge(
    row: HotRow | None, standing: Nudge | None, incarnation: str, execution: int, now: int
) -> Nudged:
    """Decide a nudge. Where it is granted, take the instance from its owner and make it ready.

    Args:
        row: the instance's hot row, under its lock; ``None``: there is none.
        standing: the last nudge of the instance.
        incarnation, execution: what the nudge means.
        now: the store's time.
    """
    if row is None or not row.is_open:
        return Nudged.CLOSED
    if (row.incarnation, row.execution) != (incarnation, execution):
        return Nudged.PASSED  # rule 40
    if standing is not None and standing.execution == execution:
        return Nudged.STANDING
    row.nudge(now)
    return Nudged.ASKED
