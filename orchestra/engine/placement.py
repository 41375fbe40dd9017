"""Where activities run: on the node that owns their instance, or on another one.

A node runs an activity itself while it has a free place. Otherwise it hands the activity out: the
store keeps it until a node that serves its route takes it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from orchestra.store.catalogue import Catalogue, NodeRecord
from orchestra.store.routes import Route
from orchestra.telemetry import engine_logger

__all__ = ["FreePlaces", "Placement"]


@dataclass(slots=True)
class FreePlaces:
    """How much more a node takes on. The engine counts it once a cycle, and hands it over.

    Args:
        instances: how many more instances it may own.
        slots: how many more activities may run.
        threads: how many of these may need a thread.
        blocking: the names of the activities that need a thread.
    """

    instances: int
    slots: int
    threads: int
    blocking: Collection[str]

    def fits(self, activity: str) -> bool:
        """Return whether an activity could begin now."""
        return self.slots > 0 and (self.threads > 0 or activity not in self.blocking)

    def take(self, activity: str) -> None:
        """Count a place as taken by an activity."""
        self.slots -= 1
        self.threads -= activity in self.blocking

    def copy(self) -> FreePlaces:
        """Return a copy, for a turn: it may be abandoned, and must not share what it changes."""
        return FreePlaces(self.instances, self.slots, self.threads, self.blocking)


class Placement:
    """Decides which activities of its instances a node runs itself.

    An activity that no other node has waits here for a place. To hand it out would only delay it.
    """

    def __init__(self, node: NodeRecord) -> None:
        self._own = frozenset(node.routes)
        self._own_code = dict(node.fingerprints)
        self._others: frozenset[Route] = frozenset()
        self._unserved: dict[Route, bool] = {}
        """Routes that were handed out and that no node serves, and whether the log says so."""

    def refresh(self, catalogue: Catalogue, node_id: str) -> None:
        """Learn which routes the other nodes serve. Log each unserved route once."""
        others = (row.record for row in catalogue.nodes if row.record.node_id != node_id)
        self._others = frozenset(route for record in others for route in record.routes)
        for route, is_logged in list(self._unserved.items()):
            if route in self._others:
                del self._unserved[route]
            elif not is_logged:
                self._unserved[route] = True
                # It looks like an instance that hangs.
                engine_logger.warning(
                    "no living node has activity %r and serves queue %r; it waits in the store "
                    "for one. Give it to Runtime(activities=..., queues=...)",
                    route.activity,
                    route.queue,
                )

    def hands_out(self, route: Route, free: FreePlaces) -> bool:
        """Return whether an activity goes to other nodes, through the store."""
        if route in self._own:
            return route in self._others and not free.fits(route.activity)
        if route not in self._others:
            # A node that serves it may have joined since the catalogue was read.
            self._unserved.setdefault(route, False)
        return True

    def reader(self, route: Route, unread: Collection[str]) -> Route | None:
        """Return the route to code that may read an activity's arguments; ``None`` if there is
        none.

        Args:
            route: the activity's route. It is returned if this node may run the activity.
            unread: the fingerprints of code that cannot read the arguments.
        """
        own = self._own_code.get(route.activity)
        if route in self._own and own is not None and own not in unread:
            return route
        wanted = route.queue, route.activity, route.format
        others = (
            other for other in self._others if (other.queue, other.activity, other.format) == wanted
        )
        able = sorted(
            other
            for other in others
            if other.fingerprint is not None and other.fingerprint not in unread
        )
        return able[0] if able else None

    def is_served(self, route: Route) -> bool:
        """Return whether another node takes what is handed out by a route."""
        return route in self._others
