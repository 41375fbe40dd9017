"""Send to instances: events, and requests to stop."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, Literal

from orchestra.client.access import Access
from orchestra.client.arguments import check_author, check_id, check_name, check_reason, check_text
from orchestra.client.info import UnreadMessage
from orchestra.client.values import shown
from orchestra.clock import from_micros, new_id
from orchestra.codec import UserText, encode
from orchestra.errors import InvalidArgument
from orchestra.levels import Unknown
from orchestra.operations.messages import drop_messages
from orchestra.options import check_count
from orchestra.store.audit import Record
from orchestra.store.changes import Append, Cancel
from orchestra.store.inbox_limits import InboxLimits
from orchestra.store.kinds import MessageKind
from orchestra.store.outcomes import AppendRefused
from orchestra.store.receipts import refusal_error
from orchestra.telemetry import engine_logger

__all__ = ["Messages"]

_SHOWN_KIND: Final[Mapping[MessageKind | Unknown, Literal["event", "request", "child"]]] = {
    MessageKind.EVENT: "event",
    MessageKind.REQUEST: "request",
    MessageKind.BACKGROUND_CHILD_ENDED: "child",
}


class Messages:
    """Sends messages, into inboxes of limited size."""

    def __init__(self, access: Access, limits: InboxLimits, payload_limit: int) -> None:
        self._access = access
        self._limits = limits
        self._payload_limit = payload_limit

    async def raise_event(
        self, instance_id: str, name: str, payload: Any, message_id: str | None
    ) -> None:
        """Send an event; see :meth:`Client.raise_event`."""
        check_id(instance_id)
        check_name(name, "an event's name")
        check_text(message_id, "a message id")
        encoded = encode(
            payload, subject=f"event {name!r} for {instance_id!r}", limit=self._payload_limit
        )
        access = self._access
        with access.recorder.sending(name, instance_id) as trace:
            change = Append(
                instance_id, message_id or new_id(), name, encoded, access.name, self._limits, trace
            )
            await self._send(change)

    async def unread(self, instance_id: str, after: int, limit: int) -> tuple[UnreadMessage, ...]:
        """Return unread events; see :meth:`Client.list_messages`."""
        check_id(instance_id)
        check_count(after, "after", least=0)
        check_count(limit, "limit")
        rows = await self._access.read(
            lambda directory: directory.messages(instance_id, after, limit)
        )
        if not rows:
            await self._access.record(instance_id)
        return tuple(
            UnreadMessage(
                sequence=row.sequence,
                message_id=row.message_id,
                name=row.name,
                payload=shown(row.payload),
                sent_at=from_micros(row.sent_at),
                sender=row.sender,
                size=len(row.payload.data),
                set_aside=row.aside,
                kind=_SHOWN_KIND[row.kind],
                set_aside_at=None if row.aside is None else from_micros(row.aside_at),
            )
            for row in rows
        )

    async def drop(
        self,
        instance_id: str,
        name: str | None,
        message_ids: Collection[str] | None,
        reason: str,
        by: str,
    ) -> int:
        """Remove unread events; see :meth:`Client.drop_messages`."""
        check_id(instance_id)
        check_reason(reason)
        check_author(by)
        if name is None and message_ids is None:
            raise InvalidArgument(
                "drop_messages was given neither a name nor message ids; say which messages go"
            )
        if isinstance(message_ids, (str, bytes)):
            raise InvalidArgument(
                f"message_ids is {message_ids!r}; give a sequence of ids, such as [{message_ids!r}]"
            )
        access = self._access
        who = by or access.name
        dropped = await access.perform(
            drop_messages(
                instance_id,
                access.provider.library,
                name=name,
                message_ids=message_ids,
                by=who,
                reason=reason,
            )
        )
        if dropped:
            engine_logger.info(
                "%s has dropped %d unread messages of %r: %s",
                who,
                dropped,
                instance_id,
                reason or "no reason given",
            )
            access.port.written_past()
        return dropped

    async def cancel(self, instance_id: str, reason: str, by: str) -> None:
        """Ask an instance to stop; see :meth:`Client.cancel`."""
        check_id(instance_id)
        check_reason(reason)
        check_author(by)
        who = by or self._access.name
        record = Record(who, "cancel", instance_id, reason=UserText(reason))
        change = Cancel(instance_id, UserText(reason), who, record=record)
        await self._send(change)

    async def _send(self, change: Append | Cancel) -> None:
        outcome = await self._access.port.submit(change)
        if not isinstance(outcome, AppendRefused):
            return
        if isinstance(change, Append):
            raise refusal_error(
                change.instance_id,
                outcome.reason.value,
                name=change.name,
                size=len(change.payload.data),
                full=outcome.full,
            )
        raise refusal_error(change.instance_id, outcome.reason.value)
