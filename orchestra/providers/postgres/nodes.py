"""The life of nodes: join, renew, leave, and the burial of a dead one by others (protocol rules 11
to 14).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from orchestra.errors import NodeBuried, StoreReplaced
from orchestra.levels import Levels
from orchestra.processes import runs
from orchestra.providers.postgres import statements as sql
from orchestra.providers.postgres.arrays import Numbers, Texts
from orchestra.providers.postgres.calls import Calls, Transaction
from orchestra.providers.postgres.connection import Connection
from orchestra.providers.postgres.failures import DRIVER_ERRORS
from orchestra.providers.postgres.pulse import Pulse
from orchestra.providers.postgres.settings import Settings
from orchestra.providers.postgres.wire import Result, Script
from orchestra.store.catalogue import NodeRecord, Renewal
from orchestra.store.instances import LONGEST_DELAY
from orchestra.store.nodes import abilities_to_bytes, processes_in

__all__ = ["Nodes"]

_KEEP_DEAD: Final = 24 * 3_600_000_000
"""How long the row of a dead node is kept for people, in microseconds."""
_FOLDED_AT_ONCE: Final = 10_000
"""How many changes of tallies one transaction adds up: some milliseconds."""
_FOLDS: Final = 8
"""How many such transactions a sweep has at most."""


class Nodes:
    """The nodes of a store. Those of this provider share its pulse."""

    def __init__(self, calls: Calls, pulse: Pulse, settings: Settings) -> None:
        self._calls = calls
        self._dialect = settings.dialect
        self._store = f"PostgreSQL store {settings.schema!r}"
        self._pulse = pulse
        self.joined: dict[str, NodeRecord] = {}
        """The nodes that this provider has joined."""
        self._lost = False

    def join(self, node: NodeRecord) -> int:
        """Register the node. Return the store's time."""
        now = self._calls.transaction(lambda transaction: self._join(transaction, node))
        self.joined[node.node_id] = node
        self._lost = False
        return now

    def forget(self) -> None:
        """Forget all nodes: the provider is closed."""
        self.joined.clear()
        self._lost = False

    def lose(self) -> None:
        """Note that this provider's nodes may remember commits that the store has lost."""
        self._lost = bool(self.joined)
        self.require_memory()

    def hear_levels(self, connection: Connection) -> None:
        """Read the store's levels on a new connection. One that is lost is noticed elsewhere."""
        with suppress(*DRIVER_ERRORS):
            ((levels,),) = self._calls.read_on(connection, [(sql.READ_LEVELS, ())])
            self._dialect.heard(Levels(*levels))

    def require_memory(self) -> None:
        """Refuse calls after that, until a node joins again.

        Raises:
            StoreReplaced: the store may have lost commits that the nodes remember.
        """
        if self._lost:
            raise StoreReplaced(
                "the server has another history than before (a standby took over, or a backup "
                "was restored): commits may be lost; this node forgets what it has in memory, "
                "and joins anew"
            )

    def renew(self, node_id: str, load: int) -> Renewal:
        """Renew the node's lease. Return the store's time and levels."""
        self.require_memory()
        return self._calls.transaction(lambda transaction: self._renew(transaction, node_id, load))

    def raise_level(self, levels: Levels) -> Levels:
        """Raise the write level, unless a living node cannot read it. Return the levels."""
        return self._calls.transaction(lambda transaction: self._raise_level(transaction, levels))

    def leave(self, node_id: str) -> None:
        """Remove the node, and release its instances."""
        if self._calls.transaction(lambda transaction: _leave(transaction, node_id)):
            self._pulse.notify()
        self.joined.pop(node_id, None)

    def vanished(self) -> list[str]:
        """Return nodes whose connection is gone, without a restart of the server: for a while, or
        together with their process.
        """
        if self._pulse.server is None:
            return []
        pulseless = [
            row for row in self._calls.read(sql.LIST_PULSELESS) if row[0] not in self.joined
        ]
        suspects = set(self._pulse.suspects([(node_id, seen) for node_id, seen, *_ in pulseless]))
        return [
            node_id
            for node_id, _, host, pid, abilities in pulseless
            if node_id in suspects or self._is_gone(host, pid, processes_in(abilities))
        ]

    def _is_gone(self, host: str, pid: int, processes: str) -> bool:
        """Return whether the process certainly has ended; of another host's it is never certain."""
        return (
            processes != ""
            and any(
                (host, processes) == (here.host, here.processes) for here in self.joined.values()
            )
            and not runs(pid)
        )

    def bury(self, node_id: str, renewals: int) -> bool:
        """Declare a node dead if its ``renewals`` is still this number. Return whether it was
        done.
        """
        return self._calls.transaction(lambda transaction: _bury(transaction, node_id, renewals))

    def sweep(self, limit: int) -> int:
        """Release instances whose owner has no living node row, and mark such nodes' activities as
        lost. Return how many. Add up changes of the tallies as well.
        """
        found = self._calls.read(sql.FIND_GHOST_OWNED, limit)
        lost = self._calls.read(sql.FIND_LOST_TASKS, limit)
        swept = 0
        if found:
            swept += self._calls.transaction(
                lambda transaction: _take_over(transaction, dict(found))
            )
        if lost:
            swept += self._calls.transaction(lambda transaction: _lose_tasks(transaction, lost))
        if swept:
            self._pulse.notify()
        for _ in range(_FOLDS):
            if self._calls.transaction(_fold_tally) < _FOLDED_AT_ONCE:
                break
        return swept

    def _join(self, transaction: Transaction, node: NodeRecord) -> int:
        transaction.begin()
        now = transaction.now
        script = transaction.script()
        script.add(sql.PRUNE_NODES, now - _KEEP_DEAD)
        script.add(
            sql.ADD_NODE,
            node.node_id,
            node.host,
            node.boot_id,
            node.pid,
            node.library,
            abilities_to_bytes(node),
            node.lease,
            now,
            *self._hint(),
            node.reads,
            node.writes,
        )
        capabilities = {
            (capability.name, capability.version): capability.fingerprint
            for capability in node.capabilities
        }
        names, versions = (
            Texts(name for name, _ in capabilities),
            Texts(version for _, version in capabilities),
        )
        script.add(
            sql.ADD_CAPABILITIES, node.node_id, names, versions, Texts(capabilities.values())
        )
        script.add(sql.ADD_NODE_ACTIVITIES, node.node_id, Texts(dict.fromkeys(node.activities)))
        script.add(sql.SEE_CODE, node.node_id, now)
        # Read after the node's row exists: these levels are the new ones, or the raising call sees
        # the row.
        levels = script.add(sql.READ_LEVELS)
        script.run()
        self._dialect.library.require(self._heard(levels), self._store)
        transaction.commit()
        return now

    def _heard(self, levels: Result) -> Levels:
        return self._dialect.heard(Levels(*levels.rows[0]))

    def _raise_level(self, transaction: Transaction, levels: Levels) -> Levels:
        transaction.begin((sql.LOCK_NODES, ()))
        script = transaction.script()
        script.add(sql.RAISE_LEVEL, *levels)
        standing = script.add(sql.READ_LEVELS)
        transaction.commit(script)
        return self._heard(standing)

    def _renew(self, transaction: Transaction, node_id: str, load: int) -> Renewal:
        transaction.begin()
        script = transaction.script()
        renewed = script.add(sql.RENEW_NODE, node_id, transaction.now, *self._hint(), load)
        levels = script.add(sql.READ_LEVELS)
        transaction.commit(script)
        if renewed.count == 0:
            raise NodeBuried(f"node {node_id} was declared dead, or has left")
        return Renewal(transaction.now, self._heard(levels))

    def _hint(self) -> tuple[int | None, int | None]:
        """Return the lock that marks this provider's connection, if it has one now, and its
        server.
        """
        server = self._pulse.server
        return (None, None) if server is None else (self._pulse.key, server)


