"""Operators' writes, in memory. Each leaves an entry in the audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from orchestra.clock import Clock
from orchestra.codec import UserText
from orchestra.providers.memory.database import Database
from orchestra.store.audit import Record
from orchestra.store.decoding import is_same_pin, nudge_from_bytes, nudge_to_bytes, pin_to_bytes
from orchestra.store.instances import Nudge, Pin
from orchestra.store.labels import Labelled, relabelled
from orchestra.store.nudges import Nudged, decide_nudge
from orchestra.store.policies import PolicyChange, PolicyOutcome, oldest_kept

__all__ = ["MemoryAdmin"]

_NAMED: Final = 100
"""How many ids of deleted instances the audit names."""


class MemoryAdmin:
    """Implements :class:`~orchestra.store.port.Admin`; the promises are written there."""

    def __init__(self, database: Database, store: object, clock: Clock) -> None:
        self._database = database
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
        change = PolicyChange(name, value, by, reason, only_first, expected_revision)
        database = self._database
        with database.transaction(self._store, self._clock) as now:
            standing = database.policies.get(name)
            settled = change.settled(standing)
            if settled is not None:
                return settled
            row = change.row(standing, now)
            if standing is not None:
                former = (*database.former_policies.get(name, ()), standing)
                kept = (one for one in former if one.revision >= oldest_kept(row))
                database.set(database.former_policies, name, tuple(kept))
            database.set(database.policies, name, row)
            self._record(now, by, "set policy", name, {"value": value, "reason": reason})
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
        with self._database.transaction(self._store, self._clock) as now:
            row = self._database.hot_row(instance_id)
            if row is None or not row.is_open:
                return False
            stored = self._database.detail(instance_id, "pin")
            if unless_same and is_same_pin(stored, version, until):
                return False
            row.revoke(now)
            self._database.store_row(row)
            pin = (
                None
                if version is None
                else pin_to_bytes(Pin(version, now, by, UserText(reason), until))
            )
            self._database.change_detail(instance_id, pin=pin)
            if version is None:
                self._record(now, by, "unpin", instance_id, {"reason": reason})
            else:
                detail = {"version": version, "reason": reason}
                self._record(now, by, "pin", instance_id, detail)
        return True

    def nudge(
        self, instance_id: str, incarnation: str, execution: int, *, by: str, reason: str
    ) -> Nudged:
        database = self._database
        with database.transaction(self._store, self._clock) as now:
            row, stored = database.hot_row(instance_id), database.detail(instance_id, "nudge")
            standing = None if stored is None else nudge_from_bytes(stored)
            outcome = decide_nudge(row, standing, incarnation, execution, now)
            if row is not None and outcome is Nudged.ASKED:
                database.store_row(row)
                nudge = nudge_to_bytes(Nudge(execution, now, by, UserText(reason)))
                database.change_detail(instance_id, nudge=nudge)
                detail = {"execution": execution, "reason": reason}
                self._record(now, by, "nudge", instance_id, detail)
        return outcome

    def set_labels(
        self,
        instance_id: str,
        changes: Mapping[str, str | None],
        *,
        by: str,
        reason: str,
    ) -> Labelled | None:
        database = self._database
        with database.transaction(self._store, self._clock) as now:
            if database.hot_row(instance_id) is None:
                return None
            standing = {key: value for _, key, value in database.labels.of(instance_id)}
            outcome = relabelled(standing, changes)
            if outcome.is_done:
                for key, value in changes.items():
                    if value is None:
                        database.labels.remove(instance_id, key)
                    else:
                        database.labels.put((instance_id, key, value))
                detail = {"labels": dict(changes), "reason": reason}
                self._record(now, by, "set labels", instance_id, detail)
        return outcome

    def delete(self, instance_id: str, incarnation: str, *, by: str, reason: str) -> bool:
        with self._database.transaction(self._store, self._clock) as now:
            deleted = self._delete(instance_id, incarnation)
            if deleted:
                detail = {"incarnation": incarnation, "reason": reason}
                self._record(now, by, "delete", instance_id, detail)
        return deleted

    def delete_all(
        self, instances: Sequence[tuple[str, str]], *, by: str, reason: str
    ) -> list[str]:
        with self._database.transaction(self._store, self._clock) as now:
            deleted = [
                instance_id
                for instance_id, incarnation in instances
                if self._delete(instance_id, incarnation)
            ]
            if deleted:
                detail = {"count": len(deleted), "first": deleted[:_NAMED], "reason": reason}
                self._record(now, by, "purge", "", detail)
        return deleted

    def set_expiry(self, after: Mapping[str, int | None]) -> None:
        with self._database.transaction(self._store, self._clock):
            for name, duration in after.items():
                self._database.set(self._database.expiries, name, duration)

    def _delete(self, instance_id: str, incarnation: str) -> bool:
        row = self._database.hot_row(instance_id)
        if row is None or row.is_open or row.incarnation != incarnation:
            return False
        self._database.delete(instance_id)
        return True

    def _record(
        self, now: int, actor: str, action: str, subject: str, detail: Mapping[str, Any]
    ) -> None:
        self._database.leave_records(now, [Record(actor, action, subject, dict(detail))])
