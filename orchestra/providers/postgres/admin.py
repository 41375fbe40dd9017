"""Operators' writes, on PostgreSQL. Each leaves a row in the audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Final

from orchestra.codec import UserText
from orchestra.providers.postgres import statements as sql
from orchestra.providers.postgres.arrays import Texts
from orchestra.providers.postgres.audit import record_all
from orchestra.providers.postgres.calls import Calls, Transaction
from orchestra.providers.postgres.deletion import delete_instances
from orchestra.providers.postgres.effects import set_labels, write_rows
from orchestra.providers.postgres.pulse import Pulse
from orchestra.providers.postgres.wire import Script
from orchestra.store.audit import Record
from orchestra.store.catalogue import PolicyRow
from orchestra.store.decoding import is_same_pin, nudge_from_bytes, nudge_to_bytes, pin_to_bytes
from orchestra.store.hot_row import HotRow
from orchestra.store.instances import Nudge, Pin
from orchestra.store.labels import Labelled, relabelled
from orchestra.store.nudges import Nudged, decide_nudge
from orchestra.store.policies import PolicyChange, PolicyOutcome, oldest_kept

__all__ = ["PostgresAdmin"]

_NAMED: Final = 100
"""How many ids of deleted instances the audit names."""


class PostgresAdmin:
    """Implements :class:`~orchestra.store.port.Admin`; the promises are written there."""

    def __init__(self, calls: Calls, pulse: Pulse) -> None:
        self._calls = calls
        self._pulse = pulse

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

        def work(transaction: Transaction) -> PolicyOutcome:
            (found,) = transaction.begin((sql.LOCK_POLICY, (name,)))
            while True:
                standing = PolicyRow(*found.rows[0]) if found.rows else None
                settled = change.settled(standing)
                if settled is not None:
                    transaction.commit()
                    return settled
                row = change.row(standing, transaction.now)
                script = transaction.script()
                changed = script.add(sql.SET_POLICY, *astuple(row))
                found = script.add(sql.LOCK_POLICY, name)
                script.run()
                if changed.count:
                    break
            script = _recorded(
                transaction, by, "set policy", name, {"value": value, "reason": reason}
            )
            if standing is not None:
                script.add(sql.ADD_FORMER_POLICY, *astuple(standing))
                script.add(sql.PRUNE_FORMER_POLICIES, name, oldest_kept(row))
            transaction.commit(script)
            return PolicyOutcome(granted=True, row=row)

        return self._calls.transaction(work)

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
        def work(transaction: Transaction) -> bool:
            # The pin is read behind the lock of its guard row (rule 41).
            _, stored = transaction.begin(
                (sql.LOCK_ROWS, (Texts([instance_id]),)), (sql.READ_PIN, (instance_id,))
            )
            found = stored.rows[0][0] if stored.rows else None
            if unless_same and is_same_pin(found, version, until):
                transaction.commit()
                return False
            script = transaction.script()
            revoked = script.add(sql.REVOKE, transaction.now, instance_id)
            script.run()
            if revoked.count == 0:
                transaction.commit()
                return False
            if version is None:
                script = _recorded(transaction, by, "unpin", instance_id, {"reason": reason})
            else:
                script = _recorded(
                    transaction, by, "pin", instance_id, {"version": version, "reason": reason}
                )
            pin = (
                None
                if version is None
                else pin_to_bytes(Pin(version, transaction.now, by, UserText(reason), until))
            )
            script.add(sql.SET_PIN, pin, instance_id)
            transaction.commit(script)
            return True

        pinned = self._calls.transaction(work)
        if pinned:
            self._pulse.notify()
        return pinned

    def nudge(
        self, instance_id: str, incarnation: str, execution: int, *, by: str, reason: str
    ) -> Nudged:
        def work(transaction: Transaction) -> Nudged:
            rows, stored = transaction.begin(
                (sql.LOCK_ROWS, (Texts([instance_id]),)), (sql.READ_NUDGE, (instance_id,))
            )
            row, now = HotRow(*rows.rows[0]) if rows.rows else None, transaction.now
            found = stored.rows[0][0] if stored.rows else None
            standing = None if found is None else nudge_from_bytes(found)
            outcome = decide_nudge(row, standing, incarnation, execution, now)
            if row is None or outcome is not Nudged.ASKED:
                transaction.commit()
                return outcome
            detail = {"execution": execution, "reason": reason}
            script = _recorded(transaction, by, "nudge", instance_id, detail)
            write_rows(script, [row], now)
            nudge = nudge_to_bytes(Nudge(execution, now, by, UserText(reason)))
            script.add(sql.SET_NUDGE, nudge, instance_id)
            transaction.commit(script)
            return outcome

        outcome = self._calls.transaction(work)
        if outcome is Nudged.ASKED:
            self._pulse.notify()
        return outcome

    def set_labels(
        self,
        instance_id: str,
        changes: Mapping[str, str | None],
        *,
        by: str,
        reason: str,
    ) -> Labelled | None:
        def work(transaction: Transaction) -> Labelled | None:
            # Labels are read behind the lock of their guard row (rule 41).
            rows, stored = transaction.begin(
                (sql.LOCK_ROWS, (Texts([instance_id]),)), (sql.LIST_LABELS, (instance_id,))
            )
            outcome = relabelled(dict(map(tuple, stored.rows)), changes) if rows.rows else None
            if outcome is None or not outcome.is_done:
                transaction.commit()
                return outcome
            detail = {"labels": dict(changes), "reason": reason}
            script = _recorded(transaction, by, "set labels", instance_id, detail)
            effects = [(instance_id, key, value) for key, value in changes.items()]
            set_labels(script, effects)
            transaction.commit(script)
            return outcome

        return self._calls.transaction(work)

    def delete(self, instance_id: str, incarnation: str, *, by: str, reason: str) -> bool:
        def work(transaction: Transaction) -> bool:
            def record(script: Script, _deleted: Sequence[str]) -> None:
                _record(
                    script,
                    transaction,
                    by,
                    "delete",
                    instance_id,
                    {"incarnation": incarnation, "reason": reason},
                )

            return bool(delete_instances(transaction, {instance_id: incarnation}, record=record))

        return self._calls.transaction(work)

    def delete_all(
        self, instances: Sequence[tuple[str, str]], *, by: str, reason: str
    ) -> list[str]:
        def work(transaction: Transaction) -> list[str]:
            def record(script: Script, deleted: Sequence[str]) -> None:
                detail = {"count": len(deleted), "first": list(deleted[:_NAMED]), "reason": reason}
                _record(script, transaction, by, "purge", "", detail)

            return delete_instances(transaction, dict(instances), record=record)

        return self._calls.transaction(work)

    def set_expiry(self, after: Mapping[str, int | None]) -> None:
        standing = dict(self._calls.read(sql.LIST_EXPIRIES))
        changed = {
            name: duration
            for name, duration in sorted(after.items())
            if standing.get(name) != duration
        }
        if not changed:
            return  # most starts change nothing

        def work(transaction: Transaction) -> None:
            transaction.begin()
            script = transaction.script()
            for name, duration in changed.items():
                if duration is None:
                    script.add(sql.REMOVE_EXPIRY, name)
                else:
                    script.add(sql.SET_EXPIRY, name, duration)
            transaction.commit(script)

        self._calls.transaction(work)


def _recorded(
    transaction: Transaction, actor: str, action: str, subject: str, detail: Mapping[str, object]
) -> Script:
    """Return a script that leaves a row in the audit."""
    script = transaction.script()
    _record(script, transaction, actor, action, subject, detail)
    return script


def _record(
    script: Script,
    transaction: Transaction,
    actor: str,
    action: str,
    subject: str,
    detail: Mapping[str, object],
) -> None:
    record_all(script, [Record(actor, action, subject, detail)], transaction.now)
