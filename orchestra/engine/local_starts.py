"""What this node's own clients start: it owns such instances from the start, and writes their first
turns with their starts (rule 15).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from orchestra.engine.claims import Claims
from orchestra.engine.in_flight import InFlightWrite
from orchestra.engine.ownership import Ownership
from orchestra.engine.placement import FreePlaces
from orchestra.frozen import replaced
from orchestra.store.changes import Start
from orchestra.store.hot_row import started_snapshot
from orchestra.store.routes import Kind
from orchestra.telemetry import Recorder

__all__ = ["LocalStarts"]

_QUICK: Final = 0.002
"""Seconds. A first turn of an orchestration that only schedules takes a tenth of it."""


class LocalStarts:
    """Takes instances before they are stored, while the node has free places and nothing waits for
    them.

    The group has the start and the first turn. If the start is refused, so is the turn, which names
    an incarnation that is not stored.

    The answer to the start then waits for the code. So it is done only for kinds whose last first
    turn here was quick.

    Args:
        share: how many instances the node may own while it takes more in this way. Above it, each
            start waits for a claim, of this node or another.
    """

    def __init__(
        self,
        node_id: str,
        claims: Claims,
        ownership: Ownership,
        recorder: Recorder,
        share: int,
    ) -> None:
        self.node_id = node_id
        self._claims = claims
        self._ownership = ownership
        self._recorder = recorder
        self._share = share
        self._quick: set[Kind] = set()

    def first_turn_took(self, kind: Kind, seconds: float) -> None:
        """Take in how long the first turn of an instance took."""
        if seconds <= _QUICK:
            self._quick.add(kind)
        else:
            self._quick.discard(kind)

    def take(self, added: Iterable[InFlightWrite], free: FreePlaces, now: int) -> int:
        """Take what can begin here of the changes that a group has got. Return how many."""
        taken = 0
        for sent in added:
            if self._claims.is_behind or free.instances <= 0 or len(self._ownership) >= self._share:
                break
            start = sent.change
            if isinstance(start, Start) and self._can_begin(start):
                sent.change = start = replaced(start, owner=self.node_id)
                snapshot = started_snapshot(start)
                self._recorder.claimed((snapshot,), now)
                self._ownership.adopt(snapshot, now)
                free.instances -= 1
                taken += 1
        return taken

    def _can_begin(self, start: Start) -> bool:
        return (
            start.kind in self._quick
            and start.wake_at == 0
            and start.not_before is None
            and not start.concerns_standing
            and not start.restored
            and start.kind in self._claims.kinds
            and self._ownership.has_nothing_of(start.instance_id)
        )
