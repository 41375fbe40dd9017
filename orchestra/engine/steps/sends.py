"""What a step sends to other instances."""

from __future__ import annotations

from typing import Final

from orchestra.codec import UserText
from orchestra.engine.owned import OwnedInstance
from orchestra.events import CancelSent, EventKind, EventSent
from orchestra.store.changes import Append, Cancel, Send
from orchestra.store.inbox_limits import InboxLimits
from orchestra.store.instances import ParentLink

__all__ = ["SENT_KINDS", "send_of"]

SENT_KINDS: Final = frozenset({int(EventKind.EVENT_SENT), int(EventKind.CANCEL_SENT)})
"""The kinds of commands that receipts answer."""


def send_of(instance: OwnedInstance, event: EventSent | CancelSent, limits: InboxLimits) -> Send:
    """Return what the store does for a command.

    The message's id is made of the command, so that the store knows it again if it is repeated.
    """
    number = instance.current.number
    sender = ParentLink(instance.instance_id, instance.incarnation, number, event.id)
    if isinstance(event, CancelSent):
        return Send(sender, Cancel(event.target, UserText(event.reason), instance.instance_id))
    message = Append(
        event.target,
        str(sender),
        event.name,
        event.payload,
        instance.instance_id,
        limits,
        instance.current.traceparent,
    )
    return Send(sender, message)
