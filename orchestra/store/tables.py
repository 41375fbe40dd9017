"""The columns of each table, described once. Statements, readers and lists of values follow these
descriptions.

A provider renders the statements in its own dialect. Values have the order of the columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = [
    "ACTIVITY",
    "ACTIVITY_FENCE",
    "ANSWER",
    "CANCEL_MARK",
    "CLOSING",
    "DETAIL",
    "EVENT",
    "EXECUTION",
    "EXECUTION_ID",
    "HOT_ROW",
    "LABEL",
    "MESSAGE",
    "NEW_INSTANCE",
    "OPENING",
    "OPERATION",
    "PATCHED",
    "REPORT",
    "REQUEST",
    "SCHEDULE",
    "SCHEDULE_SLOT",
    "SET_ASIDE",
    "SLOT_KEY",
    "STREAM",
    "STREAM_ITEM",
    "WRITTEN_ROW",
    "Column",
    "Columns",
]

ColumnType = Literal["text", "number", "flag", "blob"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, and the type of its values."""

    name: str
    type: ColumnType


class Columns(tuple[Column, ...]):
    """Columns of one table, in the order of their values."""

    __slots__ = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(column.name for column in self)

    def listed(self, alias: str = "") -> str:
        """Return the names for a statement, each with its table's alias, if there is one."""
        prefix = f"{alias}." if alias else ""
        return ", ".join(prefix + name for name in self.names)

    def without(self, *names: str) -> Columns:
        """Return the columns without some of them."""
        return Columns(column for column in self if column.name not in names)

    def only(self, *names: str) -> Columns:
        """Return some of them, in the order of the names."""
        of_name = {column.name: column for column in self}
        return Columns(of_name[name] for name in names)


def _columns(**types: ColumnType) -> Columns:
    return Columns(Column(name, column_type) for name, column_type in types.items())


# --- instances --------------------------------------------------------------------------------

HOT_ROW: Final = _columns(
    instance_id="text",
    incarnation="text",
    kind="number",
    revision="number",
    owner="text",
    wake_at="number",
    status="number",
    held="flag",
    inbox_seq="number",
    seen_seq="number",
    execution="number",
    opened="flag",
    takeovers="number",
    history_events="number",
    history_bytes="number",
    updated_at="number",
    cancel_at="number",
    cancel_reason="text",
    cancel_by="text",
    cancel_terminate="flag",
    cancel_seq="number",
    most_unread="number",
    most_unread_bytes="number",
    paused="flag",
    boundary_due="number",
    not_before="number",
)
"""The columns of :class:`~orchestra.store.hot_row.HotRow`; its fields have the same order."""

WRITTEN_ROW: Final = Columns(
    (
        *HOT_ROW.only(
            "kind",
            "revision",
            "owner",
            "wake_at",
            "status",
            "held",
            "inbox_seq",
            "seen_seq",
            "execution",
            "opened",
        ),
        *HOT_ROW.only(
            "takeovers",
            "history_events",
            "history_bytes",
            "updated_at",
            "most_unread",
            "most_unread_bytes",
            "paused",
            "boundary_due",
        ),
    )
)
"""The columns that a changed row writes, besides its summary."""

CANCEL_MARK: Final = HOT_ROW.only(
    "cancel_at", "cancel_reason", "cancel_by", "cancel_terminate", "cancel_seq"
)

NEW_INSTANCE: Final = HOT_ROW.only(
    "instance_id", "incarnation", "kind", "owner", "wake_at", "execution", "opened", "not_before"
)
"""The columns of the hot row that a start sets. The other columns begin alike for all instances."""

DETAIL: Final = _columns(
    instance_id="text",
    request_id="text",
    created_by="text",
    traceparent="text",
    parent_id="text",
    parent_incarnation="text",
    parent_execution="number",
    parent_event="number",
    root_id="text",
    on_parent_close="number",
    schedule_id="text",
    schedule_tick="number",
)
"""The cold row, as a start makes it."""

LABEL: Final = _columns(instance_id="text", key="text", value="text")

# --- executions -------------------------------------------------------------------------------

EXECUTION: Final = _columns(
    instance_id="text",
    execution="number",
    name="text",
    version="text",
    version_key="text",
    resolved_how="text",
    resolved_by="text",
    policy_revision="number",
    state="blob",
    state_encoding="number",
    state_version="text",
    created_at="number",
    format="number",
    fingerprint="text",
    opened_at="number",
    closed_at="number",
    end_kind="number",
    output="blob",
    output_encoding="number",
    error="blob",
    event_count="number",
    byte_count="number",
    traceparent="text",
    state_shape="text",
    migrations="text",
    request_id="text",
    patches="text",
    rewind="blob",
)

