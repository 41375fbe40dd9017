"""One group of changes, in at most three round trips, whatever their number.

The first round trip makes new instances and locks the rows of all others, in the order of their ids
(rule 7). It reads all facts. The group is then decided in memory (:mod:`orchestra.store.decision`).
The second writes each hot row once, and all else with one statement a table; without claims it
commits. Claims see the instances that the group made ready; the third round trip reads them.

Most groups contain only steps of instances that go on, and starts with their first turns. Such a
group takes one round trip and reads nothing first. If a fence does not hold, or an id is taken, a
statement ends the script. Then nothing is kept of it, and the group takes the longer way.

No statement waits for a lock after the first round trip. All nodes lock new ids and then rows in
one order, and claims skip locked rows. So two groups cannot wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass

from orchestra.providers.postgres import statements as sql
from orchestra.providers.postgres.arrays import Texts
from orchestra.providers.postgres.calls import Transaction
from orchestra.providers.postgres.claims import Taking, claim_all, finish_claims
from orchestra.providers.postgres.effects import (
    add_cold_rows,
    add_decision,
    add_effects,
    prune_requests,
    prune_tombstones,
)
from orchestra.providers.postgres.facts import instances_on_trust, read_facts
from orchestra.providers.postgres.kinds import Kinds
from orchestra.providers.postgres.rendering import arrays
from orchestra.providers.postgres.settings import Settings
from orchestra.providers.postgres.snapshots import SnapshotReads
from orchestra.store.changes import NO_EXTRAS, Change, Claim, Start, Write
from orchestra.store.decision import Circumstances, Decision, decide, hands_out
from orchestra.store.effects import Effects
from orchestra.store.facts import Needs, kinds_written
from orchestra.store.kinds import Dialect, Status
from orchestra.store.outcomes import Granted, Outcome, Recovered, Started
from orchestra.store.routes import Kind

__all__ = ["Committed", "Group"]


@dataclass(frozen=True, slots=True)
class Committed:
    """A committed group, whose outcomes are still to be assembled."""

    now: int
    wakes_others: bool
    """Whether it has left work for other nodes."""
    finish: Callable[[], tuple[Outcome, ...]]


class Group:
    """Applies changes in the order of the protocol: owners' writes, then arrivals, then claims.

    Args:
        local_nodes: the nodes of this provider, which need no hints about changes through it.
    """

    def __init__(
        self,
        changes: Sequence[Change],
        kinds: Kinds,
        settings: Settings,
        local_nodes: Container[str],
    ) -> None:
        self._changes = changes
        self._settings = settings
        self._local_nodes = local_nodes
        self._numbers = kinds.make_sure_of(kinds_written(changes))

    @property
    def is_plain(self) -> bool:
        """Whether it holds only owners' writes, one for each instance, without messages and stops;
        and starts for owners, with their first turns.

        Most groups do, and nearly all of their writes are granted.
        """
        if not self._settings.trusting:
            return False
        written: dict[str, str] = {}
        begun: dict[str, str] = {}
        for change in self._changes:
            if isinstance(change, Write) and _is_plain(change):
                written[change.instance_id] = change.incarnation
            elif isinstance(change, Start) and _begins_alone(change):
                begun[change.instance_id] = change.incarnation
            else:
                return False
        if any(written.get(instance_id) != life for instance_id, life in begun.items()):
            return False
        return 0 < len(self._changes) == len(written) + len(begun)

    def commit_plain(self, transaction: Transaction) -> Committed:
        """Apply a plain group and commit, in one round trip.

        Raises:
            psycopg.errors.DivisionByZero: a write must be refused, or does not fit the stored rows.
                Nothing was written.
        """
        writes = sorted(
            (change for change in self._changes if isinstance(change, Write)),
            key=lambda write: write.instance_id,
        )
        begun = {
            change.instance_id: change for change in self._changes if isinstance(change, Start)
        }
        script = transaction.script()
        if begun:  # new ids first (rule 7)
            statement, values = instances_on_trust(transaction, [*begun.values()], self._numbers)
            script.add(statement, *values)
        if len(writes) > 1:
            script.add(sql.LOCK_IN_ORDER, Texts(write.instance_id for write in writes))
        dialect = self._settings.dialect
        rows = [_fenced_values(write, self._numbers, dialect) for write in writes]
        _, known = transaction.time.read
        # The fences first: where one does not hold, nothing else is written.
        written = script.add(sql.WRITE_FENCED, *arrays(sql.FENCED, rows), len(writes), *known)
        add_cold_rows(script, [*begun.values()])
        effects = Effects(dialect)
        for write in writes:
            start = begun.get(write.instance_id)
            effects.add(write, None if start is None else start.execution)
        add_effects(script, effects, 0)  # the time comes later, and nothing was consumed
        prune_requests(script, [effects], self._settings.tombstone_window)
        transaction.commit_at_once(script)
        instance_ids, inbox_seqs, read, _ = written.rows[0]
        now = transaction.heard(read)
        inboxes: dict[str, int] = dict(zip(instance_ids, inbox_seqs, strict=True))
        outcomes: tuple[Outcome, ...] = tuple(
            Granted(inboxes[change.instance_id]) if isinstance(change, Write) else Started()
            for change in self._changes
        )
        wakes_others = any(
            write.owner is None
            or write.owner not in self._local_nodes
            or _is_due(write, inboxes[write.instance_id], now)
            or hands_out(write)
            or write.hold is not None
            for write in writes
        )
        return Committed(now, wakes_others, lambda: outcomes)

    def commit(self, transaction: Transaction) -> Committed:
        """Apply the changes and commit. May be called again if it fails."""
        numbers, window, dialect = (
            self._numbers,
            self._settings.tombstone_window,
            self._settings.dialect,
        )
        claims = [
            Taking(position, change)
            for position, change in enumerate(self._changes)
            if isinstance(change, Claim)
        ]
        changes = {
            position: change
            for position, change in enumerate(self._changes)
            if not isinstance(change, Claim)
        }
        needs = Needs(changes)
        facts = read_facts(transaction, needs, numbers, dialect)
        now = transaction.now
        decision = decide(changes, facts, Circumstances(now, now - window, numbers, dialect))
        script = transaction.script()
        recovered = add_decision(transaction, script, decision, needs, numbers, dialect)
        prune_tombstones(script, now, decision.consumed, window)
        steps = [step for step in decision.steps if isinstance(step, Effects)]
        prune_requests(script, steps, window)
        claimed = claim_all(transaction, script, claims, dialect)
        return Committed(
            now,
            self._wakes_others(decision, claimed),
            lambda: self._finish(decision, recovered, claims),
        )

    def _wakes_others(self, decision: Decision, claimed: Container[str]) -> bool:
        if any(change.hints for change in decision.schedules):
            return True
        return decision.hands_out or any(
            instance_id not in claimed and (owner is None or owner not in self._local_nodes)
            for instance_id, owner in decision.touched
        )

    def _finish(
        self, decision: Decision, recovered: Mapping[int, SnapshotReads], claims: Sequence[Taking]
    ) -> tuple[Outcome, ...]:
        """Assemble the outcomes; the transaction has ended."""
        outcomes = {**decision.outcomes, **finish_claims(claims)}
        outcomes.update(
            (position, Recovered(reads.take()[0])) for position, reads in recovered.items()
        )
        return tuple(outcomes[position] for position in range(len(self._changes)))


def _fenced_values(
    write: Write, numbers: Mapping[Kind, int], dialect: Dialect
) -> tuple[object, ...]:
    """Return the values with which the statement does what :meth:`HotRow.write` does."""
    state = write.state
    is_open = state.status is Status.OPEN
    return (
        numbers[state.kind],
        state.owner if is_open else None,
        dialect.statuses[state.status],
        is_open and write.hold is not None,
        state.wake_at if is_open else None,
        state.seen_seq,
        state.execution,
        state.opened,
        state.takeovers,
        state.history_events,
        state.history_bytes,
        state.boundary_due if is_open else None,
        state.summary,
        write.instance_id,
        write.incarnation,
        write.revision,
        write.owner,
    )


def _is_plain(write: Write) -> bool:
    """Return whether a write of an owner does nothing for which more rows must be read."""
    extras = write.extras
    return not (
        not write.owner
        or write.consumed
        or write.concerns_others
        or write.record
        or (extras is not NO_EXTRAS and (extras.stops or extras.due or extras.unkept))
        or (write.prune is not None and write.prune.children)  # it changes other rows
    )


def _begins_alone(start: Start) -> bool:
    """Return whether a start is one for an owner, and concerns nothing else."""
    return not (start.owner is None or start.concerns_standing or start.restored or start.record)


def _is_due(write: Write, inbox_seq: int, now: int) -> bool:
    """Return whether a plain write has left its instance ready to be claimed."""
    state = write.state
    if state.status is not Status.OPEN or state.owner is not None:
        return False
    return inbox_seq > state.seen_seq or (state.wake_at is not None and state.wake_at <= now)
