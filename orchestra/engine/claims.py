"""What a node may take next, and when it asks the store for it."""

from __future__ import annotations

from collections.abc import Callable, Collection

from orchestra.engine.places import Places
from orchestra.store.catalogue import NodeRecord
from orchestra.store.changes import Claim
from orchestra.store.messages import InboxPage
from orchestra.store.port import Store
from orchestra.store.routes import Kind, Route

__all__ = ["Claims"]


class Claims:
    """Asks for instances while there is room for one, and for activities of others while there is a
    place for one.

    A full node claims nothing: it would turn at full speed over what is due. It only looks since
    when that is so, for others to give up their place.

    Args:
        room: how many instances may still be taken.
        places: how many activities may.
        blocking: the names of activities that need a thread.
        page: what is read of the inboxes of those that are taken.
    """

    def __init__(
        self,
        store: Store,
        node: NodeRecord,
        room: Callable[[], int],
        places: Callable[[], Places],
        blocking: Collection[str] = (),
        page: InboxPage = InboxPage(),  # noqa: B008 - it is immutable
    ) -> None:
        self._store = store
        self._page = page
        self._routes = node.routes
        self._blocking = tuple(route for route in self._routes if route.activity in blocking)
        self._without_threads = tuple(
            route for route in self._routes if route.activity not in blocking
        )
        self._room = room
        self._places = places
        self.kinds: tuple[Kind, ...] = ()
        """What this node can run."""
        self.stopped = False
        self._is_wanted = True
        self._asked: tuple[tuple[Kind, ...], tuple[Route, ...]] = (), ()
        """What the store was last asked about."""
        self._due: int | None = None
        self._is_due_known = False
        self._pressing: int | None = None
        """When the next instance is due for which there is no room."""
        self._is_pressing_known = False

    def serve(self, kinds: tuple[Kind, ...]) -> bool:
        """Claim these kinds from now on. Return whether they are others than before."""
        if kinds == self.kinds:
            return False
        self.kinds = kinds
        self.want()
        return True

    def want(self) -> None:
        """Claim next time without asking first: something is there, or becomes ready in the same
        transaction.
        """
        self._is_wanted, self._is_pressing_known = True, False

    def look(self) -> None:
        """Ask the store anew what is due."""
        self._is_due_known = self._is_pressing_known = False

    def expect(self, instant: int) -> None:
        """Take note that an instance that was let go of will be due."""
        self._due = instant if self._due is None else min(self._due, instant)
        self._pressing = instant if self._pressing is None else min(self._pressing, instant)

    def is_due(self, now: int) -> bool:
        """Return whether something is to be claimed now, as far as is known without asking."""
        self._ask_anew_if_room_has_changed()
        if self._due is not None and self._due <= now:
            self._is_wanted = True
        return self._is_wanted and self._is_possible

    def next_due(self, *, can_yield: bool) -> int | None:
        """Return when the next claim is due, or a place to be given up; ``None`` where none ever
        is. May ask the store.

        Args:
            can_yield: there is one that could give up its place.
        """
        due: int | None = None
        if self._is_possible:
            self._ask()
            due = self._due
        if can_yield and self._is_full:
            pressing = self._ask_for_pressing()
            due = pressing if due is None else due if pressing is None else min(due, pressing)
        return due

    def next_claim(self, node_id: str, now: int) -> Claim | None:
        """Return the claim to be made now, if there is one. May ask the store.

        Raises:
            StoreError: it could not be asked.
        """
        if not self._is_possible:
            return None
        if not self._is_wanted:
            self._ask()
            if self._due is None or self._due > now:
                return None
        places = self._places()
        routes, slots, threads = (
            self._routes_for(places),
            max(0, places.slots),
            max(0, places.threads),
        )
        return Claim(
            node_id,
            self.kinds,
            max(0, self._room()),
            routes,
            slots,
            self._blocking,
            threads,
            self._page,
        )

    def claimed(self, *, more: bool) -> None:
        """Take note that a claim was answered; ``more``: there may be more at once."""
        self._is_wanted = more
        self._due, self._is_due_known = None, False
        self._pressing, self._is_pressing_known = None, False

    def give_up(self) -> None:
        """Claim nothing before the next look: the store does not take it."""
        self._is_wanted, self._due, self._is_due_known = False, None, True
        self._pressing, self._is_pressing_known = None, True

    # --- where there is no room ---

    def is_pressed(self, now: int) -> bool:
        """Return whether an instance is due, and this node has no room for it. May ask the store.

        Raises:
            StoreError: it could not be asked.
        """
        if not self._is_full:
            return False
        due = self._ask_for_pressing()
        if due is None or due > now:
            return False
        self._is_wanted = True  # and is to be claimed together with what gives up its place
        return True

    def is_known_to_press(self, now: int) -> bool:
        """Return whether an instance is due, and this node has no room for it, as far as is known
        without asking.
        """
        return self._pressing is not None and self._pressing <= now and self._is_full

    @property
    def _is_full(self) -> bool:
        return not self.stopped and bool(self.kinds) and self._room() <= 0

    def _ask_for_pressing(self) -> int | None:
        if not self._is_pressing_known:
            self._pressing = self._store.next_wake(self.kinds)
            self._is_pressing_known = True
        return self._pressing

    # --- where there is ---

    @property
    def _is_possible(self) -> bool:
        if self.stopped:
            return False
        return (bool(self.kinds) and self._room() > 0) or bool(self._routes_for(self._places()))

    def _routes_for(self, places: Places) -> tuple[Route, ...]:
        """Return by which routes an activity may come that could begin now."""
        if places.slots <= 0:
            return ()
        return self._routes if places.threads > 0 else self._without_threads

    def _ask(self) -> None:
        self._ask_anew_if_room_has_changed()
        if not self._is_due_known:
            self._due = self._store.next_wake(*self._asked)
            self._is_due_known = True

    def _ask_anew_if_room_has_changed(self) -> None:
        kinds = self.kinds if self._room() > 0 else ()
        routes = self._routes_for(self._places())
        if kinds is not self._asked[0] or routes is not self._asked[1]:
            self._asked, self._is_due_known, self._due = (kinds, routes), False, None
