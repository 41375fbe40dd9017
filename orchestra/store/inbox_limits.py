"""The limits of an inbox: messages and bytes, of all names together, and a part of that for each
name.
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
    """The bound that an inbox has met. ``of_name``: the bound of the message's name, not of the
    whole inbox.
    """

    bound: Literal["messages", "bytes"]
    limit: int
    waiting: int
    of_name: bool


@dataclass(frozen=True, slots=True)
class InboxLimits:
    """How many messages and bytes of payloads may wait in one inbox. One name may take nine
    tenths.

    The first message is always accepted, however large. Ends of children do not count.

    A store keeps upper bounds for each inbox: they count sent messages, not read ones. While the
    bounds leave room for any name, nothing is counted. Then the messages of the name are counted.
    The whole inbox is counted only if its bound passes a name's part or the limit; the count then
    replaces the bound.
    """

    messages: int = 10_000
    bytes: int = 256 * 1024 * 1024

    @property
    def of_name(self) -> Waiting:
        """One name's part."""
        return Waiting(self.messages - self.messages // 10, self.bytes - self.bytes // 10)

    def have_room(self, most: Waiting, coming: Waiting) -> bool:
        """Return whether ``most`` leaves room for any name; otherwise names are counted."""
        share, then = self.of_name, most.changed_by(coming)
        return then.messages <= share.messages and then.bytes <= share.bytes

    def ask_for_a_count(self, most: Waiting, coming: Waiting) -> bool:
        """Return whether to count the whole inbox before messages are added to at most ``most``."""
        share, then = self.of_name, most.changed_by(coming)
        return (
            then.messages > self.messages
            or then.bytes > self.bytes
            or most.messages <= share.messages < then.messages
            or most.bytes <= share.bytes < then.bytes
        )

    def met_by(self, whole: Waiting, named: Waiting, size: int) -> Full | None:
        """Return the bound that one more message would pass: the whole inbox's, or its name's."""
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
"""The default limits."""
