"""The unread messages of a turn: which of them is awaited, and came first."""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Iterable

from orchestra.providers.rows import MessageKind, MessageRow

__all__ = ["Mail", "Waits"]


class Waits:
    """The waits for events: by name, in the order in which the code asked."""

    __slots__ = ("_by_name", "opened")

    def __init__(self) -> None:
        self._by_name: dict[str, OrderedDict[int, None]] = {}
        self.opened: list[str] = []
        """The names of which a first wait was opened since this was last emptied."""

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def open(self, name: str, number: int) -> None:
        """Add a wait under its event id."""
        waits = self._by_name.get(name)
        if waits is None:
            waits = self._by_name[name] = OrderedDict()
            self.opened.append(name)
        waits[number] = None

    def close(self, name: str, number: int) -> None:
        """Remove a wait, which has its event or was given up."""
        waits = self._by_name[name]
        del waits[number]
        if not waits:
            del self._by_name[name]

    def first(self, name: str) -> int:
        """Return the wait that takes the next event of this name."""
        return next(iter(self._by_name[name]))


class Mail:
    """Finds the message that is delivered next. The cost is that of the messages, whatever else is awaited."""

    __slots__ = ("_awaited", "_by_name", "_waits", "reports")

    def __init__(self, inbox: Iterable[MessageRow], waits: Waits) -> None:
        self._waits = waits
        self._by_name: dict[str, deque[MessageRow]] = {}
        self.reports: deque[MessageRow] = deque()
        """The ends of children, in the order of arrival."""
        for message in inbox:
            if message.kind is MessageKind.EVENT:
                self._by_name.setdefault(message.name, deque()).append(message)
            else:
                self.reports.append(message)
        waits.opened.clear()
        self._awaited = [(messages[0].sequence, name) for name, messages in self._by_name.items() if name in waits]
        """The first message of each name that is awaited; a name whose wait has gone meanwhile may stand there as well."""
        heapq.heapify(self._awaited)

    def __bool__(self) -> bool:
        return bool(self._by_name or self.reports)

    def first(self) -> MessageRow | None:
        """Return the event or the child's end that came first, of those that are waited for."""
        opened = self._waits.opened
        if opened:
            for name in opened:
                if name in self._by_name:
                    heapq.heappush(self._awaited, (self._by_name[name][0].sequence, name))
            opened.clear()
        event: MessageRow | None = None
        while self._awaited and event is None:
            sequence, name = self._awaited[0]
            messages = self._by_name.get(name)
            if messages and messages[0].sequence == sequence and name in self._waits:
                event = messages[0]
            else:  # it was taken, or the wait was given up
                heapq.heappop(self._awaited)
        report = self.reports[0] if self.reports else None
        if event is None or (report is not None and report.sequence < event.sequence):
            return report
        return event

    def take(self, message: MessageRow) -> None:
        """Remove what :meth:`first` has returned."""
        if message.kind is not MessageKind.EVENT:
            self.reports.popleft()
            return
        heapq.heappop(self._awaited)
        messages = self._by_name[message.name]
        messages.popleft()
        if not messages:
            del self._by_name[message.name]
        elif message.name in self._waits:
            heapq.heappush(self._awaited, (messages[0].sequence, message.name))
