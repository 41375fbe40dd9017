"""The port: what a store must do.

A :class:`Provider` opens one durable store and offers three views of it. The engine uses
:class:`Store`. :class:`Directory` reads for people. Operators write through :class:`Admin`. All
three are plain synchronous code. One thread at a time calls ``Store``, except for ``commit`` and
``stir``: a client that shares the provider with a runtime calls them too. Any thread may call
``Directory`` and ``Admin``.

Every method may raise the subclasses of :class:`~orchestra.errors.StoreError`. After
:class:`~orchestra.errors.OutcomeUnknown` alone, something may or may not have been written.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from orchestra.errors import ProviderInUse
from orchestra.events import EventRecord
from orchestra.levels import Levels
from orchestra.store.audit import OperationQuery, OperationRow
from orchestra.store.catalogue import Catalogue, NodeRecord, PolicyRow, Renewal
from orchestra.store.census import Census
from orchestra.store.changes import Change
from orchestra.store.executions import ExecutionRow
from orchestra.store.hints import StreamHints
from orchestra.store.instances import HELD_PER_PAGE, HeldPage
from orchestra.store.keys import KeyUse
from orchestra.store.kinds import THIS_LIBRARY, Library
from orchestra.store.labels import Labelled
from orchestra.store.messages import InboxPage, MessageRow, QueueName, Unread
from orchestra.store.nudges import Nudged
from orchestra.store.outcomes import Commit
from orchestra.store.policies import KEPT_POLICIES, PolicyOutcome
from orchestra.store.queries import Counted, InstanceQuery, InstanceRecord
from orchestra.store.requests import RequestState
from orchestra.store.routes import Kind, Route
from orchestra.store.schedules import DueSchedule, ScheduleRecord
from orchestra.store.snapshots import News
from orchestra.store.streams import PAGE, Page, StreamPage, StreamRow
from orchestra.store.tallies import TallyRow
from orchestra.store.tasks import Task

__all__ = ["Admin", "Directory", "Provider", "Store"]


class Store(Protocol):
    """The engine's view of the store."""

    def commit(self, changes: Sequence[Change]) -> Commit:
        """Apply a group in one transaction. Each change is granted or refused alone; no refusal
        fails the group.

        The order is: items of activities; owners' writes and recoveries; the effects of granted
        writes on other instances (see :class:`~orchestra.store.changes.Write`); starts, messages,
        cancels and releases; claims. Within each, the given order counts. A report counts as a
        message. So a claim sees the instances that the same group made ready; it takes activities
        before instances. Outcomes have the order of the changes.
        """
        ...

    def history(self, instance_id: str, execution: int) -> list[EventRecord]:
        """Return the events of one execution in order."""
        ...

    def news(self, node_id: str, page: InboxPage = InboxPage()) -> list[News]:  # noqa: B008 - it is immutable
        """Return the arrivals at the node's instances that none of its writes has seen.

        Each entry holds the first unread events newer than the row's ``seen_seq``, as many as fit
        the page, and all newer ends of children.
        """
        ...

    def unread(
        self,
        instance_id: str,
        after: Mapping[QueueName, int],
        up_to: int,
        page: InboxPage = InboxPage(),  # noqa: B008 - it is immutable
    ) -> dict[QueueName, Unread]:
        """Return the next unread events or requests of some names: for each name those after a
        number, up to ``up_to``.

        The names share the page. Each gets at least one message, if it has any. The cost depends on
        the returned messages alone, however many others wait.
        """
        ...

    def next_wake(self, kinds: Sequence[Kind], routes: Sequence[Route] = ()) -> int | None:
        """Return when the first unowned instance of these kinds is due; ``None``: never.

        An activity of one of the routes that no node has taken is due since it was scheduled.
        """
        ...

    def next_tick(self, after: int = -1) -> int | None:
        """Return when the first schedule is due that is not due by ``after`` already; ``None``:
        never. The cost does not depend on how many wait.
        """
        ...

    def due_schedules(
        self, now: int, limit: int, after: tuple[int, str] | None = None
    ) -> Sequence[DueSchedule]:
        """Return schedules that are due by then, the longest due first, with the runs that they
        follow. ``after`` is the time and the id of the last one of the previous page.
        """
        ...

    def changed(self) -> bool:
        """Return whether another process, or a caller of :meth:`stir`, may have written since the
        last call.

        A hint only; correctness does not depend on it.
        """
        ...

    def on_change(self, ring: Callable[[], None] | None) -> None:
        """Call ``ring``, from any thread, as soon as :meth:`changed` would return true; ``None``:
        stop.

        A hint as well. A store that gets no notifications rings only at :meth:`stir`.
        """
        ...

    def stir(self) -> None:
        """Let the next :meth:`changed` return true: a client in this process wrote past the engine.
        From any thread.
        """
        ...

    def catalogue(self) -> Catalogue:
        """Return the nodes that are not dead, the policies, and the kinds."""
        ...

    def join(self, node: NodeRecord) -> int:
        """Make the node known and alive, and note its code as seen. Return the store's time.

        Raises:
            LibraryTooOld: the store now refuses this provider's library.
        """
        ...

    def renew(self, node_id: str, load: int = 0) -> Renewal:
        """Renew the node's lease, and store how many activities it runs. Return the store's time
        and levels.

        Raises:
            NodeBuried: other nodes declared it dead.
        """
        ...

    def raise_level(self, levels: Levels) -> Levels:
        """Raise the write level, and the lowest reader with it, in one conditional write (rule 37).

        Nothing changes if the level is that high already, or if a living node does not read it.
        This call sees a node that joins at the same time, or that node sees the new lowest reader.
        Return the levels.
        """
        ...

    def leave(self, node_id: str) -> None:
        """Remove the node. Its instances are released, and other nodes may take its activities."""
        ...

    def vanished(self) -> list[str]:
        """Return nodes whose process is certainly gone (same host, lock released). A hint that
        saves waiting.
        """
        ...

    def bury(self, node_id: str, renewals: int) -> bool:
        """Declare a node dead if its ``renewals`` is still this number. Return whether it was
        done.
        """
        ...

    def sweep(self, limit: int = 256) -> int:
        """Release instances whose owner has no living node row, and count a take-over for each.
        Return how many.

        Activities that such nodes had taken become :data:`~orchestra.store.tasks.LOST`; they count
        as well.
        """
        ...

    def expire(self, limit: int = 64) -> int:
        """Delete up to ``limit`` expired instances, with all their rows. Return how many.

        Large ones may be deleted in smaller numbers; 0 means that there are none. It then costs no
        write.
        """
        ...

    def rouse(
        self, since: int, until: int, instance_ids: Sequence[str] = (), limit: int = 256
    ) -> int:
        """Make instances ready whose wake time came from a clock that went back since. Return how
        many.

        These are up to ``limit`` instances that wait for a time: those last written between
        ``since`` and ``until``, or in the future, and the given ones. Each becomes ready once. An
        instance that crashed its owners repeatedly waits for the longest delay at most.
        """
        ...

    def owned(self, node_id: str) -> list[str]:
        """Return the ids of the instances that the node owns."""
        ...

    def taken(self, node_id: str) -> list[Task]:
        """Return the activities that the node has taken and not reported."""
        ...

    def held(
        self,
        names: Sequence[str],
        after: tuple[int, str] | None = None,
        limit: int = HELD_PER_PAGE,
    ) -> HeldPage:
        """Return a page of the stored holds of these orchestrations.

        It looks at ``limit`` held instances, those of other orchestrations among them. So the time
        that a page takes does not grow with the number of holds.

        Args:
            after: where the page begins, as the page before says.
        """
        ...

    def overdue(self, names: Sequence[str], at: int) -> Mapping[str, int]:
        """Return how many open instances of these orchestrations have a boundary that was due by
        then; no zeros. The cost depends on these numbers alone.
        """
        ...


