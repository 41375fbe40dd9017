"""Which unread message a turn delivers next: the awaited one that came first."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Final

from orchestra.replay.inbox import Inbox
from orchestra.store.messages import EndName, MessageRow, QueueName

__all__ = ["Mail", "Waits"]

_NONE: Final[Mapping[int, QueueName]] = MappingProxyType({})


class Waits:
    """The waits for events and requests of each name, in the order in which the code asked."""

    __slots__ = ("by_name", "opened")

    def __init__(self) -> None:
        self.by_name: dict[QueueName, OrderedDict[int, None]] = {}
        """The event ids of the waits of each name that is awaited."""
        self.opened: dict[QueueName, None] = {}
        """The names that code has begun to await since this was last emptied."""

    @property
    def names(self) -> Collection[QueueName]:
        """The names that are awaited."""
        return self.by_name.keys()

    def __contains__(self, name: QueueName) -> bool:
        return name in self.by_name

    def open(self, name: QueueName, number: int) -> None:
        """Add a wait under its event id."""
        waits = self.by_name.get(name)
        if waits is None:
            waits = self.by_name[name] = OrderedDict()
            self.opened[name] = None
        waits[number] = None

    def close(self, name: QueueName, number: int) -> None:
        """Remove a wait, which has its event or was given up."""
        waits = self.by_name[name]
        del waits[number]
        if not waits:
            del self.by_name[name]

    def first(self, name: QueueName) -> int:
        """Return the wait that takes the next event of this name."""
        return next(iter(self.by_name[name]))


class Mail:
    """Finds the message to deliver next. The cost grows with the messages in memory, and not with
    the waits.
    """

    __slots__ = ("_awaited", "_inbox", "_received", "_waits", "open")

    def __init__(
        self, inbox: Inbox, waits: Waits, received: Mapping[int, QueueName] = _NONE
    ) -> None:
        self._inbox = inbox
        self._waits = waits
        self._received = received
        """Requests that the code has received. They stay in the inbox until they are answered."""
        self._awaited: list[tuple[int, QueueName]] = []
        """A heap of the first message of each awaited name. A name whose wait has gone may be among
        them.
        """
        self.open: dict[QueueName, None] = {}
        """Awaited names of which the store may have messages that are not in memory."""
        waits.opened.clear()
        awaited = waits.by_name
        if not awaited:
            return  # most turns are woken by an activity or a timer
        if inbox.is_whole and len(inbox.names) < len(awaited):
            for name in (*inbox.names, *inbox.ends) if inbox.ends else tuple(inbox.names):
                if name in waits:
                    self._look(name)
        else:
            for name in awaited:
                self._look(name)

    def __bool__(self) -> bool:
        return bool(self._awaited or self._inbox.reports or self._waits.opened)

    @property
    def report(self) -> MessageRow | None:
        """The next end of a child, whether it is awaited or not."""
        return self._inbox.report

    def has(self, name: EndName) -> bool:
        """Return whether the end of a background child waits in the inbox."""
        return self._inbox.head(name) is not None

    def to_read(self) -> tuple[QueueName, ...]:
        """Return the awaited names that must be read from the store before the next message is
        delivered.
        """
        if self._waits.opened:
            self._look_at_opened()
        return tuple(name for name in self.open if name in self._waits) if self.open else ()

    def first(self) -> MessageRow | None:
        """Return the awaited event or request, or the child's end, that came first."""
        if self._waits.opened:
            self._look_at_opened()
        event: MessageRow | None = None
        while self._awaited and event is None:
            sequence, name = self._awaited[0]
            message = self._inbox.head(name)
            if message is not None and message.sequence == sequence and name in self._waits:
                event = message
            else:  # it was taken, or the wait was given up
                heapq.heappop(self._awaited)
        report = self._inbox.report
        if event is None or (report is not None and report.sequence < event.sequence):
            return report
        return event

    def take(self, message: MessageRow) -> None:
        """Remove what :meth:`first` has returned, or the next end of a child."""
        queue = message.queue
        if queue is None:
            self._inbox.take_report()
            return
        heapq.heappop(self._awaited)
        self._inbox.take(queue)
        self._waits.opened[queue] = None  # there may be another of that name

    def _look_at_opened(self) -> None:
        for name in self._waits.opened:
            if name in self._waits:
                self._look(name)
        self._waits.opened.clear()

    def _look(self, name: QueueName) -> None:
        message = self._inbox.head(name)
        while message is not None and message.sequence in self._received:
            self._inbox.take(name)
            message = self._inbox.head(name)
        if message is not None:
            heapq.heappush(self._awaited, (message.sequence, name))
        elif self._inbox.is_open(name):
            self.open[name] = None
