"""The part of an instance's inbox that a node has in memory, and where more lies in the store.

An inbox may hold more than fits into memory. So a node keeps a few messages of each name, in their
order, and knows up to where it has read each name. It reads the rest by name, once code waits for
it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from orchestra.store.messages import EndName, InboxPage, MessageRow, QueueName, Unread

__all__ = ["Inbox"]

_MOST_NAMES: Final = 1_024
"""How many names without a message in memory are remembered. Beyond that they are forgotten, and
read anew when code awaits them.
"""


@dataclass(slots=True)
class _Queue:
    """The events or the requests of one name: every unread one up to ``whole_to`` is here; others
    may lie in the store up to ``left_to``.
    """

    whole_to: int
    left_to: int = 0
    messages: deque[MessageRow] = field(default_factory=deque[MessageRow])


class Inbox:
    """The unread messages of one instance, as far as they are in memory (I8).

    Args:
        messages: unread messages in the order of arrival: all ends of children, and the events up
            to ``whole_to``.
        whole_to: up to which number the events are all there; by default they are all there are.
        up_to: the number of the last message that has arrived.
        room: how many events, of how many bytes, are kept in memory. What arrives beyond it is read
            from the store later.
    """

    def __init__(
        self,
        messages: Iterable[MessageRow] = (),
        *,
        whole_to: int | None = None,
        up_to: int = 0,
        room: InboxPage | None = None,
    ) -> None:
        self._room = room
        self._queues: dict[QueueName, _Queue] = {}
        self.reports: deque[MessageRow] | None = None
        """The ends of children, the next one first. Most instances have none, and no queue for
        them.
        """
        self.ends: dict[EndName, MessageRow] | None = None
        """The ends of background children. They cross boundaries, and all of them are here."""
        self._count = 0
        self._bytes = 0
        # Of a name without a queue, every unread event up to the first is read already, and others
        # may lie up to the second.
        self._whole_to = 0
        self._left_to = 0
        for message in messages:
            name = message.queue
            if name is None:
                self._add_report(message)
            elif isinstance(name, EndName):
                self._add_end(name, message)
            else:
                queue = self._queues.setdefault(name, _Queue(0))
                queue.whole_to = message.sequence
                self._add(queue, message)
        self._whole_to = up_to if whole_to is None else whole_to
        if self._whole_to < up_to:
            self._left_to = up_to
            for queue in self._queues.values():
                queue.whole_to = self._whole_to

    def __len__(self) -> int:
        """How many events are in memory."""
        return self._count

    @property
    def size(self) -> int:
        """How many bytes the payloads of the events in memory have."""
        return self._bytes

    # --- what a turn takes ---

    def head(self, name: QueueName) -> MessageRow | None:
        """Return the next message of a name, if it is in memory."""
        if isinstance(name, EndName):
            return self.ends.get(name) if self.ends else None
        queue = self._queues.get(name)
        return queue.messages[0] if queue is not None and queue.messages else None

    def is_open(self, name: QueueName) -> bool:
        """Return whether the store may have a message of a name that has none in memory.

        It must be read before anything is taken.
        """
        if isinstance(name, EndName):
            return False
        queue = self._queues.get(name)
        if queue is None:
            return self._whole_to < self._left_to
        return not queue.messages and queue.whole_to < max(queue.left_to, self._left_to)

    @property
    def is_whole(self) -> bool:
        """Whether a name without a message in memory has none in the store either, unless its queue
        says so.
        """
        return self._whole_to >= self._left_to

    @property
    def names(self) -> Collection[QueueName]:
        """The names that the node knows of. Those with messages in memory are among them."""
        return self._queues.keys()

    def take(self, name: QueueName) -> MessageRow:
        """Take the next message of a name."""
        if isinstance(name, EndName):
            assert self.ends
            return self.ends.pop(name)
        queue = self._queues[name]
        message = queue.messages.popleft()
        self._count -= 1
        self._bytes -= len(message.payload.data)
        if not queue.messages and self.is_whole and queue.whole_to >= queue.left_to:
            del self._queues[name]
        return message

    @property
    def report(self) -> MessageRow | None:
        """The next end of a child."""
        return self.reports[0] if self.reports else None

    def take_report(self) -> MessageRow:
        """Take the next end of a child."""
        assert self.reports
        return self.reports.popleft()

    # --- what comes in ---

    def arrive(self, messages: Iterable[MessageRow], whole_to: int, up_to: int) -> None:
        """Take in new messages. The events among them are all there are up to ``whole_to``."""
        for message in messages:
            name = message.queue
            if name is None:
                self._add_report(message)
            elif isinstance(name, EndName):
                self._add_end(name, message)
            else:
                self._arrive(name, message)
        if whole_to < up_to:
            self._left_to = max(self._left_to, up_to)

    def _arrive(self, name: QueueName, message: MessageRow) -> None:
        queue = self._queues.get(name)
        if queue is None:
            self._forget_names(())
            queue = self._queues[name] = _Queue(self._whole_to)
        # One is kept in any case: most are awaited already.
        is_full = self._room is not None and self._count > 0 and self._exceeds(self._room, message)
        if is_full or queue.whole_to < max(queue.left_to, self._left_to):
            queue.left_to = message.sequence
        else:
            queue.whole_to = message.sequence
            self._add(queue, message)

    def read(self, unread: Mapping[QueueName, Unread], awaited: Collection[QueueName]) -> None:
        """Take in what was read of some names. Names that are not awaited make room for it."""
        self._forget_names(awaited)
        for name, found in unread.items():
            queue = self._queues.get(name)
            if queue is None:
                queue = self._queues[name] = _Queue(self._whole_to)
            for message in found.messages:
                if message.sequence > queue.whole_to:
                    self._add(queue, message)
            queue.whole_to = max(queue.whole_to, found.whole_to)
        if self._room is not None and (
            self._count > self._room.messages or self._bytes > self._room.bytes
        ):
            for name, queue in self._queues.items():
                if queue.messages and name not in awaited and name not in unread:
                    self._drop(queue)

    def read_from(self, names: Iterable[QueueName]) -> dict[QueueName, int]:
        """Return after which number to read each of these names."""
        return {
            name: queue.whole_to if (queue := self._queues.get(name)) else self._whole_to
            for name in names
        }

    def drop_reports(self) -> None:
        """Forget the ends of children that came too late for the execution that has asked.

        The store drops them, too (I9).
        """
        self.reports = None

    def end_lap(self, received: Mapping[int, QueueName], in_hand: Mapping[int, QueueName]) -> None:
        """Take in that an execution has ended which has received requests. Those that it has
        answered are gone; those ``in_hand`` are read again: the store still has them.
        """
        for name in dict.fromkeys(received.values()):
            queue = self._queues.get(name)
            if queue is not None and queue.messages:
                kept = [one for one in queue.messages if one.sequence not in received]
                self._clear(queue)
                for message in kept:
                    self._add(queue, message)
        for sequence, name in in_hand.items():
            queue = self._queues.get(name)
            if queue is None:
                queue = self._queues[name] = _Queue(sequence)
            queue.left_to = max(queue.left_to, queue.whole_to, sequence)
            queue.whole_to = min(queue.whole_to, sequence - 1)
            self._clear(queue)

    # --- inside ---

    def _exceeds(self, room: InboxPage, message: MessageRow) -> bool:
        return self._count >= room.messages or self._bytes + len(message.payload.data) > room.bytes

    def _add_report(self, message: MessageRow) -> None:
        if self.reports is None:
            self.reports = deque()
        self.reports.append(message)

    def _add(self, queue: _Queue, message: MessageRow) -> None:
        queue.messages.append(message)
        self._count += 1
        self._bytes += len(message.payload.data)

    def _add_end(self, name: EndName, message: MessageRow) -> None:
        if self.ends is None:
            self.ends = {}
        self.ends[name] = message

    def _drop(self, queue: _Queue) -> None:
        queue.left_to = max(queue.left_to, queue.whole_to)
        queue.whole_to = queue.messages[0].sequence - 1
        self._clear(queue)

    def _clear(self, queue: _Queue) -> None:
        self._count -= len(queue.messages)
        self._bytes -= sum(len(message.payload.data) for message in queue.messages)
        queue.messages.clear()

    def _forget_names(self, awaited: Collection[QueueName]) -> None:
        if len(self._queues) < _MOST_NAMES + self._count + len(awaited):
            return
        # What the store has of them is found again where they are awaited.
        self._left_to = max(self._left_to, *(queue.left_to for queue in self._queues.values()))
        self._queues = {
            name: queue for name, queue in self._queues.items() if queue.messages or name in awaited
        }
