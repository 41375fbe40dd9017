"""Where activities run: on the node that owns their instance, or on another one.

A node runs an activity itself while it has a free place. Otherwise it hands the activity out: the
store keeps it until a node that serves its route takes it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from orchestra.sessions import ENTER, OPEN
from orchestra.store.catalogue import Catalogue, NodeRecord
from orchestra.store.routes import NO_SESSION, Route
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
        sessions: how many more sessions it may take.
    """

    instances: int
    slots: int
    threads: int
    blocking: Collection[str]
    sessions: int = 0

    def fits(self, activity: str) -> bool:
        """Return whether an activity could begin now."""
        return self.slots > 0 and (self.threads > 0 or activity not in self.blocking)

    def take(self, activity: str) -> None:
        """Count a place as taken by an activity."""
        self.slots -= activity != OPEN
        self.threads -= activity in self.blocking
        self.sessions -= activity == ENTER

    def copy(self) -> FreePlaces:
        """Return a copy, for a turn: it may be abandoned, and must not share what it changes."""
        return FreePlaces(self.instances, self.slots, self.threads, self.blocking, self.sessions)


class Placement:
    """Decides which activities of its instances a node runs itself.

    An activity that no other node has waits here for a place. To hand it out would only delay it.
    """

    def __init__(self, node: NodeRecord) -> None:
        self._node = node
        self._node_id = node.node_id
        self._living: frozenset[str] = frozenset()
        self._known_at = -1
        """When the catalogue was read that says so, in the store's time."""
        self._other_nodes: tuple[NodeRecord, ...] = ()
        self._session_nodes: set[str] = set()
        """The nodes to which activities of sessions were handed out."""
        self._own = frozenset(node.routes)
        self._own_code = dict(node.fingerprints)
        self._others: frozenset[Route] = frozenset()
        self._unserved: dict[Route, bool] = {}
        """Routes that were handed out and that no node serves, and whether the log says so."""

    def reborn(self, node_id: str) -> None:
        """Go on under another id. Its sessions live, though no catalogue tells of it yet."""
        self._node_id = node_id

    def refresh(self, catalogue: Catalogue, node_id: str) -> None:
        """Learn which routes the other nodes serve. Log each unserved route once."""
        records = [row.record for row in catalogue.nodes]
        self._node_id, self._known_at = node_id, catalogue.now
        self._living = frozenset(record.node_id for record in records)
        self._other_nodes = tuple(record for record in records if record.node_id != node_id)
        self._others = frozenset(route for one in self._other_nodes for route in one.routes)
        for route, is_logged in list(self._unserved.items()):
            if self.is_served(route):
                del self._unserved[route]
            elif not is_logged:
                self._unserved[route] = True
                # It looks like an instance that hangs.
                names = route.session
                engine_logger.warning(
                    "no living node has %s and serves queue %r; it waits in the store for one. "
                    "Give it to Runtime(activities=..., queues=...)",
                    f"activity {route.activity!r}"
                    if names is None
                    else f"all of {', '.join(map(repr, names))}, which a session needs,",
                    route.served_queue,
                )

    def hands_out(self, route: Route, free: FreePlaces) -> bool:
        """Return whether an activity goes to other nodes, through the store."""
        if route.queue < NO_SESSION:
            if (node := route.node) is not None:
                if node == self._node_id:
                    return False
                self._session_nodes.add(node)
                return True
            if route.session is not None:
                return self._hands_out_session(route, free)
        if route in self._own:
            return route in self._others and not free.fits(route.activity)
        if route not in self._others:
            # A node that serves it may have joined since the catalogue was read.
            self._unserved.setdefault(route, False)
        return True

    def _hands_out_session(self, route: Route, free: FreePlaces) -> bool:
        """Return whether a session goes to other nodes. This node takes one that it has room for,
        unless it is busy and another one is not.
        """
        others = self.is_served(route)
        if self._node.takes_session(route):
            return free.sessions <= 0 or (others and free.slots <= 0)
        if not others:
            self._unserved.setdefault(route, False)
        return True

    def has_lost(self, route: Route, since: int) -> bool:
        """Return whether the node of a session has died or has left, by a catalogue that is no
        older than the session.

        Args:
            route: the route of an activity; one of no session is never lost.
            since: when the activity was scheduled. The node had joined by then.
        """
        node = route.node
        return (
            node is not None
            and node != self._node_id
            and node not in self._living
            and self._known_at >= since
        )

    def misses_nodes(self) -> bool:
        """Return, once, whether a node is gone to which activities of sessions were handed out.
        What it has not taken is lost with the next sweep.
        """
        gone = self._session_nodes - self._living
        self._session_nodes -= gone
        return bool(gone)

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
        if route.session is not None:
            return any(node.takes_session(route) for node in self._other_nodes)
        return route in self._others
