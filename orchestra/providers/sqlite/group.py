"""One group of changes inside one transaction.

Most writes are owners' writes that affect no other instance. Their statements check the fence, and
no row is read first. All other changes are decided in memory from rows that are read
(:mod:`orchestra.store.decision`). Claims see the instances that the group made ready.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain, islice, zip_longest

from orchestra.providers.sqlite import statements as sql
from orchestra.providers.sqlite.effects import (
    carry_out,
    prune_requests,
    prune_tombstones,
    set_expiry,
    write_decision,
)
from orchestra.providers.sqlite.facts import read_facts
from orchestra.providers.sqlite.settings import Settings
from orchestra.providers.sqlite.snapshots import read_snapshots
from orchestra.providers.sqlite.tasks import take_tasks
from orchestra.providers.sqlite.writer import Transaction
from orchestra.store.changes import NO_EXTRAS, Change, Claim, ScheduleWrite, Write, instances_of
from orchestra.store.decision import Circumstances, decide
from orchestra.store.effects import Effects
from orchestra.store.facts import Needs, kinds_written
from orchestra.store.kinds import Status
from orchestra.store.outcomes import Claimed, Granted, Outcome, Refused
from orchestra.store.routes import Kind
from orchestra.store.tasks import Task

__all__ = ["Group"]


class Group:
    """Applies changes in the order of the protocol: owners' writes, their effects on others,
    arrivals, claims (rule 7).
    """

    def __init__(self, transaction: Transaction, settings: Settings) -> None:
        self._transaction = transaction
        self._connection = transaction.connection
        self._settings = settings
        self._consumed = 0
        self._answered = 0

    def apply(self, changes: Sequence[Change]) -> tuple[Outcome, ...]:
        """Apply the changes; return their outcomes in their order."""
        outcomes: dict[int, Outcome] = {}
        claims = {
            position: change for position, change in enumerate(changes) if isinstance(change, Claim)
        }
        plain = _plain_writes(changes) if self._settings.trusting else {}
        if plain:
            outcomes.update(self._write_plain(plain))
        rest = {
            position: change
            for position, change in enumerate(changes)
            if position not in plain and position not in claims
        }
        if rest:
            outcomes.update(self._decide(rest))
        window = self._settings.tombstone_window
        prune_tombstones(self._transaction, self._consumed, window)
        prune_requests(self._transaction, self._answered, window)
        taken = [take_tasks(self._connection, claim) for claim in claims.values()]
        for (position, claim), tasks in zip(claims.items(), taken, strict=True):
            outcomes[position] = self._claim(claim, tasks)
        return tuple(outcomes[position] for position in range(len(changes)))

    # --- writes without a read ------------------------------------------------------------------

    def _write_plain(self, writes: Mapping[int, Write]) -> dict[int, Outcome]:
        outcomes: dict[int, Outcome] = {}
        effects = Effects(self._settings.dialect)
        for position, write in writes.items():
            outcomes[position] = outcome = self._write(write)
            if isinstance(outcome, Granted):
                effects.add(write)
        carry_out(self._transaction, effects)
        set_expiry(self._transaction, effects)
        self._consumed += len(effects.consumed)
        self._answered += len(effects.extras.answers)
        return outcomes

    def _write(self, write: Write) -> Granted | Refused:
        state = write.state
        status, is_open = self._settings.dialect.statuses[state.status], state.status is Status.OPEN
        kind = self._transaction.kinds.number(self._connection, state.kind)
        boundary_due = state.boundary_due if is_open else None
        progress = (
            state.execution,
            state.opened,
            state.history_events,
            state.history_bytes,
            state.summary,
            self._transaction.now,
        )
        fence = (write.instance_id, write.incarnation, write.revision, write.owner)
        seen_seq, takeovers = state.seen_seq, state.takeovers
        begins = (
            bool(write.executions) and write.executions[0].opened is not None
        )  # its kind changes
        if write.hold is None and not begins and (not is_open or write.owner == state.owner):
            common, head = (
                (sql.WRITE_AND_KEEP, state.wake_at) if is_open else (sql.WRITE_END, status)
            )
            unchanged = (kind, takeovers, boundary_due, seen_seq)
            values = (head, seen_seq, *progress, *fence, *unchanged)
            if self._connection.execute(common, values).rowcount:
                return Granted(seen_seq)
        owner, held = (state.owner, write.hold is not None) if is_open else (None, False)
        values = (
            *(kind, owner, status, held, takeovers, boundary_due),
            *(status, seen_seq, state.wake_at, seen_seq),
            *(*progress, *fence),
        )
        row = self._connection.execute(sql.WRITE_AS_OWNER, values).fetchone()
        return Refused() if row is None else Granted(row[0])  # I6

    # --- decided in memory ----------------------------------------------------------------

    def _decide(self, changes: Mapping[int, Change]) -> dict[int, Outcome]:
        transaction, needs = self._transaction, Needs(changes)
        numbers = {
            kind: transaction.kinds.number(self._connection, kind)
            for kind in kinds_written(changes.values())
        }
        facts = read_facts(transaction, needs)
        now, settings = transaction.now, self._settings
        decision = decide(
            changes,
            facts,
            Circumstances(now, now - settings.tombstone_window, numbers, settings.dialect),
        )
        recovered = write_decision(transaction, decision)
        self._consumed += decision.consumed
        self._answered += decision.answered
        return {**decision.outcomes, **recovered}

    # --- claims ---------------------------------------------------------------------------

    def _claim(self, claim: Claim, tasks: tuple[Task, ...]) -> Claimed:
        ready = [self._find_ready(kind, claim.limit) for kind in dict.fromkeys(claim.kinds)]
        # One of each kind in turn, so a busy kind starves no other.
        in_turn = (
            instance_id
            for instance_id in chain.from_iterable(zip_longest(*ready))
            if instance_id is not None
        )
        instance_ids = list(islice(in_turn, claim.limit))
        if instance_ids:
            self._connection.executemany(
                sql.CLAIM, [(claim.node, instance_id) for instance_id in instance_ids]
            )
        snapshots = read_snapshots(self._transaction, instance_ids, claim.page)
        more = 0 < claim.limit == len(snapshots) or 0 < claim.slots == len(tasks)
        return Claimed(tuple(snapshots), more, tasks)

    def _find_ready(self, kind: Kind, limit: int) -> list[str]:
        number = self._transaction.kinds.find(self._connection, kind)
        if number is None:
            return []
        return [
            row[0]
            for row in self._connection.execute(
                sql.FIND_READY, (number, self._transaction.now, limit)
            )
        ]


def _plain_writes(changes: Sequence[Change]) -> dict[int, Write]:
    """Return the owners' writes that affect only their own instances, which no other change of the
    group names.

    The effect of a stop depends on whether a node has the attempt, so its row must be read. So does
    that of a boundary that was due, on what operators have done.
    """
    times_named = Counter(
        change.instance_id for change in changes if not isinstance(change, (Claim, ScheduleWrite))
    )
    for change in changes:
        if isinstance(change, ScheduleWrite):
            times_named.update(instances_of(change))
    return {
        position: change
        for position, change in enumerate(changes)
        if isinstance(change, Write)
        and change.owner is not None
        and not change.concerns_others
        and change.record is None
        and not (change.extras is not NO_EXTRAS and (change.extras.stops or change.extras.due))
        and not (change.prune is not None and change.prune.children)
        and times_named[change.instance_id] == 1
    }
