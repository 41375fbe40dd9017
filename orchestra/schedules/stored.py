"""The stored forms of schedules, of their states and of the outcomes of slots: plain JSON values.

The value of an action (a start's input, an event's payload) is a payload of users and stands apart.
A form with one unknown word or field is not read at all (protocol rule 37): this library then
leaves the schedule to nodes that read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast, get_args

from orchestra.errors import OrchestraError
from orchestra.levels import BASE_LEVEL
from orchestra.schedules.forms import SPECS, SpecKinds, UnknownSpec, spec_from_json, spec_to_json
from orchestra.schedules.schedule import Action, Event, Schedule, Start
from orchestra.schedules.states import (
    Cause,
    Outcome,
    ScheduleCounters,
    SchedulePause,
    ScheduleState,
    SlotOutcome,
    Waiting,
)

__all__ = [
    "UnknownSchedule",
    "outcome_from_json",
    "outcome_to_json",
    "schedule_from_json",
    "schedule_to_json",
    "state_from_json",
    "state_to_json",
]

_MICROSECOND: Final = timedelta(microseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class UnknownSchedule:
    """A stored schedule, state or outcome that this library or host cannot read. ``form`` is its
    stored form, ``reason`` says what is unknown.

    This library does not tick it. Nodes that read it do.
    """

    form: Any
    reason: str

    def __hash__(self) -> int:
        return hash(self.reason)


class _Unreadable(Exception):
    """A part of a form is unknown here."""


_WRONG: Final = (
    _Unreadable,
    OrchestraError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    OverflowError,
)
"""What reading a form of another library may raise."""


def _number(instant: datetime | None) -> int | None:
    return None if instant is None else (instant - _EPOCH) // _MICROSECOND


def _instant(number: int) -> datetime:
    return _EPOCH + _whole(number) * _MICROSECOND


def _optional(number: int | None) -> datetime | None:
    return None if number is None else _instant(number)


def _whole(number: object) -> int:
    if not isinstance(number, int) or isinstance(number, bool):
        raise _Unreadable(f"{number!r} is no whole number")
    return number


def _mapping(form: object, known: frozenset[str], what: str) -> Json:
    if not isinstance(form, Mapping):
        raise _Unreadable(f"{what} is no mapping")
    found = dict(cast("Mapping[str, Any]", form))
    different = sorted(known.symmetric_difference(found))
    if different:
        raise _Unreadable(f"{what} differs in the fields {', '.join(different)}")
    return found


# --- schedules --------------------------------------------------------------------------------

_START: Final = frozenset({"kind", "name", "version", "labels", "queue"})
_EVENT: Final = frozenset({"kind", "instance_id", "name"})
_SCHEDULE: Final = frozenset({
    "spec", "action", "overlap", "catch_up", "catch_up_window", "jitter", "start_at", "end_at",
    "pause_after_failures", "revision",
})  # fmt: skip


def schedule_to_json(schedule: Schedule, kinds: SpecKinds = SPECS, level: int = BASE_LEVEL) -> Json:
    """Return the stored form of a schedule at a write level, without its id and without the value
    of its action.

    Raises:
        LevelTooLow: its spec may not be written yet.
    """
    action = schedule.action
    if isinstance(action, Start):
        stored: Json = {
            "kind": "start",
            "name": action.name,
            "version": action.version,
            "labels": None if action.labels is None else dict(action.labels),
            "queue": action.queue,
        }
    else:
        stored = {"kind": "event", "instance_id": action.instance_id, "name": action.name}
    return {
        "spec": spec_to_json(schedule.spec, kinds, level),
        "action": stored,
        "overlap": schedule.overlap,
        "catch_up": schedule.catch_up,
        "catch_up_window": schedule.catch_up_window // _MICROSECOND,
        "jitter": schedule.jitter // _MICROSECOND,
        "start_at": _number(schedule.start_at),
        "end_at": _number(schedule.end_at),
        "pause_after_failures": schedule.pause_after_failures,
        "revision": schedule.revision,
    }


def schedule_from_json(
    schedule_id: str, form: object, value: Any = None, kinds: SpecKinds = SPECS
) -> Schedule | UnknownSchedule:
    """Return the schedule that :func:`schedule_to_json` wrote, with the value of its action."""
    try:
        found = _mapping(form, _SCHEDULE, "the schedule")
        spec = spec_from_json(found.pop("spec"), kinds)
        if isinstance(spec, UnknownSpec):
            raise _Unreadable(spec.reason)
        return Schedule(
            schedule_id,
            spec,
            _action(found.pop("action"), value),
            overlap=found["overlap"],
            catch_up=found["catch_up"],
            catch_up_window=_whole(found["catch_up_window"]) * _MICROSECOND,
            jitter=_whole(found["jitter"]) * _MICROSECOND,
            start_at=_optional(found["start_at"]),
            end_at=_optional(found["end_at"]),
            pause_after_failures=found["pause_after_failures"],
            revision=found["revision"],
        )
    except _WRONG as error:
        return UnknownSchedule(form, str(error))


def _action(form: object, value: Any) -> Action:
    kind = cast("Any", form).get("kind")
    if kind == "start":
        found = _mapping(form, _START, "the action")
        del found["kind"]
        return Start(input=value, **found)
    if kind == "event":
        found = _mapping(form, _EVENT, "the action")
        del found["kind"]
        return Event(payload=value, **found)
    raise _Unreadable(f"the action's kind {kind!r} is unknown")


# --- states -----------------------------------------------------------------------------------

_STATE: Final = frozenset(field.name for field in fields(ScheduleState))
_PAUSE: Final = frozenset(field.name for field in fields(SchedulePause))
_COUNTERS: Final = frozenset(field.name for field in fields(ScheduleCounters))
_OUTCOME: Final = frozenset(field.name for field in fields(SlotOutcome))


def state_to_json(state: ScheduleState) -> Json:
    """Return the stored form of a schedule's state."""
    pause = state.pause
    return {
        "cursor": _number(state.cursor),
        "next_at": _number(state.next_at),
        "pause": pause
        and {
            "reason": pause.reason,
            "by": pause.by,
            "at": _number(pause.at),
            "until": _number(pause.until),
        },
        "buffered": [[_number(one.slot), one.cause] for one in state.buffered],
        "watched": list(state.watched),
        "failures": state.failures,
        "overlaps": state.overlaps,
        "last_fired": _number(state.last_fired),
        "counters": {name: getattr(state.counters, name) for name in ScheduleCounters.__slots__},
    }


