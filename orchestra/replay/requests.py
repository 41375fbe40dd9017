"""The requests that the code of one execution has in hand."""

from __future__ import annotations

import logging
from typing import Any, Final, Protocol

from orchestra.codec import Decoder, UserText
from orchestra.context import Limits
from orchestra.events import RequestReceived
from orchestra.ids import check_name
from orchestra.replay.gathered import Gathered
from orchestra.replay.journal import Journal
from orchestra.requests import Request
from orchestra.store.messages import QueueName, RequestName
from orchestra.store.requests import RequestAnswer

__all__ = ["Requests"]

_WARNING: Final = logging.WARNING


class _Execution(Protocol):
    """The execution whose requests these are."""

    limits: Limits
    instance_id: str
    journal: Journal

    @property
    def gathered(self) -> Gathered: ...
    def check(self) -> None: ...
    def trace(self, level: int, message: str, fields: dict[str, Any]) -> None: ...


class Requests:
    """What an execution has received and not answered, and how it answers.

    On replay the code answers again what it had answered. That has no effect but to take the
    request out of its hand: the answer was stored with its turn.
    """

    __slots__ = ("_execution", "_returns", "given", "in_hand", "received")

    def __init__(self, execution: _Execution) -> None:
        self._execution = execution
        self._returns: dict[int, Decoder[Any]] = {}
        """What the waits for requests promise to answer, by their event ids."""
        self.received: dict[int, QueueName] = {}
        """All requests that this lap has received, by their numbers in the inbox. None of them is
        received again in this lap, though its message may still be in memory.
        """
        self.given: dict[int, tuple[str, int]] = {}
        """The name of each of them, and when this lap was given it."""
        self.in_hand: dict[int, QueueName] = {}
        """The requests that are received and not answered, by their numbers in the inbox."""

    def expect(self, source: int, returns: Decoder[Any]) -> None:
        """Note what is answered to the request that a wait gets."""
        self._returns[source] = returns

    def give_up(self, source: int) -> None:
        """Forget a wait."""
        self._returns.pop(source, None)

    def receive(self, event: RequestReceived) -> None:
        """Take a request in hand."""
        self.received[event.sequence] = self.in_hand[event.sequence] = RequestName(event.name)
        self.given[event.sequence] = event.name, event.at

    def made_of(
        self, event: RequestReceived, value: Any, returns: Decoder[Any]
    ) -> Request[Any, Any]:
        """Return the request for the code."""
        return Request(
            self,
            returns,
            name=event.name,
            request_id=event.request_id,
            sequence=event.sequence,
            value=value,
        )

    def returns_of(self, source: int) -> Decoder[Any]:
        """Return what a wait promises to answer, and forget the wait."""
        return self._returns.pop(source)

    # --- what requests ask ---

    def is_answered(self, request: Request[Any, Any]) -> bool:
        """Return whether the code has answered a request."""
        return request.sequence not in self.in_hand

    def reply(self, request: Request[Any, Any], value: Any, returns: Decoder[Any]) -> None:
        """Reply to a request."""
        execution = self._execution
        execution.check()
        if self._is_late(request, "reply"):
            return
        payload = returns.encode(
            value,
            subject=f"the reply to request {request.name!r} of {execution.instance_id!r}",
            limit=execution.limits.max_payload,
        )
        self._answer(RequestAnswer(request.request_id, request.sequence, value=payload))

    def reject(self, request: Request[Any, Any], reason: str) -> None:
        """Reject a request."""
        self._execution.check()
        check_name(reason, "the reason of a rejection")
        if not self._is_late(request, "rejection"):
            self._answer(
                RequestAnswer(request.request_id, request.sequence, rejection=UserText(reason))
            )

    def _is_late(self, request: Request[Any, Any], what: str) -> bool:
        """Return whether a request is answered already; the first answer wins."""
        if request.sequence in self.in_hand:
            return False
        self._execution.trace(
            _WARNING,
            f"request {request.name!r} {request.request_id!r} is answered already; the first "
            f"answer stands, and this {what} has no effect",
            {},
        )
        return True

    def _answer(self, answer: RequestAnswer) -> None:
        del self.in_hand[answer.sequence]
        if not self._execution.journal.replaying:
            self._execution.gathered.extras.answers.append(answer)
