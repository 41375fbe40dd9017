"""The engine: from what has come in to the changes to commit, and from their outcomes to messages
for the shell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from orchestra.activities import Activity
from orchestra.clock import Clock
from orchestra.context import Limits
from orchestra.engine.activities import Activities
from orchestra.engine.arrivals import Arrivals
from orchestra.engine.blocked_turns import (
    BlockedTurns,
    ClosingExecution,
    LateResult,
    RunningTurn,
)
from orchestra.engine.claims import Claims
from orchestra.engine.earlier_ends import EarlierEnds
from orchestra.engine.in_flight import InFlightWrite, InFlightWrites, Outcomes, refusal
from orchestra.engine.local_starts import LocalStarts
from orchestra.engine.log_notices import LogNotices
from orchestra.engine.messages import (
    ActivityEnded,
    Heartbeat,
    Outbox,
    PolicyChanged,
    PublishItems,
    SessionsOpen,
    Submit,
    ToEngine,
    ToShell,
)
from orchestra.engine.ownership import Ownership, UnknownOutcomes
from orchestra.engine.ownership_check import OwnershipCheck, Payloads
from orchestra.engine.placement import FreePlaces, Placement
from orchestra.engine.publications import Publications
from orchestra.engine.run_queue import Pressure, RunQueue
from orchestra.engine.runner import Runner
from orchestra.engine.schedules import Schedules
from orchestra.engine.sessions import Sessions
from orchestra.engine.steps.stepper import Stepper
from orchestra.engine.store_time import StoreTime
from orchestra.errors import StoreError
from orchestra.operations.holds import unserved_kinds
from orchestra.registry import OrchestrationRegistry
from orchestra.resolution import changed_policies, common_format, has_other_code, servable_kinds
from orchestra.retention import Retention
from orchestra.store.catalogue import Catalogue, NodeRecord
from orchestra.store.changes import Change
from orchestra.store.inbox_limits import INBOX_LIMITS, InboxLimits
from orchestra.store.kinds import THIS_LIBRARY, Library
from orchestra.store.messages import InboxPage
from orchestra.store.outcomes import Outcome
from orchestra.store.port import Directory, Store
from orchestra.telemetry import Recorder, engine_logger

__all__ = ["Engine", "EngineOptions"]


_PAGE: Final = InboxPage()
_ROOM: Final = InboxPage(256, 256 * 1024)
_LOOK_FOR_PINS: Final = 15_000_000
"""Microseconds between two looks for expired pins."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Bounds. Durations are microseconds.

    ``max_owned``: instances owned at once. ``cached``: executions kept in memory after their
    instance was released. ``group``: instances stepped for one commit. ``group_bytes``: about how
    large a commit gets. ``keep_owned``: an instance that waits for less stays owned.
    ``threads``: ``def`` activities that run at once. ``heartbeat_interval``: how often a heartbeat
    is stored. ``blocked_after``: code that takes as long is named in the log. ``inbox_page``: how
    much of an inbox a claim reads. ``inbox_room``: how much of an inbox is kept in memory, and read
    at once when code waits for more. ``inbox_limits``: how much may wait in the inboxes that
    instances of this node send to. ``sessions``: how many may be open on this node.
    """

    max_owned: int = 4_096
    cached: int = 4_096
    group: int = 256
    group_bytes: int = 1024 * 1024
    keep_owned: int = 10_000_000
    threads: int = 100_000
    heartbeat_interval: int = 1_000_000
    blocked_after: int = 1_000_000
    inbox_page: InboxPage = _PAGE
    inbox_room: InboxPage = _ROOM
    inbox_limits: InboxLimits = INBOX_LIMITS
    sessions: int = 1_000


class Engine:
    """Owns instances, steps them, and applies the outcomes.

    ``step``, then a commit, then ``apply``: no group overlaps another.

    Args:
        node: how this node presents itself to the store.
        activities: what orchestration code means by plain names. The node has them.
        library: what is read and written.
        inbox_limits: the bounds of the inboxes to which schedules send events.
        payloads: tells which holds for sealed values may end.
    """

    def __init__(
        self,
        store: Store,
        directory: Directory,
        registry: OrchestrationRegistry,
        node: NodeRecord,
        clock: Clock,
        *,
        limits: Limits | None = None,
        options: EngineOptions | None = None,
        recorder: Recorder | None = None,
        retention: Retention | None = None,
        activities: Mapping[str, Activity[..., Any]] | None = None,
        library: Library = THIS_LIBRARY,
        inbox_limits: InboxLimits = INBOX_LIMITS,
        payloads: Payloads | None = None,
    ) -> None:
        self._store = store
        self.library: Library = library
        self.node: NodeRecord = node
        self.options: EngineOptions = options or EngineOptions()
        limits = limits or Limits()
        self._recorder = recorder or Recorder()
        self._placement = Placement(node)
        self._stepper = Stepper(
            node_id=node.node_id,
            placement=self._placement,
            registry=registry,
            limits=limits,
            keep_owned=self.options.keep_owned,
            recorder=self._recorder,
            retention=retention or Retention(),
            registered=activities or {},
            library=library,
            inbox_limits=self.options.inbox_limits,
        )
        self.catalogue: Catalogue = Catalogue(0, (), {}, ())
        blocking = frozenset(
            name for name, activity in (activities or {}).items() if not activity.is_async
        )
        page = self.options.inbox_page
        self._time = StoreTime(clock)
        self._run_queue = RunQueue()
        self._pressure = Pressure(self._run_queue, self.options.group)
        self._blocked = BlockedTurns(registry, clock, self.options.blocked_after / 1e6)
        self._unknown = UnknownOutcomes()
        self._outbox = Outbox()
        self._in_flight = InFlightWrites(self.options.group, self.options.group_bytes)
        self._sessions = Sessions(node.node_id, clock, self.options.sessions, node.formats)
        self._open_sessions = 0
        """How many the shell knows of."""
        self._activities = Activities(
            self._outbox, self._in_flight.queue, self._sessions, blocking, library.events
        )
        self._publications = Publications(
            self._activities,
            self._outbox,
            self._run_queue,
            registry.retentions,
            retention or Retention(),
            self._recorder,
        )
        self._notices = LogNotices(registry)
        self._ownership = Ownership(
            self._run_queue,
            self._blocked,
            self._unknown,
            self._activities,
            self._notices,
            self._recorder,
            cached=self.options.cached,
            room=self.options.inbox_room,
        )
        self._arrivals = Arrivals(
            store, self._time, self._run_queue, self._blocked, self._unknown, self._activities, page
        )
        self._check = OwnershipCheck(
            store,
            registry,
            self._ownership,
            self._activities,
            self._unknown,
            self._in_flight.queue,
            self._recorder,
            limits,
            library,
            payloads,
        )
        self._claims = Claims(store, node, blocking, self.options.group, page)
        self._local_starts = LocalStarts(
            node.node_id, self._claims, self._ownership, self._recorder, self.options.max_owned // 2
        )
        self._schedules = Schedules(
            store, node.node_id, self._in_flight.queue, self._recorder, inbox_limits, library
        )
        self._outcomes = Outcomes(
            node.node_id,
            self._time,
            self._outbox,
            self._run_queue,
            self._in_flight,
            self._activities,
            self._publications,
            self._arrivals,
            self._claims,
            self._unknown,
            self._ownership,
            self._check,
            self._notices,
            self._recorder,
            self._schedules,
        )
        self._earlier_ends = EarlierEnds(directory, self._run_queue)
        self._runner = Runner(
            store,
            self._stepper,
            self._run_queue,
            self._blocked,
            self._activities,
            self._in_flight,
            self._claims,
            self._ownership,
            self._pressure,
            self._outcomes,
            self._notices,
            registry.shape,
            self.options.inbox_room,
            self._earlier_ends,
            self._local_starts.first_turn_took,
        )
        self._free: FreePlaces = self._count_free_places()
        self._read_error: StoreError | None = None
        self._pins_due = 0
        """When the next look for expired pins is due."""

    # --- one cycle ---

    def step(self, received: Iterable[ToEngine]) -> list[Change]:
        """Take in what has come, step the ready instances, and return the group to commit next.

        Raises:
            StoreError: nothing could be read. What has come is taken in nevertheless.
        """
        for message in (*self._activities.take_postponed(), *received):
            self._take(message)
        node_id = self.node.node_id
        self._arrivals.are_due |= self._earlier_ends.has_any
        self._arrivals.read(node_id)
        self._check.compare(node_id)
        if self._check.reads_holds and not self._claims.stopped:
            # What the code of another node holds is claimed with the write that releases it: that
            # node does not get it again before (rule 27).
            self._check.release_held(self.catalogue)
        now = self.now
        self._run_queue.wake_due(now)
        self._free = self._count_free_places()
        # In its place from the start: should the code of an instance not return, the group goes on
        # with what it has. And a read that fails on the way loses neither turns nor clients'
        # changes.
        self._in_flight.begin(
            [*self._publications.take_changes(), *self._unknown.recoveries(node_id)]
        )
        self._runner.begin(self.catalogue, now, self._free)
        for instance, result in self._ownership.take_late_results():
            self._arrivals.are_due = True
            self._runner.stepped(instance, result)
        self._pressure.begin(is_pressed=self._is_pressed(now))
        try:
            self._runner.step_ready()
        except StoreError as error:  # the steps before it stand
            self._read_error = error
        try:
            self._schedules.step(self.catalogue, now)
        except StoreError as error:
            self._read_error = error
        self._take_waiting(now)
        if self._sessions.routes:
            self._claims.take_part(self._sessions.routes)
        try:
            claim = self._claims.next_claim(node_id, now, self._free)
            if claim is not None:
                self._in_flight.add(InFlightWrite(claim))
        except StoreError as error:  # what was stepped is not lost by that
            self._read_error = error
        error, self._read_error = self._read_error, None
        changes = self._in_flight.changes
        if error is not None and not changes:
            raise error
        return changes

    def _take_waiting(self, now: int) -> None:
        """Put waiting changes into the group, with the first turns of what can begin here."""
        is_full = self._in_flight.is_full or self._pressure.left > 0
        added = self._in_flight.add_waiting()
        begun = (
            0
            if is_full or self._claims.stopped
            else self._local_starts.take(added, self._free, now)
        )
        if begun < len(added):
            self._claims.want()  # what becomes ready here is claimed in the same transaction
        if begun:
            self._runner.step_ready()

    def apply(self, outcomes: Sequence[Outcome | StoreError]) -> list[ToShell]:
        """Follow up the outcomes of the last group. Return the messages for the shell."""
        self._outcomes.apply(outcomes)
        self._free = self._count_free_places()
        return self.take_outbox()

    def _tell_of_sessions(self) -> None:
        """Tell the shell how many sessions are open, if it does not know: it waits for them when it
        stops.
        """
        count = self._activities.open_sessions
        if count != self._open_sessions:
            self._open_sessions = count
            self._outbox.add(SessionsOpen(count))

    def take_outbox(self) -> list[ToShell]:
        """Return the messages for the shell."""
        if self._sessions.routes:  # else none has ever been open here
            self._tell_of_sessions()
        return self._outbox.take()

    def _take(self, message: ToEngine) -> None:
        match message:
            case Submit(change=change):
                self._in_flight.queue(change, message)
            case ActivityEnded() | Heartbeat():
                if not self._activities.report(message, self.node.node_id):
                    self._arrivals.report(message)
            case PublishItems():
                levels = self.catalogue.levels
                self._publications.take(message, self.node.node_id, self.now, levels)

    def _count_free_places(self) -> FreePlaces:
        options = self.options
        return self._activities.free_places(
            options.max_owned - len(self._ownership), self.node.slots, options.threads
        )

    def _is_pressed(self, now: int) -> bool:
        try:
            return self._run_queue.has_any and self._claims.is_pressed(now, self._free)
        except StoreError as error:  # the ready instances are stepped nevertheless
            self._read_error = error
            return False

    # --- a store that does not answer ---

    def refuse_clients(self, error: StoreError) -> list[ToShell]:
        """Take clients' changes out of an uncommitted group, and return the answers."""
        dropped = self._in_flight.drop_clients()
        for sent in dropped:
            self._outcomes.start_refused(sent.change)
        return [refusal(sent, error) for sent in dropped]

    def put_back(self, messages: Sequence[ToShell]) -> None:
        """Put messages back that could not be handed to the shell yet."""
        self._outbox.put_back(messages)

    @property
    def in_flight(self) -> list[Change]:
        """The group that the last step has returned, until it is applied."""
        return self._in_flight.changes

    def postpone(self, reports: Iterable[ActivityEnded | Heartbeat | PublishItems]) -> None:
        """Have the next step take in reports of activities."""
        self._activities.postpone(reports)

    # --- what is going on ---

    @property
    def now(self) -> int:
        """A lower bound of the store's time (rule 25)."""
        return self._time.now

    def heard_time(self, store_time: int, asked: int | None = None) -> None:
        """Take in a time that the store has told.

        Args:
            store_time: the time.
            asked: what this node knew before it asked.
        """
        back, since = self._time.hear(store_time, asked)
        if back:
            engine_logger.warning(
                "the store's clock was put back by %.1f s; timers are put right", back / 1e6
            )
            self._ownership.put_back(back, since, store_time)
            self._claims.look()
            self._schedules.look()

    def misses_nodes(self) -> bool:
        """Return, once, whether the node of a session is gone. A sweep ends what waits for it."""
        return self._placement.misses_nodes()

    @property
    def has_parked_ahead(self) -> bool:
        """Whether instances may be parked until a time from a clock that was put back since."""
        return self._time.parked_ahead is not None

    def rouse(self) -> None:
        """Make a batch of such instances ready.

        Raises:
            StoreError: it cannot be done now, and is tried again.
        """
        if self._time.rouse(self._store):
            self._claims.want()

    @property
    def has_work(self) -> bool:
        """Whether there is something to step or to commit now."""
        if (
            self._run_queue.has_ready
            or self._in_flight.has_any
            or self._unknown
            or self._arrivals.are_due
            or self._check.is_due
            or (self._check.reads_holds and not self._claims.stopped)
            or self._activities.has_postponed
            or self._publications.has_any
            or self._earlier_ends.has_any
            or self._blocked.has_late_results
            or self._ownership.has_discarded
            or self.has_parked_ahead
        ):
            return True
        due = self._run_queue.next_timer
        if due is not None and due <= self.now:
            return True
        if self._schedules.is_due(self.now):
            return True
        if self._run_queue.has_waiting and self._claims.is_known_to_press(self.now, self._free):
            return True
        return self._claims.is_due(self.now, self._free)

    @property
    def owned(self) -> int:
        """How many instances are in the run queue."""
        return len(self._run_queue)

    @property
    def running(self) -> int:
        """How many activities run here, for instances of this node and as tasks."""
        return len(self._activities)

    @property
    def unrecorded(self) -> int:
        """How many instances have reports of activities that no write has recorded."""
        return len(self._activities.unrecorded)

    @property
    def load(self) -> int:
        """How many places are taken. An activity that finds none waits in the shell for one."""
        return min(self.running, self.node.slots)

    def next_due(self) -> int | None:
        """Return when an owned instance is due, one that may be claimed, or a schedule."""
        claim = self._claims.next_due(self._free, can_yield=self._run_queue.has_waiting)
        found = (self._run_queue.next_timer, claim, self._schedules.next_due(self.now))
        return min((due for due in found if due is not None), default=None)

    # --- what the store is asked ---

    def look(self) -> None:
        """Have the next step ask the store for ready instances and news: a hint came, or it is time
        to poll.

        It only reads: a node that finds nothing writes nothing.
        """
        self._arrivals.are_due = True
        self._claims.look()
        self._schedules.look()
        self._check.look_for_holds(self.now)
        self._unknown.recover_refused()

    def check_tasks(self) -> None:
        """Have the next step compare this node's tasks with the store's."""
        self._check.tasks_due |= self._activities.has_tasks

    def check_ownership(self) -> None:
        """Have the next step compare what this node owns with the store (rule 13).

        Holds are read as well: another node's code may be at fault since the catalogue last changed
        (rule 5).
        """
        self._check.owned_due = self._check.holds_due = self._check.tasks_due = True

    # --- the node and the catalogue ---

    def refresh(self, catalogue: Catalogue, asked: int | None = None) -> None:
        """Take in the catalogue: what may be claimed, and which holds new code may end."""
        self.heard_time(catalogue.now, asked)
        if self.catalogue.now:  # not the first: nothing was written by the one before
            for name in changed_policies(self.catalogue, catalogue):
                self._outbox.add(PolicyChanged(name))
                # It may choose code that a hold has not tried.
                self._check.holds_due = True
        self.catalogue = catalogue
        self._schedules.serve(catalogue)
        self._look_for_expired_pins()
        self._placement.refresh(catalogue, self.node.node_id)
        self._claims.serve_sessions(catalogue.sessions)
        self._stepper.use_format(common_format(self.node, catalogue))
        self._check.is_mixed = has_other_code(self.node, catalogue)
        if self._claims.serve(servable_kinds(self.node, catalogue)):
            self._check.holds_due = True
        if not self._claims.stopped:
            self._check.release_held(catalogue)

    def _look_for_expired_pins(self) -> None:
        """From time to time, have executions that wait for a version which no node has look at
        their pins: one may have expired.
        """
        catalogue = self.catalogue
        if self._claims.stopped or catalogue.now < self._pins_due:
            return
        self._pins_due = catalogue.now + _LOOK_FOR_PINS
        own = {capability.name for capability in self.node.capabilities}
        waiting = {
            kind.name
            for kind in unserved_kinds(catalogue)
            if kind.name in own and not kind.floating
        }
        for name in sorted(waiting):
            self._outbox.add(PolicyChanged(name, only_pinned=True))

    def reborn(self, node: NodeRecord) -> list[ToShell]:
        """Forget everything and go on under a new id: this node was buried, or the store has lost
        commits.
        """
        messages = self._activities.clear()
        self._publications.clear()
        # Cached executions too: they may come from lost commits, whose revisions are given anew.
        self._ownership.clear()
        # If the last step was abandoned, its activities were not handed to the shell. None begins.
        self._outbox.drop_beginnings()
        self._in_flight.keep_clients()  # the other changes died with the old id
        self.node = node
        self._sessions.reborn(node.node_id)
        self._placement.reborn(node.node_id)
        self._claims.take_part(self._sessions.routes)
        self._tell_of_sessions()
        self._stepper.use_node_id(node.node_id)
        self._outcomes.node_id = self._schedules.node_id = node.node_id
        self._local_starts.node_id = node.node_id
        self._schedules.clear()
        self._free = self._count_free_places()
        self._claims.want()
        return messages

    # --- code that does not return ---

    @property
    def running_code(self) -> RunningTurn | ClosingExecution | None:
        """The code that runs, for the watchdog, which looks from another thread."""
        return self._blocked.running

    def abandon(self, running: RunningTurn | ClosingExecution) -> bool:
        """Go on without code that does not return. Call it from another thread than the one that
        runs the code.

        Return whether that was done. Then no thread runs the engine, and another one has to. The
        thread that ran the code gets :class:`TurnAbandoned` when it returns, and has the engine
        told by :meth:`add_late_result`.
        """
        return self._ownership.abandon(running)

    def add_late_result(self, late: LateResult) -> None:
        """Have the next step take in an abandoned turn that has returned."""
        self._blocked.add_late_result(late)

    # --- stopping ---

    def stop_claiming(self) -> None:
        """Claim nothing from now on, take no session, and tick no schedule. What is scheduled in
        the sessions of this node still comes.
        """
        self._claims.stop()
        self._sessions.are_refused = self._schedules.stopped = True

    def release_all(self) -> None:
        """Release every instance with the next steps. Their activities begin again elsewhere."""
        self._claims.close()
        self._sessions.are_refused = self._schedules.stopped = True
        self._ownership.release_all()

    def close(self) -> None:
        """Drop all executions from memory.

        Raises:
            TurnAbandoned: the engine has gone on meanwhile; the thread that runs it now calls this
                again.
        """
        self._ownership.clear()
        self._ownership.close_discarded()
