"""Ticks the store's schedules. Any node does, and there is no leader: the fence of each schedule
lets one of them win (rule 35).

So that not all nodes write for the same slot, each schedule has an order of the living nodes. The
first one ticks at once. The others look again a moment later, and mostly find the slot taken.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final
from zlib import crc32

from orchestra.errors import StoreError
from orchestra.operations.scheduling import Circumstances, Unreadable, instant_of, tick, traced
from orchestra.resolution import is_living
from orchestra.store.catalogue import Catalogue
from orchestra.store.changes import ScheduleWrite
from orchestra.store.inbox_limits import InboxLimits
from orchestra.store.kinds import SCHEDULE_LEVEL, Library
from orchestra.store.outcomes import ScheduleWritten
from orchestra.store.port import Store
from orchestra.store.schedules import FAILED, DueSchedule, ScheduleRow
from orchestra.telemetry import Recorder, Root, engine_logger

__all__ = ["Schedules"]

_PAGE: Final = 256
_BETWEEN_LOOKS: Final = 100_000
"""Microseconds between two questions for the next tick: hints may come in great numbers."""
_STEP_BACK: Final = 200_000
"""Microseconds by which a node lets each node before it in a schedule's order go first."""
_MOST_BEFORE: Final = 8
_LEFT_ALONE: Final = 60_000_000
"""Microseconds after which a schedule is tried again that could not be ticked."""


