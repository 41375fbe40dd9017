"""What code sends to other instances, and what comes back.

A send stands as soon as its turn is stored. Giving up its future takes nothing back: the code only
learns no more what became of it. So history has no event for that.
"""

from __future__ import annotations

from typing import Any, Protocol

from orchestra.codec import Payload
from orchestra.events import (
    CancelSent,
    CommandEvent,
    EventKind,
    EventSent,
    InputEvent,
    SendDelivered,
    SendRefused,
)
from orchestra.futures import Canceller, DurableFuture, Seal
from orchestra.replay.gathered import Gathered
from orchestra.replay.journal import Journal
from orchestra.replay.timers import ExecutionTime
from orchestra.store.inbox_limits import Full
from orchestra.store.kinds import RECEIPTS, MessageKind
from orchestra.store.messages import MessageRow
from orchestra.store.outcomes import RefusedSend
from orchestra.store.receipts import read_refusal, refusal_error

__all__ = ["Sent", "SentFuture", "receipt_event", "refuse", "send_cancel", "send_event"]

Sent = EventSent | CancelSent
"""What code sends to an instance."""


class Commands(Canceller, Protocol):
    """What code asks for."""

    instance_id: str
    journal: Journal
    time: ExecutionTime
    seal: Seal

    @property
    def gathered(self) -> Gathered: ...
    def require_kind(self, kind: EventKind, what: str) -> None: ...
    def record(self, event: Any) -> Any: ...
    def pend(self, event: CommandEvent, future: DurableFuture[Any]) -> None: ...


class SentFuture(DurableFuture[None]):
    """What became of a send. Code may leave it alone."""

    __slots__ = ()

    def give_up(self, *, waits: bool) -> bool:  # noqa: ARG002 - nothing has to end first
        """Learn no more what becomes of it. What was sent stays sent."""
        self.seal.check()
        self.fail_cancelled()
        return True


def send_event(commands: Commands, target: str, name: str, payload: Payload) -> DurableFuture[None]:
    """Send an event to an instance, with the turn's write."""
    commands.require_kind(EventKind.EVENT_SENT, f"event {name!r} for {target!r}")
    number, now = commands.journal.next_id, commands.time.now
    return _open(commands, EventSent(number, now, target, name, payload), f"event {name!r}")


def send_cancel(commands: Commands, target: str, reason: str) -> DurableFuture[None]:
    """Ask an instance to stop, with the turn's write."""
    commands.require_kind(EventKind.CANCEL_SENT, f"the cancel of {target!r}")
    number, now = commands.journal.next_id, commands.time.now
    return _open(commands, CancelSent(number, now, target, reason), "the cancel")


def _open(commands: Commands, event: Sent, what: str) -> DurableFuture[None]:
    event = commands.record(event)
    if not commands.journal.replaying:
        commands.gathered.extras.sent.append(event)
    subject = f"{what} for instance {event.target!r}"
    future = SentFuture(commands.seal, commands, event.id, subject, None, "")
    commands.pend(event, future)
    return future


def receipt_event(receipt: MessageRow, number: int, now: int) -> InputEvent | None:
    """Return the event of a receipt; ``None``: the message is none."""
    if receipt.kind not in RECEIPTS:
        return None
    if receipt.kind is MessageKind.SEND_DELIVERED:
        return SendDelivered(number, now, receipt.source)
    reason, full = read_refusal(receipt.payload)
    if full is None:
        return SendRefused(number, now, receipt.source, reason)
    facts = full.bound, full.limit, full.waiting, full.of_name
    return SendRefused(number, now, receipt.source, reason, *facts)


def refuse(
    commands: Commands, sent: CommandEvent, future: DurableFuture[Any], refused: SendRefused
) -> None:
    """Give a refusal to the code that waits for it, or note that none does."""
    assert isinstance(sent, EventSent | CancelSent)
    if not future.awaited and not commands.journal.replaying:
        name = sent.name if isinstance(sent, EventSent) else None
        commands.gathered.extras.refused.append(RefusedSend(sent.target, name, refused.reason))
    full = None
    if refused.bound is not None:
        full = Full(refused.bound, refused.limit, refused.waiting, refused.of_name)
    if isinstance(sent, EventSent):
        size = len(sent.payload.data)
        error = refusal_error(sent.target, refused.reason, name=sent.name, size=size, full=full)
    else:
        error = refusal_error(sent.target, refused.reason)
    future.fail(error)
