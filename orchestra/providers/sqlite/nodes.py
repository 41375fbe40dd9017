"""The life of nodes: join, renew, leave, and the burial of a dead one by others (protocol rules 11
to 14).
"""

from __future__ import annotations

from typing import Final

from orchestra.errors import NodeBuried
from orchestra.levels import Levels
from orchestra.providers.sqlite import statements as sql
from orchestra.providers.sqlite.catalogue import read_levels
from orchestra.providers.sqlite.filelock import NodeLock
from orchestra.providers.sqlite.settings import Settings
from orchestra.providers.sqlite.tasks import leave_tasks, lose_tasks
from orchestra.providers.sqlite.writer import Transaction, Writer
from orchestra.store.catalogue import NodeRecord, Renewal
from orchestra.store.nodes import abilities_to_bytes

__all__ = ["Nodes"]

_KEEP_DEAD: Final = 24 * 3_600_000_000
"""How long the row of a dead node is kept for people, in microseconds."""


class Nodes:
    """The nodes of a store. The nodes of this process hold lock files; the locks end with the
    process.
    """

    def __init__(self, writer: Writer, settings: Settings) -> None:
        self._writer = writer
        self._settings = settings
        self._joined: dict[str, tuple[NodeRecord, NodeLock]] = {}

    def close(self) -> None:
        """Release the lock files, as the death of the process does."""
        while self._joined:
            _, (_, lock) = self._joined.popitem()
            lock.close()

    def join(self, node: NodeRecord) -> int:
        """Register the node. Return the store's time."""
        # The lock comes before the row: a row without a lock would look like a death (rule 26).
        lock = NodeLock(self._settings.node_lock_path(node.node_id))
        try:
            with self._writer.transaction() as transaction:
                self._settings.dialect.library.require(
                    read_levels(transaction), str(self._settings.path)
                )
                _insert(transaction, node)
        except BaseException:
            lock.remove()
            raise
        self._joined[node.node_id] = (node, lock)
        return transaction.now

    def renew(self, node_id: str, load: int) -> Renewal:
        """Renew the node's lease. Return the store's time and levels."""
        with self._writer.transaction() as transaction:
            renewed = transaction.connection.execute(
                sql.RENEW_NODE, (transaction.now, load, node_id)
            ).rowcount
            levels = read_levels(transaction)
        if renewed == 0:
            raise NodeBuried(f"node {node_id} was declared dead, or has left")
        return Renewal(transaction.now, levels)

    def raise_level(self, levels: Levels) -> Levels:
        """Raise the write level, unless a living node cannot read it. Return the levels."""
        with self._writer.transaction() as transaction:
            standing = read_levels(transaction)
            older = transaction.connection.execute(sql.ANY_OLDER_NODE, (levels.write,)).fetchone()
            if levels.write <= standing.write or older is not None:
                return standing
            raised = Levels(levels.write, max(levels.lowest_reader, standing.lowest_reader))
            transaction.connection.execute(sql.SET_META, ("write_level", str(raised.write)))
            transaction.connection.execute(
                sql.SET_META, ("lowest_reader", str(raised.lowest_reader))
            )
        return self._settings.dialect.heard(raised)

    def leave(self, node_id: str) -> None:
        """Remove the node, and release its instances."""
        with self._writer.transaction() as transaction:
            connection = transaction.connection
            connection.execute(sql.RELEASE_OWNED, (node_id,))
            leave_tasks(connection, transaction.now, node_id)
            _forget_abilities(transaction, node_id)
            connection.execute(sql.REMOVE_NODE, (node_id,))
        joined = self._joined.pop(node_id, None)
        if joined is not None:
            joined[1].remove()

    def vanished(self) -> list[str]:
        """Return nodes of this host and this boot whose lock is free: their processes are certainly
        gone.
        """
        places = {(node.host, node.boot_id) for node, _ in self._joined.values()}
        with self._writer.reading() as reading:
            neighbours = [
                row[0]
                for place in places
                for row in reading.connection.execute(sql.LIST_NEIGHBOURS, place)
            ]
        return [
            node_id
            for node_id in neighbours
            if node_id not in self._joined
            and NodeLock.is_free(self._settings.node_lock_path(node_id))
        ]

    def bury(self, node_id: str, renewals: int) -> bool:
        """Declare a node dead if its ``renewals`` is still this number. Return whether it was
        done.
        """
        with self._writer.transaction() as transaction:
            buried = (
                transaction.connection.execute(sql.BURY_NODE, (node_id, renewals)).rowcount == 1
            )
            if buried:
                _forget_abilities(transaction, node_id)
        if buried:
            NodeLock.clear(self._settings.node_lock_path(node_id))
        return buried

    def sweep(self, limit: int) -> int:
        """Release instances whose owner has no living node row, and mark such nodes' activities as
        lost. Return how many.
        """
        with self._writer.transaction() as transaction:
            connection, now = transaction.connection, transaction.now
            ghosts = connection.execute(sql.FIND_GHOST_OWNED, (limit,)).fetchall()
            if ghosts:
                connection.executemany(sql.TAKE_OVER, [(now, *ghost) for ghost in ghosts])
            return len(ghosts) + lose_tasks(connection, now, limit)


def _insert(transaction: Transaction, node: NodeRecord) -> None:
    connection, now = transaction.connection, transaction.now
    connection.execute(sql.PRUNE_NODES, (now - _KEEP_DEAD,))
    connection.execute(
        sql.ADD_NODE,
        (
            node.node_id,
            node.host,
            node.boot_id,
            node.pid,
            node.library,
            abilities_to_bytes(node),
            node.lease,
            now,
            now,
            node.reads,
            node.writes,
        ),
    )
    capabilities = {
        (capability.name, capability.version): capability.fingerprint
        for capability in node.capabilities
    }
    connection.executemany(
        sql.ADD_CAPABILITY,
        [(node.node_id, *key, fingerprint) for key, fingerprint in capabilities.items()],
    )
    _see_code(transaction, node.node_id)
    connection.executemany(
        sql.ADD_NODE_ACTIVITY, [(node.node_id, name) for name in dict.fromkeys(node.activities)]
    )


def _see_code(transaction: Transaction, node_id: str) -> None:
    now = transaction.now
    transaction.connection.execute(sql.SEE_CODE, (now, now, node_id))


def _forget_abilities(transaction: Transaction, node_id: str) -> None:
    _see_code(transaction, node_id)
    transaction.connection.execute(sql.REMOVE_CAPABILITIES, (node_id,))
    transaction.connection.execute(sql.REMOVE_NODE_ACTIVITIES, (node_id,))
