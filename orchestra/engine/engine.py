"""The engine: what this node owns, what it does next, and what follows from what was committed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from orchestra.clock import Clock
from orchestra.context import Limits
from orchestra.engine.absences import Absences, Closing, Result, Returned, Stepping
from orchestra.engine.agenda import Agenda
from orchestra.engine.claims import Claims
from orchestra.engine.desk import Desk
from orchestra.engine.family import child_start, rings_others
from orchestra.engine.flights import Flight, refusal, size_of
from orchestra.engine.items import (
    AbortActivity,
    ActivityEnded,
    ActivityFailure,
    ActivityKey,
    Effect,
    Heartbeat,
    InstanceEnded,
    Item,
    Reply,
    RunActivity,
    Submit,
)
from orchestra.engine.running import RunningActivities
from orchestra.engine.stepping import Step, Stepper, describe_error
from orchestra.engine.store_time import StoreTime
from orchestra.engine.tasks import Placement, Tasks, ended_report, failure_to_bytes, key_of, run_task
from orchestra.engine.warm import WarmExecutions
from orchestra.errors import OutcomeUnknown, StoreError
from orchestra.events import EventRecord
from orchestra.providers.interfaces import Store
from orchestra.providers.rows import (
    Append,
    Appended,
    Cancel,
    Catalogue,
    Change,
    Claim,
    Claimed,
    Granted,
    HoldKind,
    Kind,
    NodeRecord,
    Outcome,
    Recover,
    Recovered,
    Refused,
    Release,
    Report,
    Reported,
    Snapshot,
    Start,
    Task,
    Write,
)
from orchestra.registry import OrchestrationRegistry
from orchestra.replay import Execution
from orchestra.replay.execution import error_info
from orchestra.resolution import opening_version, servable_kinds
from orchestra.retention import Retention
from orchestra.telemetry import Recorder, engine_logger

__all__ = ["Engine", "EngineOptions"]

_RETRIES_AFTER_UNKNOWN = 5


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Bounds. Durations are microseconds.

    ``keep_owned``: waits shorter than this stay owned and in memory. ``warm``: executions kept in memory after their
    instance was released. ``group``: instances that are stepped for one commit.
    """

    max_owned: int = 4_096
    warm: int = 4_096
    group: int = 256
    group_bytes: int = 1024 * 1024
    keep_owned: int = 10_000_000
    heartbeat_interval: int = 1_000_000


