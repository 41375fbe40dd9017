"""What a node claims next, and when it asks the store for it."""

from __future__ import annotations

from collections.abc import Collection

from orchestra.engine.placement import FreePlaces
from orchestra.levels import BASE_LEVEL
from orchestra.store.catalogue import NodeRecord
from orchestra.store.changes import Claim
from orchestra.store.messages import InboxPage
from orchestra.store.port import Store
from orchestra.store.routes import Kind, Route

__all__ = ["Claims"]


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
        self._routes = node.routes
        self._blocking = tuple(route for route in self._routes if route.activity in blocking)
        self._without_threads = tuple(
            route for route in self._routes if route.activity not in blocking
        )
        self.kinds: tuple[Kind, ...] = ()
        """What this node can run."""
        self.stopped = False
        self._is_wanted = True
        self._asked: tuple[tuple[Kind, ...], tuple[Route, ...]] = (), ()
        """The kinds and routes that the store was last asked about."""
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
            self.kinds,
            max(0, min(self._most, free.instances)),
            routes,
            max(0, free.slots),
            self._blocking,
            max(0, free.threads),
            self._page,
        )

    def claimed(self, *, more: bool) -> None:
        """Take in that a claim was answered. ``more``: there may be more at once."""
        self._is_wanted = more
        self._due, self._is_due_known = None, False
        self._pressing, self._is_pressing_known = None, False

    def give_up(self) -> None:
        """Claim nothing before the next poll: the store does not take the claim."""
        self._is_wanted, self._due, self._is_due_known = False, None, True
        self._pressing, self._is_pressing_known = None, True

    def _is_possible(self, free: FreePlaces, routes: tuple[Route, ...]) -> bool:
        return not self.stopped and ((bool(self.kinds) and free.instances > 0) or bool(routes))

    def _routes_for(self, free: FreePlaces) -> tuple[Route, ...]:
        """Return the routes of activities that could begin now."""
        if free.slots <= 0:
            return ()
        return self._routes if free.threads > 0 else self._without_threads

    def _ask(self, free: FreePlaces, routes: tuple[Route, ...]) -> None:
        self._ask_anew_if_places_changed(free, routes)
        if not self._is_due_known:
            self._due = self._store.next_wake(*self._asked)
            self._is_due_known = True

    def _ask_anew_if_places_changed(self, free: FreePlaces, routes: tuple[Route, ...]) -> None:
        kinds = self.kinds if free.instances > 0 else ()
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