def _leave(transaction: Transaction, node_id: str) -> int:
    # Lock the rows first, in the order of their ids, as groups do (rule 7).
    locked, taken = transaction.begin((sql.LOCK_LEFT, (node_id,)), (sql.LOCK_TAKEN, (node_id,)))
    reachable = {row[0] for row in locked.rows}
    # An activity that gets its stop mark now, of an instance that is not locked here, is lost in
    # the next sweep.
    stopping = [tuple(row[:4]) for row in taken.rows if row[4] and row[0] in reachable]
    script = transaction.script()
    released = script.add(sql.RELEASE_OWNED, node_id)
    handed_back = script.add(sql.RELEASE_TASKS, node_id)
    if stopping:
        _add_lost(script, stopping, transaction.now)
    script.add(sql.REMOVE_NODE, node_id)
    _forget_abilities(script, node_id, transaction.now)
    transaction.commit(script)
    return released.count + handed_back.count + len(stopping)


def _bury(transaction: Transaction, node_id: str, renewals: int) -> bool:
    transaction.begin()
    script = transaction.script()
    buried = script.add(sql.BURY_NODE, node_id, renewals)
    script.run()
    if buried.count == 0:
        transaction.commit()
        return False
    script = transaction.script()
    _forget_abilities(script, node_id, transaction.now)
    transaction.commit(script)
    return True


def _fold_tally(transaction: Transaction) -> int:
    """Add changes up to the numbers that they change. Return how many."""
    transaction.begin()
    script = transaction.script()
    folded = script.add(sql.FOLD_TALLY, _FOLDED_AT_ONCE)
    transaction.commit(script)
    return folded.rows[0][0]


def _take_over(transaction: Transaction, owners: dict[str, str]) -> int:
    transaction.begin((sql.LOCK_ROWS, (Texts(sorted(owners)),)))
    script = transaction.script()
    swept = script.add(sql.TAKE_OVER, Texts(owners), Texts(owners.values()), transaction.now)
    transaction.commit(script)
    return swept.count


def _lose_tasks(transaction: Transaction, lost: Sequence[tuple[Any, ...]]) -> int:
    transaction.begin((sql.LOCK_ROWS, (Texts(sorted({row[0] for row in lost})),)))
    script = transaction.script()
    count = _add_lost(script, lost, transaction.now)
    transaction.commit(script)
    return count.rows[0][0]


def _add_lost(script: Script, lost: Sequence[tuple[Any, ...]], now: int) -> Result:
    """Mark activities of these nodes as lost, given by their keys; their instances are locked."""
    instance_ids, executions, event_ids, owners = zip(*lost, strict=True)
    keys = Texts(instance_ids), Numbers(executions), Numbers(event_ids)
    return script.add(sql.LOSE_TASKS, *keys, Texts(owners), now, now + LONGEST_DELAY)


def _forget_abilities(script: Script, node_id: str, now: int) -> None:
    # Behind the node's own row, as a joining node does: two never wait for each other in a circle.
    script.add(sql.SEE_CODE, node_id, now)
    script.add(sql.REMOVE_CAPABILITIES, node_id)
    script.add(sql.REMOVE_NODE_ACTIVITIES, node_id)
