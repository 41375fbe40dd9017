"""What becomes of a message to an instance: the error of its sender, and the receipt of a send.

A step of an instance sends events and cancels to others (:class:`~orchestra.store.changes.Send`).
The store stores them in the step's own write, and puts a receipt into the sender's inbox.
"""

from __future__ import annotations

from typing import Any

from orchestra.codec import Payload, pack, unpack
from orchestra.errors import (
    AlreadyCompleted,
    InboxFull,
    InstanceCompleted,
    InstanceError,
    InstanceNotFound,
)
from orchestra.store.changes import Append
from orchestra.store.inbox_limits import Full
from orchestra.store.outcomes import AppendRefused, Refusal

__all__ = ["DELIVERED", "inbox_full", "read_refusal", "refusal_error", "refusal_payload"]

DELIVERED = Payload(b"null")
"""The payload of the receipt of what was delivered."""


def refusal_payload(refused: AppendRefused) -> Payload:
    """Return the payload of the receipt of what was refused."""
    full = refused.full
    facts: dict[str, Any] = {"reason": refused.reason.value}
    if full is not None:
        facts["full"] = [full.bound, full.limit, full.waiting, full.of_name]
    return Payload(pack(facts))


def read_refusal(payload: Payload) -> tuple[str, Full | None]:
    """Return the reason of a refusal, and the bound that a full inbox has met."""
    facts = unpack(payload.data)
    return facts["reason"], Full(*facts["full"]) if "full" in facts else None


def refusal_error(
    instance_id: str,
    reason: str,
    *,
    name: str | None = None,
    size: int = 0,
    full: Full | None = None,
) -> InstanceError:
    """Return the error of a sender whose message was refused.

    Args:
        instance_id: whom it was sent to.
        name: the event's name; ``None``: a cancel.
        size: the bytes of its payload.
    """
    if reason == Refusal.NOT_FOUND.value:
        return InstanceNotFound(f"there is no instance {instance_id!r}", instance_id=instance_id)
    if full is not None and name is not None:
        return _inbox_full(instance_id, name, size, full, "event")
    closed = AlreadyCompleted if name is None else InstanceCompleted
    if reason == Refusal.CLOSED.value:
        return closed(
            f"instance {instance_id!r} has ended; it accepts no messages", instance_id=instance_id
        )
    return InstanceError(f"instance {instance_id!r} refused it: {reason}", instance_id=instance_id)


def inbox_full(append: Append, full: Full, what: str = "event") -> InboxFull:
    """Return the error that says which limit of an inbox an event or a request has met."""
    size = len(append.payload.data)
    return _inbox_full(append.instance_id, append.name, size, full, what)


def _inbox_full(instance_id: str, name: str, payload_size: int, full: Full, what: str) -> InboxFull:
    option = "inbox_limit" if full.bound == "messages" else "inbox_bytes"
    waits = (
        f"{full.waiting:,} unread messages"
        if full.bound == "messages"
        else f"{full.waiting:,} bytes of unread messages"
    )
    size = "" if full.bound == "messages" else f", and this {what} has {payload_size:,}"
    if full.of_name:
        most = f"of one name may be {full.limit:,} (nine tenths of {option})"
        remedy = (
            f"Let it wait for {name!r}, send less, or raise {option}; {what}s of other "
            "names still get in"
        )
    else:
        most = f"{full.limit:,} may be ({option})"
        remedy = f"Let it read them, send less, or raise {option}"
    named = f" of the name {name!r}" if full.of_name else ""
    return InboxFull(
        f"{what} {name!r} for instance {instance_id!r} was not stored: there are "
        f"{waits}{named}, {most}{size}. {remedy}",
        instance_id=instance_id,
        name=name if full.of_name else None,
        bound=full.bound,
        limit=full.limit,
    )
