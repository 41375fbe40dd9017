"""Holds: what a faulty instance is held with, and what the hold keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from orchestra.codec import UserText
from orchestra.context import Limits
from orchestra.engine.attempts import early_end_row
from orchestra.engine.messages import ActivityEnded
from orchestra.engine.owned import OwnedInstance
from orchestra.error_info import storable
from orchestra.errors import (
    DecodeError,
    HistoryCorrupt,
    MigrationFailed,
    NondeterminismError,
    PayloadUnreadable,
)
from orchestra.events import error_to_bytes
from orchestra.fingerprint import limited_fingerprint
from orchestra.levels import Levels
from orchestra.replay import TurnHeld
from orchestra.store.instances import Hold
from orchestra.store.kinds import THIS_LIBRARY, HoldKind
from orchestra.store.tasks import ActivityRow

__all__ = ["describe_error", "hold", "hold_for", "kept_rows"]

_MIGRATION_LEVEL: Final = THIS_LIBRARY.holds.level(HoldKind.MIGRATION.value)

_PAYLOAD_LEVEL: Final = THIS_LIBRARY.holds.level(HoldKind.PAYLOAD.value)
_DETAIL: Final = 4_000
"""Characters of an error that a hold keeps."""


def hold_for(
    instance: OwnedInstance,
    error: Exception,
    now: int,
    node_id: str,
    limits: Limits,
    levels: Levels,
) -> Hold:
    """Return the hold for an error of the instance's code or state.

    Args:
        levels: those of the store. While a node lives that cannot read the hold of a migration, the
            state is held as one that does not decode.
    """
    match error:
        case TurnHeld():
            detail = storable(error.detail, _DETAIL)
            held = hold(instance, error.kind, detail, now, node_id, limits)
            return replace(held, error=error_to_bytes(error.error))
        case NondeterminismError():
            kind = HoldKind.NONDETERMINISM
        case HistoryCorrupt():
            kind = HoldKind.HISTORY
        case MigrationFailed() if levels.write >= _MIGRATION_LEVEL:
            return hold(instance, HoldKind.MIGRATION, str(error), now, node_id, limits)
        case PayloadUnreadable() if levels.write >= _PAYLOAD_LEVEL:
            detail = describe_error(error)
            held = hold(instance, HoldKind.PAYLOAD, detail, now, node_id, limits)
            return replace(held, tried=(error.tried, *held.at_fault))
        case DecodeError() | MigrationFailed():
            kind = HoldKind.STATE
        case _:
            kind = HoldKind.INTERNAL
    return hold(instance, kind, describe_error(error), now, node_id, limits)


def hold(
    instance: OwnedInstance, kind: HoldKind, detail: str, now: int, node_id: str, limits: Limits
) -> Hold:
    """Return a hold that names the code that was tried. Drop the execution."""
    if instance.execution is not None:
        instance.execution.evict()
        instance.execution = None
    tried, at_fault = (
        (set[str](), set[str]())
        if instance.hold is None
        else (set(instance.hold.tried), set(instance.hold.at_fault))
    )
    trying = set(filter(None, [instance.trying]))
    if kind is HoldKind.LIMIT:
        trying = {limited_fingerprint(code, limits.max_events, limits.max_bytes) for code in trying}
    if kind.blames_code:
        # Code that the store or the engine has failed may be the very fix. It is tried once more
        # for each code at fault. Those stay tried, so that no two kinds of holds release one
        # another for ever.
        tried = at_fault = at_fault | trying
    else:
        tried |= trying
    return Hold(kind, UserText(detail), now, node_id, tuple(sorted(tried)), tuple(sorted(at_fault)))


def kept_rows(
    instance: OwnedInstance, early: Sequence[ActivityEnded], now: int
) -> dict[int, ActivityRow]:
    """Return what a hold keeps of activities, so that those that have ended never run again (rule
    39).

    Args:
        early: ends that came before the execution was loaded.
    """
    number = instance.current.number
    rows: dict[int, ActivityRow] = {}
    for place, end in enumerate(instance.inputs):
        activity = instance.attempts.get(end.source)
        if activity is not None:
            rows[end.source] = activity.ended_row(number, end, place)
    for ended in early:
        stored = instance.stored_activities.get(ended.key.event_id)
        if stored is None or not stored.has_ended:
            rows[ended.key.event_id] = early_end_row(ended, stored, instance.takeovers, now)
    return rows


def describe_error(error: Exception) -> str:
    """Return an error as a hold keeps it."""
    return storable(f"{type(error).__name__}: {error}", _DETAIL)