class Engine:
    """Owns instances, steps them, applies outcomes. ``step``, then a commit, then ``apply``; no group overlaps another."""

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
    ) -> None:
        self._store = store
        self._registry = registry
        self._clock = clock
        self.node = node
        self.options = options or EngineOptions()
        self._recorder = recorder or Recorder()
        self._placement = Placement(node)
        self._stepper = Stepper(
            node_id=node.node_id,
            placement=self._placement,
            registry=registry,
            limits=limits or Limits(),
            keep_owned=self.options.keep_owned,
            recorder=self._recorder,
            retention=retention or Retention(),
        )
        self.catalogue = Catalogue(0, (), {}, ())
        self._time = StoreTime(clock)
        self._agenda = Agenda()
        self._discarded: list[Execution] = []
        """What has left memory, and is closed at the next step."""
        self._warm = WarmExecutions(self.options.warm, self._discarded.append)
        self._running = RunningActivities()
        self._tasks = Tasks()
        self._promised = 0
        """Activities that begin here once the steps that are being gathered stand."""
        self._unknown: dict[str, None] = {}
        self._poison: dict[str, tuple[HoldKind, str]] = {}
        self._suspects: dict[str, list[ActivityEnded]] = {}
        """Instances whose write was refused, and what their activities have reported."""
        self._absences = Absences()
        self._returned: list[Returned] = []
        self._deferred: list[Item] = []
        self._queued: list[Flight] = []
        self._flight: list[Flight] = []
        self._effects: list[Effect] = []
        self._want_news = False
        self._want_owned = False
        self._want_held = False
        self._want_tasks = False
        self._claims = Claims(store, node, lambda: (self._room, self._places))
        self._releasing = False
        self._read_error: StoreError | None = None

    @property
    def now(self) -> int:
        """A lower bound of the store's time (rule 25)."""
        return self._time.now

    def heard_time(self, store_time: int) -> None:
        """Take note of a time that the store has told."""
        self._time.hear(store_time)

    # --- the node and the catalogue ---

    def refresh(self, catalogue: Catalogue) -> None:
        """Take in the catalogue: what may be claimed, and which holds new code may try to end."""
        self.heard_time(catalogue.now)
        self.catalogue = catalogue
        self._placement.refresh(catalogue, self.node.node_id)
        if self._claims.serve(servable_kinds(self.node, catalogue)):
            self._want_held = True
        if self._want_held and not self._claims.stopped:
            self._release_holds()

    def reborn(self, node: NodeRecord) -> list[Effect]:
        """Forget everything: this node was buried, or the store has lost commits, and goes on under a new id."""
        effects: list[Effect] = [AbortActivity(key) for key in (*self._running, *self._tasks)]
        for desk in self._agenda:
            self._discard(desk)
        self._agenda.clear()
        self._warm.clear()  # it may come from commits that are lost, whose revisions are given anew
        self._running.clear()
        self._tasks.clear()
        self._unknown.clear()
        self._poison.clear()
        self._suspects.clear()
        self._absences.clear()
        self._deferred.clear()
        # What was to begin and has not been handed on, because the step after it was left behind, is not to begin any more.
        self._effects = [effect for effect in self._effects if not isinstance(effect, RunActivity)]
        # Clients' changes are not the node's own: they are asked again; the rest died with the old id.
        self._queued = [flight for flight in (*self._flight, *self._queued) if flight.submit is not None]
        self._flight, self._promised = [], 0
        self.node = node
        self._stepper.node_id = node.node_id
        self._claims.want()
        return effects

    def _release_holds(self) -> None:
        """Let code that has not been tried yet try once with what is held (rule 5)."""
        rows = self._store.held(self._registry.names)
        self._recorder.held(rows)
        for held in rows:
            definition = self._registry.find(held.kind.name, opening_version(self.catalogue, held.kind))
            if definition is not None and definition.fingerprint not in held.hold.tried:
                self._queued.append(Flight(Release(held.instance_id, held.incarnation, held.revision)))
        self._want_held = False

    # --- what is going on ---

    @property
    def has_work(self) -> bool:
        """Whether there is something to step or to commit now."""
        if (
            self._agenda.has_ready
            or self._queued
            or self._unknown
            or self._want_news
            or self._want_owned
            or self._want_tasks
            or self._flight
            or self._deferred
            or self._returned
            or self._discarded
        ):
            return True
        due = self._agenda.next_timer
        if due is not None and due <= self.now:
            return True
        return self._claims.is_due(self.now)

    @property
    def owned(self) -> int:
        """How many instances are on the desk."""
        return len(self._agenda)

    @property
    def running(self) -> int:
        """How many activities have been begun and not reported, of instances of this node and of others."""
        return len(self._running) + len(self._tasks)

    def next_due(self) -> int | None:
        """Return the earliest store time at which an owned instance, or one that may be claimed, wants to be looked at."""
        owned, claim = self._agenda.next_timer, self._claims.next_due()
        return owned if claim is None else claim if owned is None else min(owned, claim)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds that this node claims."""
        return self._claims.kinds

    @property
    def _room(self) -> int:
        """How many more instances this node takes for a group."""
        options = self.options
        return min(options.group, options.max_owned - len(self._agenda) - len(self._absences))

    @property
    def _places(self) -> int:
        """How many more activities this node can run."""
        return self.node.slots - len(self._running) - len(self._tasks) - self._promised

    def look(self) -> None:
        """Ask the store for ready instances and for news, at the next step: a hint came, or it is time to poll.

        It is asked by reading: a node that finds nothing writes nothing.
        """
        self._want_news = True
        self._claims.look()
        self._ask_for_suspects()

    def look_for_unwanted(self) -> None:
        """Ask the store, at the next step, which of the activities that were taken from others are wanted still."""
        self._want_tasks |= len(self._tasks) > 0

    def look_for_forgotten(self) -> None:
        """Compare what the store says this node owns with what it knows of, at the next step (rule 13).

        Holds are looked through as well: other nodes' code may have been held since the catalogue last changed (rule 5).
        """
        self._want_owned = self._want_held = self._want_tasks = True

    def keep(self, items: Iterable[Item]) -> None:
        """Keep items for the next step."""
        self._deferred.extend(items)

    # --- one cycle ---

    def step(self, items: Iterable[Item]) -> list[Change]:
        """Take in items, step what is ready, and return the group of changes that is to be committed next.

        Raises:
            StoreError: nothing could be read; the items are taken nevertheless.
        """
        deferred, self._deferred = self._deferred, []
        for item in (*deferred, *items):
            self._take(item)
        self._read_store()
        now = self.now
        self._agenda.wake_due(now)
        # In its place from the start: should the code of an instance not return, the group goes on with what it has. And a read
        # that fails on the way loses neither turns nor clients' changes.
        self._flight = flights = [Flight(Recover(instance_id, self.node.node_id)) for instance_id in self._unknown]
        size = self._take_returned(flights) + self._step_ready(flights, now)
        self._take_queued(flights, size)
        try:
            claim = self._claims.next_claim(self.node.node_id, now)
            if claim is not None:
                flights.append(Flight(claim))
        except StoreError as error:  # what was stepped is not lost by that
            self._read_error = error
        error, self._read_error = self._read_error, None
        if error is not None and not flights:
            raise error
        return [flight.change for flight in flights]

    def _step_ready(self, flights: list[Flight], now: int) -> int:
        """Step ready instances up to the bounds of a group. Return the bytes of their writes."""
        self._close_discarded()
        size = 0
        while len(flights) < self.options.group and size < self.options.group_bytes:
            desk = self._agenda.next_ready()
            if desk is None:
                break
            try:
                history = self._read_history(desk)
            except StoreError as error:
                self._agenda.make_ready(desk.instance_id)
                self._read_error = error
                break
            stepping = self._absences.begin(desk, self._clock.monotonic())
            result = self._advance(desk, now, history)
            self._absences.finish(stepping, result)
            size += self._stepped(flights, desk, result)
        return size

    def _read_history(self, desk: Desk) -> Sequence[EventRecord]:
        """Return what the code has to be replayed with. An instance whose history cannot be read for good is to be held.

        Raises:
            StoreError: it cannot be read now; that is no fault of the instance.
        """
        if not desk.needs_history:
            return ()
        try:
            return self._store.history(desk.instance_id, desk.current.number)
        except Exception as error:  # whatever is wrong with one instance must not touch the others (I12)
            if isinstance(error, StoreError) and error.retryable:
                raise
            desk.poison = HoldKind.STORE, describe_error(error)
            return ()

    def _advance(self, desk: Desk, now: int, history: Sequence[EventRecord]) -> Result:
        """Run the code of an instance. Nothing of the engine may be changed in here: it may have gone on without it."""
        try:
            return self._stepper.advance(desk, now, self.catalogue, history, free=self._places)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one instance must not touch the others (I12)
            return error

    def _stepped(self, flights: list[Flight], desk: Desk, result: Result) -> int:
        """Follow up a step that has been made. Return the bytes of its write."""
        if isinstance(result, Exception):
            engine_logger.error("instance %r could not be stepped; it is held", desk.instance_id, exc_info=result)
            self._hold_as_stored(desk, HoldKind.INTERNAL, result)
            return 0
        write, step = result
        if write is None:
            self._follow(desk, step)
            return 0
        self._promised += sum(isinstance(effect, RunActivity) for effect in step.effects)
        write = self._with_new_names(desk, write, step)
        flights.append(Flight(write, desk=desk, step=step))
        if rings_others(desk, write):
            self._claims.want()
        return size_of(write)

    # --- code that does not return ---

    @property
    def stepping(self) -> Stepping | Closing | None:
        """The code that runs: a step, or what has left memory; for the watchdog, which looks from another thread."""
        return self._absences.running

    def leave_behind(self, stepping: Stepping | Closing) -> bool:
        """Go on without code that does not return. To be called from another thread than the one that runs it.

        Return whether that was done; the engine then belongs to no thread, and another one has to run it. The thread that
        made the step gets :class:`LeftBehind` when the code returns, and has the engine told by :meth:`come_back`.
        """
        if not self._absences.leave(stepping):
            return False
        if isinstance(stepping, Stepping):
            self._agenda.remove(stepping.desk.instance_id)
        return True

    def come_back(self, returned: Returned) -> None:
        """Take up a step that was left behind, at the next step."""
        self._returned.append(returned)

    def _take_returned(self, flights: list[Flight]) -> int:
        """Take up the steps that have returned. Return the bytes of their writes."""
        returned, self._returned = self._returned, []
        size = 0
        for late in returned:
            desk = late.stepping.desk
            if self._absences.take_back(late.stepping):
                desk.armed = None
                self._agenda.put(desk)
                self._deferred.extend(late.stepping.kept)
                self._want_news = True
                size += self._stepped(flights, desk, late.result)
            else:
                self._discard(desk)
        return size

    def _take_queued(self, flights: list[Flight], size: int) -> None:
        taken = 0
        for flight in self._queued:
            if taken and (len(flights) >= 2 * self.options.group or size >= self.options.group_bytes):
                break
            flights.append(flight)
            size += size_of(flight.change)
            taken += 1
            self._claims.want()  # what becomes ready here is claimed in the same transaction
        del self._queued[:taken]

    def apply(self, outcomes: Sequence[Outcome | StoreError]) -> list[Effect]:
        """Follow up the outcomes of the last group; return what the shell is to do now."""
        flights, self._flight, self._promised = self._flight, [], 0
        for flight, outcome in zip(flights, outcomes, strict=True):
            if isinstance(outcome, OutcomeUnknown):
                self._outcome_unknown(flight, outcome)
            elif isinstance(outcome, StoreError):
                self._poisoned(flight, outcome)
            elif flight.desk is not None and flight.step is not None:
                self._written(flight.desk, flight.step, outcome)
            elif flight.submit is not None:
                self._submitted(flight, outcome)
            else:
                self._asked(flight, outcome)
        return self.take_effects()

    def take_effects(self) -> list[Effect]:
        """Return the effects that have gathered."""
        effects, self._effects = self._effects, []
        return effects

    def refuse_clients(self, error: StoreError) -> list[Effect]:
        """Answer the clients of a group that could not be committed, and take their changes out of it."""
        effects: list[Effect] = [
            refusal(flight, error) for flight in (*self._flight, *self._queued) if flight.submit is not None
        ]
        self._flight = [flight for flight in self._flight if flight.submit is None]
        self._queued = [flight for flight in self._queued if flight.submit is None]
        return effects

    def put_back(self, effects: Sequence[Effect]) -> None:
        """Keep effects that could not be handed on yet; they come before those that gather from now on."""
        self._effects = [*effects, *self._effects]

    @property
    def in_flight(self) -> list[Change]:
        """The group that was returned by the last step and not applied yet."""
        return [flight.change for flight in self._flight]

    # --- stopping ---

    def stop_claiming(self) -> None:
        """Claim nothing any more."""
        self._claims.stopped = True

    def release_all(self) -> None:
        """Give everything back at the next steps; what was running here begins again elsewhere."""
        self._claims.stopped = self._releasing = True
        self._absences.release()
        for desk in self._agenda:
            desk.releasing = True
            self._agenda.make_ready(desk.instance_id)

    def close(self) -> None:
        """Drop all executions from memory.

        Raises:
            LeftBehind: the engine has gone on meanwhile; whoever runs it now calls this again.
        """
        for desk in self._agenda:
            self._discard(desk)
        for late in self._returned:
            self._discard(late.stepping.desk)
        self._agenda.clear()
        self._warm.clear()
        self._returned.clear()
        self._close_discarded()

    # --- items ---

    def _take(self, item: Item) -> None:
        match item:
            case Submit(change=change):
                self._queued.append(Flight(change, submit=item))
            case ActivityEnded() | Heartbeat() if self._tasks.has(item.key):
                report = self._tasks.report(item, self.node.node_id)
                if report is not None:
                    self._queued.append(Flight(report))
            case ActivityEnded() | Heartbeat() if self._absences.keep(item):
                pass
            case ActivityEnded():
                self._activity_ended(item)
            case Heartbeat():
                self._heartbeat(item)

    def _desk_of(self, key: ActivityKey) -> Desk | None:
        desk = self._agenda.get(key.instance_id)
        if desk is None or (desk.incarnation, desk.current.number) != (key.incarnation, key.execution):
            return None
        return desk

    def _activity_ended(self, item: ActivityEnded) -> None:
        if item.key.instance_id in self._suspects:
            self._suspects[item.key.instance_id].append(item)
            return
        if self._is_coming_back(item.key):
            self._deferred.append(item)
            return
        if self._running.attempt(item.key) == item.attempt:
            self._running.end(item.key)
        desk = self._desk_of(item.key)
        entry = desk.tries.get(item.key.event_id) if desk is not None else None
        if desk is None or entry is None or not entry.running or entry.attempt != item.attempt:
            return  # late: another execution, a cancelled activity, or an attempt that was given up (I5)
        desk.unacknowledged.append(item)
        desk.end_try(item.key.event_id, item.result, item.heartbeat, self.now)
        self._agenda.make_ready(desk.instance_id)

    def _is_coming_back(self, key: ActivityKey) -> bool:
        """Return whether the instance of a running activity is being asked for, or is claimed and not loaded yet."""
        desk = self._agenda.get(key.instance_id)
        return key.instance_id in self._unknown or (desk is not None and key.event_id in desk.still_running)

    def _heartbeat(self, item: Heartbeat) -> None:
        desk = self._desk_of(item.key)
        entry = desk.tries.get(item.key.event_id) if desk is not None else None
        if desk is not None and entry is not None and entry.running and entry.attempt == item.attempt:
            desk.tries.beat(item.key.event_id, item.payload)
            self._agenda.make_ready(desk.instance_id)

    # --- reading ---

    def _read_store(self) -> None:
        if self._want_news and len(self._agenda) > 0:
            for news in self._store.news(self.node.node_id):
                desk = self._agenda.get(news.instance_id)
                if desk is not None and desk.incarnation == news.incarnation and news.inbox_seq > desk.known_seq:
                    desk.take_messages(news.messages, news.inbox_seq)
                    desk.take_ended(news.activities, self.now)
                    desk.cancel = news.cancel or desk.cancel
                    self._agenda.make_ready(desk.instance_id)
        self._want_news = False
        if self._want_owned:
            owned = dict.fromkeys(self._store.owned(self.node.node_id))
            known = {*(desk.instance_id for desk in self._agenda), *self._absences}
            self._unknown.update(dict.fromkeys(instance_id for instance_id in owned if instance_id not in known))
            # Taken away by an operator or by other nodes: what runs for it is not wanted any more.
            for desk in [desk for desk in self._agenda if desk.instance_id not in owned]:
                self._drop(desk)
            for instance_id in [instance_id for instance_id in self._absences if instance_id not in owned]:
                self._disown(instance_id)
            self._want_owned = False
        if self._want_tasks:
            self._compare_tasks()
            self._want_tasks = False

    def _compare_tasks(self) -> None:
        """Give up what nobody wants any more, and take up what a lost reply has not told of (rule 13)."""
        stored = self._store.taken(self.node.node_id)
        for key in self._tasks.missing_from(stored):
            self._tasks.drop(key)
            self._effects.append(AbortActivity(key))
        for task in stored:
            self._begin_task(task)

    def _begin_task(self, task: Task) -> None:
        key = key_of(task)
        if self._tasks.revision(key) == task.revision:
            return
        self._give_up_earlier(key)
        self._tasks.take(task)
        try:
            self._effects.append(run_task(task))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one activity must not touch the others (I12)
            failure = ActivityFailure(error_info(error), (), non_retryable=True)
            self._queued.append(Flight(ended_report(task, self.node.node_id, failure)))

    # --- outcomes ---

    def _written(self, desk: Desk, step: Step, outcome: Outcome) -> None:
        if not isinstance(outcome, Granted):
            self._suspect(desk)  # nothing of this step has happened (I6)
            return
        self._arrived(outcome)
        if not self._agenda.holds(desk):
            return
        if outcome.inbox_seq > desk.known_seq:
            # A message has come meanwhile: a park that meets one is not a park (rule 10).
            self._want_news = True
            self._claims.want()
        self._follow(desk, step)

    def _suspect(self, desk: Desk) -> None:
        """Let go of an instance whose write was refused, and find out at the next look whose it is.

        Most often it is somebody else's by now, so what runs for it is aborted. But an operator may have raised the revision
        in this node's name, to come in between the writes of a busy instance: so it is not asked for at once, and what
        activities have reported is kept.
        """
        if self._agenda.holds(desk):
            reported = {item.key for item in desk.unacknowledged}
            self._suspects[desk.instance_id] = list(desk.unacknowledged)
            self._forget(desk)
            for key in [key for key, _ in self._running.of(desk.instance_id) if key not in reported]:
                self._abort(key)

    def _ask_for_suspects(self) -> None:
        suspects, self._suspects = self._suspects, {}
        for instance_id, reports in suspects.items():
            if instance_id not in self._agenda:
                self._ask_for(instance_id, reports)

    def _follow(self, desk: Desk, step: Step) -> None:
        """Do what follows from a step that stands."""
        if step.records:
            self._recorder.stands(step.records, self.now)
        desk.unacknowledged.clear()
        for effect in step.effects:
            if isinstance(effect, RunActivity):
                self._give_up_earlier(effect.key)
                self._running.begin(effect.key, effect.attempt)
            elif isinstance(effect, AbortActivity):
                self._running.end(effect.key)
            self._effects.append(effect)
        if not step.keep:
            self._let_go(desk, step)
        elif desk.releasing or (step.wake_at is not None and step.wake_at <= step.now):
            # Or: it was away when everything was to be released, and had decided to stay before.
            self._agenda.make_ready(desk.instance_id)
        elif step.wake_at is not None:
            self._agenda.arm(desk, step.wake_at)

    def _give_up_earlier(self, key: ActivityKey) -> None:
        """Give up an earlier try of an activity that is to begin: it was lost by a node that has not found out yet."""
        if self._tasks.drop(key) is not None or self._running.attempt(key) is not None:
            self._abort(key)

    def _let_go(self, desk: Desk, step: Step) -> None:
        self._agenda.remove(desk.instance_id)
        if step.wake_at is not None:
            self._claims.expect(step.wake_at)
        self._warm.keep(desk)

    def _drop(self, desk: Desk) -> None:
        """Forget an instance that is not this node's any more."""
        if not self._agenda.holds(desk):
            return
        self._forget(desk)
        self._abort_running(desk.instance_id)

    def _disown(self, instance_id: str) -> None:
        """Want an instance no more that is away, and not this node's any more."""
        self._absences.disown(instance_id)
        self._abort_running(instance_id)

    def _forget(self, desk: Desk) -> None:
        self._agenda.remove(desk.instance_id)
        self._discard(desk)

    def _abort_running(self, instance_id: str) -> None:
        for key, _ in self._running.of(instance_id):
            self._abort(key)

    def _abort(self, key: ActivityKey) -> None:
        self._running.end(key)
        self._effects.append(AbortActivity(key))

    def _submitted(self, flight: Flight, outcome: Outcome) -> None:
        assert flight.submit is not None
        change = flight.change
        self._effects.append(Reply(flight.submit.token, outcome))
        match change, outcome:
            case ((Append() | Cancel()), Appended()):
                self._appended(change.instance_id, outcome)
            case Write(), Granted():
                self._arrived(outcome)
                # An operator has written past the owner; if that is this node, its memory is void.
                desk = self._agenda.get(change.instance_id)
                if desk is not None and desk.incarnation == change.incarnation:
                    self._drop(desk)
                if self._absences.incarnation_of(change.instance_id) == change.incarnation:
                    self._disown(change.instance_id)
                closed = change.executions[-1].closed if change.executions else None
                if closed is not None:
                    self._effects.append(InstanceEnded(change.instance_id, change.state.status, closed[2], closed[3]))
            case _:
                pass

    def _with_new_names(self, desk: Desk, write: Write, step: Step) -> Write:
        """Resolve once more what a step has started of names that its catalogue did not have.

        They may have been registered since it was read, and a deploy must not fail anybody.
        """
        if not step.unknown:
            return write
        try:
            catalogue = self._store.catalogue()
        except StoreError:
            return write
        starts = (
            child_start(desk, start.parent, event, catalogue, self.node.node_id, step.now)
            if (event := step.unknown.get(start.parent)) is not None
            else start
            for start in write.starts
        )
        return replace(write, starts=tuple(starts))

    def _arrived(self, granted: Granted) -> None:
        """Take what a write has left with other instances, and with its own: those of this node learn it without looking."""
        for instance_id, arrival in granted.arrivals:
            self._appended(instance_id, arrival)
        for instance_id in granted.taken:
            engine_logger.warning("a detached start of %r was left out: an instance with this id exists", instance_id)

    def _appended(self, instance_id: str, outcome: Appended) -> None:
        desk = self._agenda.get(instance_id)
        if desk is None or outcome.owner != self.node.node_id or outcome.sequence <= desk.known_seq:
            return
        if outcome.sequence > desk.known_seq + 1:
            self._want_news = True  # somebody else's message lies in between
            return
        desk.take_messages((outcome.message,) if outcome.message else (), outcome.sequence)
        desk.take_ended((outcome.activity,) if outcome.activity else (), self.now)
        desk.cancel = outcome.cancel or desk.cancel
        self._agenda.make_ready(instance_id)

    def _asked(self, flight: Flight, outcome: Outcome) -> None:
        match outcome:
            case Claimed(snapshots=snapshots, more=more, tasks=tasks):
                self._claims.claimed(more=more)
                self._recorder.claimed(snapshots, self.now)
                for snapshot in snapshots:
                    self._adopt(snapshot)
                for task in tasks:
                    self._begin_task(task)
            case Reported() | Refused() if isinstance(flight.change, Report):
                self._reported(flight.change, outcome)
            case Recovered(snapshot=snapshot):
                assert isinstance(flight.change, Recover)
                self._unknown.pop(flight.change.instance_id, None)
                if snapshot is not None:
                    self._adopt(snapshot)
                else:
                    self._poison.pop(flight.change.instance_id, None)
                    self._drop_reports(flight.change.instance_id)
                    self._abort_running(flight.change.instance_id)
            case Granted() | Refused():
                pass  # a hold that was released, or that somebody else has released
            case _:  # pragma: no cover
                raise AssertionError(f"{outcome} does not answer {flight.change}")

    def _reported(self, report: Report, outcome: Reported | Refused) -> None:
        key = key_of(report)
        if isinstance(outcome, Refused):
            # Nobody wants it any more, or an earlier report has arrived whose reply was lost.
            if self._tasks.drop(key) is not None and not report.is_end:
                self._effects.append(AbortActivity(key))
            return
        if report.is_end:
            self._tasks.drop(key)
            self._claims.want()
        if outcome.arrival is not None:
            self._appended(report.instance_id, outcome.arrival)

    def _adopt(self, snapshot: Snapshot) -> None:
        desk = Desk.of(snapshot)
        stale = self._agenda.get(desk.instance_id)
        if stale is not None:  # it was taken away and came back before this node noticed
            self._forget(stale)
        self._keep_reports(self._absences.disown(desk.instance_id))
        self._keep_reports(self._suspects.pop(desk.instance_id, ()))
        desk.releasing = self._releasing
        desk.poison = self._poison.pop(desk.instance_id, None)
        number = desk.current.number
        for key, attempt in self._running.of(desk.instance_id):
            if (key.incarnation, key.execution) == (desk.incarnation, number):
                desk.still_running[key.event_id] = attempt
            else:
                self._abort(key)
        desk.execution = self._warm.take(desk)
        if desk.execution is not None:
            for key in self._stepper.remember_tries(desk, self.now):
                self._abort(key)
        if desk.opened:
            self._recorder.looked_up(desk.kind.name, desk.current.version, warm=desk.execution is not None)
        self._agenda.put(desk)
        self._agenda.make_ready(desk.instance_id)

    # --- failures ---

    def _outcome_unknown(self, flight: Flight, error: OutcomeUnknown) -> None:
        """Nobody knows whether it was committed: ask by writing again (rule 9)."""
        change = flight.change
        if flight.desk is not None:
            if self._agenda.holds(flight.desk):
                self._forget(flight.desk)
                self._ask_for(flight.desk.instance_id, flight.desk.unacknowledged)
        elif flight.submit is not None:
            # Starts and messages carry ids of their sender, cancels are idempotent: the same again tells the truth.
            if isinstance(change, (Start, Append, Cancel)) and flight.unknown < _RETRIES_AFTER_UNKNOWN:
                flight.unknown += 1
                self._queued.append(flight)
            else:
                self._effects.append(Reply(flight.submit.token, error))
        elif isinstance(change, Claim):
            self._claims.want()
            self._want_tasks = True
        elif isinstance(change, Report):
            self._queued.append(flight)  # the same again: if it has arrived, its fence does not hold any more
        self._want_owned = True

    def _ask_for(self, instance_id: str, reports: Sequence[ActivityEnded]) -> None:
        """Find out by a write what has become of an instance, and whose it is.

        What its activities have reported is kept: if no write has recorded it, it is applied once the instance is back.
        """
        self._unknown[instance_id] = None
        self._keep_reports(reports)

    def _keep_reports(self, reports: Sequence[ActivityEnded | Heartbeat]) -> None:
        for item in reports:
            if isinstance(item, ActivityEnded):
                self._running.begin(item.key, item.attempt)
        self._deferred.extend(reports)

    def _drop_reports(self, instance_id: str) -> None:
        """Drop what activities have reported for an instance that is not this node's any more."""
        kept: list[Item] = []
        for item in self._deferred:
            if isinstance(item, (ActivityEnded, Heartbeat)) and item.key.instance_id == instance_id:
                if isinstance(item, ActivityEnded):
                    self._running.end(item.key)
            else:
                kept.append(item)
        self._deferred = kept

    def _poisoned(self, flight: Flight, error: StoreError) -> None:
        """The store refuses this very change for good: its instance is held, the others go on (rule 8, I12)."""
        if flight.submit is not None:
            self._effects.append(refusal(flight, error))
        elif flight.desk is not None:
            self._hold_as_stored(flight.desk, HoldKind.STORE, error)
        elif isinstance(flight.change, Recover):
            self._unknown.pop(flight.change.instance_id, None)
        elif isinstance(flight.change, Report) and flight.change.result is not None:
            failure = ActivityFailure(error_info(error), (), non_retryable=True)  # its result cannot be stored
            self._queued.append(Flight(replace(flight.change, result=None, failure=failure_to_bytes(failure))))
        else:
            engine_logger.error("the store will not take %s: %s", type(flight.change).__name__, error)
            if isinstance(flight.change, Report):
                self._tasks.drop(key_of(flight.change))  # the next inventory takes it up once more
            if isinstance(flight.change, Claim):  # not again before the next poll
                self._claims.give_up()

    def _hold_as_stored(self, desk: Desk, kind: HoldKind, error: Exception) -> None:
        """Hold an instance whose desk is ahead of the store by a failed step: get the row back, and hold it as it stands."""
        self._forget(desk)
        if desk.poison is not None:
            # Not even the hold can be written. Leave it alone; the next inventory tries once more.
            engine_logger.error("instance %r cannot be held: %s", desk.instance_id, error)
            self._abort_running(desk.instance_id)
            return
        self._unknown[desk.instance_id] = None
        self._poison[desk.instance_id] = kind, describe_error(error)

    # --- what leaves memory ---

    def _discard(self, desk: Desk) -> None:
        if desk.execution is not None:
            self._discarded.append(desk.execution)

    def _close_discarded(self) -> None:
        """Close what has left memory. Its ``finally`` blocks are code, and may block: so only where a step may be made.

        Raises:
            LeftBehind: the engine has gone on meanwhile.
        """
        while self._discarded:
            self._absences.close(self._discarded.pop(), self._clock.monotonic())
