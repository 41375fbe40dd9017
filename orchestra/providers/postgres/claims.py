"""The claims of a group, in its last two round trips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest

from orchestra.providers.postgres import statements as sql
from orchestra.providers.postgres.arrays import Flags
from orchestra.providers.postgres.calls import Transaction
from orchestra.providers.postgres.kinds import kind_arrays, route_arrays
from orchestra.providers.postgres.snapshots import SnapshotReads
from orchestra.providers.postgres.wire import Result, Script
from orchestra.store.changes import Claim
from orchestra.store.decoding import read_task
from orchestra.store.hot_row import HotRow
from orchestra.store.kinds import Dialect
from orchestra.store.outcomes import Claimed
from orchestra.store.routes import Kind
from orchestra.store.snapshots import Snapshot

__all__ = ["Taking", "claim_all", "finish_claims"]


@dataclass(slots=True)
class Taking:
    """A claim in progress. ``kinds`` are those that may still have ready instances."""

    position: int
    claim: Claim
    kinds: list[Kind] = field(default_factory=list[Kind])
    taken: dict[int, list[HotRow]] = field(default_factory=dict[int, list[HotRow]])
    snapshots: SnapshotReads | None = None
    tasks: Result | None = None

    def __post_init__(self) -> None:
        self.kinds = list(dict.fromkeys(self.claim.kinds))

    @property
    def wants_instances(self) -> bool:
        """Whether there is room for an instance of some kind."""
        return bool(self.kinds) and self.claim.limit > 0

    @property
    def wants_tasks(self) -> bool:
        """Whether there is room for an activity of some route."""
        return bool(self.claim.routes) and self.claim.slots > 0

    @property
    def rest(self) -> int:
        """How many instances it may still take."""
        return self.claim.limit - sum(len(rows) for rows in self.taken.values())


def claim_all(
    transaction: Transaction, script: Script, claims: Sequence[Taking], dialect: Dialect
) -> set[str]:
    """Run the script, take work for the claims, and commit. Return the ids of the taken
    instances.
    """
    for taking in claims:
        if taking.wants_tasks:
            _take_tasks(taking, script)
    asking = [taking for taking in claims if taking.wants_instances]
    while asking:
        results = [(taking, _ask(taking, transaction.now, script)) for taking in asking]
        script.run()
        # If a kind gave fewer than were seen, other nodes took them at the same moment. The rest of
        # the claim goes to the other kinds: no node gets nothing while work is ready.
        asking = [taking for taking, result in results if _take(taking, result)]
        script = transaction.script()
    claimed: set[str] = set()
    for taking in claims:
        rows = [row for rows in taking.taken.values() for row in rows]
        if rows:
            taking.snapshots = SnapshotReads(script, rows, dialect, taking.claim.page)
            claimed.update(row.instance_id for row in rows)
    transaction.commit(script)
    return claimed


def finish_claims(claims: Sequence[Taking]) -> dict[int, Claimed]:
    """Return the outcomes of the claims, by the positions of their changes. The last script has
    run.
    """
    return {taking.position: _finish(taking) for taking in claims}


def _finish(taking: Taking) -> Claimed:
    claim = taking.claim
    snapshots = [] if taking.snapshots is None else _in_turn(taking.snapshots.take(), claim.kinds)
    tasks = () if taking.tasks is None else tuple(map(read_task, taking.tasks.rows))
    more = 0 < claim.limit == len(snapshots) or 0 < claim.slots == len(tasks)
    return Claimed(tuple(snapshots), more, tasks)


def _take_tasks(taking: Taking, script: Script) -> None:
    claim, routes = taking.claim, list(dict.fromkeys(taking.claim.routes))
    blocks = Flags(route in claim.blocking for route in routes)
    taking.tasks = script.add(
        sql.TAKE_TASKS, *route_arrays(routes), claim.slots, claim.node, blocks, claim.threads
    )


def _ask(taking: Taking, now: int, script: Script) -> Result:
    return script.add(sql.CLAIM, *kind_arrays(taking.kinds), now, taking.rest, taking.claim.node)


def _take(taking: Taking, result: Result) -> bool:
    """Add the taken rows to a claim; return whether to try once more."""
    quotas: dict[int, int] = {}
    got: Counter[int] = Counter()
    for place, quota, instance_id, *rest in result.rows:
        quotas[place] = quota
        if instance_id is not None:
            row = HotRow(instance_id, *rest)
            taking.taken.setdefault(row.kind, []).append(row)
            got[place] += 1
    short = {place for place, quota in quotas.items() if got[place] < quota}
    taking.kinds = [kind for place, kind in enumerate(taking.kinds, 1) if place not in short]
    return bool(short) and bool(taking.kinds) and taking.rest > 0


def _in_turn(snapshots: Sequence[Snapshot], kinds: Sequence[Kind]) -> list[Snapshot]:
    """Return claimed instances, one of each kind in turn, and within a kind the longest due
    first.
    """
    of_kind: dict[Kind, list[Snapshot]] = {kind: [] for kind in kinds}
    for snapshot in snapshots:
        of_kind[snapshot.row.kind].append(snapshot)
    for found in of_kind.values():
        found.sort(key=lambda snapshot: (snapshot.row.wake_at or 0, snapshot.row.instance_id))
    return [
        snapshot
        for snapshot in chain.from_iterable(zip_longest(*of_kind.values()))
        if snapshot is not None
    ]