class Schedules:
    """Knows when the next schedule is due, and makes the writes of those that are.

    It asks the store once a poll, after hints and after its own writes. Schedules that wait cost
    nothing.

    Args:
        queue: has a write committed with one of the next groups.
        limits: the bounds of the inboxes that events of schedules go to.
    """

    def __init__(
        self,
        store: Store,
        node_id: str,
        queue: Callable[[ScheduleWrite], object],
        recorder: Recorder,
        limits: InboxLimits,
        library: Library,
    ) -> None:
        self._store = store
        self.node_id = node_id
        self._queue = queue
        self._recorder = recorder
        self._limits = limits
        self._library = library
        self.stopped = False
        self._is_served = False
        """Whether the store is written at the level of schedules."""
        self._due: int | None = None
        self._is_known = False
        self._asked_at = 0
        self._under_way: set[str] = set()
        self._spans: dict[str, tuple[int, Root]] = {}
        """The spans of the ticks under way, by the revisions that these build on."""
        self._again: int | None = None
        """When to look again at what is due and left alone."""
        self._left_alone: dict[str, tuple[int, int]] = {}
        """The revisions of schedules that this node leaves alone, and until when: those that it
        cannot tick, and those that another node ticks first.
        """

    # --- when ---

    def serve(self, catalogue: Catalogue) -> None:
        """Take in the store's levels."""
        self._is_served = catalogue.levels.write >= SCHEDULE_LEVEL <= self._library.level

    def look(self) -> None:
        """Ask the store anew when the next schedule is due."""
        self._is_known = False

    def is_due(self, now: int) -> bool:
        """Return whether a schedule is due, as far as is known without asking the store."""
        return self._is_working and self._is_known and self._due is not None and self._due <= now

    def next_due(self, now: int) -> int | None:
        """Return when the next schedule is due, or when to ask for it. It may ask the store.

        Raises:
            StoreError: the store could not be asked.
        """
        if not self._is_working or self._under_way:
            return None
        if not self._is_known:
            again = self._asked_at + _BETWEEN_LOOKS
            if self._asked_at <= now < again and self._asked_at:
                return again if self._due is None or self._due <= now else min(self._due, again)
            self._due, self._is_known, self._asked_at = self._store.next_tick(), True, now
        return self._due

    @property
    def _is_working(self) -> bool:
        return self._is_served and not self.stopped

    # --- what ---

    def step(self, catalogue: Catalogue, now: int) -> None:
        """Read the schedules that are due, and queue their writes.

        Raises:
            StoreError: they could not be read.
        """
        if self._under_way or not self.is_due(now):
            return
        after: tuple[int, str] | None = None
        self._again = None
        while not self._under_way:
            page = self._store.due_schedules(now, _PAGE, after)
            for due in page:
                self._tick(due, catalogue, now)
            if len(page) < _PAGE:
                break
            after = (page[-1].row.next_at or 0, page[-1].row.schedule_id)
        if not self._under_way:  # what is due is left alone for now
            later = [self._again, self._store.next_tick(now)]
            self._due = min((moment for moment in later if moment is not None), default=None)
            self._left_alone = {
                key: left for key, left in self._left_alone.items() if left[1] > now
            }

    def _tick(self, due: DueSchedule, catalogue: Catalogue, now: int) -> None:
        row = due.row
        revision, until = self._left_alone.get(row.schedule_id, (0, 0))
        if revision != row.revision:
            before = self._nodes_before(row, catalogue, now)
            until = now + min(before, _MOST_BEFORE) * _STEP_BACK
            if before:
                self._left_alone[row.schedule_id] = (row.revision, until)
        if now < until:
            self._again = until if self._again is None else min(until, self._again)
            return
        try:
            write = tick(
                due,
                Circumstances(catalogue, now, self.node_id, self._limits, self._library),
            )
        except Unreadable as error:
            self._leave_alone(row.schedule_id, row.revision, now)
            engine_logger.warning(
                "schedule %r is left to nodes that can read it: %s", row.schedule_id, error
            )
            return
        self._under_way.add(row.schedule_id)
        root = self._recorder.ticking(row.schedule_id) if write.acts else None
        if root is not None:
            self._spans[row.schedule_id] = write.revision, root
            write = traced(write, root.traceparent)
        self._queue(write)

    def _nodes_before(self, row: ScheduleRow, catalogue: Catalogue, now: int) -> int:
        """Return how many living nodes come before this one in a schedule's order.

        Nodes whose catalogues differ may both be the first, and one that looks alive may be dead:
        this saves writes, and decides nothing.
        """

        def place(node_id: str) -> tuple[int, str]:
            return crc32(f"{row.schedule_id}/{node_id}".encode()), node_id

        own = place(self.node_id)
        return sum(
            place(node.record.node_id) < own
            for node in catalogue.nodes
            if node.record.reads >= row.level and is_living(node, now)
        )

    # --- answers ---

    def written(self, write: ScheduleWrite, outcome: ScheduleWritten) -> None:
        """Take in that a write was granted: one of this node's own, or of a client's."""
        if outcome.slots:
            self._recorder.slots(outcome.slots)
        revision, root = self._spans.get(write.schedule_id, (0, None))
        if root is not None and revision == write.revision:
            self._recorder.ticked(root, outcome.slots)
        for slot in outcome.slots:
            level = logging.WARNING if slot.outcome == FAILED else logging.INFO
            shown = f": {slot.reason}" if slot.reason else ""
            engine_logger.log(
                level,
                "schedule %r, slot %s: %s%s",
                write.schedule_id,
                instant_of(slot.slot).isoformat(),
                slot.outcome,
                shown,
            )
        self.answered(write)

    def answered(self, write: ScheduleWrite) -> None:
        """Take in that the outcome of a write is known, or never will be: the revision of the
        schedule tells. The next one is asked for.
        """
        self._under_way.discard(write.schedule_id)
        self._spans.pop(write.schedule_id, None)
        self._is_known, self._asked_at = False, 0

    def refused(self, write: ScheduleWrite, error: StoreError, now: int) -> None:
        """Take in that the store will never take a write."""
        self.answered(write)
        self._leave_alone(write.schedule_id, write.revision, now)
        engine_logger.error("schedule %r could not tick: %s", write.schedule_id, error)

    def clear(self) -> None:
        """Forget what is under way: this node has lost its memory."""
        self._under_way.clear()
        self._spans.clear()
        self.look()

    def _leave_alone(self, schedule_id: str, revision: int, now: int) -> None:
        self._left_alone[schedule_id] = (revision, now + _LEFT_ALONE)
