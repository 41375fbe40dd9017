"""One step of one instance: from what has arrived to the one write that records it.

Opening, turns, boundaries, retries, parking and holding all end in a single
:class:`~orchestra.store.changes.Write`. The desk is changed as if the write were granted already;
should it be refused, the desk is thrown away.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from orchestra.activities import Activity
from orchestra.clock import micros
from orchestra.codec import Packed, Payload, UserText
from orchestra.context import Limits
from orchestra.engine.attempts import PendingActivity, early_row, kept_end
from orchestra.engine.children import child_cancel, child_link, child_start
from orchestra.engine.messages import (
    AbortActivity,
    ActivityKey,
    InstanceEnded,
    RunActivity,
    StopActivity,
    ToShell,
    WriteLogs,
)
from orchestra.engine.observing import UNOBSERVED, Observed, hold_record, turn_record
from orchestra.engine.owned import OwnedInstance
from orchestra.engine.places import Places
from orchestra.engine.tasks import STOPPED, Placement, failure_to_bytes, how_it_ended
from orchestra.error_info import storable
from orchestra.errors import (
    DecodeError,
    ErrorInfo,
    HistoryCorrupt,
    NewerLibraryNeeded,
    NondeterminismError,
)
from orchestra.events import (
    FORMAT,
    ChildStarted,
    ContinuedAsNew,
    DetachedStarted,
    EventRecord,
    EventWriter,
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionTerminated,
    TerminalEvent,
    error_to_bytes,
    to_record,
)
from orchestra.fingerprint import limited_fingerprint
from orchestra.levels import BASE_LEVEL, Unknown
from orchestra.registry import OrchestrationRegistry
from orchestra.replay import Drift, Execution, Identity, Input, Turn, TurnHeld
from orchestra.resolution import (
    boundary_version,
    has_readable_policy,
    opening_version,
    policy_of,
    resolution_level,
)
from orchestra.retention import Retention
from orchestra.store.catalogue import Catalogue
from orchestra.store.changes import ChildCancel, ChildStart, Stop, Write
from orchestra.store.executions import (
    PRUNED_AT_ONCE,
    Closing,
    ExecutionDelta,
    ExecutionRow,
    Opening,
    Prune,
    Resolution,
)
from orchestra.store.instances import Hold, InstanceState, ParentLink
from orchestra.store.kinds import THIS_LIBRARY, ExecutionEnd, HoldKind, Library, ResolvedBy, Status
from orchestra.store.routes import Route, kind_of
from orchestra.store.tasks import ActivityRow, Task
from orchestra.summary import EMPTY_SUMMARY, write_summary
from orchestra.telemetry import EndRecord, Moment, Record, Recorder

__all__ = ["HANDED_OVER", "Step", "Stepper", "describe_error"]

_LAPS_PER_WRITE: Final = 8
"""Laps without a wait that one write may hold, so that a loop that never waits lets others in."""

_LOOKS_FOR_OLD: Final = 8
"""How often laps are looked through for old ones while the time for which they are kept passes."""

_MOST_OVER: Final = PRUNED_AT_ONCE // 2
"""After how many laps at the latest the oldest are let go of: fewer than go at once, so that a
backlog shrinks.
"""

HANDED_OVER: Final = 32
"""How many activities may run for an instance that readily gives up its place: each costs a row,
and a claim at its end.
"""

_WITHDRAWN: Final = failure_to_bytes(STOPPED)
"""How a try ends that is cancelled, and was handed out, and that no node has taken."""

_DETAIL: Final = 4_000
"""Characters of an error that a hold keeps."""

_ENDS: Final = {
    ExecutionEnd.COMPLETED: Status.COMPLETED,
    ExecutionEnd.FAILED: Status.FAILED,
    ExecutionEnd.CANCELLED: Status.CANCELLED,
    ExecutionEnd.TERMINATED: Status.TERMINATED,
}


class _Unservable(Exception):
    """This node cannot run the execution that is next."""


class _HalfMade(Exception):
    """A turn was made and could not be recorded. What the step has gathered does not stand by
    itself.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class Step:
    """What one step has gathered.

    Args:
        first: the execution that it began in.
        free: how many more activities the node can run.
        crowded: whether others are due, and this node has no place for them.
    """

    __slots__ = (
        "beyond",
        "cancels",
        "consumed",
        "crowded",
        "custom_status",
        "deltas",
        "drifts",
        "failure",
        "first",
        "free",
        "handed_over",
        "hold",
        "keep",
        "now",
        "outbox",
        "records",
        "settled",
        "starts",
        "status",
        "unknown",
        "unservable",
        "wake_at",
    )

    # Written out: each step makes one, and factories of a dataclass would be nine calls more.
    def __init__(self, now: int, first: int, free: Places, *, crowded: bool = False) -> None:
        self.now: int = now
        self.first: int = first
        self.free: Places = free
        self.crowded: bool = crowded
        self.deltas: list[ExecutionDelta] = []
        self.outbox: list[ToShell] = []
        self.records: list[Record] = []
        self.consumed: list[int] = []
        self.settled: list[int] = []
        self.starts: list[ChildStart] = []
        self.cancels: list[ChildCancel] = []
        self.unknown: dict[ParentLink, ChildStarted | DetachedStarted] = {}
        """Starts of names that the catalogue does not have; the engine asks the store once more."""
        self.custom_status: Payload | None = None
        self.status: Status = Status.OPEN
        self.hold: Hold | None = None
        self.drifts: Sequence[Drift] = ()
        """Where the code gives other values than history, which counts."""
        self.failure: ErrorInfo | None = None
        """Why the instance has failed, if it has."""
        self.unservable: bool = False
        self.beyond: bool = False
        """Whether the instance holds what only a newer library knows."""
        self.wake_at: int | None = None
        self.keep: bool = True
        self.handed_over: list[Task] = []
        """What goes on running on this node although the instance leaves it."""


