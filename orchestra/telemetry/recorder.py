"""The interface for spans and metrics. This recorder records nothing; it runs without an SDK."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final, NamedTuple, Protocol

from orchestra.store.changes import Change
from orchestra.store.schedules import SlotRow
from orchestra.store.snapshots import Snapshot
from orchestra.store.streams import Published
from orchestra.telemetry.records import Record, Root, Subject

__all__ = ["Attempt", "Moment", "Recorder"]

_NO_SPAN: Final = nullcontext[None](None)


class Moment(NamedTuple):
    """An instant on both clocks: nanoseconds UTC for the beginning of a span, monotonic seconds for
    durations.
    """

    wall: int
    monotonic: float


class Attempt(Protocol):
    """A running attempt of an activity."""

    def end(self, outcome: str, error: BaseException | None = None) -> None:
        """Record its end. Call it once, in the task that began it."""
        ...


class Recorder:
    """Records nothing. Facts for records are gathered only if ``recording`` is true.

    No method raises, and none waits.
    """

    recording: bool = False

    def moment(self) -> Moment | None:
        """Return the present instant, or ``None`` if nothing is recorded."""
        return None

    # --- the engine ---

    def open_execution(
        self,
        subject: Subject,
        begun: Moment,
        previous: str | None,
        origin: str | None,
        *,
        continues: bool = False,
    ) -> Root | None:
        """Begin an execution's trace, linked to the execution before and to the instance's start.
        If it ``continues`` the trace of its start, it is a part of that trace instead.
        """
        return None

    def stands(self, records: Sequence[Record], now: int) -> None:
        """Record a step whose write was granted; ``now`` is the store's time."""

    def claimed(self, snapshots: Sequence[Snapshot], now: int) -> None:
        """Record claimed instances, and since when they had been ready; ``now`` is the store's
        time.
        """

    def looked_up(self, name: str, version: str, *, warm: bool) -> None:
        """Record whether a claimed execution was in memory, or must be replayed."""

    def held(self, numbers: Mapping[tuple[str, str], int]) -> None:
        """Record how many instances of this node's orchestrations are held, by name and reason; no
        zeros.
        """

    def overdue(self, numbers: Mapping[str, int]) -> None:
        """Record how many instances of each name have a boundary that is overdue; no zeros."""

    def ticking(self, schedule_id: str) -> Root | None:
        """Begin the span of a schedule's tick. It is written once :meth:`ticked` says that the
        tick's write was granted.
        """
        return None

    def ticked(self, root: Root, slots: Sequence[SlotRow]) -> None:
        """Record the span of a tick whose write was granted, with what became of its slots."""

    def slots(self, slots: Sequence[SlotRow]) -> None:
        """Record what became of slots of a schedule."""

    # --- the cycle ---

    def committed(self, changes: Sequence[Change], begun: Moment | None) -> None:
        """Record a commit."""

    def published(self, items: Sequence[Published]) -> None:
        """Record items that were published to streams."""

    def publication_refused(self, items: int) -> None:
        """Record items of an attempt that was no longer current."""

    def store_failed(self) -> None:
        """Record that the store could not be used."""

    def taken_over(self, instances: int) -> None:
        """Record how many instances were taken over from dead nodes."""

    def owned(self, instances: int) -> None:
        """Record how many instances the node works on now."""

    # --- activities ---

    def begin_attempt(
        self,
        subject: Subject,
        activity: str,
        number: int,
        traceparent: str | None,
        session: str | None = None,
    ) -> Attempt | None:
        """Begin an attempt of an activity, and make its span the current one of this task.

        ``session``: the node of its session, if it is in one.
        """
        return None

    # --- clients ---

    def starting(
        self, name: str, version: str, instance_id: str
    ) -> AbstractContextManager[str | None]:
        """Record the start of an instance while the context is open; it yields the ``traceparent``
        to send.
        """
        return _NO_SPAN

    def sending(self, event: str, instance_id: str) -> AbstractContextManager[str | None]:
        """Record the sending of an event while the context is open; it yields the ``traceparent``
        to send.
        """
        return _NO_SPAN

    def requested(self, name: str) -> None:
        """Record that the store has accepted a request."""

    def running_schedule(self, schedule_id: str) -> AbstractContextManager[str | None]:
        """Record a run by hand of a schedule while the context is open; it yields the
        ``traceparent`` for what is started or sent.
        """
        return _NO_SPAN

    def terminated(self, name: str, version: str) -> None:
        """Record that an instance was terminated."""

    def held_by_operator(self, name: str, version: str) -> None:
        """Record that an operator has held an instance."""

    def released(self, name: str, version: str, reason: str) -> None:
        """Record that a hold was ended: by an operator, or as new code tries the instance."""
