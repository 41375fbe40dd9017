"""The store's time, as a node knows it between replies (protocol rule 25).

The store's time is that of its clock: the server's on PostgreSQL, the machine's on SQLite. It
follows a clock that is corrected, forward or back. Times that came from the wrong clock are
corrected with it:

- A node learns the time with each reply of the store, so within a poll. Between replies it adds its
  own monotonic time. A reply from before the time that the node knew already says that the clock
  was put back, and by how much.
- Within an execution time goes on: ``ctx.now()`` and the times of events never go back. An
  execution that was under way when the clock was put back is *ahead* from then on: its time is the
  store's and the difference. The next lap begins at the store's time.
- A timer of a duration fires after that duration, whatever the clock does meanwhile; where the
  clock is put forward (or the machine was suspended) it fires when the store's time has passed its
  due time. A timer until an instant fires at that instant by the corrected clock.
- Instances that were parked while the clock was ahead are made ready once, so that their next node
  computes their wake time anew. How far an execution is ahead stands in its row's summary. A node
  that finds it without having seen the jump takes the least that it can be: such a timer may be
  late by the time that had passed of it already, and is never early.
- Leases and timeouts are measured on monotonic clocks alone; the wall clock does not touch them.
"""

from __future__ import annotations

from typing import Final

from orchestra.clock import Clock
from orchestra.store.port import Store

__all__ = ["PUT_BACK", "StoreTime"]

PUT_BACK: Final = 1_000_000
"""A clock that goes back by as many microseconds was put back, and times are corrected."""

_WORTH_ROUSING: Final = 10_000_000
"""A clock that was put back by as much has parked instances that would wake too late by it. The
node rouses them.
"""


class StoreTime:
    """The last time that the store has told, and the monotonic time since then. In microseconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told: int = 0
        self._heard_at: float = 0.0
        self._since: int = 0
        """Since when the clock goes as it does: it was put forward then, or this node began."""
        self.parked_ahead: tuple[int, int] | None = 0, 0  # what earlier nodes have parked
        """Since when, and until when, instances were parked on a wrong clock and must be roused."""
        self.parked: dict[str, None] = {}
        """Instances whose wake time is from before the clock was put back, and was committed
        after.
        """

    @property
    def now(self) -> int:
        """A lower bound of the store's time, so that no timer is early (I7)."""
        return self._told + int((self._clock.monotonic() - self._heard_at) * 1e6)

    def hear(self, told: int, asked: int | None = None) -> tuple[int, int]:
        """Take in a time that the store has told. Return by how much its clock was put back, and
        since when it was wrong.

        Args:
            told: the store's time.
            asked: what :attr:`now` was before the store was asked. What it tells is from later: if
                it is less, its clock has gone back. Without it, the lower bound never goes back.
        """
        back, now = 0 if asked is None else max(0, asked - told), self.now
        if back or told > now:
            if told > now + PUT_BACK:
                self._since = told
            self._told = told
            self._heard_at = self._clock.monotonic()
        if back < PUT_BACK:
            return 0, 0
        # Times that lie in the future came from the wrong clock in any case.
        since, self._since = min(self._since, told), told
        self.parked_ahead = since if back >= _WORTH_ROUSING else told, told
        return back, since

    def rouse(self, store: Store) -> bool:
        """Rouse a batch of the instances that were parked on a wrong clock. Return whether there
        were any.

        Raises:
            StoreError: it cannot be done now, and is tried again.
        """
        if self.parked_ahead is None:
            return False
        parked = list(self.parked)
        has_roused = store.rouse(*self.parked_ahead, parked)
        if not has_roused:
            self.parked_ahead = None
        for instance_id in parked:
            self.parked.pop(instance_id, None)
        return bool(has_roused)
