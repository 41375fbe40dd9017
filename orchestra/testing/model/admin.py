"""What operators do to the model: policies, pins, deletion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from orchestra.clock import Clock
from orchestra.providers.rows import Pin, PolicyRow, Status
from orchestra.testing.model.store import ModelStore
from orchestra.testing.model.world import ModelWorld


class ModelAdmin:
    """Implements :class:`~orchestra.providers.interfaces.Admin`."""

    def __init__(self, world: ModelWorld, store: ModelStore, clock: Clock) -> None:
        self._world = world
        self._store = store
        self._clock = clock

    def set_policy(self, name: str, value: str, *, by: str, reason: str, only_first: bool = False) -> bool:
        with self._world.transaction(self._store, self._clock) as now:
            standing = self._world.policies.get(name)
            if standing is not None and only_first:
                return False
            revision = 1 if standing is None else standing.revision + 1
            self._world.policies[name] = PolicyRow(name, revision, value, by, reason, now)
            return True

    def set_pin(self, instance_id: str, pin: Pin | None) -> bool:
        with self._world.transaction(self._store, self._clock) as now:
            instance = self._world.instances.get(instance_id)
            if instance is None or instance.status is not Status.OPEN:
                return False
            row = instance.row
            wake_at = row.wake_at if row.owner is None else 0
            row = replace(row, pin=pin, revision=row.revision + 1, owner=None, wake_at=wake_at)
            self._world.instances[instance_id] = replace(instance, row=row, updated_at=now)
            return True

    def delete(self, instance_id: str, incarnation: str) -> bool:
        with self._world.transaction(self._store, self._clock):
            instance = self._world.instances.get(instance_id)
            if instance is None or instance.status is Status.OPEN or instance.row.incarnation != incarnation:
                return False
            del self._world.instances[instance_id]
            return True

    def delete_all(self, instances: Sequence[tuple[str, str]]) -> list[str]:
        return [instance_id for instance_id, incarnation in instances if self.delete(instance_id, incarnation)]

    def set_expiry(self, after: Mapping[str, int | None]) -> None:
        with self._world.transaction(self._store, self._clock):
            for name, duration in after.items():
                if duration is None:
                    self._world.expiries.pop(name, None)
                else:
                    self._world.expiries[name] = duration
