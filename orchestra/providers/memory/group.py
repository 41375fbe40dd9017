"""One group of changes: the common decision, then claims, which see the instances that the group
made ready.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice, zip_longest

from orchestra.providers.memory.database import Database
from orchestra.providers.memory.effects import write_decision
from orchestra.providers.memory.facts import read_facts
from orchestra.providers.memory.inbox import read_snapshot
from orchestra.store.changes import Change, Claim
from orchestra.store.decision import Circumstances, decide
from orchestra.store.facts import ActivityId, Needs, kinds_written
from orchestra.store.kinds import Dialect
from orchestra.store.outcomes import Claimed, Outcome
from orchestra.store.snapshots import Snapshot
from orchestra.store.tables import ACTIVITY, ACTIVITY_FENCE, Columns
from orchestra.store.tasks import Task

__all__ = ["apply"]

_OWNER = Columns((*ACTIVITY.only("owner"), *ACTIVITY_FENCE))


def apply(
    database: Database, changes: Sequence[Change], now: int, tombstone_window: int, dialect: Dialect
) -> tuple[Outcome, ...]:
    """Apply the changes within a transaction; return their outcomes in their order."""
    claims = {
        position: change for position, change in enumerate(changes) if isinstance(change, Claim)
    }
    rest = {position: change for position, change in enumerate(changes) if position not in claims}
    kinds = {kind: database.number(kind) for kind in kinds_written(rest.values())}
    facts = read_facts(database, Needs(rest), dialect)
    decision = decide(rest, facts, Circumstances(now, now - tombstone_window, kinds, dialect))
    outcomes = {**write_decision(database, decision, now, kinds, dialect), **decision.outcomes}
    database.forget_tombstones(now - tombstone_window, 2 * decision.consumed)
    database.forget_requests(now - tombstone_window, 2 * decision.answered)
    taken = [_take_tasks(database, claim) for claim in claims.values()]
    for (position, claim), tasks in zip(claims.items(), taken, strict=True):
        outcomes[position] = _claim(database, claim, now, tasks, dialect)
    return tuple(outcomes[position] for position in range(len(changes)))


def _claim(
    database: Database, claim: Claim, now: int, tasks: tuple[Task, ...], dialect: Dialect
) -> Claimed:
    # One of each kind in turn, so a busy kind starves no other.
    ready = [
        database.ready(kind).up_to((now, "\U0010ffff"), claim.limit)
        for kind in dict.fromkeys(claim.kinds)
    ]
    in_turn = (
        instance_id
        for instance_id in chain.from_iterable(zip_longest(*ready))
        if instance_id is not None
    )
    snapshots = [
        _take(database, instance_id, claim, dialect) for instance_id in islice(in_turn, claim.limit)
    ]
    return Claimed(
        tuple(snapshots), 0 < claim.limit == len(snapshots) or 0 < claim.slots == len(tasks), tasks
    )


def _take(database: Database, instance_id: str, claim: Claim, dialect: Dialect) -> Snapshot:
    row = database.hot_row(instance_id)
    assert row is not None
    row.claim(claim.node)
    database.store_row(row)
    return read_snapshot(database, row, dialect, claim.page)


def _take_tasks(database: Database, claim: Claim) -> tuple[Task, ...]:
    if claim.slots <= 0:
        return ()
    routes = list(dict.fromkeys(claim.routes))
    last = (1 << 63, ActivityId("", 0, 0))
    waiting = [
        [(key, route in claim.blocking) for key in database.waiting(route).up_to(last, claim.slots)]
        for route in routes
    ]
    taken: list[ActivityId] = []
    threads = claim.threads
    for found in chain.from_iterable(zip_longest(*waiting)):
        if found is None or (found[1] and threads <= 0) or len(taken) == claim.slots:
            continue
        taken.append(found[0])
        threads -= found[1]
    for key in taken:
        row = database.activities.get(*key)
        assert row is not None
        database.activities.change(
            key, _OWNER, (claim.node, database.activities.value(row, "revision") + 1)
        )
    return tuple(database.task(key) for key in sorted(taken))
