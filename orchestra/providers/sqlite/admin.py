"""Operators' writes, on SQLite. Each leaves a row in the audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Final

from orchestra.codec import UserText
from orchestra.providers.sqlite import statements as sql
from orchestra.providers.sqlite.audit import record_all
from orchestra.providers.sqlite.deletion import delete_instance
from orchestra.providers.sqlite.effects import write_row
from orchestra.providers.sqlite.facts import read_row
from orchestra.providers.sqlite.writer import Transaction, Writer
from orchestra.store.audit import Record
from orchestra.store.catalogue import PolicyRow
from orchestra.store.decoding import is_same_pin, nudge_from_bytes, nudge_to_bytes, pin_to_bytes
from orchestra.store.instances import Nudge, Pin
from orchestra.store.labels import Labelled, relabelled
from orchestra.store.nudges import Nudged, decide_nudge
from orchestra.store.policies import PolicyChange, PolicyOutcome, oldest_kept

__all__ = ["SqliteAdmin"]

_NAMED: Final = 100
"""How many ids of deleted instances the audit names."""


class SqliteAdmin:
    """Implements :class:`~orchestra.store.port.Admin`; the promises are written there."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

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
        with self._writer.transaction() as transaction:
            execute = transaction.connection.execute
            found = execute(sql.READ_POLICY, (name,)).fetchone()
            standing = None if found is None else PolicyRow(*found)
            settled = change.settled(standing)
            if settled is not None:
                return settled
            row = change.row(standing, transaction.now)
            if standing is not None:
                execute(sql.ADD_FORMER_POLICY, astuple(standing))
                execute(sql.PRUNE_FORMER_POLICIES, (name, oldest_kept(row)))
            execute(sql.SET_POLICY, astuple(row))
            _record(transaction, by, "set policy", name, {"value": value, "reason": reason})
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
        with self._writer.transaction() as transaction:
            found = transaction.connection.execute(sql.READ_PIN, (instance_id,)).fetchone()
            if unless_same and found and is_same_pin(found[0], version, until):
                return False
            if (
                transaction.connection.execute(sql.REVOKE, (transaction.now, instance_id)).rowcount
                == 0
            ):
                return False
            pin = (
                None
                if version is None
                else pin_to_bytes(Pin(version, transaction.now, by, UserText(reason), until))
            )
            transaction.connection.execute(sql.SET_PIN, (pin, instance_id))
            if version is None:
                _record(transaction, by, "unpin", instance_id, {"reason": reason})
            else:
                _record(transaction, by, "pin", instance_id, {"version": version, "reason": reason})
        return True

    def nudge(
        self, instance_id: str, incarnation: str, execution: int, *, by: str, reason: str
    ) -> Nudged:
        with self._writer.transaction() as transaction:
            execute, now = transaction.connection.execute, transaction.now
            row = read_row(transaction, instance_id)
            found = execute(sql.READ_NUDGE, (instance_id,)).fetchone()
            standing = nudge_from_bytes(found[0]) if found and found[0] else None
            outcome = decide_nudge(row, standing, incarnation, execution, now)
            if row is not None and outcome is Nudged.ASKED:
                write_row(transaction.connection, row)
                nudge = nudge_to_bytes(Nudge(execution, now, by, UserText(reason)))
                execute(sql.SET_NUDGE, (nudge, instance_id))
                detail = {"execution": execution, "reason": reason}
                _record(transaction, by, "nudge", instance_id, detail)
        return outcome

    def set_labels(
        self,
        instance_id: str,
        changes: Mapping[str, str | None],
        *,
        by: str,
        reason: str,
    ) -> Labelled | None:
        with self._writer.transaction() as transaction:
            connection = transaction.connection
            if read_row(transaction, instance_id) is None:
                return None
            standing = dict(connection.execute(sql.LIST_LABELS, (instance_id,)).fetchall())
            outcome = relabelled(standing, changes)
            if outcome.is_done:
                for key, value in changes.items():
                    if value is None:
                        connection.execute(sql.REMOVE_LABEL, (instance_id, key))
                    else:
                        connection.execute(sql.SET_LABEL, (instance_id, key, value))
                detail = {"labels": dict(changes), "reason": reason}
                _record(transaction, by, "set labels", instance_id, detail)
        return outcome

    def delete(self, instance_id: str, incarnation: str, *, by: str, reason: str) -> bool:
        with self._writer.transaction() as transaction:
            if delete_instance(transaction, instance_id, incarnation) == 0:
                return False
            _record(
                transaction,
                by,
                "delete",
                instance_id,
                {"incarnation": incarnation, "reason": reason},
            )
        return True

    def delete_all(
        self, instances: Sequence[tuple[str, str]], *, by: str, reason: str
    ) -> list[str]:
        with self._writer.transaction() as transaction:
            deleted = [
                instance_id
                for instance_id, incarnation in instances
                if delete_instance(transaction, instance_id, incarnation)
            ]
            if deleted:
                detail = {"count": len(deleted), "first": deleted[:_NAMED], "reason": reason}
                _record(transaction, by, "purge", "", detail)
        return deleted

    def set_expiry(self, after: Mapping[str, int | None]) -> None:
        with self._writer.reading() as reading:
            standing = dict(reading.connection.execute(sql.LIST_EXPIRIES))
        if all(standing.get(name) == duration for name, duration in after.items()):
            return  # most starts change nothing, and need not wait for the writers' lock
        with self._writer.transaction() as transaction:
            for name, duration in after.items():
                if duration is None:
                    transaction.connection.execute(sql.REMOVE_EXPIRY, (name,))
                else:
                    transaction.connection.execute(sql.SET_EXPIRY, (name, duration))


def _record(
    transaction: Transaction, actor: str, action: str, subject: str, detail: Mapping[str, object]
) -> None:
    record_all(transaction, [Record(actor, action, subject, detail)])
