"""The store's time, as a node knows it between replies (protocol rule 25).

The store's time is its clock's: the server's on PostgreSQL, the machine's on SQLite. It follows a
clock that is put right, forward and back. What was reckoned on the wrong clock is put right with
it:

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
  reckons their wake time anew. How far an execution is ahead stands in its row's summary. A node
  that finds it without having seen the jump takes the least that it can be: such a timer may be
  late by the time that had passed of it already, and is never early.
- Leases and timeouts are measured on monotonic clocks alone; the wall clock does not touch them.
"""

from __future__ import annotations

from typing import Final

from orchestra.clock import Clock

__all__ = ["PUT_BACK", "StoreTime"]

PUT_BACK: Final = 1_000_000
"""From how many microseconds on a clock that went back was put back, and what was reckoned on it is
put right.
"""


class StoreTime:
    """The last time that the store has told, and the monotonic time since it arrived. In
    microseconds.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told: int = 0
        self._heard_at: float = 0.0
        self.since: int = 0
        """From when on the clock goes as it does: it was put forward then, or this node began."""

    @property
    def now(self) -> int:
        """A lower bound of the store's time, so that no timer is early (I7)."""
        return self._told + int((self._clock.monotonic() - self._heard_at) * 1e6)

    def hear(self, told: int, asked: int | None = None) -> int:
        """Take note of a time that the store has told. Return by how much its clock was put back.

        Args:
            asked: what :attr:`now` was before the store was asked. What it tells is from later: if
                it is less, its clock has gone back. Without it, the lower bound never goes back.
        """
        back, now = 0 if asked is None else max(0, asked - told), self.now
        if back or told > now:
            if told > now + PUT_BACK:
                self.since = told
            self._told = told
            self._heard_at = self._clock.monotonic()
        return back
