"""The engine: the story of a step, from what has come in to the changes that are to be committed
and what follows from them.
"""

from __future__ import annotations

import logging
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
    Result,
    RunningTurn,
)
from orchestra.engine.children import resolve_again, rings_others
from orchestra.engine.claims import Claims
from orchestra.engine.in_flight import InFlightWrite, InFlightWrites, refusal
from orchestra.engine.log_notices import LogNotices
from orchestra.engine.messages import (
    AbortActivity,
    ActivityEnded,
    Heartbeat,
    InstanceEnded,
    PolicyChanged,
    Reply,
    RunActivity,
    StopActivity,
    Submit,
    ToEngine,
    ToShell,
)
from orchestra.engine.outbox import Outbox
from orchestra.engine.owned import OwnedInstance
from orchestra.engine.ownership import Ownership
from orchestra.engine.ownership_check import OwnershipCheck
from orchestra.engine.places import Places
from orchestra.engine.pressure import Pressure
from orchestra.engine.run_queue import RunQueue
from orchestra.engine.stepping import Step, Stepper, describe_error
from orchestra.engine.store_time import PUT_BACK, StoreTime
from orchestra.engine.tasks import Placement, key_of
from orchestra.engine.unknown_outcomes import UnknownOutcomes
from orchestra.errors import OutcomeUnknown, StoreError
from orchestra.events import EventRecord
from orchestra.registry import OrchestrationRegistry
from orchestra.resolution import changed_policies, common_format, has_other_code, servable_kinds
from orchestra.retention import Retention
from orchestra.store.catalogue import Catalogue, NodeRecord
from orchestra.store.changes import Append, Cancel, Change, Claim, Recover, Report, Write
from orchestra.store.kinds import THIS_LIBRARY, HoldKind, Library
from orchestra.store.messages import InboxPage
from orchestra.store.outcomes import (
    Appended,
    Claimed,
    Granted,
    Outcome,
    Recovered,
    Refused,
    Reported,
)
from orchestra.store.port import Store
from orchestra.store.routes import Kind
from orchestra.telemetry import Recorder, engine_logger, log_instance

__all__ = ["Engine", "EngineOptions"]


_WORTH_ROUSING: Final = 10_000_000
"""By how much a clock must have been put back for instances to be roused that wait since before:
they would be late by it.
"""

