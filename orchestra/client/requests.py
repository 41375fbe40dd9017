"""Ask an instance, and wait for its answer.

The request is on disk before the wait begins, so a wait that ends early loses nothing: the same
request id waits for the same answer again. The end of the instance is read from its row, together
with the request's; no one writes it to the request.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

from orchestra.client.access import Access
from orchestra.client.arguments import check_id, check_name, check_text
from orchestra.client.port import EndWatch
from orchestra.clock import new_id
from orchestra.codec import decoder, encode
from orchestra.errors import InstanceCompleted, OutcomeUnknown, RequestRejected, WaitTimeout
from orchestra.operations.known import require_level
from orchestra.operations.lookup import not_found
from orchestra.options import check_duration
from orchestra.store.changes import Append
from orchestra.store.inbox_limits import InboxLimits
from orchestra.store.instances import hold_in_force, hold_text
from orchestra.store.kinds import REQUEST_LEVEL
from orchestra.store.outcomes import Appended, AppendRefused, Refusal
from orchestra.store.receipts import inbox_full
from orchestra.store.requests import RequestAnswer

__all__ = ["Requests"]


class Requests:
    """Sends requests, into inboxes of limited size, and waits for their answers."""

    def __init__(self, access: Access, limits: InboxLimits, payload_limit: int) -> None:
        self._access = access
        self._limits = limits
        self._payload_limit = payload_limit
        self._may_ask = False
        """Whether the store's write level allows requests. It never goes down."""

    async def request(
        self,
        instance_id: str,
        name: str,
        value: Any,
        returns: Any,
        timeout: timedelta | None,  # noqa: ASYNC109 - a promise about the wait, not about the caller's scope
        request_id: str | None,
    ) -> Any:
        """Send a request and wait for the answer; see :meth:`Client.request`."""
        check_id(instance_id)
        check_name(name, "a request's name")
        check_text(request_id, "a request id")
        # Any duration is valid, also none or a negative one: the caller gets an answer that stands.
        check_duration(timeout, "timeout", least=timedelta.min, most=timedelta.max, optional=True)
        reader = decoder(returns)
        access, key = self._access, request_id or new_id()
        encoded = encode(
            value, subject=f"request {name!r} for {instance_id!r}", limit=self._payload_limit
        )
        if not self._may_ask:
            what = f"{instance_id!r} cannot be asked"
            require_level(await access.catalogue(), REQUEST_LEVEL, what)
            self._may_ask = True
        seconds = math.inf if timeout is None else timeout.total_seconds()
        # Before the request is sent, so that no answer comes unseen.
        with access.port.watch(instance_id, seconds, key) as watch:
            with access.recorder.sending(name, instance_id) as trace:
                change = Append(
                    instance_id, key, name, encoded, access.name, self._limits, trace, asks=True
                )
                answer = await self._send(change)
            if answer is None:
                answer = await self._wait(watch, change, timeout)
        subject = f"the answer to request {name!r} of {instance_id!r}"
        return reader.decode(_accepted(change, answer), subject=subject)

    async def _send(self, change: Append) -> RequestAnswer | None:
        """Send a request; return the answer if it was given before."""
        outcome = await self._access.port.submit(change)
        if isinstance(outcome, AppendRefused):
            match outcome.reason:
                case Refusal.NOT_FOUND:
                    raise not_found(change.instance_id)
                case Refusal.CLOSED:
                    raise _has_ended(change)
                case Refusal.FULL:
                    assert outcome.full is not None
                    raise inbox_full(change, outcome.full, "request")
        assert isinstance(outcome, Appended)
        if outcome.fresh:
            self._access.recorder.requested(change.name)
        return outcome.answer

    async def _wait(
        self,
        watch: EndWatch,
        change: Append,
        timeout: timedelta | None,  # noqa: ASYNC109 - as above
    ) -> RequestAnswer:
        is_first = not watch.late
        while watch.answer is None:
            late = watch.late
            if not is_first:
                answer = await self._look(change)
                if answer is not None:
                    return answer
                if late:
                    raise await self._not_answered(change, timeout)
            is_first = False
            await watch.wait()
        return watch.answer

    async def _look(self, change: Append) -> RequestAnswer | None:
        """Return the answer that the store has; ``None``: the request is open."""
        instance_id, request_id = change.instance_id, change.message_id
        state = await self._access.read(
            lambda directory: directory.request(instance_id, request_id)
        )
        if state is None:
            await self._access.record(instance_id)  # raises, if it was deleted
            raise OutcomeUnknown(
                f"the answer to request {change.name!r} {request_id!r} of {instance_id!r} is "
                "forgotten: it was given longer ago than answers are kept"
            )
        if state.row.answer is None and not state.is_going:
            raise _has_ended(change)
        return state.row.answer

    async def _not_answered(
        self,
        change: Append,
        timeout: timedelta | None,  # noqa: ASYNC109 - as above
    ) -> WaitTimeout:
        record = await self._access.record(change.instance_id)
        row = record.row
        hold = hold_in_force(row.hold, row.operator_hold, paused=row.paused)
        error = WaitTimeout(
            f"instance {change.instance_id!r} has not answered request {change.name!r} within "
            f"{timeout}{_held(hold_text(hold)) if record.held and hold is not None else ''}. The "
            f"request stays open; ask again with request_id={change.message_id!r}"
        )
        error.request_id = change.message_id
        return error


def _held(text: str) -> str:
    return f": it is held ({text})"


def _accepted(change: Append, answer: RequestAnswer) -> Any:
    """Return the payload of an answer.

    Raises:
        RequestRejected: it is a rejection.
        InstanceCompleted: an earlier life of the instance has ended without an answer.
    """
    if answer.rejection is not None:
        raise RequestRejected(
            f"request {change.name!r} of {change.instance_id!r} was rejected: {answer.rejection}",
            instance_id=change.instance_id,
            request_id=change.message_id,
            reason=answer.rejection,
        )
    if answer.value is None:
        raise _has_ended(change)
    return answer.value


def _has_ended(change: Append) -> InstanceCompleted:
    return InstanceCompleted(
        f"instance {change.instance_id!r} has ended, and has not answered request "
        f"{change.name!r} {change.message_id!r}",
        instance_id=change.instance_id,
    )