class Directory(Protocol):
    """Reads for clients and dashboards. Never blocks a writer."""

    def get(self, instance_id: str) -> InstanceRecord | None: ...

    def list(self, query: InstanceQuery) -> list[InstanceRecord]: ...

    def search_end(self, query: InstanceQuery, number: int) -> tuple[int, str] | None:
        """Return the place in the order of a query where a list stops that looks at no more than
        ``number`` instances, for the query's ``until``.

        ``None``: the list needs no end. An index finds its instances, or there are fewer.
        """
        ...

    def count(
        self, query: InstanceQuery, group_by: Sequence[str] = (), limit: int = 1000
    ) -> Counted:
        """Return how many instances a query finds, and the ``limit`` largest groups of them.

        ``group_by`` names values of :class:`~orchestra.store.queries.GroupBy`, or ``label:`` and a
        key. The order and the page of the query do not matter. Without groups it counts no further
        than the query's ``most``.
        """
        ...

    def waiting_routes(self) -> Sequence[Route]:
        """Return the routes of all activities that wait for a node, in order.

        The cost grows with the number of routes, not of activities.
        """
        ...

    def executions(
        self, instance_id: str, after: int = 0, limit: int = 1000
    ) -> list[ExecutionRow]: ...

    def history(self, instance_id: str, execution: int) -> list[EventRecord]: ...

    def envelopes(
        self, instance_id: str, execution: int, events: Sequence[int]
    ) -> list[EventRecord]:
        """Return the existing ones of these events, at most 1,000, in order, without payloads."""
        ...

    def messages(self, instance_id: str, after: int = 0, limit: int = 1000) -> list[MessageRow]:
        """Return unread events and open requests of an instance behind a sequence number, in the
        order of their arrival. Ends of children are none.
        """
        ...

    def request(self, instance_id: str, request_id: str) -> RequestState | None:
        """Return a request and whether the life that got it goes on, as of one moment; ``None``:
        it is not known.
        """
        ...

    def schedule(self, schedule_id: str, slots: int = 20) -> ScheduleRecord | None:
        """Return a schedule, the runs that it follows, and its newest slots."""
        ...

    def schedules(self, after: str = "", limit: int = 100) -> Sequence[ScheduleRecord]:
        """Return schedules behind an id, in the order of their ids, with the runs that they follow
        and their newest slot.
        """
        ...

    def catalogue(self) -> Catalogue: ...

    def policies(self, name: str, limit: int = KEPT_POLICIES + 1) -> list[PolicyRow]:
        """Return the policies that a name has and had, the newest first.

        Libraries older than this table left no former ones.
        """
        ...

    def tally(self) -> list[TallyRow]:
        """Return how many instances there are of each kind, status and hold, in the order of the
        kinds; no zeros.

        The cost depends on the number of kinds; instances cost nothing.
        """
        ...

    def census(self, failed_since: int, name: str | None = None) -> Census:
        """Return what a version report knows, of one name or of all, at one moment.

        Parked instances cost nothing.
        """
        ...

    def operations(self, query: OperationQuery) -> Sequence[OperationRow]:
        """Return entries of the audit, the newest first."""
        ...

    def count_owned(self, node_ids: Sequence[str]) -> Mapping[str, int]:
        """Return how many instances each of these nodes owns now.

        The cost depends on these numbers; instances without an owner cost nothing.
        """
        ...

    def going_among(self, instance_ids: Sequence[str]) -> set[str]:
        """Return which of these instances exist, have not ended, and are not held."""
        ...

    def stream(
        self, instance_id: str, name: str, after: int = 0, page: Page = PAGE
    ) -> StreamPage | None:
        """Return the first items of a stream behind an offset, as of one moment; ``None``: there is
        no such instance.
        """
        ...

    def streams(self, instance_id: str) -> Sequence[StreamRow]:
        """Return the streams of an instance, by their names."""
        ...

    def keys(self, limit: int) -> Sequence[KeyUse]:
        """Return which instances have sealed values under which keys, up to a number for each key
        and source. The cost depends on these numbers.
        """
        ...

    def external(self) -> set[bytes]:
        """Return the digests of all values that stand in an external storage, as of one moment.

        It reads every sealed value.
        """
        ...