EXECUTION_ID: Final = EXECUTION.only("instance_id", "execution")

OPENING: Final = EXECUTION.only(
    "opened_at",
    "version",
    "version_key",
    "fingerprint",
    "format",
    "resolved_how",
    "resolved_by",
    "policy_revision",
    "traceparent",
    "migrations",
)
"""The columns that an opening or a retargeting writes."""

CLOSING: Final = EXECUTION.only(
    "closed_at", "end_kind", "output", "output_encoding", "error", "event_count", "byte_count"
)
"""The columns that a closing writes."""

PATCHED: Final = EXECUTION.only("patches")
"""The column that a mark of a patch writes."""

EVENT: Final = _columns(
    instance_id="text",
    execution="number",
    event_id="number",
    kind="number",
    at="number",
    format="number",
    envelope="blob",
    payload="blob",
    encoding="number",
)

# --- messages and activities ------------------------------------------------------------------

MESSAGE: Final = _columns(
    instance_id="text",
    sequence="number",
    message_id="text",
    name="text",
    payload="blob",
    encoding="number",
    sent_at="number",
    kind="number",
    source="number",
    traceparent="text",
    sender="text",
)

SET_ASIDE: Final = Columns(
    (
        *MESSAGE.only("instance_id", "sequence", "message_id", "sender", "name"),
        *MESSAGE.only("payload", "encoding", "sent_at", "traceparent"),
        Column("reason", "text"),
        Column("set_aside_at", "number"),
    )
)
"""A message whose payload the code that awaited it could not decode."""

REQUEST: Final = _columns(
    instance_id="text",
    request_id="text",
    incarnation="text",
    name="text",
    sequence="number",
    asked_at="number",
)
"""A request, as its sender makes it."""

ANSWER: Final = _columns(
    answered_at="number", answer="blob", answer_encoding="number", rejection="text"
)
"""What an answer adds to it. Without an answer all of them are empty."""

ACTIVITY: Final = _columns(
    instance_id="text",
    execution="number",
    event_id="number",
    attempt="number",
    due="number",
    started_at="number",
    attempts="blob",
    heartbeat="blob",
    heartbeat_encoding="number",
    queue="text",
    name="text",
    owner="text",
    result="blob",
    result_encoding="number",
    failure="blob",
    stopping="flag",
    paused="flag",
)

ACTIVITY_FENCE: Final = _columns(revision="number")
"""The fence of the node that has taken an activity. It is read with the activity; writes raise
it.
"""

REPORT: Final = Columns(
    (
        *ACTIVITY.only(
            "heartbeat",
            "heartbeat_encoding",
            "owner",
            "result",
            "result_encoding",
            "failure",
            "stopping",
            "paused",
        ),
        *ACTIVITY_FENCE,
    )
)
"""The columns that a report or a stop mark changes."""

# --- operators --------------------------------------------------------------------------------

OPERATION: Final = _columns(at="number", actor="text", action="text", subject="text", detail="blob")
"""An entry of the audit. Its key is the provider's own."""

# --- schedules --------------------------------------------------------------------------------

SCHEDULE: Final = _columns(
    schedule_id="text",
    incarnation="text",
    revision="number",
    definition="blob",
    state="blob",
    value="blob",
    value_encoding="number",
    next_at="number",
    paused="flag",
    level="number",
    declared="number",
    declared_at="number",
    edition="number",
    created_at="number",
    updated_at="number",
    changed_by="text",
    request_id="text",
)

SCHEDULE_SLOT: Final = _columns(
    schedule_id="text",
    slot="number",
    cause="text",
    outcome="text",
    reason="text",
    instance_id="text",
    at="number",
    follows="flag",
    first_slot="number",
    slot_count="number",
    more="flag",
    late="flag",
    ended="text",
)
"""A slot whose outcome is known. Its key is the schedule, the slot and the cause."""

SLOT_KEY: Final = SCHEDULE_SLOT.only("schedule_id", "slot", "cause")
# --- streams ----------------------------------------------------------------------------------

STREAM: Final = _columns(
    instance_id="text",
    stream="text",
    incarnation="text",
    first_offset="number",
    last_offset="number",
    bytes="number",
    first_at="number",
)
"""A stream. ``bytes`` are those of the kept items; ``first_at`` is the time of the first one."""

STREAM_ITEM: Final = _columns(
    instance_id="text",
    stream="text",
    item_offset="number",
    payload="blob",
    encoding="number",
    at="number",
    execution="number",
    event_id="number",
    attempt="number",
    attempt_number="number",
)
"""An item of a stream. The last three columns are of an activity; ``attempt_number`` counts the
items of its attempt.
"""