def state_from_json(form: object) -> ScheduleState | UnknownSchedule:
    """Return the state that :func:`state_to_json` wrote."""
    try:
        found = _mapping(form, _STATE, "the state")
        counters = _mapping(found["counters"], _COUNTERS, "the counters")
        return ScheduleState(
            _instant(found["cursor"]),
            _optional(found["next_at"]),
            found["pause"] and _pause(found["pause"]),
            tuple(Waiting(_instant(slot), _cause(cause)) for slot, cause in found["buffered"]),
            tuple(map(str, found["watched"])),
            _whole(found["failures"]),
            _whole(found["overlaps"]),
            _optional(found["last_fired"]),
            ScheduleCounters(**{name: _whole(count) for name, count in counters.items()}),
        )
    except _WRONG as error:
        return UnknownSchedule(form, str(error))


def _pause(form: object) -> SchedulePause:
    found = _mapping(form, _PAUSE, "the pause")
    return SchedulePause(
        found["reason"], found["by"], _instant(found["at"]), _optional(found["until"])
    )


def _cause(word: object) -> Cause:
    if word not in get_args(Cause):
        raise _Unreadable(f"the cause {word!r} is unknown")
    return cast("Cause", word)


# --- outcomes ---------------------------------------------------------------------------------


def outcome_to_json(outcome: SlotOutcome) -> Json:
    """Return the stored form of a slot's outcome."""
    form = {name: getattr(outcome, name) for name in SlotOutcome.__slots__}
    return form | {"slot": _number(outcome.slot), "first": _number(outcome.first)}


def outcome_from_json(form: object) -> SlotOutcome | UnknownSchedule:
    """Return the outcome that :func:`outcome_to_json` wrote."""
    try:
        found = _mapping(form, _OUTCOME, "the outcome")
        if found["outcome"] not in get_args(Outcome):
            raise _Unreadable(f"the outcome {found['outcome']!r} is unknown")
        _cause(found["cause"])
        known = SlotOutcome(_instant(found["slot"]), found["outcome"])
        rest = {name: value for name, value in found.items() if name != "slot"}
        return replace(known, **rest | {"first": _optional(found["first"])})
    except _WRONG as error:
        return UnknownSchedule(form, str(error))
