"""What a node claims next, and when it asks the store for it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from orchestra.engine.placement import FreePlaces
from orchestra.levels import BASE_LEVEL
from orchestra.store.catalogue import NodeRecord
from orchestra.store.changes import Claim
from orchestra.store.messages import InboxPage
from orchestra.store.port import Store
from orchestra.store.routes import Kind, Route

__all__ = ["Claims"]


_KNOWN_SESSIONS: Final = 64
"""How many routes of sessions a node goes on to claim."""


class _Routes:
    """The routes that a node claims, for each state of its free places.

    Args:
        plain: of activities in no session.
        sessions: of sessions that wait for a node.
        own: of activities in this node's sessions.
        needs_thread: the names of the activities that need a thread.
    """

    def __init__(
        self,
        plain: tuple[Route, ...],
        sessions: tuple[Route, ...],
        own: tuple[Route, ...],
        needs_thread: Collection[str],
    ) -> None:
        activities = (*plain, *own)
        self.blocking = tuple(route for route in activities if route.activity in needs_thread)
        others = tuple(route for route in activities if route.activity not in needs_thread)
        self.by_places = {
            (True, False): activities,
            (True, True): (*activities, *sessions),
            (False, False): others,
            (False, True): (*others, *sessions),
        }
        """By whether a thread is free, and room for a session."""


class Claims:
    """Claims instances and activities while the node has free places for them.

    A full node claims nothing, or it would spin over what is due. It only looks since when
    instances are due, so that its own give up their places.

    Args:
        blocking: the names of activities that need a thread.
        most: how many instances one claim takes.
        page: how much a claim reads of the instances' inboxes.
    """

    def __init__(
        self,
        store: Store,
        node: NodeRecord,
        blocking: Collection[str] = (),
        most: int = 256,
        page: InboxPage = InboxPage(),  # noqa: B008 - it is immutable
    ) -> None:
        self._store = store
        self._most = most
        self._page = page
        self._reads = node.reads
        self._node = node
        self._needs_thread = blocking
        self._waiting_sessions: tuple[Route, ...] = ()
        self._of_sessions: tuple[Route, ...] = ()
        self._routes: _Routes = _Routes(node.routes, (), (), blocking)
        self.kinds: tuple[Kind, ...] = ()
        """What this node can run."""
        self.stopped = False
        """Whether it takes nothing new. It still takes the activities of its sessions."""
        self._is_closed = False
        self._is_wanted = True
        self._asked: tuple[tuple[Kind, ...], tuple[Route, ...]] = (), ()
        """The kinds and routes that the store was last asked about."""
        self.is_behind: bool = False
        """Whether the last claim left instances or activities that are due."""
        self._due: int | None = None
        self._is_due_known = False
        self._pressing: int | None = None
        """When the next instance is due that finds no place here."""
        self._is_pressing_known = False

    def serve(self, kinds: tuple[Kind, ...]) -> bool:
        """Claim these kinds from now on. Return whether they have changed."""
        if kinds == self.kinds:
            return False
        self.kinds = kinds
        self.want()
        return True

    def serve_sessions(self, waiting: Sequence[Route]) -> None:
        """Claim the waiting sessions that this node may take. It goes on to claim those that waited
        before, so that the next one of a route waits for no look at the catalogue.
        """
        new = [
            route
            for route in waiting
            if route not in self._waiting_sessions and self._node.takes_session(route)
        ]
        if new:
            self._waiting_sessions = (*new, *self._waiting_sessions)[:_KNOWN_SESSIONS]
            self._arrange()
            self.want()

    def take_part(self, routes: tuple[Route, ...]) -> None:
        """Claim the activities of this node's sessions, which come by these routes."""
        if routes is not self._of_sessions:
            self._of_sessions = routes
            self._arrange()
            self.want()

    def stop(self) -> None:
        """Claim nothing new from now on, but the activities of this node's sessions."""
        self.stopped: bool = True
        self._arrange()

    def close(self) -> None:
        """Claim nothing at all from now on."""
        self._is_closed = True
        self.stop()

    def _arrange(self) -> None:
        plain, sessions = self._node.routes, self._waiting_sessions
        if self.stopped:
            plain, sessions = (), ()
        own = () if self._is_closed else self._of_sessions
        self._routes = _Routes(plain, sessions, own, self._needs_thread)

    def meet(self, kind: Kind) -> None:
        """Claim a kind as well that this node has just written, before the catalogue names it.

        An instance gets a higher level with the first event of a newer kind.
        """
        if kind.level <= BASE_LEVEL or kind.level > self._reads or kind in self.kinds:
            return
        if kind._replace(level=BASE_LEVEL) in self.kinds:
            self.kinds = (*self.kinds, kind)
            self.want()

    def want(self) -> None:
        """Claim with the next group without asking first: something becomes ready with it."""
        self._is_wanted, self._is_pressing_known = True, False

    def look(self) -> None:
        """Ask the store anew what is due."""
        self._is_due_known = self._is_pressing_known = False

    def expect(self, instant: int) -> None:
        """Take in when a released instance is due."""
        self._due = instant if self._due is None else min(self._due, instant)
        self._pressing = instant if self._pressing is None else min(self._pressing, instant)

    # --- with free places ---

    def is_due(self, now: int, free: FreePlaces) -> bool:
        """Return whether to claim now, as far as is known without asking the store."""
        routes = self._routes_for(free)
        self._ask_anew_if_places_changed(free, routes)
        if self._due is not None and self._due <= now:
            self._is_wanted = True
        return self._is_wanted and self._is_possible(free, routes)

    def next_due(self, free: FreePlaces, *, can_yield: bool) -> int | None:
        """Return when the next claim is due, or when a place must be given up; ``None`` if never.

        It may ask the store.

        Args:
            free: the places of this node.
            can_yield: whether an owned instance could give up its place.
        """
        due: int | None = None
        routes = self._routes_for(free)
        if self._is_possible(free, routes):
            self._ask(free, routes)
            due = self._due
        if can_yield and self._is_full(free):
            pressing = self._ask_for_pressing()
            due = pressing if due is None else due if pressing is None else min(due, pressing)
        return due

    def next_claim(self, node_id: str, now: int, free: FreePlaces) -> Claim | None:
        """Return the claim to make now, if there is one. It may ask the store.

        Raises:
            StoreError: the store could not be asked.
        """
        routes = self._routes_for(free)
        if not self._is_possible(free, routes):
            return None
        if not self._is_wanted:
            self._ask(free, routes)
            if self._due is None or self._due > now:
                return None
        return Claim(
            node_id,
            () if self.stopped else self.kinds,
            max(0, min(self._most, free.instances)),
            routes,
            max(0, free.slots),
            self._routes.blocking,
            max(0, free.threads),
            self._page,
        )

    def claimed(self, *, more: bool) -> None:
        """Take in that a claim was answered. ``more``: there may be more at once."""
        self._is_wanted = self.is_behind = more
        self._due, self._is_due_known = None, False
        self._pressing, self._is_pressing_known = None, False

    def give_up(self) -> None:
        """Claim nothing before the next poll: the store does not take the claim."""
        self._is_wanted, self._due, self._is_due_known = False, None, True
        self._pressing, self._is_pressing_known = None, True

    def _is_possible(self, free: FreePlaces, routes: tuple[Route, ...]) -> bool:
        return bool(routes) or (not self.stopped and bool(self.kinds) and free.instances > 0)

    def _routes_for(self, free: FreePlaces) -> tuple[Route, ...]:
        """Return the routes of activities that could begin now."""
        if free.slots <= 0:
            return ()
        return self._routes.by_places[free.threads > 0, free.sessions > 0]

    def _ask(self, free: FreePlaces, routes: tuple[Route, ...]) -> None:
        self._ask_anew_if_places_changed(free, routes)
        if not self._is_due_known:
            self._due = self._store.next_wake(*self._asked)
            self._is_due_known = True

    def _ask_anew_if_places_changed(self, free: FreePlaces, routes: tuple[Route, ...]) -> None:
        kinds = self.kinds if free.instances > 0 and not self.stopped else ()
        if kinds is not self._asked[0] or routes is not self._asked[1]:
            self._asked, self._is_due_known, self._due = (kinds, routes), False, None

    # --- without ---

    def is_pressed(self, now: int, free: FreePlaces) -> bool:
        """Return whether an instance is due and finds no place here. It may ask the store.

        Raises:
            StoreError: the store could not be asked.
        """
        if not self._is_full(free):
            return False
        due = self._ask_for_pressing()
        if due is None or due > now:
            return False
        self._is_wanted = True  # and it is claimed together with the write that gives up a place
        return True

    def is_known_to_press(self, now: int, free: FreePlaces) -> bool:
        """Return whether an instance is due and finds no place here, as far as is known without
        asking.
        """
        return self._pressing is not None and self._pressing <= now and self._is_full(free)

    def _is_full(self, free: FreePlaces) -> bool:
        return not self.stopped and bool(self.kinds) and free.instances <= 0

    def _ask_for_pressing(self) -> int | None:
        if not self._is_pressing_known:
            self._pressing = self._store.next_wake(self.kinds)
            self._is_pressing_known = True
        return self._pressing
