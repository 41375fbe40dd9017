"""What operators do to the model: policies, pins, deletion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from orchestra.clock import Clock
from orchestra.store.catalogue import PolicyRow
from orchestra.store.instances import Nudge, Pin
from orchestra.store.kinds import Status
from orchestra.store.labels import Labelled
from orchestra.store.nudges import Nudged
from orchestra.store.policies import PolicyOutcome
from tests.support.model.store import ModelStore
from tests.support.model.world import ModelWorld, ring

_NAMED: Final = 100
"""Of how many deleted instances the audit names the ids."""


class ModelAdmin:
    """Implements :class:`~orchestra.store.port.Admin`."""

    def __init__(self, world: ModelWorld, store: ModelStore, clock: Clock) -> None:
        self._world = world
        self._store = store
        self._clock = clock

    def set_policy(
        self,
        name: str,
        value: str,
        *,
        by: str,
        reason: str,
        only_first: bool = False,
        expected_revision: int | None = None,
    ) -> PolicyOutcome:
        with self._world.transaction(self._store, self._clock) as now:
            past = [row for row in self._world.policy_log if row.name == name]
            last = past[-1] if past else None
            if past and only_first:
                return PolicyOutcome(granted=False, row=last)
            if expected_revision is not None and expected_revision != len(past):
                made = [row.value for row in past[expected_revision:]] == [value]
                return PolicyOutcome(granted=made, row=last)
            row = PolicyRow(name, len(past) + 1, value, by, reason, now)
            self._world.policy_log += (row,)
            self._world.policies[name] = row
            self._record(by, "set policy", name, {"value": value, "reason": reason})
            return PolicyOutcome(granted=True, row=row)

    def set_pin(
        self,
        instance_id: str,
        version: str | None,
        *,
        by: str,
        reason: str,
        until: int | None = None,
        unless_same: bool = False,
    ) -> bool:
        with self._world.transaction(self._store, self._clock) as now:
            instance = self._world.instances.get(instance_id)
            if instance is None or instance.status is not Status.OPEN:
                return False
            row = instance.row
            standing = (row.pin.version, row.pin.until) if row.pin else (None, until)
            if unless_same and standing == (version, until):
                return False
            wake_at = row.wake_at if row.owner is None else 0
            pin = None if version is None else Pin(version, now, by, reason, until)
            row = replace(row, pin=pin, revision=row.revision + 1, owner=None, wake_at=wake_at)
            self._world.instances[instance_id] = replace(instance, row=row, updated_at=now)
            if version is None:
                self._record(by, "unpin", instance_id, {"reason": reason})
            else:
                self._record(by, "pin", instance_id, {"version": version, "reason": reason})
            return True

    def nudge(
        self, instance_id: str, incarnation: str, execution: int, *, by: str, reason: str
    ) -> Nudged:
        with self._world.transaction(self._store, self._clock) as now:
            instance = self._world.instances.get(instance_id)
            if instance is None or instance.status is not Status.OPEN:
                return Nudged.CLOSED
            row = instance.row
            if row.incarnation != incarnation or row.execution != execution:
                return Nudged.PASSED
            if row.nudge is not None and row.nudge.execution == execution:
                return Nudged.STANDING
            owned, known = row.owner is not None, row.inbox_seq
            row = ring(replace(row, owner=None), now)
            row = replace(
                row,
                revision=row.revision + 1,
                inbox_seq=known,
                wake_at=0 if owned else row.wake_at,
                nudge=Nudge(execution, now, by, reason),
            )
            self._world.instances[instance_id] = replace(instance, row=row, updated_at=now)
            self._record(by, "nudge", instance_id, {"execution": execution, "reason": reason})
            return Nudged.ASKED

    def set_labels(
        self,
        instance_id: str,
        changes: Mapping[str, str | None],
        *,
        by: str,
        reason: str,
    ) -> Labelled | None:
        with self._world.transaction(self._store, self._clock):
            instance = self._world.instances.get(instance_id)
            if instance is None:
                return None
            labels = dict(instance.labels)
            for key, value in changes.items():
                labels.pop(key, None)
                if value is not None:
                    labels[key] = value
            if labels == instance.labels:
                return Labelled(labels, is_done=False)
            if len(labels) > 64 and len(labels) > len(instance.labels):
                return Labelled(instance.labels, is_done=False, too_many=True)
            self._world.instances[instance_id] = replace(instance, labels=labels)
            self._record(by, "set labels", instance_id, {"labels": dict(changes), "reason": reason})
            return Labelled(labels, is_done=True)

    def delete(self, instance_id: str, incarnation: str, *, by: str, reason: str) -> bool:
        with self._world.transaction(self._store, self._clock):
            if not self._remove(instance_id, incarnation):
                return False
            self._record(by, "delete", instance_id, {"incarnation": incarnation, "reason": reason})
            return True

    def delete_all(
        self, instances: Sequence[tuple[str, str]], *, by: str, reason: str
    ) -> list[str]:
        with self._world.transaction(self._store, self._clock):
            deleted = [
                instance_id
                for instance_id, incarnation in instances
                if self._remove(instance_id, incarnation)
            ]
            if deleted:
                self._record(
                    by,
                    "purge",
                    "",
                    {"count": len(deleted), "first": deleted[:_NAMED], "reason": reason},
                )
            return deleted

    def _remove(self, instance_id: str, incarnation: str) -> bool:
        instance = self._world.instances.get(instance_id)
        if (
            instance is None
            or instance.status is Status.OPEN
            or instance.row.incarnation != incarnation
        ):
            return False
        del self._world.instances[instance_id]
        return True

    def _record(self, actor: str, action: str, subject: str, detail: Mapping[str, Any]) -> None:
        self._world.record(actor, action, subject, detail)

    def set_expiry(self, after: Mapping[str, int | None]) -> None:
        with self._world.transaction(self._store, self._clock):
            for name, duration in after.items():
                if duration is None:
                    self._world.expiries.pop(name, None)
                else:
                    self._world.expiries[name] = duration