_PAGE: Final = InboxPage()
_ROOM: Final = InboxPage(256, 256 * 1024)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Bounds. Durations are microseconds.

    ``keep_owned``: waits shorter than this stay owned and in memory. ``warm``: executions kept in
    memory after their instance was released. ``threads``: ``def`` activities that run at once, of
    all that do. ``group``: instances that are stepped for one commit. ``blocked_after``: code that
    takes as long is named in the log. ``inbox_page``: what is read of the inbox of an instance that
    is claimed. ``inbox_room``: what is kept of an inbox in memory, and read at once where code
    waits for more.
    """

    max_owned: int = 4_096
    warm: int = 4_096
    group: int = 256
    group_bytes: int = 1024 * 1024
    keep_owned: int = 10_000_000
    threads: int = 100_000
    heartbeat_interval: int = 1_000_000
    blocked_after: int = 1_000_000
    inbox_page: InboxPage = _PAGE
    inbox_room: InboxPage = _ROOM


class Engine:
    """Owns instances, steps them, applies outcomes. ``step``, then a commit, then ``apply``; no
    group overlaps another.

    Args:
        node: how it presents itself to the store.
        activities: what orchestration code means by plain names; the node has them.
        library: what is read and written.
    """

    def __init__(
        self,
        store: Store,
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
    ) -> None:
        self._store = store
        self.library: Library = library
        self._registry = registry
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
        )
        self.catalogue: Catalogue = Catalogue(0, (), {}, ())
        self._time = StoreTime(clock)
        self._run_queue = RunQueue()
        self._blocked = BlockedTurns(registry, clock, self.options.blocked_after / 1e6)
        self._outbox = Outbox()
        self._blocking = frozenset(
            name for name, activity in (activities or {}).items() if not activity.is_async
        )
        self._in_flight = InFlightWrites(
            self.options.group, self.options.group_bytes, self._blocking
        )
        self._activities = Activities(self._outbox, self._in_flight, self._blocking, library.events)
        self._unknown = UnknownOutcomes(self._activities)
        self._notices = LogNotices(registry)
        self._ownership = Ownership(
            self._run_queue,
            self._blocked,
            self._unknown,
            self._activities,
            self._notices,
            self._recorder,
            warm=self.options.warm,
            room=self.options.inbox_room,
        )
        page = self.options.inbox_page
        self._arrivals = Arrivals(
            store, self._time, self._run_queue, self._blocked, self._unknown, self._activities, page
        )
        self._check = OwnershipCheck(
            store,
            registry,
            self._ownership,
            self._activities,
            self._in_flight,
            self._recorder,
            limits,
            library,
        )
        self._claims = Claims(store, node, self._room, self._places, self._blocking, page)
        self._pressure = Pressure(self._run_queue, self.options.group)
        self._read_error: StoreError | None = None
        self._reckoned_ahead: tuple[int, int] | None = 0, 0  # what earlier nodes have parked
        """Since when, and until when, instances were parked on a wrong clock that are to be
        roused.
        """
        self._parked: dict[str, None] = {}
        """Instances whose park was reckoned on the clock as it was before it was put back, and
        committed after that.
        """

    @property
    def now(self) -> int:
        """A lower bound of the store's time (rule 25)."""
        return self._time.now

    def heard_time(self, store_time: int, asked: int | None = None) -> None:
        """Take note of a time that the store has told. ``asked`` is what this node knew before it
        was asked.
        """
        back = self._time.hear(store_time, asked)
        if back >= PUT_BACK:
            engine_logger.warning(
                "the store's clock was put back by %.1f s; timers are put right", back / 1e6
            )
            # What lies in the time to come was reckoned on the wrong clock in any case.
            since, self._time.since = min(self._time.since, store_time), store_time
            self._ownership.put_back(back, since, store_time)
            self._claims.look()
            self._reckoned_ahead = since if back >= _WORTH_ROUSING else store_time, store_time

    @property
    def reckoned_ahead(self) -> bool:
        """Whether instances may be parked until a time that was reckoned on a clock that was put
        back since.
        """
        return self._reckoned_ahead is not None

    def rouse(self) -> None:
        """Have such instances made ready, a batch at a time.

        Raises:
            StoreError: it cannot be done now, and is tried again.
        """
        parked = list(self._parked)
        if self._reckoned_ahead is None:
            return
        if self._store.rouse(*self._reckoned_ahead, parked):
            self._claims.want()
        else:
            self._reckoned_ahead = None
        for instance_id in parked:
            self._parked.pop(instance_id, None)

    # --- one cycle ---

    def step(self, received: Iterable[ToEngine]) -> list[Change]:
        """Take in items, step what is ready, and return the group of changes that is to be
        committed next.

        Raises:
            StoreError: nothing could be read; the items are taken nevertheless.
        """
        for message in (*self._activities.take_reports(), *received):
            self._take(message)
        self._arrivals.read(self.node.node_id)
        self._check.read(self.node.node_id)
        if self._check.checks_holds and not self._claims.stopped:
            # What another node's code could not go on with is claimed with the write that releases
            # it: that node does not get it again before (rule 27).
            self._check.release_held(self.catalogue)
        now = self.now
        self._run_queue.wake_due(now)
        # In its place from the start: should the code of an instance not return, the group goes on
        # with what it has. And a read that fails on the way loses neither turns nor clients'
        # changes.
        self._in_flight.begin(self._unknown.questions(self.node.node_id))
        for instance, result in self._ownership.take_returned():
            self._arrivals.are_wanted = True
            self._stepped(instance, result)
        self._pressure.begin(is_pressed=self._is_pressed(now))
        self._step_ready(now)
        if self._in_flight.add_waiting():
            self._claims.want()  # what becomes ready here is claimed in the same transaction
        try:
            claim = self._claims.next_claim(self.node.node_id, now)
            if claim is not None:
                self._in_flight.add(InFlightWrite(claim))
        except StoreError as error:  # what was stepped is not lost by that
            self._read_error = error
        error, self._read_error = self._read_error, None
        changes = self._in_flight.changes
        if error is not None and not changes:
            raise error
        return changes

    def apply(self, outcomes: Sequence[Outcome | StoreError]) -> list[ToShell]:
        """Follow up the outcomes of the last group; return what the shell is to do now."""
        for sent, outcome in zip(self._in_flight.land(), outcomes, strict=True):
            if isinstance(outcome, OutcomeUnknown):
                self._outcome_unknown(sent, outcome)
            elif isinstance(outcome, StoreError):
                self._poisoned(sent, outcome)
            elif sent.instance is not None and sent.step is not None:
                self._written(sent.instance, sent.step, outcome)
            elif sent.submit is not None:
                self._submitted(sent, outcome)
            else:
                self._asked(sent, outcome)
        return self.take_outbox()

    def take_outbox(self) -> list[ToShell]:
        """Return the effects that have gathered."""
        return self._outbox.take()

    # --- what came in, and the turns that follow from it ---

    def _take(self, message: ToEngine) -> None:
        match message:
            case Submit(change=change):
                self._in_flight.queue(change, message)
            case ActivityEnded() | Heartbeat():
                if not self._activities.report(message, self.node.node_id):
                    self._arrivals.report(message)

    def _is_pressed(self, now: int) -> bool:
        try:
            return self._run_queue.has_any and self._claims.is_pressed(now)
        except StoreError as error:  # what is ready is stepped nevertheless
            self._read_error = error
            return False

    def _step_ready(self, now: int) -> None:
        """Step ready instances up to the bounds of a group."""
        self._ownership.close_discarded()
        while not self._in_flight.is_full:
            instance = self._run_queue.next_ready()
            if instance is None:
                break
            try:
                history = self._read_history(instance) if instance.needs_history else ()
                if instance.wants and instance.poison is None:
                    self._read_inbox(instance)
            except StoreError as error:
                self._run_queue.make_ready(instance.instance_id)
                self._read_error = error
                break
            stepping = self._blocked.begin(instance)
            result = self._advance(instance, now, history)
            self._blocked.finish(stepping, result)
            self._stepped(instance, result)

    def _read_history(self, instance: OwnedInstance) -> Sequence[EventRecord]:
        """Return what the code has to be replayed with. An instance whose history cannot be read
        for good is to be held.

        Raises:
            StoreError: it cannot be read now; that is no fault of the instance.
        """
        try:
            return self._store.history(instance.instance_id, instance.current.number)
        except (
            Exception
        ) as error:  # whatever is wrong with one instance must not touch the others (I12)
            if isinstance(error, StoreError) and error.retryable:
                raise
            instance.poison = HoldKind.STORE, describe_error(error)
            return ()

    def _read_inbox(self, instance: OwnedInstance) -> None:
        """Read the events that the code waits for and that are not in memory.

        Raises:
            StoreError: they cannot be read now; that is no fault of the instance.
        """
        after = instance.inbox.read_from(instance.wants)
        try:
            unread = self._store.unread(
                instance.instance_id, after, instance.known_seq, self.options.inbox_room
            )
        except (
            Exception
        ) as error:  # whatever is wrong with one instance must not touch the others (I12)
            if isinstance(error, StoreError) and error.retryable:
                raise
            instance.poison = HoldKind.STORE, describe_error(error)
            return
        instance.inbox.read(
            unread, () if instance.execution is None else instance.execution.awaited
        )
        instance.wants = ()

    def _advance(self, instance: OwnedInstance, now: int, history: Sequence[EventRecord]) -> Result:
        """Run the code of an instance. Nothing of the engine may be changed in here: it may have
        gone on without it.
        """
        try:
            free, crowded = self._places(), self._pressure.left > 0
            return self._stepper.advance(
                instance, now, self.catalogue, history, free=free, crowded=crowded
            )
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one instance must not touch the others (I12)
            return error

    def _stepped(self, instance: OwnedInstance, result: Result) -> None:
        """Follow up a step that has been made."""
        if isinstance(result, Exception):
            if self._notices.is_news(instance.instance_id, describe_error(result)):
                log_instance(
                    logging.ERROR,
                    instance.identity,
                    "could not be stepped, and is to be held",
                    error=result,
                )
            self._ownership.hold_as_stored(instance, HoldKind.INTERNAL, result)
            return
        write, step = result
        if not step.keep:
            self._pressure.given_up()
        if write is None:
            self._follow(instance, step)
            return
        if step.unknown:
            write = self._with_new_names(instance, write, step)
        self._in_flight.add(InFlightWrite(write, instance=instance, step=step))
        if write.stops or rings_others(instance, write):
            self._claims.want()  # what the write makes ready is claimed in the same transaction

    # --- outcomes ---

    def _written(self, instance: OwnedInstance, step: Step, outcome: Outcome) -> None:
        if not isinstance(outcome, Granted):
            self._ownership.refused(instance)
            return
        if outcome.arrivals or outcome.taken:
            self._arrived(outcome, instance)
        if not self._run_queue.holds(instance):
            return
        if outcome.inbox_seq > instance.known_seq:
            # A message has come meanwhile: a park that meets one is not a park (rule 10).
            self._arrivals.are_wanted = True
            self._claims.want()
        self._follow(instance, step)

    def _follow(self, instance: OwnedInstance, step: Step) -> None:
        """Do what follows from a step that stands."""
        if step.records:
            self._recorder.stands(step.records, self.now)
        self._notices.stands(instance, step)
        if (
            not instance.inputs
        ):  # else something has ended, and the turn that takes it is yet to come
            instance.unacknowledged.clear()
        for message in step.outbox:
            if isinstance(message, RunActivity):
                self._activities.begin(message)
            elif isinstance(message, AbortActivity):
                self._activities.abort_begun(message.key)
            elif isinstance(message, StopActivity):
                self._activities.stop_begun(message.key)
            else:
                self._outbox.add(message)
        for task in step.handed_over:
            if not self._activities.hand_over(task):
                self._check.tasks_due = True  # it is in the store, and does not run here
        wake_at = step.wake_at
        if (
            wake_at and step.now > self.now + PUT_BACK
        ):  # the clock was put back as this was committed
            wake_at -= step.now - self.now
            if not step.keep:
                self._parked[instance.instance_id] = None
        if not step.keep:
            self._ownership.release(instance)
            if wake_at is not None:
                self._claims.expect(wake_at)
        elif instance.releasing or (step.wake_at is not None and step.wake_at <= step.now):
            # Or: it was away when everything was to be released, and had decided to stay before.
            self._run_queue.make_ready(instance.instance_id)
        elif wake_at is not None:
            self._run_queue.arm(instance, wake_at)

    def _submitted(self, sent: InFlightWrite, outcome: Outcome) -> None:
        assert sent.submit is not None
        change = sent.change
        self._outbox.add(Reply(sent.submit.token, outcome))
        match change, outcome:
            case ((Append() | Cancel()), Appended()):
                self._arrivals.appended(change.instance_id, outcome, self.node.node_id)
            case Write(), Granted():
                self._arrived(outcome, None)
                self._ownership.taken_away(change.instance_id, change.incarnation)
                closed = change.executions[-1].closed if change.executions else None
                if closed is not None:
                    self._outbox.add(
                        InstanceEnded(
                            change.instance_id, change.state.status, closed.output, closed.error
                        )
                    )
            case _:
                pass

    def _with_new_names(self, instance: OwnedInstance, write: Write, step: Step) -> Write:
        """Resolve once more what a step has started of names that its catalogue did not have.

        They may have been registered since it was read, and a deploy must not fail anybody.
        """
        try:
            catalogue = self._store.catalogue()
        except StoreError:
            return write
        return resolve_again(
            instance,
            write,
            step.unknown,
            catalogue,
            self.node.node_id,
            step.now,
            self._registry.shape,
        )

    def _arrived(self, granted: Granted, instance: OwnedInstance | None) -> None:
        """Take what a write has left with other instances, and with its own: those of this node
        learn it without looking.
        """
        for instance_id, arrival in granted.arrivals:
            self._arrivals.appended(instance_id, arrival, self.node.node_id)
        if instance is not None and granted.taken:  # an operator's write starts nothing
            left_out = "a detached start of %r was left out: an instance with this id exists"
            for instance_id in granted.taken:
                log_instance(logging.WARNING, instance.identity, left_out, instance_id)

    def _asked(self, sent: InFlightWrite, outcome: Outcome) -> None:
        match outcome:
            case Claimed(snapshots=snapshots, more=more, tasks=tasks):
                self._claims.claimed(more=more)
                now = self.now
                self._recorder.claimed(snapshots, now)
                for snapshot in snapshots:
                    self._ownership.adopt(snapshot, now)
                for task in tasks:
                    self._activities.begin_task(task, self.node.node_id)
            case Reported() | Refused() if isinstance(sent.change, Report):
                self._reported(sent.change, outcome)
            case Recovered(snapshot=snapshot):
                assert isinstance(sent.change, Recover)
                self._ownership.recovered(sent.change.instance_id, snapshot, self.now)
                if snapshot is None:
                    self._check.tasks_due = (
                        True  # it may have been held, and what runs for it left to this node
                    )
            case Granted() | Refused():
                pass  # a hold that was released, or that somebody else has released
            case _:  # pragma: no cover
                raise AssertionError(f"{outcome} does not answer {sent.change}")

    def _reported(self, report: Report, outcome: Reported | Refused) -> None:
        if isinstance(outcome, Refused):
            self._activities.report_refused(report)
            return
        self._activities.reported(report)
        if report.is_end:
            self._claims.want()
        elif outcome.stopping:
            self._activities.stop_task(key_of(report))
        if outcome.arrival is not None:
            self._arrivals.appended(report.instance_id, outcome.arrival, self.node.node_id)

    # --- failures ---

    def _outcome_unknown(self, sent: InFlightWrite, error: OutcomeUnknown) -> None:
        """Nobody knows whether it was committed: ask by writing again (rule 9)."""
        change = sent.change
        if sent.instance is not None:
            self._ownership.unanswered(sent.instance)
            self._check.tasks_due |= sent.step is not None and bool(sent.step.handed_over)
        elif sent.submit is not None:
            if not self._in_flight.ask_again(sent):
                self._outbox.add(Reply(sent.submit.token, error))
        elif isinstance(change, Claim):
            self._claims.want()
            self._check.tasks_due = True
        elif isinstance(change, Report):
            self._in_flight.queue(
                change
            )  # the same again: if it has arrived, its fence does not hold any more
        self._check.owned_due = True

    def _poisoned(self, sent: InFlightWrite, error: StoreError) -> None:
        """The store refuses this very change for good: its instance is held, the others go on (rule
        8, I12).
        """
        if sent.submit is not None:
            self._outbox.add(refusal(sent, error))
        elif sent.instance is not None:
            self._ownership.hold_as_stored(sent.instance, HoldKind.STORE, error)
        elif isinstance(sent.change, Recover):
            self._unknown.answered(sent.change.instance_id)
        elif isinstance(sent.change, Report):
            self._activities.report_unstorable(sent.change, error)
        else:
            engine_logger.error("the store will not take %s: %s", type(sent.change).__name__, error)
            if isinstance(sent.change, Claim):  # not again before the next poll
                self._claims.give_up()

    # --- a store that does not answer ---

    def refuse_clients(self, error: StoreError) -> list[ToShell]:
        """Answer the clients of a group that could not be committed, and take their changes out of
        it.
        """
        return [refusal(sent, error) for sent in self._in_flight.drop_clients()]

    def put_back(self, outbox: Sequence[ToShell]) -> None:
        """Keep effects that could not be handed on yet; they come before those that gather from now
        on.
        """
        self._outbox.put_back(outbox)

    @property
    def in_flight(self) -> list[Change]:
        """The group that was returned by the last step and not applied yet."""
        return self._in_flight.changes

    def keep(self, reports: Iterable[ActivityEnded | Heartbeat]) -> None:
        """Keep what activities have reported for the next step."""
        self._activities.keep(reports)

    # --- what is going on ---

    @property
    def has_work(self) -> bool:
        """Whether there is something to step or to commit now."""
        if (
            self._run_queue.has_ready
            or self._in_flight.has_any
            or self._unknown
            or self._arrivals.are_wanted
            or self._check.is_wanted
            or (self._check.checks_holds and not self._claims.stopped)
            or self._activities.has_reports
            or self._blocked.has_returned
            or self._ownership.has_discarded
            or self.reckoned_ahead
        ):
            return True
        due = self._run_queue.next_timer
        if due is not None and due <= self.now:
            return True
        if self._run_queue.has_waiting and self._claims.is_known_to_press(self.now):
            return True
        return self._claims.is_due(self.now)

    @property
    def owned(self) -> int:
        """How many instances are on the desk."""
        return len(self._run_queue)

    @property
    def running(self) -> int:
        """How many activities have been begun and not reported, of instances of this node and of
        others.
        """
        return len(self._activities)

    @property
    def load(self) -> int:
        """How many of these run: what finds no place waits in the shell for one."""
        return min(self.running, self.node.slots)

    def next_due(self) -> int | None:
        """Return the earliest store time at which an owned instance, or one that may be claimed,
        wants to be looked at.
        """
        owned, claim = (
            self._run_queue.next_timer,
            self._claims.next_due(can_yield=self._run_queue.has_waiting),
        )
        return owned if claim is None else claim if owned is None else min(owned, claim)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds that this node claims."""
        return self._claims.kinds

    def _room(self) -> int:
        """How many more instances this node takes for a group."""
        options = self.options
        return min(
            options.group, options.max_owned - len(self._ownership) + self._in_flight.leaving
        )

    def _places(self) -> Places:
        """How many more activities this node can run."""
        return self._activities.places(self.node.slots, self.options.threads)

    # --- what the store is asked ---

    def look(self) -> None:
        """Ask the store for ready instances and for news, at the next step: a hint came, or it is
        time to poll.

        It is asked by reading: a node that finds nothing writes nothing.
        """
        self._arrivals.are_wanted = True
        self._claims.look()
        self._check.look_for_holds(self.now)
        self._unknown.ask_for_suspects()

    def look_for_unwanted(self) -> None:
        """Ask the store, at the next step, which of the activities that were taken from others are
        wanted still.
        """
        self._check.tasks_due |= self._activities.has_tasks

    def look_for_forgotten(self) -> None:
        """Compare what the store says this node owns with what it knows of, at the next step (rule
        13).

        Holds are looked through as well: other nodes' code may have been held since the catalogue
        last changed (rule 5).
        """
        self._check.owned_due = self._check.holds_due = self._check.tasks_due = True

    # --- the node and the catalogue ---

    def refresh(self, catalogue: Catalogue, asked: int | None = None) -> None:
        """Take in the catalogue: what may be claimed, and which holds new code may try to end."""
        self.heard_time(catalogue.now, asked)
        if self.catalogue.now:  # not the first: nothing was written by another one
            for name in changed_policies(self.catalogue, catalogue):
                self._outbox.add(PolicyChanged(name))
        self.catalogue = catalogue
        self._placement.refresh(catalogue, self.node.node_id)
        self._stepper.format = common_format(self.node, catalogue)
        self._check.is_mixed = has_other_code(self.node, catalogue)
        if self._claims.serve(servable_kinds(self.node, catalogue)):
            self._check.holds_due = True
        if not self._claims.stopped:
            self._check.release_held(catalogue)

    def reborn(self, node: NodeRecord) -> list[ToShell]:
        """Forget everything: this node was buried, or the store has lost commits, and goes on under
        a new id.
        """
        outbox = self._activities.clear()
        # memory too: it may come from commits that are lost, whose revisions are given anew
        self._ownership.clear()
        # What was to begin and has not been handed on, because the step after it was left behind,
        # is not to begin any more.
        self._outbox.drop_beginnings()
        self._in_flight.keep_clients()  # the rest died with the old id
        self.node = node
        self._stepper.node_id = node.node_id
        self._claims.want()
        return outbox

    # --- code that does not return ---

    @property
    def stepping(self) -> RunningTurn | ClosingExecution | None:
        """The code that runs: a step, or what has left memory; for the watchdog, which looks from
        another thread.
        """
        return self._blocked.running

    def abandon(self, stepping: RunningTurn | ClosingExecution) -> bool:
        """Go on without code that does not return. To be called from another thread than the one
        that runs it.

        Return whether that was done; the engine then belongs to no thread, and another one has to
        run it. The thread that made the step gets :class:`LeftBehind` when the code returns, and
        has the engine told by :meth:`come_back`.
        """
        return self._ownership.abandon(stepping)

    def come_back(self, returned: LateResult) -> None:
        """Take up a step that was left behind, at the next step."""
        self._blocked.come_back(returned)

    # --- stopping ---

    def stop_claiming(self) -> None:
        """Claim nothing any more."""
        self._claims.stopped = True

    def release_all(self) -> None:
        """Give everything back at the next steps; what was running here begins again elsewhere."""
        self._claims.stopped = True
        self._ownership.release_all()

    def close(self) -> None:
        """Drop all executions from memory.

        Raises:
            LeftBehind: the engine has gone on meanwhile; whoever runs it now calls this again.
        """
        self._ownership.clear()
        self._ownership.close_discarded()