class Admin(Protocol):
    """Operators' writes. They need no code of the orchestration.

    ``by`` and ``reason`` say who writes and why; a provider records them with the operation.
    """

    def set_policy(
        self,
        name: str,
        value: str,
        *,
        by: str,
        reason: str,
        only_first: bool = False,
        expected_revision: int | None = None,
    ) -> PolicyOutcome:
        """Set the version policy of a name, under its next revision. The former one goes to the
        name's history in the same transaction.

        The conditions are those of :class:`~orchestra.store.policies.PolicyChange`.
        """
        ...

    def set_pin(
        self,
        instance_id: str,
        version: str | None,
        *,
        by: str,
        reason: str,
        until: int | None = None,
        unless_same: bool = False,
    ) -> bool:
        """Pin an open instance to a version from its next boundary on, and up to a time if one is
        given, or unpin it. Return whether it was done.

        An ended instance is left alone and, with ``unless_same``, one that has this pin already.
        """
        ...

    def nudge(
        self, instance_id: str, incarnation: str, execution: int, *, by: str, reason: str
    ) -> Nudged:
        """Ask an execution of an open instance to reach its boundary soon; see
        :func:`~orchestra.store.nudges.decide_nudge`.
        """
        ...

    def set_labels(
        self,
        instance_id: str,
        changes: Mapping[str, str | None],
        *,
        by: str,
        reason: str,
    ) -> Labelled | None:
        """Set labels of an instance, and remove those that are ``None``. ``None``: there is no such
        instance.

        Its owner knows nothing of labels, and goes on.
        """
        ...

    def delete(self, instance_id: str, incarnation: str, *, by: str, reason: str) -> bool:
        """Delete a closed instance and all its rows. Return whether it existed and was closed.

        Its children and its parent stay as they are.
        """
        ...

    def delete_all(
        self, instances: Sequence[tuple[str, str]], *, by: str, reason: str
    ) -> list[str]:
        """Delete closed instances, given as (id, incarnation), in one transaction. Return the ids
        of the deleted ones.
        """
        ...

    def set_expiry(self, after: Mapping[str, int | None]) -> None:
        """Set how many microseconds instances of these names are kept after their end; ``None``:
        for ever.

        It counts for all later ends, by any client or node.
        """
        ...


