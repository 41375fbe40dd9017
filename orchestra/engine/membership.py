"""This node among the others: being alive, and noticing who is not (protocol rules 11 to 13)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from orchestra.clock import Clock, new_id
from orchestra.levels import Levels
from orchestra.store.catalogue import Catalogue, NodeRecord
from orchestra.store.port import Store
from orchestra.telemetry import engine_logger

__all__ = ["Membership"]

_RENEWALS_PER_LEASE: Final = 3


@dataclass(slots=True)
class _Watched:
    """A node's renewals as last seen, and since when they stand still on this node's monotonic
    clock.
    """

    renewals: int
    since: float


class Membership:
    """Joins, renews, watches, buries and sweeps. It measures all times on its own monotonic
    clock.
    """

    def __init__(
        self, store: Store, node: NodeRecord, clock: Clock, *, make_id: Callable[[], str] = new_id
    ) -> None:
        self._store = store
        self._clock = clock
        self._make_id = make_id
        self.node: NodeRecord = node
        self.levels: Levels = Levels()
        """The store's levels, as of the last renewal."""
        self._lease = node.lease / 1e6
        self._renewed = 0.0
        self._steady_since = 0.0
        self._swept = 0.0
        self._watched: dict[str, _Watched] = {}

    def join(self) -> int:
        """Register this node in the store, which clears away what certainly is dead. Return the
        store's time.
        """
        return self._join(self.node)

    def _join(self, node: NodeRecord) -> int:
        # Before the call, as the store's row is from no later: a process may be stopped for hours
        # as a call returns (rule 11).
        self._renewed = self._steady_since = self._clock.monotonic()
        now = self._store.join(node)
        self._watched.clear()
        return now

    def rejoin(self) -> NodeRecord:
        """Join again under a new id, after having been buried."""
        node = replace(self.node, node_id=self._make_id())
        self._join(node)
        # Only now: after a lost reply, the node must find the old id buried again, or the engine
        # would go on as a ghost (rule 12).
        self.node = node
        return node

    def next_due(self) -> float:
        """Return the monotonic instant at which :meth:`renew` is due."""
        return self._renewed + self._lease / _RENEWALS_PER_LEASE

    def renew(self, load: int = 0) -> bool:
        """Renew the lease and tell how many activities run here, if that is due. Return whether it
        was.

        Raises:
            NodeBuried: others have declared it dead.
        """
        moment = self._clock.monotonic()
        if moment < self.next_due():
            return False
        if moment - self._renewed > self._lease / 2:
            # It could not renew for a while (a store outage, a pause): it may bury no node for the
            # same while. Half a lease, because the others may have renewed a third of it before,
            # and wait for a while before they try again.
            self._steady_since = moment
        self.levels = self._store.renew(self.node.node_id, load).levels
        # Not the time now: the process may have been stopped since the store renewed it.
        self._renewed = moment
        return True

    def leave(self) -> None:
        """Remove this node from the store."""
        self._store.leave(self.node.node_id)

    def bury_the_dead(self, catalogue: Catalogue) -> int:
        """Bury the nodes whose renewals have stood still for a full lease, or whose process is
        gone. Return how many.
        """
        moment = self._clock.monotonic()
        vanished = set(self._store.vanished())
        buried = 0
        known: dict[str, _Watched] = {}
        for row in catalogue.nodes:
            node_id = row.record.node_id
            if node_id == self.node.node_id:
                continue
            watched = self._watched.get(node_id)
            if watched is None or watched.renewals != row.renewals:
                watched = _Watched(row.renewals, moment)
            known[node_id] = watched
            lease = row.record.lease / 1e6
            # Only time in which this node could renew itself counts: after a store outage, no node
            # is dead yet.
            still = moment - max(watched.since, self._steady_since)
            if (node_id in vanished or still > lease) and self._store.bury(node_id, row.renewals):
                engine_logger.warning(
                    "node %s (pid %d on %s) is dead and was buried",
                    node_id,
                    row.record.pid,
                    row.record.host,
                )
                buried += 1
        self._watched = known
        return buried

    def sweep(self, *, at_once: bool) -> int:
        """Release what buried nodes own, once a lease or at once. Return how many instances became
        free.
        """
        moment = self._clock.monotonic()
        if not at_once and moment - self._swept < self._lease:
            return 0
        self._swept = moment
        swept = 0
        while released := self._store.sweep():
            swept += released
        return swept
