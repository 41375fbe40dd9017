"""The rows of an inbox, and the pages in which they are read."""

from __future__ import annotations

from dataclasses import dataclass

from orchestra.codec import Payload
from orchestra.frozen import frozen
from orchestra.levels import Unknown
from orchestra.store.kinds import MessageKind

__all__ = ["InboxPage", "MessageRow", "Unread"]


@frozen
class MessageRow:
    """One unread message. ``sequence`` is its number at the instance, in arrival order (I8);
    ``traceparent`` its sender's.

    ``sender`` is the node whose client sent it, or the name of a stand-alone client.

    For the end of a child, ``name`` and ``sender`` are its id, ``payload`` its output or error, and
    ``source`` the event that started it.
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
