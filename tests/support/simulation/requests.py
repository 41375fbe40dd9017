"""What the witness knows of requests: each that was accepted is answered once, and whoever asks
again gets the same answer (rule 33).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from orchestra.codec import Payload, plain
from orchestra.events import EventForms, RequestReceived, from_record
from orchestra.store.changes import Append, Write
from orchestra.store.kinds import MessageKind, Status
from orchestra.store.outcomes import Appended, AppendRefused, Outcome, Refusal
from orchestra.store.port import Directory
from orchestra.store.requests import RequestAnswer
from tests.support.simulation.instances import WatchedInstance

__all__ = ["WatchedRequests"]


@dataclass(slots=True)
class _Request:
    incarnation: str
    name: str
    sequence: int
    payload: Payload
    answer: RequestAnswer | None = None


class WatchedRequests:
    """The requests of all instances, of all their lives.

    Args:
        window: for how long an answer is remembered.
    """

    def __init__(self, window: int, forms: EventForms, counts: Counter[str]) -> None:
        self._window = window
        self._forms = forms
        self._counts = counts
        self._of: dict[str, dict[str, _Request]] = defaultdict(dict)
        self._in_hand: dict[str, tuple[int, set[int]]] = {}
        """Of each instance its current execution, and what that has received."""

    def appended(
        self, append: Append, outcome: Outcome, instance: WatchedInstance, now: int
    ) -> bool:
        """Check the answer to a request. Return whether that is all: it is not new."""
        known = self._of[append.instance_id].get(append.message_id)
        if known is None or (known.answer is not None and known.answer.at <= now - self._window):
            return False
        is_going = known.incarnation == instance.incarnation and instance.status is Status.OPEN
        if known.answer is None and not is_going:
            assert outcome == AppendRefused(Refusal.CLOSED), outcome
            return True
        told = (
            isinstance(outcome, Appended)
            and not outcome.fresh
            and (outcome.sequence, outcome.answer) == (known.sequence, known.answer)
        )
        assert told, f"rule 33: {append.message_id} is {known}, the answer was {outcome}"
        self._counts["requests asked again"] += 1
        self._counts["answers given again"] += known.answer is not None
        return True

    def accepted(self, append: Append, outcome: Appended, instance: WatchedInstance) -> None:
        """Take in a new request."""
        assert outcome.answer is None
        self._counts["requests"] += 1
        self._of[append.instance_id][append.message_id] = _Request(
            instance.incarnation, append.name, outcome.sequence, append.payload
        )

    def written(self, instance: WatchedInstance, write: Write) -> None:
        """Check what a granted write has received and answered."""
        mine = self._of[write.instance_id]
        answered = {answer.sequence for answer in write.extras.answers}
        for delta in write.executions:
            for record in delta.events:
                event = from_record(record, self._forms)
                if isinstance(event, RequestReceived):
                    self._received(instance, delta.number, event, answered)
        for answer in write.extras.answers:
            request = mine.get(answer.request_id)
            assert request is not None, f"rule 33: {answer} is to nothing that was asked"
            assert request.sequence == answer.sequence, f"rule 33: {answer} is to another request"
            assert request.answer is None, f"rule 33: {request} was answered twice: {answer}"
            message = instance.inbox.pop(answer.sequence, None)
            assert message is not None, f"rule 33: {answer} is to what does not wait"
            if answer.value is not None:
                assert str(plain(answer.value)).startswith(f"{answer.request_id} "), (
                    f"rule 33: {answer} is to another request"
                )
            self._counts["answers"] += 1
            self._counts["rejections"] += answer.rejection is not None
            request.answer = answer

    def _received(
        self,
        instance: WatchedInstance,
        number: int,
        event: RequestReceived,
        answered: set[int],
    ) -> None:
        message = instance.inbox.get(event.sequence)
        assert message is not None, f"rule 33: {event} does not wait, or was answered"
        assert message.kind is MessageKind.REQUEST, f"rule 33: {event} is no request"
        assert (message.message_id, message.name, message.payload) == (
            event.request_id,
            event.name,
            event.payload,
        ), "rule 33: it is another request"
        lap, in_hand = self._in_hand.get(instance.instance_id, (0, set[int]()))
        if lap != number:
            self._counts["requests received again"] += event.sequence in in_hand
            in_hand = set[int]()
        assert event.sequence not in in_hand, f"rule 33: {event} was received twice in lap {number}"
        passed = [
            sequence
            for sequence, other in instance.inbox.items()
            if (other.kind, other.name) == (MessageKind.REQUEST, event.name)
            and sequence < event.sequence
            and sequence not in in_hand | answered
        ]
        assert not passed, f"I8: {event} passed {passed}"
        self._in_hand[instance.instance_id] = number, in_hand | {event.sequence}

    def begins_again(self, instance_id: str, now: int) -> None:
        """What a life that has ended has left open is never answered."""
        for request_id, request in self._of[instance_id].items():
            if request.answer is None:
                request.answer = RequestAnswer(request_id, request.sequence, at=now)
        self._in_hand.pop(instance_id, None)

    def deleted(self, instance_id: str) -> None:
        """An instance is gone, and its requests with it."""
        self._of.pop(instance_id, None)
        self._in_hand.pop(instance_id, None)

    def check(self, instance: WatchedInstance, directory: Directory, now: int) -> None:
        """Hold what is stored of an instance's requests against what was committed."""
        mine: Mapping[str, _Request] = self._of[instance.instance_id]
        for request_id, request in mine.items():
            state = directory.request(instance.instance_id, request_id)
            if request.answer is not None and request.answer.at <= now - self._window:
                continue  # it may be forgotten
            assert state is not None, f"rule 33: {request_id} is forgotten"
            assert (state.row.incarnation, state.row.sequence, state.row.answer) == (
                request.incarnation,
                request.sequence,
                request.answer,
            ), f"rule 33: {request_id} is {state}, and should be {request}"
            is_going = instance.status is Status.OPEN
            assert state.is_going == (is_going and request.incarnation == instance.incarnation)
            if request.answer is None and state.is_going:
                assert request.sequence in instance.inbox, f"rule 33: {request_id} waits no more"
