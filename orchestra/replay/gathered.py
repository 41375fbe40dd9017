"""What the turn that runs has decided so far."""

from __future__ import annotations

from collections.abc import Container, Iterable

from orchestra.codec import Payload
from orchestra.events import (
    ActivityScheduled,
    CancelSent,
    ChildStarted,
    DetachedStarted,
    EventRecord,
    EventSent,
    OnParentClose,
    TerminalEvent,
)
from orchestra.replay.turns import NO_EXTRAS, LogEntry, SetAside, Turn, TurnExtras
from orchestra.store.messages import MessageRow
from orchestra.store.outcomes import RefusedSend
from orchestra.store.requests import RequestAnswer

__all__ = ["Gathered", "GatheredExtras"]


class Gathered:
    """What the turn that runs has decided so far; see :class:`~orchestra.replay.turns.Turn`.

    It is made in a turn and gone with it: a parked execution keeps none.
    """

    __slots__ = ("_extras", "completed", "consumed", "fired", "received", "scheduled")

    # Written out: each turn makes one, and factories of a dataclass would be a call for each field.
    def __init__(self) -> None:
        self.scheduled: list[ActivityScheduled] = []
        self.completed: list[int] = []
        self.consumed: list[int] = []
        self.fired: list[int] = []
        self.received: list[MessageRow] = []
        self._extras: GatheredExtras | None = None

    @property
    def extras(self) -> GatheredExtras:
        """What few turns decide; made when it is asked for."""
        if self._extras is None:
            self._extras = GatheredExtras()
        return self._extras

    def turn(
        self, events: tuple[EventRecord, ...], ending: TerminalEvent | None, pending: Container[int]
    ) -> Turn:
        """Return the turn.

        Args:
            events: the new events.
            ending: the execution's end, if it has ended.
            pending: the event ids of the commands without a result.
        """
        ended, scheduled, extras = ending is not None, self.scheduled, self._extras
        return Turn(
            events,
            ending,
            ()
            if ended or not scheduled
            else tuple([event for event in scheduled if event.id in pending]),
            tuple(self.completed) if self.completed else (),
            tuple(self.consumed) if self.consumed else (),
            tuple(self.fired) if self.fired else (),
            tuple(self.received) if self.received else (),
            NO_EXTRAS if extras is None else extras.of_turn(scheduled, pending, has_ended=ended),
        )


class GatheredExtras:
    """What few turns decide; see :class:`~orchestra.replay.turns.TurnExtras`."""

    def __init__(self) -> None:
        self.cancelled: list[int] = []
        self.stopping: list[int] = []
        self.started: list[ChildStarted | DetachedStarted] = []
        self.recalled: list[ChildStarted] = []
        self.logs: list[LogEntry] = []
        self.custom_status: Payload | None = None
        self.unreadable: dict[BaseException, MessageRow] = {}
        """The delivered messages that do not decode, by their errors."""
        self.set_aside: list[SetAside] = []
        self.patches: list[str] = []
        self.labels: dict[str, str | None] = {}
        self.answers: list[RequestAnswer] = []
        self.published: list[tuple[str, Payload]] = []
        self.sent: list[EventSent | CancelSent] = []
        self.refused: list[RefusedSend] = []

    def of_turn(
        self, scheduled: Iterable[ActivityScheduled], pending: Container[int], *, has_ended: bool
    ) -> TurnExtras:
        """Return what goes into the turn."""
        # What was asked for and given up in one turn was never begun.
        new = {event.id for event in (*scheduled, *self.started)}
        return TurnExtras(
            cancelled=tuple([number for number in self.cancelled if number not in new]),
            stopping=()
            if has_ended
            else tuple([number for number in self.stopping if number in pending]),
            # What was asked for in the turn that ends the execution happens as well (scenario 12).
            started=tuple(
                [
                    event
                    for event in self.started
                    if isinstance(event, DetachedStarted)
                    or event.on_parent_close is OnParentClose.KEEP
                    or event.id in pending
                ]
            ),
            recalled=tuple([event for event in self.recalled if event.id not in new]),
            logs=tuple(self.logs),
            custom_status=self.custom_status,
            set_aside=tuple(self.set_aside),
            patches=tuple(self.patches),
            labels=tuple(self.labels.items()),
            answers=tuple(self.answers),
            published=tuple(self.published),
            sent=tuple(self.sent),
            refused=tuple(self.refused),
        )
