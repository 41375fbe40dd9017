"""What a store must be able to do.

A :class:`Provider` opens one durable store and offers three views of it: :class:`Store` is what the
engine needs, :class:`Directory` reads for people, :class:`Admin` is what operators write. All three
are plain synchronous code. ``Store`` is called by one thread at a time, but for ``commit`` and
``stir``, which a client that shares the provider with a runtime calls beside it; ``Directory`` and
``Admin`` are called by any.

Every method may raise the subclasses of :class:`~orchestra.errors.StoreError`. Only
:class:`~orchestra.errors.OutcomeUnknown` leaves open whether something was written.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from orchestra.errors import ProviderInUse
from orchestra.events import EventRecord
from orchestra.levels import Levels
from orchestra.store.catalogue import Catalogue, NodeRecord, Renewal
from orchestra.store.changes import Change
from orchestra.store.executions import ExecutionRow
from orchestra.store.instances import HeldRow
from orchestra.store.kinds import THIS_LIBRARY, Library
from orchestra.store.messages import InboxPage, Unread
from orchestra.store.outcomes import Commit
from orchestra.store.queries import InstanceQuery, InstanceRecord
from orchestra.store.routes import Kind, Route
from orchestra.store.snapshots import News
from orchestra.store.tasks import Task

__all__ = ["Admin", "Directory", "Provider", "Store"]


class Store(Protocol):
    """What the engine needs."""

    def commit(self, changes: Sequence[Change]) -> Commit:
        """Apply a group in one transaction. Each change is granted or refused by itself; no refusal
        fails the group.

        The order is: the owners' writes and recoveries, then what granted writes do to other
        instances (see :class:`~orchestra.store.changes.Write`), then starts, messages, cancels and
        releases, then claims; within each, as given. A report counts as a message. A claim
        therefore sees what the same group has made ready; activities are taken before instances.
        Outcomes stand in the order of the changes.
        """
        ...

    def history(self, instance_id: str, execution: int) -> list[EventRecord]:
        """Return the events of one execution in order."""
        ...

    def news(self, node_id: str, page: InboxPage = InboxPage()) -> list[News]:  # noqa: B008 - it is immutable
        """Return what has arrived for instances that the node owns, and that none of its writes has
        taken note of.

        Each entry holds the first unread events that are newer than the row's ``seen_seq``, as many
        as the page has room for, and all ends of children that are newer.
        """
        ...

    def unread(
        self,
        instance_id: str,
        after: Mapping[str, int],
        up_to: int,
        page: InboxPage = InboxPage(),  # noqa: B008 - it is immutable
    ) -> dict[str, Unread]:
        """Return the next unread events of some names: of each name those after a number, and up to
        ``up_to``.

        The names share the page, and of each there is at least one event, if there is any. The cost
        is that of the events that are returned, however many others wait.
        """
        ...

    def next_wake(self, kinds: Sequence[Kind], routes: Sequence[Route] = ()) -> int | None:
        """Return the earliest instant at which an unowned instance of these kinds is due; ``None``
        where none ever is.

        An activity that is handed out by one of the routes, and that nobody has taken, is due since
        it was asked for.
        """
        ...

    def changed(self) -> bool:
        """Return whether somebody else may have written since the last call: another process, or
        whoever called :meth:`stir`.

        A hint; never needed for correctness.
        """
        ...

    def on_change(self, ring: Callable[[], None] | None) -> None:
        """Have ``ring`` called, from any thread, as soon as :meth:`changed` will say yes; ``None``:
        no more.

        A hint as well: a store that is not told by others rings only where :meth:`stir` is called.
        """
        ...

    def stir(self) -> None:
        """Let the next :meth:`changed` say yes: somebody in this process has written past the
        engine. From any thread.
        """
        ...

    def catalogue(self) -> Catalogue:
        """Return the nodes that are not dead, the policies, and the kinds."""
        ...

    def join(self, node: NodeRecord) -> int:
        """Make the node known and alive. Return the store's time.

        Raises:
            LibraryTooOld: the library of this provider may not work on the store any more.
        """
        ...

    def renew(self, node_id: str, load: int = 0) -> Renewal:
        """Say that the node lives, and how many activities it runs. Return the store's time and
        levels.

        Raises:
            NodeBuried: it was declared dead.
        """
        ...

    def raise_level(self, levels: Levels) -> Levels:
        """Let kinds be written up to a higher level, together with its lowest reader, in one
        conditional write (rule 37).

        Nothing changes where the level stands there already, or where a node lives that does not
        read it. A node that joins at the same time either is seen by this, or sees the new lowest
        reader. Return how the levels stand.
        """
        ...

    def leave(self, node_id: str) -> None:
        """Remove the node; what it still owns is released, and the activities that it has taken are
        there to be taken again.
        """
        ...

    def vanished(self) -> list[str]:
        """Return nodes whose process is certainly gone (same host, lock released). A hint that
        shortens the wait.
        """
        ...

    def bury(self, node_id: str, renewals: int) -> bool:
        """Declare a node dead if its ``renewals`` still stand at this number. Return whether it was
        done.
        """
        ...

    def sweep(self, limit: int = 256) -> int:
        """Release instances whose owner has no living node row; each counts a take-over. Return how
        many.

        Activities that such nodes had taken are :data:`~orchestra.store.tasks.LOST`; they count as
        well.
        """
        ...

    def expire(self, limit: int = 64) -> int:
        """Delete up to ``limit`` ended instances whose time has run out, with all that belongs to
        them. Return how many.

        Fewer may be deleted at once where they are large; 0 says that there is none. It costs no
        write then.
        """
        ...

    def rouse(
        self, since: int, until: int, instance_ids: Sequence[str] = (), limit: int = 256
    ) -> int:
        """Make instances ready whose wake time was reckoned on a clock that was put back since.
        Return how many.

        These are instances that wait for a time, up to ``limit`` of them: those that were last
        written between ``since`` and ``until``, or at a time that is still to come, and the given
        ones. Each is made ready once. One that has crashed its owners repeatedly waits for the
        longest delay at most.
        """
        ...

    def owned(self, node_id: str) -> list[str]:
        """Return the ids of the instances that the node owns."""
        ...

    def taken(self, node_id: str) -> list[Task]:
        """Return the activities that the node has taken and not reported the end of."""
        ...

    def held(self, names: Sequence[str]) -> list[HeldRow]:
        """Return the stored holds of these orchestrations."""
        ...


class Directory(Protocol):
    """Reads for clients and dashboards. Never blocks a writer."""

    def get(self, instance_id: str) -> InstanceRecord | None: ...

    def list(self, query: InstanceQuery) -> list[InstanceRecord]: ...

    def executions(
        self, instance_id: str, after: int = 0, limit: int = 1000
    ) -> list[ExecutionRow]: ...

    def history(self, instance_id: str, execution: int) -> list[EventRecord]: ...

    def envelopes(
        self, instance_id: str, execution: int, events: Sequence[int]
    ) -> list[EventRecord]:
        """Return those of these events that there are, at most 1,000, in their order; without their
        payloads.
        """
        ...

    def catalogue(self) -> Catalogue: ...

    def count_owned(self, node_ids: Sequence[str]) -> Mapping[str, int]:
        """Return how many instances each of these nodes owns now.

        It costs as much as they own; instances that nobody owns cost nothing.
        """
        ...

    def going_among(self, instance_ids: Sequence[str]) -> set[str]:
        """Return which of these instances are there, have not ended, and are not held."""
        ...


class Admin(Protocol):
    """Operators' writes. They need no code of the orchestration.

    ``by`` and ``reason`` say who writes and why; a provider keeps them beside what was done.
    """

    def set_policy(
        self, name: str, value: str, *, by: str, reason: str, only_first: bool = False
    ) -> bool:
        """Set the version policy of a name; with ``only_first`` only where it has none. Return
        whether it was set.
        """
        ...

    def set_pin(self, instance_id: str, version: str | None, *, by: str, reason: str) -> bool:
        """Tie an open instance to a version from its next boundary on, or untie it. Return whether
        it is open.
        """
        ...

    def delete(self, instance_id: str, incarnation: str, *, by: str, reason: str) -> bool:
        """Delete a closed instance and all that belongs to it. Return whether it was closed and
        there.

        Its children and its parent are left as they are.
        """
        ...

    def delete_all(
        self, instances: Sequence[tuple[str, str]], *, by: str, reason: str
    ) -> list[str]:
        """Delete closed instances, given as (id, incarnation), in one transaction. Return the ids
        of those that were there.
        """
        ...

    def set_expiry(self, after: Mapping[str, int | None]) -> None:
        """Set for how many microseconds instances of these names are kept after their end;
        ``None``: until they are deleted.

        It counts for what ends from now on, whoever ends it.
        """
        ...


class Provider(ABC):
    """A durable store that can be opened."""

    store: Store
    directory: Directory
    admin: Admin
    library: Library = THIS_LIBRARY
    """What this provider reads and writes."""
    _runtime: str | None = None

    def reserve(self, runtime: str) -> None:
        """Let one runtime have the engine's side of this object. Clients may share it.

        Two engines would serve each other's hints, and call the store from two threads.

        Raises:
            ProviderInUse: another one has it.
        """
        standing = vars(self).setdefault(
            "_runtime", runtime
        )  # one step, so that of two at once one is refused
        if standing != runtime:
            raise ProviderInUse(
                f"another runtime (node {standing}) runs on this provider object, "
                f"{self.description}; give each runtime a provider of its own: several may open "
                "the same store"
            )

    def vacate(self, runtime: str) -> None:
        """Let the next runtime have it."""
        if self._runtime == runtime:
            del self._runtime

    @property
    @abstractmethod
    def description(self) -> str:
        """What it is and where, for people and logs. Holds no password."""

    @abstractmethod
    def open(self) -> None:
        """Open the store; make or migrate its schema where needed. Opening an open provider is
        counted.

        Raises:
            LibraryTooOld: the store is of newer libraries, which have ruled out ones as old as
                this.
            SchemaMismatch: the schema is older, and not to be migrated.
            StoreUnavailable: it cannot be reached.
        """

    @abstractmethod
    def close(self) -> None:
        """Close it. Harmless when it is closed."""