class Stepper:
    """Makes steps. Knows the registry; owns nothing, and reads nothing."""

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
    ) -> None:
        self.node_id = node_id
        self._library = library
        self._forms = library.events
        self.format: int = min(library.formats)
        """The event format of new executions: the highest one that all living nodes read (rule
        38).
        """
        self._placement = placement
        self._registry = registry
        self._limits = limits
        self._keep_owned = keep_owned
        self._recorder = recorder
        self._retention = retention
        self._registered = registered

    def advance(
        self,
        instance: OwnedInstance,
        now: int,
        catalogue: Catalogue,
        history: Sequence[EventRecord] = (),
        *,
        free: Places,
        crowded: bool = False,
    ) -> tuple[Write | None, Step]:
        """Run the instance until it waits. Return the write, or ``None`` where nothing has to be
        stored.

        Faults of the instance's code and state never come out of here: they hold it (I12). After
        any other exception the desk is of no further use.

        Args:
            history: the events of the current execution, where :attr:`Desk.needs_history`.
            free: how many more activities this node can run.
            crowded: others are due and find no place here, so that an instance which only waits
                gives up its own.
        """
        step = Step(now, instance.current.number, free, crowded=crowded)
        try:
            if instance.beyond is not None:
                raise NewerLibraryNeeded(str(instance.beyond), instance_id=instance.instance_id)
            if instance.poison is not None:
                instance.trying = self._fingerprint(instance, catalogue)
                step.hold = self._held(instance, now, *instance.poison)
            else:
                self._run(instance, step, catalogue, history)
        except _HalfMade as broken:
            raise broken.error from None
        except _Unservable:
            step.unservable = True
        except NewerLibraryNeeded:
            # Routed from now on to nodes that read more, so that no node like this one is ever
            # given it again (rule 37).
            step.unservable = step.beyond = True
            instance.kind = instance.kind._replace(
                level=max(instance.kind.level, self._library.level + 1)
            )
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one instance must not touch the others
            step.hold = self._hold(instance, now, error)
        if step.hold is not None and self._recorder.recording:
            step.records.append(hold_record(instance, step.hold))
        self._begin_activities(instance, step)
        self._park(instance, step)
        if self._is_idle(instance, step):
            return None, step
        return self._write(instance, step), step

    # --- running ---

    def _run(
        self,
        instance: OwnedInstance,
        step: Step,
        catalogue: Catalogue,
        history: Sequence[EventRecord],
    ) -> None:
        if instance.cancel is not None and instance.cancel.terminate:
            self._terminate(instance, step, catalogue)
            return
        created: ExecutionRow | None = None
        for _ in range(_LAPS_PER_WRITE):
            if instance.cancel is not None and not instance.opened:
                break
            before = instance.current, instance.kind, instance.opened, instance.hold
            try:
                ending = self._lap(instance, step, created, catalogue, history)
            except Exception:
                # What this lap did is not stored; what the laps before it did is.
                instance.current, instance.kind, instance.opened, instance.hold = before
                if created is not None:
                    step.deltas.append(ExecutionDelta(created.number, create=created))
                raise
            if not isinstance(ending, ContinuedAsNew):
                return
            try:
                created = self._cross_boundary(instance, step, ending, catalogue)
            except Exception as error:
                raise _HalfMade(error) from error
            if instance.takeovers or instance.releasing:
                break  # a crash loop in the next execution must be charged to it alone
        if instance.cancel is not None:
            self._cancel_unopened(instance, step, created)
        elif created is not None:
            step.deltas.append(ExecutionDelta(created.number, create=created))

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
            opened = self._open(instance, step.now, catalogue)
            if observed.begun is not None:
                observed = self._begin_trace(instance, observed.begun)
            if created is not None:
                created, opened = instance.current, None  # the row is inserted as it is once opened
        elif instance.execution is None:
            step.outbox.extend(map(AbortActivity, self._load(instance, step, history, catalogue)))
            step.outbox.extend(
                StopActivity(instance.key(number)) for number in instance.attempts.stopping
            )
            observed = self._observe()  # what was done before is no part of this turn
        return self._turn(instance, step, created, opened, catalogue, observed)

    def _observe(self) -> Observed:
        begun = self._recorder.moment()
        return UNOBSERVED if begun is None else Observed(begun)

    def _begin_trace(self, instance: OwnedInstance, begun: Moment) -> Observed:
        """Give an execution that was opened its trace. Where none is made, it goes on in the one
        before.
        """
        previous = instance.current.traceparent
        version = instance.current.state_version if instance.current.number > 1 else None
        root = self._recorder.open_execution(instance.identity, begun, previous, instance.origin)
        if root is not None:
            instance.current = replace(instance.current, traceparent=root.traceparent)
        return Observed(begun, opened=True, root=root, previous_version=version)

    def _open(self, instance: OwnedInstance, now: int, catalogue: Catalogue) -> Opening:
        """Begin an execution: choose the version finally, decode the state, run the code to its
        first wait.
        """
        resolution = instance.current.resolution
        if instance.kind.floating and not has_readable_policy(catalogue, instance.kind.name):
            raise _Unservable  # a node that can read it chooses the version (rule 37)
        # Who chose the version may know a later policy than this node's catalogue, which is up to a
        # poll old.
        is_stale = policy_of(catalogue, instance.kind.name)[1] < resolution.policy_revision
        version = instance.kind.version if is_stale else opening_version(catalogue, instance.kind)
        definition = self._registry.find(instance.kind.name, version)
        if definition is None:
            raise _Unservable
        instance.trying = definition.fingerprint
        if version != instance.current.version:
            # Resolved again while it waited, upwards only; by whom is recorded (rule 16).
            resolution = Resolution(ResolvedBy.POLICY, self.node_id, resolution.policy_revision)
        identity = Identity(
            instance.instance_id,
            instance.incarnation,
            instance.current.number,
            instance.kind.name,
            version,
        )
        writer = self._forms.writer(self.format, catalogue.levels.write)
        execution = Execution(
            definition, identity, self._limits, self._registered, self._forms, writer
        )
        try:
            execution.start(instance.current.state, now)
        except BaseException:
            execution.evict()
            raise
        instance.execution = execution
        instance.opened = True
        instance.hold = None
        event_format = self.format
        instance.kind = kind_of(
            instance.kind.queue,
            instance.kind.name,
            version,
            event_format,
            level=instance.kind.level,
        )
        instance.current = instance.current.opened(
            version, resolution, event_format, definition.fingerprint, now
        )
        return Opening(now, version, definition.fingerprint, event_format, resolution)

    def _writer(self, instance: OwnedInstance, catalogue: Catalogue) -> EventWriter:
        """Return what writes the open execution of an instance: in its own format, whatever new
        ones are written in.
        """
        event_format = instance.current.format or instance.kind.format
        if event_format not in self._forms.formats:
            raise NewerLibraryNeeded(
                f"event format {event_format}", instance_id=instance.instance_id
            )
        return self._forms.writer(event_format, catalogue.levels.write)

    def _load(
        self,
        instance: OwnedInstance,
        step: Step,
        history: Sequence[EventRecord],
        catalogue: Catalogue,
    ) -> list[ActivityKey]:
        """Bring a cold execution to where it stood, and its activities with it. Return running ones
        that it does not want.
        """
        definition = self._registry.find(instance.kind.name, instance.current.version)
        if definition is None:
            raise _Unservable
        instance.trying = definition.fingerprint
        execution = Execution(
            definition,
            instance.identity,
            self._limits,
            self._registered,
            self._forms,
            self._writer(instance, catalogue),
        )
        try:
            execution.replay(history)
        except BaseException:
            execution.evict()
            raise
        if execution.ending is not None:
            # It was ended between the claim and this reading, and the fence refuses the hold; or
            # the store is damaged.
            execution.evict()
            raise HistoryCorrupt(
                f"history of {instance.instance_id!r}, execution {instance.current.number}, has "
                "ended, and its row has not"
            )
        for by, since in instance.put_backs:
            execution.put_back(by, since)
        instance.execution = execution
        step.drifts = execution.drifts
        return self.restore_activities(instance, step.now)

    @staticmethod
    def restore_activities(instance: OwnedInstance, now: int) -> list[ActivityKey]:
        """Take up the pending activities of a claimed instance; crashes of earlier owners count as
        attempts (rule 14).

        Return the activities that run here still and are not wanted any more: cancelled, or in
        another attempt by now.
        """
        assert instance.execution is not None
        still_running, instance.still_running = instance.still_running, {}
        kept: list[tuple[int, int, Input]] = []
        ending = instance.execution.ending_activities
        for number, event in instance.execution.activities.items():
            row = instance.remembered.get(number)
            activity = PendingActivity.remembered(event, row)
            activity.stopping = number in ending
            if row is not None and row.has_ended:
                activity.running, activity.counted = (
                    True,
                    instance.takeovers,
                )  # as if it had run here: it did not die with any node
                instance.attempts.add(activity)
                end = kept_end(row)
                if end is None:
                    instance.end_attempt(number, how_it_ended(row), row.heartbeat, now)
                else:
                    instance.attempts.end(number)
                    kept.append(end)
                continue
            if activity.route is None and still_running.get(number) == activity.attempt:
                del still_running[number]
                activity.running = True
            instance.attempts.add(activity)
            if activity.stopping and not activity.running and activity.route is None:
                instance.inputs.append(
                    instance.attempts.lose(number, now)
                )  # it has ended with its node
                continue
            if instance.takeovers and not activity.running:
                died = instance.attempts.crash(number, instance.takeovers, now)
                if died is not None:
                    instance.inputs.append(died)
        # They came first: a turn that ended in a hold had taken them in already, in this order
        # (rule 39).
        instance.inputs[:0] = [end for _, _, end in sorted(kept, key=lambda end: end[:2])]
        early, instance.early = instance.early, []
        for message in early:
            activity = instance.attempts.get(message.key.event_id)
            if activity is not None and activity.running and activity.attempt == message.attempt:
                instance.end_attempt(message.key.event_id, message.result, message.heartbeat, now)
        instance.attempts.catch_up(now)
        return [instance.key(number) for number in still_running]

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
        cancel = None if instance.cancel is None else instance.cancel.reason
        turn = instance.execution.turn(
            step.now,
            instance.inputs,
            instance.inbox,
            cancel=cancel,
            has_begun=instance.attempts.has_begun,
        )
        # Not before: a turn that ends in a hold has taken in none of them (rule 39).
        instance.wants, instance.inputs = turn.wants, list(turn.left)
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
        """Gather what a turn that stands has decided."""
        assert instance.execution is not None
        if (
            turn.events
            and self._recorder.recording
            and (ended := self._recorder.moment()) is not None
        ):
            step.records.append(turn_record(instance, turn, observed, ended, step.now))
        if turn.started or turn.recalled:
            self._start_children(instance, step, turn, catalogue)
        step.consumed.extend(turn.consumed)
        step.custom_status = turn.custom_status or step.custom_status
        if turn.logs:
            step.outbox.append(
                WriteLogs(instance.identity, turn.logs, instance.current.traceparent)
            )
        for event in turn.scheduled:
            instance.attempts.add(PendingActivity(event, started_at=step.now))
        for number in turn.asked:
            instance.attempts.stop(number)
            step.outbox.append(StopActivity(instance.key(number)))
        if turn.settled:
            self._settle_activities(instance, step, turn.settled)
        ending, journal = turn.ending, instance.execution.journal
        instance.history_events, instance.history_bytes = journal.count, journal.size
        if created is not None or opened is not None or turn.events:
            step.deltas.append(
                ExecutionDelta(
                    instance.current.number,
                    create=created,
                    opened=opened,
                    events=turn.events,
                    closed=None if ending is None else _closed(ending, step.now),
                    event_count=instance.history_events,
                    byte_count=instance.history_bytes,
                    traceparent=None if opened is None else instance.current.traceparent,
                    children=ending is not None and instance.execution.has_children,
                )
            )
        if ending is not None:
            self._end_execution(instance, step, turn)
        return ending

    def _start_children(
        self, instance: OwnedInstance, step: Step, turn: Turn, catalogue: Catalogue
    ) -> None:
        links = [child_link(instance, event) for event in turn.started]
        starts = [
            child_start(
                instance, link, event, catalogue, self.node_id, step.now, self._registry.shape
            )
            for link, event in zip(links, turn.started, strict=True)
        ]
        step.starts.extend(starts)
        step.unknown.update(
            (link, event)
            for link, event, start in zip(links, turn.started, starts, strict=True)
            if start.start is None
        )
        step.cancels.extend(child_cancel(instance, event) for event in turn.recalled)

    def _end_execution(self, instance: OwnedInstance, step: Step, turn: Turn) -> None:
        if instance.has_activities:
            step.outbox.extend(AbortActivity(key) for key in instance.begun_keys())
            instance.attempts.clear()
            instance.remembered.clear()
        instance.inputs.clear()
        step.settled.clear()  # closing the execution forgets its activities
        if not isinstance(turn.ending, ContinuedAsNew):
            assert turn.ending is not None
            step.status = _ENDS[_end_kind(turn.ending)]
            if isinstance(turn.ending, ExecutionFailed):
                step.failure = turn.ending.error

    def _cross_boundary(
        self, instance: OwnedInstance, step: Step, ending: ContinuedAsNew, catalogue: Catalogue
    ) -> ExecutionRow:
        """Make the next execution, unopened (rule 16)."""
        version, resolution = boundary_version(
            catalogue,
            instance.kind,
            instance.current.version,
            explicit=ending.version,
            pin=instance.pin,
            node=self.node_id,
        )
        instance.current = ExecutionRow(
            number=instance.current.number + 1,
            name=instance.kind.name,
            version=version,
            resolution=resolution,
            state=ending.state,
            state_version=instance.current.version,
            state_shape=self._registry.shape(instance.kind.name, instance.current.version),
            created_at=step.now,
            traceparent=instance.current.traceparent,
        )
        assert not isinstance(resolution.how, Unknown)
        # What was written at a higher level ends with its execution, unless it waits in the inbox.
        unread = (
            instance.kind.level
            if len(instance.inbox) or not instance.inbox.is_whole
            else BASE_LEVEL
        )
        level = max(unread, resolution_level(catalogue, resolution.how))
        floating = resolution.how is ResolvedBy.POLICY
        instance.kind = kind_of(
            instance.kind.queue, instance.kind.name, version, FORMAT, floating, level
        )
        instance.opened = False
        instance.execution = None
        instance.put_backs = ()
        instance.history_events = instance.history_bytes = 0
        instance.inbox.drop_reports()
        return instance.current

    def _terminate(self, instance: OwnedInstance, step: Step, catalogue: Catalogue) -> None:
        """End an instance that is marked for it, without running code (rule 18)."""
        assert instance.cancel is not None
        reason, now = instance.cancel.reason, step.now
        has_children = instance.opened
        if instance.execution is not None:
            now, has_children = max(now, instance.execution.now), instance.execution.has_children
            instance.execution.evict()
            instance.execution = None
        events: tuple[EventRecord, ...] = ()
        if instance.opened:
            terminated = ExecutionTerminated(instance.history_events + 1, now, reason)
            events = (to_record(terminated, self._writer(instance, catalogue)),)
            instance.history_events += 1
            instance.history_bytes += events[0].size
        step.outbox.extend(AbortActivity(key) for key in instance.begun_keys())
        instance.attempts.clear()
        instance.still_running.clear()
        instance.inputs.clear()
        error = error_to_bytes(ErrorInfo("orchestra.Terminated", reason))
        closed = Closing(now, ExecutionEnd.TERMINATED, None, error)
        step.deltas.append(
            ExecutionDelta(
                instance.current.number,
                events=events,
                closed=closed,
                event_count=instance.history_events,
                byte_count=instance.history_bytes,
                children=has_children,
            )
        )
        step.status = Status.TERMINATED
        if self._recorder.recording:
            step.records.append(EndRecord(instance.identity, "terminated"))

    def _cancel_unopened(
        self, instance: OwnedInstance, step: Step, created: ExecutionRow | None
    ) -> None:
        """End an execution that is cancelled before its first turn, without running code (rule
        18).
        """
        assert instance.cancel is not None
        error = error_to_bytes(ErrorInfo("orchestra.Cancelled", instance.cancel.reason))
        closed = Closing(step.now, ExecutionEnd.CANCELLED, None, error)
        step.deltas.append(ExecutionDelta(instance.current.number, create=created, closed=closed))
        step.status = Status.CANCELLED
        if self._recorder.recording:
            step.records.append(EndRecord(instance.identity, "cancelled"))

    # --- after running ---

    @staticmethod
    def _settle_activities(instance: OwnedInstance, step: Step, settled: Iterable[int]) -> None:
        """Forget activities that have ended or were cancelled."""
        for number in settled:
            activity = instance.attempts.settle(number)
            if activity is not None and (activity.running or activity.route is not None):
                step.outbox.append(AbortActivity(instance.key(number)))
            if activity is not None and activity.stored:
                step.settled.append(number)

    def _begin_activities(self, instance: OwnedInstance, step: Step) -> None:
        """Begin the tries that may begin, here once the write stands, or on another node."""
        if instance.releasing or step.hold is not None or step.unservable:
            return
        for activity in (
            list(instance.attempts.narrowed_due(step.now)) if instance.attempts._narrowed else ()
        ):
            if activity.route is not None and not self._placement.is_served(activity.route):
                instance.attempts.call_back(activity.event.id)
        for activity in instance.attempts.begin_due(step.now):
            event = activity.event
            route = Route(event.queue or instance.kind.queue, event.name).of_format(
                instance.kind.format
            )
            reader = self._placement.reader(route, activity.unread) if activity.unread else route
            if reader is None:
                died = instance.attempts.wait_for_reader(event.id, step.now)
                if died is not None:
                    instance.inputs.append(died)
            elif reader != route:
                instance.attempts.narrow(event.id, reader, step.now)
            elif self._placement.hands_out(route, step.free):
                instance.attempts.hand_out(event.id, route)
            else:
                step.free.take(event.name)
                step.outbox.append(_run_activity(instance, activity))

    def _park(self, instance: OwnedInstance, step: Step) -> None:
        """Decide whether the instance stays on the desk, and when it is to be looked at again."""
        if step.hold is not None or step.status is not Status.OPEN:
            step.keep, step.wake_at = False, None
        elif step.unservable or not instance.opened:
            step.keep, step.wake_at = not (step.unservable or instance.releasing), 0
            if step.keep and step.crowded:
                step.keep, step.wake_at = (
                    False,
                    step.now,
                )  # and not 0: others have waited for longer
        elif instance.wants:
            step.keep, step.wake_at = (
                True,
                0,
            )  # it goes on once they are read; what has ended and is not taken yet stays here
        else:
            assert instance.execution is not None
            timer, due = instance.execution.next_timer, instance.attempts.next_due
            step.wake_at = due if timer is None else timer if due is None else min(timer, due)
            if instance.inputs:
                step.wake_at = step.now  # an activity has died since the turn
            waits_long = step.wake_at is None or step.wake_at - step.now > self._keep_owned
            step.keep = not instance.releasing and (instance.attempts.any_running or not waits_long)
            if (
                step.keep
                and step.crowded
                and (instance.yielding or instance.attempts.running_count <= HANDED_OVER)
            ):
                step.keep = False
                instance.attempts.hand_over(instance.kind.queue, self.node_id, instance.kind.format)
            if not step.keep and instance.attempts.any_unfinished:
                step.wake_at = 0  # what ran here must begin again elsewhere
        if step.hold is not None or step.beyond:
            # What runs runs on, and what it comes to is kept for the next turn (rule 39).
            instance.attempts.hand_over(instance.kind.queue, self.node_id, instance.kind.format)
        if not step.keep and instance.has_activities:
            step.outbox.extend(AbortActivity(key) for key in instance.running_keys())

    @staticmethod
    def _is_idle(instance: OwnedInstance, step: Step) -> bool:
        return step.keep and not (
            step.deltas or step.settled or step.consumed or instance.attempts.any_changed
        )

    def _hold(self, instance: OwnedInstance, now: int, error: Exception) -> Hold:
        match error:
            case TurnHeld():
                return replace(
                    self._held(instance, now, error.kind, stored_detail(error.detail)),
                    error=error_to_bytes(error.error),
                )
            case NondeterminismError():
                kind = HoldKind.NONDETERMINISM
            case HistoryCorrupt():
                kind = HoldKind.HISTORY
            case DecodeError():
                kind = HoldKind.STATE
            case _:
                kind = HoldKind.INTERNAL
        return self._held(instance, now, kind, describe_error(error))

    def _fingerprint(self, instance: OwnedInstance, catalogue: Catalogue) -> str | None:
        """Return the fingerprint of the code that would run now."""
        if instance.opened:
            return instance.current.fingerprint
        try:
            definition = self._registry.find(
                instance.kind.name, opening_version(catalogue, instance.kind)
            )
        except Exception:  # noqa: BLE001 - it is for this fault that the instance is held
            return None
        return None if definition is None else definition.fingerprint

    def _held(self, instance: OwnedInstance, now: int, kind: HoldKind, detail: str) -> Hold:
        """Return a hold that names the code that was tried. Whatever ran of the execution is
        dropped.
        """
        if instance.execution is not None:
            instance.execution.evict()
            instance.execution = None
        tried, at_fault = (
            (set[str](), set[str]())
            if instance.hold is None
            else (set(instance.hold.tried), set(instance.hold.at_fault))
        )
        trying = set(filter(None, [instance.trying]))
        if kind is HoldKind.LIMIT:
            limits = self._limits.max_events, self._limits.max_bytes
            trying = {limited_fingerprint(code, *limits) for code in trying}
        if kind.blames_code:
            # Code that the store or the engine has failed may be the very fix. It is tried once
            # more for each that is to blame; those stay tried, so that no two kinds of holds
            # release one another for ever.
            tried = at_fault = at_fault | trying
        else:
            tried |= trying
        return Hold(
            kind, UserText(detail), now, self.node_id, tuple(sorted(tried)), tuple(sorted(at_fault))
        )

    @staticmethod
    def _is_parked(instance: OwnedInstance, step: Step) -> bool:
        """Return whether the instance is let go in order, to wait: this node has survived it."""
        return not (step.keep or step.unservable or instance.releasing) and step.hold is None

    # --- the write ---

    def _write(self, instance: OwnedInstance, step: Step) -> Write:
        if step.deltas or self._is_parked(instance, step):
            # Whatever crashed before has been overcome (rule 14).
            instance.takeovers = 0
            instance.attempts.forget_crashes()
        changed = instance.attempts.take_changed()
        rows: dict[int, ActivityRow] = {}
        if changed:
            step.handed_over.extend(
                _task(instance, activity) for activity in changed if activity.owner is not None
            )
            if step.status is Status.OPEN:
                rows = {
                    activity.event.id: activity.row(instance.current.number) for activity in changed
                }
        if step.hold is not None or step.beyond:
            rows |= self._kept_rows(instance, step)
        summary = EMPTY_SUMMARY
        if step.beyond and not step.deltas:
            summary = instance.summary  # nothing of it has changed
        if instance.execution is not None and instance.execution.level > instance.kind.level:
            instance.kind = instance.kind._replace(level=instance.execution.level)
        if instance.execution is not None and step.status is Status.OPEN:
            summary = write_summary(
                instance.execution.pending,
                instance.execution.pending_counts,
                instance.attempts.shown,
                instance.execution.put_backs,
            )
        state = InstanceState(
            kind=instance.kind,
            owner=self.node_id if step.keep else None,
            wake_at=step.wake_at,
            seen_seq=instance.known_seq,
            execution=instance.current.number,
            opened=instance.opened,
            takeovers=instance.takeovers,
            status=step.status,
            history_events=instance.history_events,
            history_bytes=instance.history_bytes,
            summary=summary,
        )
        unmarked = instance.attempts.take_unmarked()
        write = Write(
            instance_id=instance.instance_id,
            incarnation=instance.incarnation,
            revision=instance.revision,
            owner=self.node_id,
            state=state,
            executions=tuple(step.deltas),
            consumed=tuple(step.consumed),
            activities=tuple(rows.values()),
            settled=tuple(step.settled),
            custom_status=step.custom_status,
            hold=step.hold,
            prune=None if instance.current.number == step.first else self._prune(instance, step),
            starts=tuple(step.starts),
            cancels=tuple(step.cancels),
            has_parent=instance.parent is not None,
            stops=tuple([Stop(number, _WITHDRAWN) for number in unmarked]) if unmarked else (),
        )
        instance.revision += 1
        instance.seen_seq = instance.known_seq
        if step.status is not Status.OPEN and (closed := step.deltas[-1].closed) is not None:
            step.outbox.append(
                InstanceEnded(instance.instance_id, step.status, closed.output, closed.error)
            )
        return write

    def _kept_rows(self, instance: OwnedInstance, step: Step) -> dict[int, ActivityRow]:
        """Return what a hold keeps of activities: those that its turn knew to have ended never run
        again (rule 39).
        """
        number = instance.current.number
        rows: dict[int, ActivityRow] = {}
        for place, end in enumerate(instance.inputs):
            activity = instance.attempts.get(end.source)
            if activity is not None:
                rows[end.source] = activity.ended_row(number, end, place)
        for message in instance.early:
            remembered = instance.remembered.get(message.key.event_id)
            if remembered is None or not remembered.has_ended:
                rows[message.key.event_id] = early_row(
                    message, remembered, instance.takeovers, step.now
                )
        return rows

    def _prune(self, instance: OwnedInstance, step: Step) -> Prune | None:
        """Return what the write of a boundary lets go of."""
        number = instance.current.number
        keep = self._registry.retentions.get(instance.kind.name, self._retention)
        closed_until: int | None = None
        if keep.keep_for is not None:
            age = micros(keep.keep_for)
            if (
                step.now - instance.pruned_at >= age // _LOOKS_FOR_OLD
                or number // _MOST_OVER != step.first // _MOST_OVER
            ):
                instance.pruned_at, closed_until = step.now, step.now - age
        histories = _beyond(keep.histories, step.first - 1, number - 1)
        executions = _beyond(keep.executions, step.first - 1, number - 1)
        if not (histories or executions or closed_until is not None):
            return None
        return Prune(histories, executions, closed_until)


