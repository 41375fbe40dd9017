"""What the witness knows of an instance."""

from __future__ import annotations

from dataclasses import dataclass, field

from orchestra.events import CommandEvent, EventRecord, OnParentClose
from orchestra.store.instances import ParentLink
from orchestra.store.kinds import MessageKind, Status
from orchestra.store.messages import MessageRow

__all__ = ["WatchedInstance"]


@dataclass(slots=True)
class WatchedInstance:
    """What the witness knows of one incarnation of an instance."""

    instance_id: str
    incarnation: str
    name: str
    revision: int = 1
    owner: str | None = None
    status: Status = Status.OPEN
    inbox_seq: int = 0
    inbox: dict[int, MessageRow] = field(default_factory=dict[int, MessageRow])
    known: dict[str, tuple[int, int | None]] = field(
        default_factory=dict[str, tuple[int, int | None]]
    )
    """Of each message id its number, and since when it has been read."""
    delivered_in: dict[int, list[MessageRow]] = field(default_factory=dict[int, list[MessageRow]])
    """What each execution has read, of all lives."""
    delivered_before: dict[int, list[MessageRow]] = field(
        default_factory=dict[int, list[MessageRow]]
    )
    """What the state of each execution follows from."""
    led_by: dict[int, frozenset[int]] = field(default_factory=dict[int, frozenset[int]])
    """The executions that led to the state of each."""
    reports: dict[int, MessageRow] = field(default_factory=dict[int, MessageRow])
    """Ends of children that have come and are not told yet."""
    ends: dict[int, MessageRow] = field(default_factory=dict[int, MessageRow])
    """Ends of background children that have come, and that no code has awaited yet."""
    ends_in: dict[int, dict[int, MessageRow]] = field(
        default_factory=dict[int, dict[int, MessageRow]]
    )
    """Those that each execution has received, of all lives."""
    parent: ParentLink | None = None
    root: str | None = None
    on_parent_close: OnParentClose = OnParentClose.ABANDON
    cancelled: bool = False
    was_cancelled: bool = False
    """Whether it was cancelled, though a rewind may have taken the mark away."""
    doomed: bool = False
    """Whether its next owner must end it without running code."""
    doomed_by: int = 0
    """The number of the mark that says so."""
    held: bool = False
    paused: bool = False
    """Whether an operator holds it."""
    nudged: set[int] = field(default_factory=set[int])
    """The executions that were asked to reach their boundaries."""
    heard: set[int] = field(default_factory=set[int])
    """Those of them whose code has heard it."""
    lives: dict[str, int] = field(default_factory=dict[str, int])
    """The former lives, by incarnation, and the first execution of each."""
    began: int = 1
    """The first execution of this life."""
    rewinds: dict[int, int] = field(default_factory=dict[int, int])
    """Of each execution that a rewind has begun the one whose state it has."""
    number: int = 1
    """Of the execution that is the current one."""
    ended_at: int = 0
    execution: int = 1
    """Of the execution up to which history was checked: the current one, but in the middle of a
    check.
    """
    closed_at: dict[int, int] = field(default_factory=dict[int, int])
    rows_gone: int = 0
    histories_gone: int = 0
    """The last executions whose row, and whose events, retention has let go of."""
    records: list[EventRecord] = field(default_factory=list[EventRecord])
    """The checked history of the current execution."""
    commands: dict[int, CommandEvent] = field(default_factory=dict[int, CommandEvent])
    told: bool = False
    ended: bool = False

    @property
    def delivered(self) -> list[MessageRow]:
        """What the present execution follows from."""
        before = self.delivered_before.get(self.number, [])
        return [*before, *self.delivered_in.get(self.number, [])]

    def goes_on(self, number: int, former: int) -> None:
        """A new execution goes on behind a former one."""
        self.delivered_before[number] = [
            *self.delivered_before.get(former, []),
            *self.delivered_in.get(former, []),
        ]
        self.led_by[number] = self.led_by.get(former, frozenset()) | {former}

    def begins_again(self, number: int, former: int) -> None:
        """A new execution has the state of a former one."""
        self.rewinds[number] = former
        self.delivered_before[number] = [*self.delivered_before.get(former, [])]
        self.led_by[number] = self.led_by.get(former, frozenset())

    def next_life(self, incarnation: str, name: str) -> WatchedInstance:
        """Return the life that begins where this one has ended."""
        return WatchedInstance(
            self.instance_id,
            incarnation,
            name,
            revision=self.revision + 1,
            inbox_seq=self.inbox_seq,
            known=self.known,
            delivered_in=self.delivered_in,
            delivered_before=self.delivered_before,
            led_by=self.led_by,
            ends_in=self.ends_in,
            lives={**self.lives, self.incarnation: self.began},
            began=self.number + 1,
            rewinds=self.rewinds,
            number=self.number + 1,
            execution=self.number + 1,
            closed_at=self.closed_at,
            rows_gone=self.rows_gone,
            histories_gone=self.histories_gone,
        )

    def restored(self, former: int) -> dict[int, MessageRow]:
        """Return what a rewind to an execution puts back: what was read since its boundary, or on
        the way that it leaves, and not by its state; is not unread already; and stands in a history
        that is kept.
        """
        left = self.led_by.get(self.number - 1, frozenset()) - self.led_by.get(former, frozenset())
        read = {message.sequence for message in self.delivered_before.get(former, [])}
        since = [
            message
            for number, messages in self.delivered_in.items()
            if number > self.histories_gone and (number >= former or number in left)
            for message in messages
        ]
        back = {
            message.sequence: message
            for message in since
            if message.sequence not in self.inbox and message.sequence not in read
        }
        led = self.led_by.get(former, frozenset())
        for number, ends in self.ends_in.items():
            if number > self.histories_gone and (number >= former or number in left):
                for sequence, message in ends.items():
                    # Its state has a handle only if an execution that led to it has made that.
                    made_in = int(message.message_id.split("/")[-2])
                    if sequence in self.ends or sequence in self._ends_read(former):
                        continue
                    if made_in in led or made_in <= self.rows_gone:
                        back[sequence] = message
        return back

    def _ends_read(self, former: int) -> set[int]:
        """Return the numbers of the ends that the state of an execution has received."""
        led = self.led_by.get(former, frozenset())
        return {sequence for number in led for sequence in self.ends_in.get(number, ())}

    def read_again(self, former: int) -> set[int]:
        """Return the unread messages that the state of an execution has read already."""
        read = {message.sequence for message in self.delivered_before.get(former, [])}
        again = {
            sequence
            for sequence, message in self.inbox.items()
            if sequence in read and message.kind is MessageKind.EVENT
        }
        return again | (self._ends_read(former) & self.ends.keys())
