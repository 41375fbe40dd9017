"""Requests: messages that wait for an answer, and the answers (protocol rule 33).

A request is a message in the inbox, and a row of its own. The message stays where it is while code
has the request in hand, so that the next lap receives it again if no answer was given. The write
that answers it removes the message. The row is what makes a repeated request get the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestra.codec import Payload, UserText
from orchestra.frozen import frozen

__all__ = ["RequestAnswer", "RequestRow", "RequestState"]


@frozen
class RequestAnswer:
    """The answer to request ``request_id``, message ``sequence`` of the inbox, given at ``at``.

    ``rejection`` is the reason if it was rejected; otherwise ``value`` is what it was replied with.
    With neither, an earlier life of the instance has ended without an answer.
    """

    request_id: str
    sequence: int
    value: Payload | None = None
    rejection: UserText | None = None
    at: int = 0


@frozen
class RequestRow:
    """A request that was stored. ``incarnation`` is the life of the instance that got it.

    ``answer`` is ``None`` while it is open.
    """

    request_id: str
    incarnation: str
    name: str
    sequence: int
    asked_at: int
    answer: RequestAnswer | None = None


@dataclass(frozen=True, slots=True)
class RequestState:
    """A request, and whether the life of the instance that got it goes on."""

    row: RequestRow
    is_going: bool
