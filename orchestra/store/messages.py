"""The rows of an inbox, and the pages in which they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from orchestra.codec import Payload, UserText
from orchestra.frozen import frozen
from orchestra.levels import Unknown
from orchestra.store.kinds import MessageKind

__all__ = [
    "KEPT_ASIDE",
    "NAMES_SHOWN",
    "Aside",
    "EndName",
    "InboxPage",
    "MessageRow",
    "QueueName",
    "RequestName",
    "Unread",
]


class RequestName(NamedTuple):
    """The name of a queue of requests. Events of the same name are another queue."""

    name: str


class EndName(NamedTuple):
    """The queue of the end of one background child, by the command that started it. All of it is
    always in memory.
    """

    link: str


QueueName = str | RequestName | EndName
"""What code waits for: events of a name, requests of a name, or the end of a background child."""


@frozen
class MessageRow:
    """One unread message. ``sequence`` is its number at the instance, in arrival order (I8);
    ``traceparent`` its sender's.

    ``sender`` is the node whose client sent it, or the name of a stand-alone client.

    For the end of a child, ``name`` and ``sender`` are its id, ``payload`` its output or error, and
    ``source`` the event that started it. For that of a background child, ``message_id`` is the
    command that started it, and ``source`` the stored :class:`~orchestra.store.kinds.Status`.

    ``aside`` says why the message was set aside, at ``aside_at``; ``None``: it waits.
    """

    sequence: int
    message_id: str
    name: str
    payload: Payload
    sent_at: int
    kind: MessageKind | Unknown = MessageKind.EVENT
    source: int = 0
    traceparent: str | None = None
    sender: str = ""
    aside: UserText | None = None
    aside_at: int = 0

    @property
    def queue(self) -> QueueName | None:
        """The queue in which it waits for code; ``None``: it answers a command of one execution."""
        if self.kind is MessageKind.EVENT:
            return self.name
        if self.kind is MessageKind.REQUEST:
            return RequestName(self.name)
        is_end = self.kind is MessageKind.BACKGROUND_CHILD_ENDED
        return EndName(self.message_id) if is_end else None

    @property
    def is_sent(self) -> bool:
        """Whether a sender has sent it: it counts against the inbox, and is read by pages."""
        return self.kind is MessageKind.EVENT or self.kind is MessageKind.REQUEST


@dataclass(frozen=True, slots=True)
class Aside:
    """Set a message aside: the code that awaits it cannot decode it. ``sequence`` is its number."""

    sequence: int
    reason: UserText


@dataclass(frozen=True, slots=True)
class InboxPage:
    """How much of one inbox is read at once: a number of events in order of arrival, and bytes of
    their payloads.
    """

    messages: int = 64
    bytes: int = 64 * 1024

    def share(self, readers: int) -> InboxPage:
        """Return an equal share of it, with room for at least one event."""
        return InboxPage(max(1, self.messages // max(1, readers)), self.bytes // max(1, readers))


@frozen
class Unread:
    """Unread events of one name, after the known ones. They are complete up to ``whole_to``."""

    messages: tuple[MessageRow, ...]
    whole_to: int


KEPT_ASIDE: Final = InboxPage(1_000, 16 * 1024 * 1024)
"""How much of an instance's messages that were set aside is kept: the newest, and at least one."""

NAMES_SHOWN: Final = 16
"""Of how many names an instance's unread messages are counted one by one: those with the most."""
