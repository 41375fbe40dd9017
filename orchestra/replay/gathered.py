"""What the turn that runs has decided so far."""

from __future__ import annotations

from collections.abc import Container

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
from orchestra.replay.turns import LogEntry, SetAside, Turn
from orchestra.store.messages import MessageRow
from orchestra.store.outcomes import RefusedSend
from orchestra.store.requests import RequestAnswer

__all__ = ["Gathered"]


class Gathered:
    """What the turn that runs has decided so far; see :class:`~orchestra.replay.turns.Turn`.

    It is made in a turn and gone with it: a parked execution keeps none.
    """

    __slots__ = (
        "answers",
        "cancelled",
        "completed",
        "consumed",
        "custom_status",
        "fired",
        "labels",
        "logs",
        "patches",
        "published",
        "recalled",
        "received",
        "refused",
        "scheduled",
        "sent",
        "set_aside",
        "started",
        "stopping",
        "unreadable",
    )

    # Written out: each turn makes one, and factories of a dataclass would be a call for each field.
    def __init__(self) -> None:
        self.logs: list[LogEntry] = []
        self.custom_status: Payload | None = None
        self.labels: dict[str, str | None] | None = None
        self.scheduled: list[ActivityScheduled] = []
        self.cancelled: list[int] = []
        self.completed: list[int] = []
        self.consumed: list[int] = []
        self.fired: list[int] = []
        self.started: list[ChildStarted | DetachedStarted] = []
        self.recalled: list[ChildStarted] = []
        self.received: list[MessageRow] = []
        self.unreadable: dict[BaseException, MessageRow] = {}
        """The delivered messages that do not decode, by their errors."""
        self.stopping: list[int] = []
        self.set_aside: list[SetAside] = []
        self.patches: list[str] = []
        self.answers: list[RequestAnswer] = []
        self.published: list[tuple[str, Payload]] = []
        self.sent: list[EventSent | CancelSent] = []
        self.refused: list[RefusedSend] = []

    def turn(
        self, events: tuple[EventRecord, ...], ending: TerminalEvent | None, pending: Container[int]
    ) -> Turn:
        """Return the turn.

        Args:
            events: the new events.
            ending: the execution's end, if it has ended.
            pending: the event ids of the commands without a result.
        """
        ended = ending is not None
        scheduled, started = self.scheduled, self.started
        cancelled, recalled = self.cancelled, self.recalled
        if cancelled or recalled:  # what was asked for and given up in one turn was never begun
            new = {event.id for event in (*scheduled, *started)}
            cancelled = [number for number in cancelled if number not in new]
            recalled = [event for event in recalled if event.id not in new]
        if started:
            # What was asked for in the turn that ends the execution happens as well (scenario 12).
            started = [
                event
                for event in started
                if isinstance(event, DetachedStarted)
                or event.on_parent_close is OnParentClose.KEEP
                or event.id in pending
            ]
        return Turn(
            events=events,
            scheduled=()
            if ended or not scheduled
            else tuple([event for event in scheduled if event.id in pending]),
            cancelled=tuple(cancelled) if cancelled else (),
            completed=tuple(self.completed) if self.completed else (),
            consumed=tuple(self.consumed) if self.consumed else (),
            logs=tuple(self.logs) if self.logs else (),
            custom_status=self.custom_status,
            ending=ending,
            fired=tuple(self.fired) if self.fired else (),
            started=tuple(started) if started else (),
            recalled=tuple(recalled) if recalled else (),
            received=tuple(self.received) if self.received else (),
            stopping=()
            if ended or not self.stopping
            else tuple([number for number in self.stopping if number in pending]),
            set_aside=tuple(self.set_aside) if self.set_aside else (),
            patches=tuple(self.patches) if self.patches else (),
            labels=tuple(self.labels.items()) if self.labels else (),
            answers=tuple(self.answers) if self.answers else (),
            published=tuple(self.published) if self.published else (),
            sent=tuple(self.sent) if self.sent else (),
            refused=tuple(self.refused) if self.refused else (),
        )
