"""How much may wait in an inbox: so many messages and bytes, of all names together, and of each
name a part of that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

__all__ = ["INBOX_LIMITS", "Full", "InboxLimits", "Waiting"]


class Waiting(NamedTuple):
    """Unread events, and the bytes of their payloads."""

    messages: int = 0
    bytes: int = 0

    def plus(self, size: int) -> Waiting:
        """Return it with one more message of so many bytes."""
        return Waiting(self.messages + 1, self.bytes + size)

    def changed_by(self, other: Waiting) -> Waiting:
        """Return it with other messages added; negative numbers take them away."""
        return Waiting(self.messages + other.messages, self.bytes + other.bytes)


@dataclass(frozen=True, slots=True)
class Full:
    """Which bound an inbox has met. ``of_name``: that of the message's name, and not that of the
    whole inbox.
    """

    bound: Literal["messages", "bytes"]
    limit: int
    waiting: int
    of_name: bool


@dataclass(frozen=True, slots=True)
class InboxLimits:
    """How many messages, with how many bytes of payloads, may wait in one inbox. One name may take
    nine tenths of each.

    The first message is always taken, however large. Ends of children do not count.

    A store keeps upper bounds of what waits in an inbox, which count what is sent and not what is
    read. While they leave room for any name, nothing is counted. Beyond that the name of the
    message is counted; the whole inbox only where its bound passes the part of a name or the limit,
    and from then on the bound is what was counted.
    """

    messages: int = 10_000
    bytes: int = 256 * 1024 * 1024

    @property
    def of_name(self) -> Waiting:
        """What one name may take of it."""
        return Waiting(self.messages - self.messages // 10, self.bytes - self.bytes // 10)

    def have_room(self, most: Waiting, coming: Waiting) -> bool:
        """Return whether messages of any name have room where no more than ``most`` waits; else
        their names are counted.
        """
        share, then = self.of_name, most.changed_by(coming)
        return then.messages <= share.messages and then.bytes <= share.bytes

    def ask_for_a_count(self, most: Waiting, coming: Waiting) -> bool:
        """Return whether the whole inbox is to be counted, before messages are added to at most
        ``most``.
        """
        share, then = self.of_name, most.changed_by(coming)
        return (
            then.messages > self.messages
            or then.bytes > self.bytes
            or most.messages <= share.messages < then.messages
            or most.bytes <= share.bytes < then.bytes
        )

    def met_by(self, whole: Waiting, named: Waiting, size: int) -> Full | None:
        """Return the bound that one more message would pass: of all that waits, or of what waits
        under its name.
        """
        share = self.of_name
        for waiting, messages, most, of_name in (
            (whole, self.messages, self.bytes, False),
            (named, share.messages, share.bytes, True),
        ):
            if waiting.messages >= messages:
                return Full("messages", messages, waiting.messages, of_name)
            if waiting.messages and waiting.bytes + size > most:
                return Full("bytes", most, waiting.bytes, of_name)
        return None


INBOX_LIMITS: Final = InboxLimits()
"""What holds where nothing else is said."""