class Provider(ABC):
    """A durable store that can be opened."""

    store: Store
    directory: Directory
    admin: Admin
    library: Library = THIS_LIBRARY
    """The library that this provider reads and writes for."""
    has_payloads: bool = False
    """Whether a pipeline stands before the store, which seals values."""
    _runtime: str | None = None

    def may_open(self, tried: Collection[str]) -> bool:  # noqa: ARG002 - there is no pipeline
        """Return whether it has what was missing when an instance was held for a sealed value."""
        return False

    @property
    def stream_hints(self) -> StreamHints:
        """The readers of streams that listen at this provider."""
        return vars(self).setdefault("_stream_hints", StreamHints())

    def reserve(self, runtime: str) -> None:
        """Reserve the engine's side of this object for one runtime. Clients may share it.

        Two engines would take each other's hints, and call the store from two threads.

        Raises:
            ProviderInUse: another runtime has it.
        """
        standing = vars(self).setdefault(
            "_runtime", runtime
        )  # a single step: of two concurrent calls one is refused
        if standing != runtime:
            raise ProviderInUse(
                f"another runtime (node {standing}) runs on this provider object, "
                f"{self.description}; give each runtime a provider of its own: several may open "
                "the same store"
            )

    def vacate(self, runtime: str) -> None:
        """Free it for the next runtime."""
        if self._runtime == runtime:
            del self._runtime

    @property
    @abstractmethod
    def description(self) -> str:
        """The name and address of the store, for people and logs, without a password."""

    @abstractmethod
    def open(self) -> None:
        """Open the store; make or migrate its schema if needed. Further opens are counted.

        Raises:
            LibraryTooOld: newer libraries have raised the store's lowest reader past this one.
            SchemaMismatch: the schema is older, and migration is off.
            StoreUnavailable: it cannot be reached.
        """

    @abstractmethod
    def close(self) -> None:
        """Close it. Harmless when it is closed."""

    def index_keys(self) -> None:  # noqa: B027 - not all providers have something to do
        """Make what lists the keys of sealed values quickly, if it is not there.

        A pipeline of payloads asks for it each time that it opens the store. Until then a list of
        keys reads all rows, and so it does where this provider may not change the schema.
        """
