"""Metrics. The node that commits a change counts it, at the commit."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry.metrics import Meter

from orchestra.store.changes import Change, Claim
from orchestra.store.kinds import HoldKind
from orchestra.store.schedules import SlotRow
from orchestra.store.snapshots import Snapshot
from orchestra.telemetry import attributes as names
from orchestra.telemetry.instruments import INSTRUMENTS
from orchestra.telemetry.records import (
    AsideRecord,
    EndRecord,
    HoldRecord,
    Record,
    RefusedSendRecord,
    RequestsRecord,
    Subject,
    TurnRecord,
)

__all__ = ["Metrics"]

_BOUNDARY: Final = "continued_as_new"


class Metrics:
    """Records measurements with one meter."""

    def __init__(self, meter: Meter) -> None:
        made: dict[str, Any] = {}
        for spec in INSTRUMENTS:
            match spec.kind:
                case "counter":
                    made[spec.name] = meter.create_counter(spec.name, spec.unit, spec.description)
                case "up-down counter":
                    made[spec.name] = meter.create_up_down_counter(
                        spec.name, spec.unit, spec.description
                    )
                case "gauge":
                    made[spec.name] = meter.create_gauge(spec.name, spec.unit, spec.description)
                case "histogram":
                    made[spec.name] = meter.create_histogram(
                        spec.name,
                        spec.unit,
                        spec.description,
                        explicit_bucket_boundaries_advisory=spec.boundaries,
                    )
        self._made = made
        self._owned = 0
        self._held: Counts[tuple[str, str]] = Counts()
        self._overdue: Counts[str] = Counts()

    def _add(self, name: str, amount: int, labels: Mapping[str, str] | None = None) -> None:
        self._made[name].add(amount, labels)

    def _record(self, name: str, value: float, labels: Mapping[str, str] | None = None) -> None:
        self._made[name].record(value, labels)

    # --- committed turns ---

    def stands(self, record: Record, now: int) -> None:
        """Count a turn, an end or a hold that was committed; ``now`` is the store's time."""
        match record:
            case TurnRecord():
                self._turn(record, now)
            case EndRecord(subject=subject, outcome=outcome):
                self.ended(subject.name, subject.version, outcome)
            case HoldRecord(subject=subject, reason=reason):
                self._add("orchestra.holds", 1, {**_code(subject), names.HOLD_REASON: reason})
            case AsideRecord(subject=subject, count=count):
                self._add("orchestra.messages.set_aside", count, _code(subject))
            case RefusedSendRecord(subject=subject, reason=reason):
                labels = {**_code(subject), names.REFUSAL_REASON: reason}
                self._add("orchestra.sends.refused", 1, labels)
            case RequestsRecord():
                self._requests(record, now)

    def _turn(self, record: TurnRecord, now: int) -> None:
        subject = record.subject
        code = _code(subject)
        self._record("orchestra.turn.duration", record.seconds, code)
        if record.opened and subject.execution == 1:
            self._add("orchestra.starts", 1, code)
        if record.opened and record.previous_version not in {None, subject.version}:
            labels = {
                names.NAME: subject.name,
                names.FROM_VERSION: str(record.previous_version),
                names.TO_VERSION: subject.version,
            }
            self._add("orchestra.upgrades", 1, labels)
        if record.migrations:
            path = {names.NAME: subject.name, names.MIGRATIONS: ",".join(record.migrations)}
            self._add("orchestra.migrations", 1, path)
        for due in record.fired:
            self._record("orchestra.timer.lateness", max(0.0, (now - due) / 1e6), code)
        for activity, attempts in record.attempts:
            self._record(
                "orchestra.activity.attempts", attempts, {**code, names.ACTIVITY: activity}
            )
        if record.outcome is not None:
            if record.outcome == _BOUNDARY:
                self._add("orchestra.laps", 1, code)
            else:
                self.ended(subject.name, subject.version, record.outcome)
            if record.lap_seconds is not None:
                self._record(
                    "orchestra.lap.duration",
                    record.lap_seconds,
                    {**code, names.OUTCOME: record.outcome},
                )

    def _requests(self, record: RequestsRecord, now: int) -> None:
        code = _code(record.subject)
        for name, sent_at in record.given:
            labels = {**code, names.REQUEST: name}
            self._record("orchestra.request.wait", max(0.0, (now - sent_at) / 1e6), labels)
        for name, given_at, outcome in record.answered:
            labels = {**code, names.REQUEST: name, names.OUTCOME: outcome}
            self._record("orchestra.request.duration", max(0.0, (now - given_at) / 1e6), labels)

    def requested(self, name: str) -> None:
        """Count a request that the store has accepted."""
        self._add("orchestra.requests", 1, {names.REQUEST: name})

    def ended(self, name: str, version: str, outcome: str) -> None:
        """Count the end of an instance."""
        self._add(
            "orchestra.ends", 1, {names.NAME: name, names.VERSION: version, names.OUTCOME: outcome}
        )

    def held_by_operator(self, name: str, version: str) -> None:
        """Count an operator's hold."""
        self._held_or_released("orchestra.holds", name, version, HoldKind.OPERATOR)

    def released(self, name: str, version: str, reason: str) -> None:
        """Count the end of a hold."""
        self._held_or_released("orchestra.releases", name, version, reason)

    def _held_or_released(self, metric: str, name: str, version: str, reason: str) -> None:
        labels = {names.NAME: name, names.VERSION: version, names.HOLD_REASON: reason}
        self._add(metric, 1, labels)

    # --- claims ---

    def claimed(self, snapshot: Snapshot, now: int) -> None:
        """Record how long a claimed instance has been ready, if that is known."""
        since = _ready_since(snapshot)
        if since is not None:
            labels = {names.NAME: snapshot.row.kind.name, names.VERSION: snapshot.execution.version}
            self._record("orchestra.queue.age", max(0.0, (now - since) / 1e6), labels)

    def looked_up(self, name: str, version: str, *, warm: bool) -> None:
        """Count a lookup of a warm execution."""
        labels = {
            names.NAME: name,
            names.VERSION: version,
            names.CACHE_RESULT: "hit" if warm else "miss",
        }
        self._add("orchestra.cache.lookups", 1, labels)

    # --- schedules ---

    def slots(self, slots: Sequence[SlotRow]) -> None:
        """Count slots of a schedule, by outcome, and record how late they were."""
        for slot in slots:
            labels = {names.OUTCOME: slot.outcome}
            self._add("orchestra.schedule.slots", slot.slot_count, labels)
            if slot.outcome == "fired" and slot.cause == "slot":
                self._record("orchestra.schedule.lateness", max(0.0, (slot.at - slot.slot) / 1e6))

    # --- the node and the store ---

    def held(self, numbers: Mapping[tuple[str, str], int]) -> None:
        """Set the numbers of held instances, by name and reason; others become zero."""
        now = Counts(numbers)
        for name, reason in self._held.keys() | now.keys():
            self._made["orchestra.held"].set(
                now[name, reason], {names.NAME: name, names.HOLD_REASON: reason}
            )
        self._held = now

    def overdue(self, numbers: Mapping[str, int]) -> None:
        """Set the numbers of instances whose boundaries are overdue, by name; others become
        zero.
        """
        now = Counts(numbers)
        for name in self._overdue.keys() | now.keys():
            self._made["orchestra.overdue"].set(now[name], {names.NAME: name})
        self._overdue = now

    def owned(self, instances: int) -> None:
        """Set how many instances the node owns; several nodes of one process add up."""
        if instances != self._owned:
            self._add("orchestra.owned", instances - self._owned)
            self._owned = instances

    def taken_over(self, instances: int) -> None:
        """Count instances that were taken over from dead nodes."""
        self._add("orchestra.takeovers", instances)

    def committed(self, changes: Sequence[Change], seconds: float) -> None:
        """Record a commit."""
        self._record("orchestra.commit.duration", seconds)
        self._record(
            "orchestra.commit.writes", sum(not isinstance(change, Claim) for change in changes)
        )

    def published(self, items: int, size: int) -> None:
        """Count items that were published to streams."""
        self._add("orchestra.stream.items", items)
        self._add("orchestra.stream.bytes", size)

    def publication_refused(self, items: int) -> None:
        """Count items of attempts that were no longer current."""
        self._add("orchestra.stream.refused", items)

    def store_failed(self) -> None:
        """Count a call that failed because the store could not be used."""
        self._add("orchestra.store.failures", 1)

    # --- activities ---

    def running(self, change: int) -> None:
        """Count an attempt that begins (1) or ends (-1)."""
        self._add("orchestra.activities.running", change)

    def attempt(self, subject: Subject, activity: str, outcome: str, seconds: float) -> None:
        """Record an attempt of an activity."""
        labels = {**_code(subject), names.ACTIVITY: activity, names.OUTCOME: outcome}
        self._record("orchestra.activity.duration", seconds, labels)


def _code(subject: Subject) -> dict[str, str]:
    return {names.NAME: subject.name, names.VERSION: subject.version}


def _ready_since(snapshot: Snapshot) -> int | None:
    """Return since when an instance had been ready; ``None`` if another node released it, because
    then it is unknown.
    """
    row = snapshot.row
    if row.wake_at:
        return row.wake_at
    unseen = [message.sent_at for message in snapshot.messages if message.sequence > row.seen_seq]
    if unseen:
        return min(unseen)
    return (
        None
        if row.opened or row.takeovers or row.hold is not None
        else snapshot.execution.created_at
    )
