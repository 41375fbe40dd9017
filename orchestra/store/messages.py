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

    ``sender`` is the node whose client has sent it, or how a client that stands alone is called.

    Where a child has ended, ``name`` and ``sender`` are its id, ``payload`` its output or error,
    and ``source`` the event that asked for it.
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
    """How much of one inbox is read at once: so many events in the order of arrival, with so many
    bytes of payload together.
    """

    messages: int = 64
    bytes: int = 64 * 1024

    def share(self, readers: int) -> InboxPage:
        """Return what each of some gets that share it: room for one event at least."""
        return InboxPage(max(1, self.messages // max(1, readers)), self.bytes // max(1, readers))


@frozen
class Unread:
    """Unread events of one name, after those that were known. They are all there are up to
    ``whole_to``.
    """

    messages: tuple[MessageRow, ...]
    whole_to: int