def _beyond(kept: int | None, before: int, closed: int) -> int:
    """Return up to which lap those go that are more than are kept, as the closed ones grow from
    ``before`` to ``closed``.

    Several go at a time: there is one deletion in as many laps as are kept, or in 500.
    """
    if kept is None:
        return 0
    part = min(kept, _MOST_OVER)
    if closed // part == before // part:
        return 0
    return max(0, closed // part * part - kept)


def describe_error(error: Exception) -> str:
    """Return an error as a hold tells of it."""
    return stored_detail(f"{type(error).__name__}: {error}")


def stored_detail(text: str) -> str:
    """Return a text as a hold keeps it."""
    return storable(text, _DETAIL)


def _run_activity(instance: OwnedInstance, activity: PendingActivity) -> RunActivity:
    return RunActivity(
        key=instance.key(activity.event.id),
        name=activity.event.name,
        arguments=activity.event.arguments,
        attempt=activity.attempt,
        timeout=activity.event.timeout,
        heartbeat_timeout=activity.event.heartbeat_timeout,
        last_heartbeat=activity.heartbeat,
        orchestration=instance.kind.name,
        version=instance.current.version,
        traceparent=instance.current.traceparent,
    )


def _task(instance: OwnedInstance, activity: PendingActivity) -> Task:
    """Return a try that was handed over as the node that runs it knows it from now on."""
    return Task(
        *instance.key(activity.event.id),
        revision=activity.revision,
        attempt=activity.attempt,
        orchestration=instance.kind.name,
        version=instance.current.version,
        scheduled=to_record(activity.event),
        heartbeat=activity.heartbeat,
        traceparent=instance.current.traceparent,
        stopping=activity.marked,
    )


def _end_kind(ending: TerminalEvent) -> ExecutionEnd:
    match ending:
        case ExecutionCompleted():
            return ExecutionEnd.COMPLETED
        case ExecutionFailed():
            return ExecutionEnd.FAILED
        case ExecutionCancelled():
            return ExecutionEnd.CANCELLED
        case ContinuedAsNew():
            return ExecutionEnd.CONTINUED_AS_NEW
        case _:
            return ExecutionEnd.TERMINATED


def _closed(ending: TerminalEvent, now: int) -> Closing:
    output = ending.output if isinstance(ending, ExecutionCompleted) else None
    error: Packed | None = None
    if isinstance(ending, ExecutionFailed):
        error = error_to_bytes(ending.error)
    elif isinstance(ending, ExecutionCancelled):
        error = error_to_bytes(ErrorInfo("orchestra.Cancelled", ending.reason))
    return Closing(now, _end_kind(ending), output, error)
