"""What the witness knows of what instances send to each other: what the code has asked for is stored
once, with the write of its step, and answered by a receipt (rules 7, 18, 19 and 21).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

from orchestra.codec import Payload
from orchestra.events import (
    EVENTS,
    CancelSent,
    EventForms,
    EventSent,
    SendDelivered,
    SendRefused,
    from_record,
)
from orchestra.store.changes import Append, Cancel, Send, Write
from orchestra.store.inbox_limits import Full, Waiting
from orchestra.store.instances import CancelMark, ParentLink
from orchestra.store.kinds import MessageKind, Status
from orchestra.store.messages import MessageRow
from orchestra.store.outcomes import Appended, AppendRefused, Refusal, RefusedSend
from orchestra.store.receipts import DELIVERED, read_refusal, refusal_payload
from tests.support.simulation.instances import WatchedInstance

__all__ = ["WatchedSends", "full", "tells_receipt"]

Tell = Callable[[ParentLink, str, MessageKind, Payload], bool]
Mark = Callable[[WatchedInstance, CancelMark], None]


def full(instance: WatchedInstance, append: Append) -> Full | None:
    """Return the bound that an event would pass."""
    sizes = [(message.name, len(message.payload.data)) for message in instance.inbox.values()]
    whole = Waiting(len(sizes), sum(size for _, size in sizes))
    of_name = [size for name, size in sizes if name == append.name]
    return append.limits.met_by(
        whole, Waiting(len(of_name), sum(of_name)), len(append.payload.data)
    )


def tells_receipt(event: SendDelivered | SendRefused, receipt: MessageRow) -> bool:
    """Return whether an event says what the receipt says."""
    if isinstance(event, SendDelivered):
        return receipt.kind is MessageKind.SEND_DELIVERED
    if receipt.kind is not MessageKind.SEND_REFUSED:
        return False
    reason, bound = read_refusal(receipt.payload)
    told = Full(event.bound, event.limit, event.waiting, event.of_name) if event.bound else None
    return (reason, bound) == (event.reason, told)


class WatchedSends:
    """Follows what granted writes send, in an account of its own."""

    def __init__(
        self,
        instances: Mapping[str, WatchedInstance],
        counts: Counter[str],
        tell: Tell,
        mark: Mark,
        forms: EventForms = EVENTS,
    ) -> None:
        self._instances = instances
        self._counts = counts
        self._tell = tell
        self._mark = mark
        self._forms = forms
        self._sent: set[ParentLink] = set()

    def follow(
        self, write: Write, now: int, arrivals: list[tuple[str, Appended]]
    ) -> tuple[RefusedSend, ...]:
        """Do what the write must have sent. Return the refusals that its instance does not learn
        of.
        """
        self._check(write)
        lost: list[RefusedSend] = []
        for send in write.extras.sends:
            message = send.message
            refused = self._deliver(message, now, arrivals)
            kind = MessageKind.SEND_DELIVERED if refused is None else MessageKind.SEND_REFUSED
            payload = DELIVERED if refused is None else refusal_payload(refused)
            self._counts["sends" if refused is None else f"sends refused: {refused.reason}"] += 1
            told = self._tell(send.sender, message.instance_id, kind, payload)
            if refused is not None and not told:
                name = message.name if isinstance(message, Append) else None
                lost.append(RefusedSend(message.instance_id, name, refused.reason.value))
        return tuple(lost)

    def _check(self, write: Write) -> None:
        """What is sent is what the code asked for: each command once, and in its order."""
        asked = [
            (ParentLink(write.instance_id, write.incarnation, delta.number, event.id), event)
            for delta in write.executions
            for record in delta.events
            if isinstance(event := from_record(record, self._forms), EventSent | CancelSent)
        ]
        sent = [send.sender for send in write.extras.sends]
        assert sent == [link for link, _ in asked], (
            f"I1: {write.instance_id} sends {sent}, and was asked to send {asked}"
        )
        for send, (link, event) in zip(write.extras.sends, asked, strict=True):
            assert link not in self._sent, f"I5: {link} is sent a second time"
            self._sent.add(link)
            assert _fits(send, event), f"I5: {send} is sent for {event}"

    def _deliver(
        self, message: Append | Cancel, now: int, arrivals: list[tuple[str, Appended]]
    ) -> AppendRefused | None:
        target = self._instances.get(message.instance_id)
        if target is None:
            return AppendRefused(Refusal.NOT_FOUND)
        if target.status is not Status.OPEN:
            return AppendRefused(Refusal.CLOSED)
        if isinstance(message, Cancel):
            self._mark(target, CancelMark(now, message.reason, message.by))
            return None
        assert message.message_id not in target.known, f"I8: {message} is known already"
        bound = full(target, message)
        if bound is not None:
            return AppendRefused(Refusal.FULL, bound)
        target.inbox_seq += 1
        row = MessageRow(
            target.inbox_seq,
            message.message_id,
            message.name,
            message.payload,
            now,
            sender=message.sender,
        )
        row = replace(row, traceparent=message.traceparent)
        target.inbox[row.sequence] = row
        target.known[row.message_id] = row.sequence, None
        arrivals.append(
            (target.instance_id, Appended(row.sequence, target.owner, fresh=True, message=row))
        )
        return None


def _fits(send: Send, event: EventSent | CancelSent) -> bool:
    message, sender = send.message, send.sender
    if isinstance(message, Cancel):
        return isinstance(event, CancelSent) and (
            (message.instance_id, message.reason, message.by, message.terminate)
            == (event.target, event.reason, sender.instance_id, False)
        )
    return isinstance(event, EventSent) and (
        (message.instance_id, message.name, message.payload, message.message_id)
        == (event.target, event.name, event.payload, str(sender))
    )
