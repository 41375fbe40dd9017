"""The table of all metrics. The instruments are made from it, and a test compares the guide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from orchestra.telemetry.attributes import (
    ACTIVITY,
    CACHE_RESULT,
    FROM_VERSION,
    HOLD_REASON,
    MIGRATIONS,
    NAME,
    OUTCOME,
    REFUSAL_REASON,
    REQUEST,
    TO_VERSION,
    VERSION,
)

__all__ = ["INSTRUMENTS", "InstrumentSpec"]

_SECONDS: Final = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
)
_LONG: Final = (0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 21_600.0, 86_400.0, 604_800.0)
_COUNTS: Final = (1.0, 2.0, 3.0, 4.0, 5.0, 8.0, 12.0, 20.0, 50.0)
_GROUPS: Final = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)


@dataclass(frozen=True, slots=True)
class InstrumentSpec:
    """One metric. ``labels`` are all that it ever carries; no instance id is among them."""

    name: str
    kind: Literal["counter", "up-down counter", "gauge", "histogram"]
    unit: str
    description: str
    labels: tuple[str, ...] = ()
    boundaries: tuple[float, ...] = ()


_CODE: Final = (NAME, VERSION)

INSTRUMENTS: Final = (
    InstrumentSpec(
        "orchestra.starts",
        "counter",
        "{instance}",
        "instances whose first execution has begun",
        _CODE,
    ),
    InstrumentSpec(
        "orchestra.ends", "counter", "{instance}", "instances that have ended", (*_CODE, OUTCOME)
    ),
    InstrumentSpec(
        "orchestra.laps",
        "counter",
        "{execution}",
        "executions that ended in continue-as-new",
        _CODE,
    ),
    InstrumentSpec(
        "orchestra.upgrades",
        "counter",
        "{execution}",
        "executions that have begun on another version than the one before, up or down",
        (NAME, FROM_VERSION, TO_VERSION),
    ),
    InstrumentSpec(
        "orchestra.migrations",
        "counter",
        "{execution}",
        "executions whose state was migrated as they opened, by the versions passed",
        (NAME, MIGRATIONS),
    ),
    InstrumentSpec(
        "orchestra.holds",
        "counter",
        "{instance}",
        "times that an instance was held",
        (*_CODE, HOLD_REASON),
    ),
    InstrumentSpec(
        "orchestra.releases",
        "counter",
        "{instance}",
        "times that a hold was ended",
        (*_CODE, HOLD_REASON),
    ),
    InstrumentSpec(
        "orchestra.held",
        "gauge",
        "{instance}",
        (
            "instances in the store that are held now, counted once a lease; every node reports "
            "the same number"
        ),
        (NAME, HOLD_REASON),
    ),
    InstrumentSpec(
        "orchestra.overdue",
        "gauge",
        "{instance}",
        (
            "open instances whose boundary is overdue, counted once a lease; every node reports "
            "the same number"
        ),
        (NAME,),
    ),
    InstrumentSpec(
        "orchestra.messages.set_aside",
        "counter",
        "{message}",
        "events that the code awaited and could not decode",
        _CODE,
    ),
    InstrumentSpec(
        "orchestra.requests",
        "counter",
        "{request}",
        "requests that this node's or client's process sent, and the store accepted",
        (REQUEST,),
    ),
    InstrumentSpec(
        "orchestra.request.wait",
        "histogram",
        "s",
        (
            "from the sending of a request to the commit that gives it to code; once for each lap "
            "that gets it"
        ),
        (*_CODE, REQUEST),
        _SECONDS,
    ),
    InstrumentSpec(
        "orchestra.request.duration",
        "histogram",
        "s",
        "from code being given a request to the commit of its answer, in the lap that answers it",
        (*_CODE, REQUEST, OUTCOME),
        _SECONDS,
    ),
    InstrumentSpec(
        "orchestra.schedule.slots",
        "counter",
        "{slot}",
        "slots of schedules whose outcome is known, by outcome",
        (OUTCOME,),
    ),
    InstrumentSpec(
        "orchestra.schedule.lateness",
        "histogram",
        "s",
        "from a slot to the commit that fires it, with its jitter",
        (),
        _SECONDS,
    ),
    InstrumentSpec(
        "orchestra.sends.refused",
        "counter",
        "{message}",
        "events and cancels for other instances, refused, whose refusal no code awaited",
        (*_CODE, REFUSAL_REASON),
    ),
    InstrumentSpec(
        "orchestra.turn.duration",
        "histogram",
        "s",
        "orchestration code of one turn, without the commit",
        _CODE,
        _SECONDS,
    ),
    InstrumentSpec(
        "orchestra.lap.duration",
        "histogram",
        "s",
        "an execution from its opening to its end",
        (*_CODE, OUTCOME),
        _LONG,
    ),
    InstrumentSpec(
        "orchestra.activity.duration",
        "histogram",
        "s",
        "one attempt of an activity",
        (*_CODE, ACTIVITY, OUTCOME),
        _SECONDS,
    ),
    InstrumentSpec(
        "orchestra.activity.attempts",
        "histogram",
        "{attempt}",
        "attempts that an activity took until its result or its final failure",
        (*_CODE, ACTIVITY),
        _COUNTS,
    ),
    InstrumentSpec(
        "orchestra.activities.running",
        "up-down counter",
        "{attempt}",
        "attempts that run now on this node",
    ),
    InstrumentSpec(
        "orchestra.timer.lateness",
        "histogram",
        "s",
        "from a timer's due time to the commit of its firing",
        _CODE,
        _SECONDS,
    ),
    InstrumentSpec(
        "orchestra.queue.age",
        "histogram",
        "s",
        "from an instance being ready to its claim",
        _CODE,
        _SECONDS,
    ),
    InstrumentSpec(
        "orchestra.owned", "up-down counter", "{instance}", "instances that this node works on now"
    ),
    InstrumentSpec(
        "orchestra.cache.lookups",
        "counter",
        "{execution}",
        "claimed executions that were in memory (hit) or had to be replayed (miss)",
        (*_CODE, CACHE_RESULT),
    ),
    InstrumentSpec(
        "orchestra.takeovers", "counter", "{instance}", "instances taken over from dead nodes"
    ),
    InstrumentSpec(
        "orchestra.commit.duration", "histogram", "s", "one commit of a group", (), _SECONDS
    ),
    InstrumentSpec(
        "orchestra.commit.writes",
        "histogram",
        "{write}",
        "changes in one commit, without claims",
        (),
        _GROUPS,
    ),
    InstrumentSpec(
        "orchestra.stream.items", "counter", "{item}", "items that were published to streams"
    ),
    InstrumentSpec("orchestra.stream.bytes", "counter", "By", "bytes of the values of these items"),
    InstrumentSpec(
        "orchestra.stream.refused",
        "counter",
        "{item}",
        "items of attempts that were no longer current",
    ),
    InstrumentSpec(
        "orchestra.store.failures",
        "counter",
        "{failure}",
        "calls that failed because the store could not be used",
    ),
)
