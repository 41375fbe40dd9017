"""Steps of instances: from what has arrived to the one write that records what followed.

Opening, turns, boundaries, retries, parking and holding all end in a single
:class:`~orchestra.store.changes.Write`. The instance is changed as if the write were granted
already. If the store refuses it, the engine drops the instance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from orchestra.activities import Activity
from orchestra.context import Limits
from orchestra.engine.attempts import PendingActivity
from orchestra.engine.messages import (
    AbortActivity,
    ActivityEnded,
    RequestsAnswered,
    StopActivity,
    WriteLogs,
)
from orchestra.engine.owned import OwnedInstance
from orchestra.engine.placement import FreePlaces, Placement
from orchestra.engine.steps.boundaries import (
    cancel_unopened,
    cross_boundary,
    end_execution,
    terminate,
)
from orchestra.engine.steps.children import child_cancel, child_link, child_start
from orchestra.engine.steps.due import acts_at, due_act, due_hold
from orchestra.engine.steps.holding import hold, hold_for, kept_rows
from orchestra.engine.steps.opening import Opener, Unservable, restore_activities
from orchestra.engine.steps.records import (
    UNOBSERVED,
    Observed,
    hold_record,
    requests_record,
    turn_record,
)
from orchestra.engine.steps.sends import SENT_KINDS, send_of
from orchestra.engine.steps.step import Step, closed_by, run_activity, write_of
from orchestra.errors import LevelTooLow, NewerLibraryNeeded
from orchestra.events import ContinuedAsNew, EventRecord, TerminalEvent
from orchestra.registry import OrchestrationRegistry
from orchestra.replay import NO_EXTRAS, Turn, TurnExtras
from orchestra.resolution import has_untried_code
from orchestra.retention import Retention
from orchestra.sessions import ENTER, route_of
from orchestra.store.catalogue import Catalogue
from orchestra.store.changes import Write
from orchestra.store.executions import ExecutionDelta, ExecutionRow, Opening
from orchestra.store.inbox_limits import INBOX_LIMITS, InboxLimits
from orchestra.store.instances import Hold
from orchestra.store.kinds import (
    SESSION_LEVEL,
    SET_ASIDE_LEVEL,
    THIS_LIBRARY,
    HoldKind,
    Library,
    Status,
)
from orchestra.store.streams import STREAM_LEVEL, Published
from orchestra.telemetry import AsideRecord, EndRecord, Moment, Recorder

__all__ = ["Stepper"]

_LAPS_PER_WRITE: Final = 8
"""Laps without a wait that one write may hold, so that a loop that never waits lets others in."""

_UNTIL_LEVEL: Final = 1_000_000
"""After how many microseconds a turn is made again that met a write level which is too low."""


_TOO_LOW: Final = f"streams are written from level {STREAM_LEVEL} of the store on"
_LOOK_FOR_LEVEL: Final = 1_000_000
"""How long a session waits before the node looks again whether all nodes know sessions."""


class _HalfMade(Exception):
    """A turn was made and could not be recorded. The step does not stand by itself."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class Stepper:
    """Makes steps. It knows the registry, owns nothing, and reads nothing from the store."""

    def __init__(
        self,
        *,
        node_id: str,
        placement: Placement,
        registry: OrchestrationRegistry,
        limits: Limits,
        keep_owned: int,
        recorder: Recorder,
        retention: Retention,
        registered: Mapping[str, Activity[..., Any]],
        library: Library = THIS_LIBRARY,
        inbox_limits: InboxLimits = INBOX_LIMITS,
    ) -> None:
        self._inbox_limits = inbox_limits
        self._node_id = node_id
        self._library = library
        self._opener = Opener(node_id, registry, limits, registered, library)
        self._placement = placement
        self._retentions = registry.retentions
        self._boundaries = registry.boundaries
        self._shape = registry.shape
        self._limits = limits
        self._keep_owned = keep_owned
        self._recorder = recorder
        self._retention = retention

    def use_node_id(self, node_id: str) -> None:
        """Write in the name of this node from now on."""
        self._node_id = self._opener.node_id = node_id

    def use_format(self, event_format: int) -> None:
        """Write new executions in this event format."""
        self._opener.format = event_format

    def advance(
        self,
        instance: OwnedInstance,
        now: int,
        catalogue: Catalogue,
        history: Sequence[EventRecord] = (),
        *,
        free: FreePlaces,
        crowded: bool = False,
        early: Sequence[ActivityEnded] = (),
    ) -> tuple[Write | None, Step]:
        """Run the instance until it waits. Return the write, or ``None`` if there is nothing to
        store.

        Faults of the instance's code and state never come out of here: they hold it (I12). After
        any other exception the instance is of no further use.

        Args:
            history: the events of the current execution, if
                :attr:`OwnedInstance.needs_history`.
            free: how many more activities this node can run.
            crowded: others are due and find no place here, so that an instance which only waits
                gives up its own.
            early: ends of activities that came before the execution was loaded.
        """
        step = Step(now, _first_of(instance), free, crowded=crowded, early=early)
        try:
            if instance.unknown is not None:
                raise NewerLibraryNeeded(str(instance.unknown), instance_id=instance.instance_id)
            if instance.unopened is not None:
                raise instance.unopened
            if instance.poison is not None:
                instance.trying = self._opener.fingerprint(instance, catalogue)
                step.hold = hold(instance, *instance.poison, now, self._node_id, self._limits)
            else:
                self._run(instance, step, catalogue, history)
        except _HalfMade as broken:
            raise broken.error from None
        except Unservable:
            step.unservable = True
        except NewerLibraryNeeded:
            # Routed to nodes that read more from now on, so that no node like this one claims it
            # again (rule 37).
            step.unservable = step.needs_newer_library = True
            level = max(instance.kind.level, self._library.level + 1)
            instance.kind = instance.kind._replace(level=level)
        except LevelTooLow:
            # Nothing that the turn has decided is stored. It is made again soon: the level rises by
            # itself (rule 37).
            step.unservable = step.waits_for_level = True
            if instance.execution is not None:
                instance.execution.evict()
                instance.execution = None
        except Exception as error:  # noqa: BLE001 - a fault of one instance must not touch the others
            step.hold = hold_for(
                instance, error, now, self._node_id, self._limits, catalogue.levels
            )
        if step.hold is not None and self._recorder.recording:
            step.records.append(hold_record(instance, step.hold))
        if instance.boundary_due is not None and instance.boundary_due <= step.now:
            self._hold_when_due(instance, step)
        self._begin_activities(instance, step, catalogue.levels.write)
        self._park(instance, step)
        if self._is_idle(instance, step):
            return None, step
        is_kept = step.hold is not None or step.needs_newer_library or step.waits_for_level
        kept = kept_rows(instance, step.early, now) if is_kept else {}
        retention = self._retentions.get(instance.kind.name, self._retention)
        return write_of(instance, step, self._node_id, retention, kept), step

    # --- laps ---

    def _run(
        self,
        instance: OwnedInstance,
        step: Step,
        catalogue: Catalogue,
        history: Sequence[EventRecord],
    ) -> None:
        if instance.cancel is not None and instance.cancel.terminate:
            writer = self._opener.writer(instance, catalogue) if instance.opened else None
            terminate(instance, step, writer)
            self._record_end(instance, step, "terminated")
            return
        if instance.is_delayed(step.now):
            return  # it was made ready before its time, by an operator's write or a clock put back
        created: ExecutionRow | None = None
        for _ in range(_LAPS_PER_WRITE):
            if instance.cancel is not None and not instance.opened:
                break
            before = (
                instance.current,
                instance.kind,
                instance.opened,
                instance.hold,
                instance.boundary_due,
            )
            try:
                ending = self._lap(instance, step, created, catalogue, history)
            except Exception:
                # What this lap did is not stored; what the laps before it did is.
                (
                    instance.current,
                    instance.kind,
                    instance.opened,
                    instance.hold,
                    instance.boundary_due,
                ) = before
                if created is not None:
                    step.deltas.append(ExecutionDelta(created.number, create=created))
                raise
            if not isinstance(ending, ContinuedAsNew):
                return
            try:
                shape = self._shape(instance.kind.name, instance.current.version)
                created = cross_boundary(instance, step, ending, catalogue, self._node_id, shape)
            except Exception as error:
                raise _HalfMade(error) from error
            if instance.takeovers or instance.releasing:
                break  # a crash loop in the next execution must be charged to it alone
        if instance.cancel is not None:
            cancel_unopened(instance, step, created)
            self._record_end(instance, step, "cancelled")
        elif created is not None:
            step.deltas.append(ExecutionDelta(created.number, create=created))

    def _record_end(self, instance: OwnedInstance, step: Step, outcome: str) -> None:
        if self._recorder.recording:
            step.records.append(EndRecord(instance.identity, outcome))

    def _lap(
        self,
        instance: OwnedInstance,
        step: Step,
        created: ExecutionRow | None,
        catalogue: Catalogue,
        history: Sequence[EventRecord],
    ) -> TerminalEvent | None:
        """Run the current execution as far as it goes now. Return its end, if it has ended."""
        opened = None
        observed = self._observe() if self._recorder.recording else UNOBSERVED
        if not instance.opened:
            opened = self._opener.open(instance, step.now, catalogue)
            if observed.begun is not None:
                observed = self._begin_trace(instance, observed.begun)
            if created is not None:
                # The row is inserted as it is once opened.
                created, opened = instance.current, None
        elif instance.execution is None:
            self._load(instance, step, catalogue, history)
            observed = self._observe()  # the replay is no part of this turn
        return self._turn(instance, step, created, opened, catalogue, observed)

    def _load(
        self,
        instance: OwnedInstance,
        step: Step,
        catalogue: Catalogue,
        history: Sequence[EventRecord],
    ) -> None:
        """Bring a cold execution to where it stood, and its activities with it."""
        step.drifts = self._opener.load(instance, history, catalogue).drifts
        unwanted = restore_activities(instance, step.now, step.early)
        step.early = ()
        step.outbox.extend(map(AbortActivity, unwanted))
        step.outbox.extend(
            StopActivity(instance.key(number)) for number in instance.attempts.stopping
        )

    def _observe(self) -> Observed:
        begun = self._recorder.moment()
        return UNOBSERVED if begun is None else Observed(begun)

    def _begin_trace(self, instance: OwnedInstance, begun: Moment) -> Observed:
        """Give a new execution its trace. Without one, it goes on in the trace before it."""
        previous = instance.current.traceparent
        version = instance.current.state_version if instance.current.number > 1 else None
        root = self._recorder.open_execution(
            instance.identity,
            begun,
            previous,
            instance.origin,
            # Only a start that says so gives the first execution its own trace.
            continues=previous is not None and previous == instance.origin,
        )
        if root is not None:
            instance.current = replace(instance.current, traceparent=root.traceparent)
        return Observed(
            begun,
            opened=True,
            root=root,
            previous_version=version,
            migrations=instance.current.migrations,
        )

    # --- turns ---

    def _turn(
        self,
        instance: OwnedInstance,
        step: Step,
        created: ExecutionRow | None,
        opened: Opening | None,
        catalogue: Catalogue,
        observed: Observed,
    ) -> TerminalEvent | None:
        assert instance.execution is not None
        instance.trying = instance.execution.fingerprint
        if instance.boundary_due is not None and instance.boundary_due <= step.now:
            boundary = self._boundaries.get(instance.kind.name)
            step.due = due_act(instance, boundary, step.now) or step.due
        cancel = None if instance.cancel is None else instance.cancel.reason
        turn = instance.execution.turn(
            step.now,
            instance.inputs,
            instance.inbox,
            cancel=cancel,
            has_begun=instance.attempts.has_begun,
            request=instance.request,
            may_hold=partial(_other_code_may_read, instance, catalogue),
        )
        if turn.extras.published and catalogue.levels.write < STREAM_LEVEL:
            raise LevelTooLow(_TOO_LOW)
        # Not before: a turn that ends in a hold has taken in none of them (rule 39).
        instance.to_read, instance.inputs = turn.to_read, list(turn.left)
        try:
            return self._record(instance, step, turn, created, opened, catalogue, observed)
        except Exception as error:
            raise _HalfMade(error) from error

    def _record(
        self,
        instance: OwnedInstance,
        step: Step,
        turn: Turn,
        created: ExecutionRow | None,
        opened: Opening | None,
        catalogue: Catalogue,
        observed: Observed,
    ) -> TerminalEvent | None:
        """Gather what a turn has decided. Return the end of its execution, if it has ended."""
        assert instance.execution is not None
        if (
            turn.events
            and self._recorder.recording
            and (ended := self._recorder.moment()) is not None
        ):
            step.records.append(turn_record(instance, turn, observed, ended, step.now))
            requests = requests_record(instance, turn)
            if requests is not None:
                step.records.append(requests)
        step.consumed.extend(turn.consumed)
        extras = turn.extras
        if extras is not NO_EXTRAS:
            self._record_extras(instance, step, extras, catalogue)
        for event in turn.scheduled:
            instance.attempts.add(PendingActivity(event, started_at=step.now))
        if turn.completed:
            self._complete_activities(instance, step, turn.completed)
        ending, journal = turn.ending, instance.execution.journal
        instance.history_events, instance.history_bytes = journal.count, journal.size
        if created is not None or opened is not None or turn.events:
            step.deltas.append(
                ExecutionDelta(
                    instance.current.number,
                    create=created,
                    opened=opened,
                    events=turn.events,
                    closed=None if ending is None else closed_by(ending, step.now),
                    event_count=instance.history_events,
                    byte_count=instance.history_bytes,
                    traceparent=None if opened is None else instance.current.traceparent,
                    children=ending is not None and instance.execution.commands.children > 0,
                    patches=instance.current.patches if extras.patches else (),
                    receipts=ending is not None
                    and not SENT_KINDS.isdisjoint(instance.execution.commands.counts),
                )
            )
        if ending is not None:
            step.children += instance.execution.commands.children
            end_execution(instance, step, ending)
        return ending

    def _record_extras(
        self, instance: OwnedInstance, step: Step, extras: TurnExtras, catalogue: Catalogue
    ) -> None:
        """Gather what few turns decide."""
        if extras.started or extras.recalled:
            self._start_children(instance, step, extras, catalogue)
        gathered = step.further()
        gathered.sends.extend(send_of(instance, sent, self._inbox_limits) for sent in extras.sent)
        gathered.refused.extend(extras.refused)
        if extras.set_aside:
            gathered.set_aside.extend(extras.set_aside)
            if self._recorder.recording:
                step.records.append(AsideRecord(instance.identity, len(extras.set_aside)))
        if extras.answers:
            answers = [replace(answer, at=step.now) for answer in extras.answers]
            gathered.answers.extend(answers)
            step.outbox.append(RequestsAnswered(instance.instance_id, tuple(answers)))
        gathered.custom_status = extras.custom_status or gathered.custom_status
        gathered.labels.update(extras.labels)
        number = instance.current.number
        gathered.published.extend(
            Published(stream, payload, step.now, number) for stream, payload in extras.published
        )
        if extras.logs:
            step.outbox.append(
                WriteLogs(instance.identity, extras.logs, instance.current.traceparent)
            )
        for stopping in extras.stopping:
            instance.attempts.stop(stopping)
            step.outbox.append(StopActivity(instance.key(stopping)))
        if extras.patches:
            patches = (*instance.current.patches, *extras.patches)
            instance.current = replace(instance.current, patches=patches)

    def _start_children(
        self, instance: OwnedInstance, step: Step, extras: TurnExtras, catalogue: Catalogue
    ) -> None:
        links = [child_link(instance, event) for event in extras.started]
        starts = [
            child_start(instance, link, event, catalogue, self._node_id, step.now, self._shape)
            for link, event in zip(links, extras.started, strict=True)
        ]
        gathered = step.further()
        gathered.starts.extend(starts)
        gathered.unresolved.update(
            (link, event)
            for link, event, start in zip(links, extras.started, starts, strict=True)
            if start.start is None
        )
        gathered.cancels.extend(child_cancel(instance, event) for event in extras.recalled)

    @staticmethod
    def _complete_activities(instance: OwnedInstance, step: Step, completed: Iterable[int]) -> None:
        """Forget activities that have ended or were cancelled."""
        for number in completed:
            activity = instance.attempts.complete(number)
            if activity is not None and (activity.running or activity.route is not None):
                step.outbox.append(AbortActivity(instance.key(number)))
            if activity is not None and activity.stored:
                step.completed.append(number)

    # --- after the turns ---

    def _hold_when_due(self, instance: OwnedInstance, step: Step) -> None:
        """Hold an instance as an operator does, if its boundary is due and says so."""
        is_open = step.status is Status.OPEN and instance.opened and not instance.to_read
        if is_open and step.hold is None and not step.unservable:
            held = due_hold(instance, self._boundaries.get(instance.kind.name), step.now)
            step.due = held or step.due
            if held is not None and self._recorder.recording:
                hold = Hold(HoldKind.OPERATOR, held.reason, held.since, held.by)
                step.records.append(hold_record(instance, hold))

    def _begin_activities(self, instance: OwnedInstance, step: Step, level: int) -> None:
        """Begin the attempts that are due, here once the write stands, or on another node."""
        if instance.releasing or step.hold is not None or step.unservable or step.pauses:
            return
        attempts = instance.attempts
        if attempts.narrowed:
            for activity in list(attempts.narrowed_due(step.now)):
                if activity.route is not None and not self._placement.is_served(activity.route):
                    attempts.call_back(activity.event.id)
        free: FreePlaces | None = None
        for activity in attempts.begin_due(step.now):
            event = activity.event
            route = route_of(event, instance.kind.queue, instance.kind.format)
            if event.queue is not None and self._placement.has_lost(route, event.at):
                instance.inputs.append(attempts.lose_session(event.id, step.now))
                continue
            if event.name == ENTER and level < SESSION_LEVEL:
                attempts.put_off(event.id, step.now + _LOOK_FOR_LEVEL)
                continue
            reader = self._placement.reader(route, activity.unread) if activity.unread else route
            free = free or step.free.copy()
            if reader is None:
                died = attempts.wait_for_reader(event.id, step.now)
                if died is not None:
                    instance.inputs.append(died)
            elif reader != route:
                attempts.narrow(event.id, reader, step.now)
            elif self._placement.hands_out(route, free):
                attempts.hand_out(event.id, route)
            else:
                free.take(event.name)
                step.outbox.append(run_activity(instance, activity))

    def _park(self, instance: OwnedInstance, step: Step) -> None:
        """Decide whether this node retains the instance, and when to step it again."""
        if step.hold is not None or step.status is not Status.OPEN:
            step.retain, step.wake_at = False, None
        elif instance.is_delayed(step.now):
            step.retain, step.wake_at = False, instance.not_before
        elif step.unservable or not instance.opened:
            step.retain, step.wake_at = not (step.unservable or instance.releasing), 0
            if step.waits_for_level:
                step.wake_at = step.now + _UNTIL_LEVEL
            elif step.retain and step.crowded:
                # Not 0, for others have waited longer.
                step.retain, step.wake_at = False, step.now
        elif instance.to_read:
            # It goes on once they are read. Ends that it has not taken stay in memory.
            step.retain, step.wake_at = True, 0
        else:
            self._wait(instance, step)
        if step.hold is not None or step.needs_newer_library or step.waits_for_level:
            # What runs goes on, and its end is kept for the next turn (rule 39).
            self._hand_over(instance)
        if not step.retain and instance.has_activities:
            step.outbox.extend(AbortActivity(key) for key in instance.running_keys())

    def _wait(self, instance: OwnedInstance, step: Step) -> None:
        """Retain an instance that waits, if an activity runs for it or the wait is short."""
        assert instance.execution is not None
        attempts = instance.attempts
        timer, due = instance.execution.time.next_due, attempts.next_due
        step.wake_at = due if timer is None else timer if due is None else min(timer, due)
        if instance.boundary_due is not None:
            acts = acts_at(instance, self._boundaries.get(instance.kind.name))
            if acts is not None and not step.pauses:
                step.wake_at = acts if step.wake_at is None else min(step.wake_at, acts)
        if instance.inputs:
            step.wake_at = step.now  # an activity has died since the turn
        waits_long = step.wake_at is None or step.wake_at - step.now > self._keep_owned
        step.retain = not (instance.releasing or step.pauses) and (
            attempts.any_running or not waits_long
        )
        if step.retain and step.crowded and (instance.yielding or attempts.few_running):
            step.retain = False
            self._hand_over(instance)
        if not step.retain and attempts.any_unfinished:
            step.wake_at = 0  # what ran here must begin again elsewhere

    def _hand_over(self, instance: OwnedInstance) -> None:
        instance.attempts.hand_over(instance.kind.queue, self._node_id, instance.kind.format)

    @staticmethod
    def _is_idle(instance: OwnedInstance, step: Step) -> bool:
        return step.retain and not (
            step.deltas
            or step.completed
            or step.consumed
            or (step.extras is not None and step.extras.answers)
            or step.due is not None
            or instance.attempts.any_changed
        )


def _other_code_may_read(instance: OwnedInstance, catalogue: Catalogue) -> bool:
    """Return whether a message that does not decode holds its instance, so that other code gets it.

    A living node may have other code of this version, which has not tried yet. Once all code of the
    version has tried, the message is set aside. It is not while a library that knows nothing of
    that may work on the store.
    """
    assert instance.execution is not None
    if catalogue.levels.write < SET_ASIDE_LEVEL:
        return True
    tried = {instance.execution.fingerprint}
    if instance.hold is not None:
        tried.update(instance.hold.tried)
    return has_untried_code(catalogue, instance.kind, instance.current.version, tried)


def _first_of(instance: OwnedInstance) -> int:
    """Return the execution in which a step begins, for what retention deletes.

    A start or a rewind deletes nothing, and several may follow each other before a node comes. So
    the first step of an execution that it has begun looks at all laps.
    """
    current = instance.current
    begun = not instance.opened and current.request_id is not None
    return 1 if begun else current.number
