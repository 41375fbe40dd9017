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
from orchestra.codec import Payload, pack
from orchestra.context import Limits
from orchestra.engine.desk import Desk
from orchestra.engine.family import child_cancel, child_link, child_start
from orchestra.engine.items import (
    AbortActivity,
    ActivityKey,
    Effect,
    InstanceEnded,
    RunActivity,
    StopActivity,
    WriteLogs,
)
from orchestra.engine.observing import UNOBSERVED, Observed, hold_record, turn_record
from orchestra.engine.places import Places
from orchestra.engine.tasks import STOPPED, Placement, failure_to_bytes, how_it_ended
from orchestra.engine.tries import Try, early_row, kept_end
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
    error_to_wire,
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
    ExecutionDelta,
    ExecutionRow,
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
        "effects",
        "failure",
        "first",
        "free",
        "handed_over",
        "hold",
        "keep",
        "now",
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
        self.effects: list[Effect] = []
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
        desk: Desk,
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
        step = Step(now, desk.current.number, free, crowded=crowded)
        try:
            if desk.beyond is not None:
                raise NewerLibraryNeeded(str(desk.beyond), instance_id=desk.instance_id)
            if desk.poison is not None:
                desk.trying = self._fingerprint(desk, catalogue)
                step.hold = self._held(desk, now, *desk.poison)
            else:
                self._run(desk, step, catalogue, history)
        except _HalfMade as broken:
            raise broken.error from None
        except _Unservable:
            step.unservable = True
        except NewerLibraryNeeded:
            # Routed from now on to nodes that read more, so that no node like this one is ever
            # given it again (rule 37).
            step.unservable = step.beyond = True
            desk.kind = desk.kind._replace(level=max(desk.kind.level, self._library.level + 1))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one instance must not touch the others
            step.hold = self._hold(desk, now, error)
        if step.hold is not None and self._recorder.recording:
            step.records.append(hold_record(desk, step.hold))
        self._begin_activities(desk, step)
        self._park(desk, step)
        if self._is_idle(desk, step):
            return None, step
        return self._write(desk, step), step

    # --- running ---

    def _run(
        self, desk: Desk, step: Step, catalogue: Catalogue, history: Sequence[EventRecord]
    ) -> None:
        if desk.cancel is not None and desk.cancel.terminate:
            self._terminate(desk, step, catalogue)
            return
        created: ExecutionRow | None = None
        for _ in range(_LAPS_PER_WRITE):
            if desk.cancel is not None and not desk.opened:
                break
            before = desk.current, desk.kind, desk.opened, desk.hold
            try:
                ending = self._lap(desk, step, created, catalogue, history)
            except Exception:
                # What this lap did is not stored; what the laps before it did is.
                desk.current, desk.kind, desk.opened, desk.hold = before
                if created is not None:
                    step.deltas.append(ExecutionDelta(created.number, create=created))
                raise
            if not isinstance(ending, ContinuedAsNew):
                return
            try:
                created = self._cross_boundary(desk, step, ending, catalogue)
            except Exception as error:
                raise _HalfMade(error) from error
            if desk.takeovers or desk.releasing:
                break  # a crash loop in the next execution must be charged to it alone
        if desk.cancel is not None:
            self._cancel_unopened(desk, step, created)
        elif created is not None:
            step.deltas.append(ExecutionDelta(created.number, create=created))

    def _lap(
        self,
        desk: Desk,
        step: Step,
        created: ExecutionRow | None,
        catalogue: Catalogue,
        history: Sequence[EventRecord],
    ) -> TerminalEvent | None:
        """Run the current execution as far as it goes now. Return its end, if it has ended."""
        opened = None
        observed = self._observe() if self._recorder.recording else UNOBSERVED
        if not desk.opened:
            opened = self._open(desk, step.now, catalogue)
            if observed.begun is not None:
                observed = self._begin_trace(desk, observed.begun)
            if created is not None:
                created, opened = desk.current, None  # the row is inserted as it is once opened
        elif desk.execution is None:
            step.effects.extend(map(AbortActivity, self._load(desk, step, history, catalogue)))
            step.effects.extend(StopActivity(desk.key(number)) for number in desk.tries.stopping)
            observed = self._observe()  # what was done before is no part of this turn
        return self._turn(desk, step, created, opened, catalogue, observed)

    def _observe(self) -> Observed:
        begun = self._recorder.moment()
        return UNOBSERVED if begun is None else Observed(begun)

    def _begin_trace(self, desk: Desk, begun: Moment) -> Observed:
        """Give an execution that was opened its trace. Where none is made, it goes on in the one
        before.
        """
        previous, version = desk.current.traceparent, desk.current.state_version
        root = self._recorder.open_execution(desk.identity, begun, previous, desk.origin)
        if root is not None:
            desk.current = replace(desk.current, traceparent=root.traceparent)
        return Observed(begun, opened=True, root=root, previous_version=version)

    def _open(
        self, desk: Desk, now: int, catalogue: Catalogue
    ) -> tuple[int, str, str, int, Resolution]:
        """Begin an execution: choose the version finally, decode the state, run the code to its
        first wait.
        """
        resolution = desk.current.resolution
        if desk.kind.floating and not has_readable_policy(catalogue, desk.kind.name):
            raise _Unservable  # a node that can read it chooses the version (rule 37)
        # Who chose the version may know a later policy than this node's catalogue, which is up to a
        # poll old.
        is_stale = policy_of(catalogue, desk.kind.name)[1] < resolution.policy_revision
        version = desk.kind.version if is_stale else opening_version(catalogue, desk.kind)
        definition = self._registry.find(desk.kind.name, version)
        if definition is None:
            raise _Unservable
        desk.trying = definition.fingerprint
        if version != desk.current.version:
            # Resolved again while it waited, upwards only; by whom is recorded (rule 16).
            resolution = Resolution(ResolvedBy.POLICY, self.node_id, resolution.policy_revision)
        identity = Identity(
            desk.instance_id, desk.incarnation, desk.current.number, desk.kind.name, version
        )
        writer = self._forms.writer(self.format, catalogue.levels.write)
        execution = Execution(
            definition, identity, self._limits, self._registered, self._forms, writer
        )
        try:
            execution.start(desk.current.state, now)
        except BaseException:
            execution.evict()
            raise
        desk.execution = execution
        desk.opened = True
        desk.hold = None
        event_format = self.format
        desk.kind = kind_of(
            desk.kind.queue, desk.kind.name, version, event_format, level=desk.kind.level
        )
        desk.current = desk.current.opened(
            version, resolution, event_format, definition.fingerprint, now
        )
        return now, version, definition.fingerprint, event_format, resolution

    def _writer(self, desk: Desk, catalogue: Catalogue) -> EventWriter:
        """Return what writes the open execution of an instance: in its own format, whatever new
        ones are written in.
        """
        event_format = desk.current.format or desk.kind.format
        if event_format not in self._forms.formats:
            raise NewerLibraryNeeded(f"event format {event_format}", instance_id=desk.instance_id)
        return self._forms.writer(event_format, catalogue.levels.write)

    def _load(
        self, desk: Desk, step: Step, history: Sequence[EventRecord], catalogue: Catalogue
    ) -> list[ActivityKey]:
        """Bring a cold execution to where it stood, and its activities with it. Return running ones
        that it does not want.
        """
        definition = self._registry.find(desk.kind.name, desk.current.version)
        if definition is None:
            raise _Unservable
        desk.trying = definition.fingerprint
        execution = Execution(
            definition,
            desk.identity,
            self._limits,
            self._registered,
            self._forms,
            self._writer(desk, catalogue),
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
                f"history of {desk.instance_id!r}, execution {desk.current.number}, has ended, "
                "and its row has not"
            )
        for by, since in desk.put_backs:
            execution.put_back(by, since)
        desk.execution = execution
        step.drifts = execution.drifts
        return self.remember_tries(desk, step.now)

    @staticmethod
    def remember_tries(desk: Desk, now: int) -> list[ActivityKey]:
        """Take up the pending activities of a claimed instance; crashes of earlier owners count as
        attempts (rule 14).

        Return the activities that run here still and are not wanted any more: cancelled, or in
        another attempt by now.
        """
        assert desk.execution is not None
        still_running, desk.still_running = desk.still_running, {}
        kept: list[tuple[int, int, Input]] = []
        ending = desk.execution.ending_activities
        for number, event in desk.execution.activities.items():
            row = desk.remembered.get(number)
            entry = Try.remembered(event, row)
            entry.stopping = number in ending
            if row is not None and row.has_ended:
                entry.running, entry.counted = (
                    True,
                    desk.takeovers,
                )  # as if it had run here: it did not die with any node
                desk.tries.add(entry)
                end = kept_end(row)
                if end is None:
                    desk.end_try(number, how_it_ended(row), row.heartbeat, now)
                else:
                    desk.tries.end(number)
                    kept.append(end)
                continue
            if entry.route is None and still_running.get(number) == entry.attempt:
                del still_running[number]
                entry.running = True
            desk.tries.add(entry)
            if entry.stopping and not entry.running and entry.route is None:
                desk.inputs.append(desk.tries.lose(number, now))  # it has ended with its node
                continue
            if desk.takeovers and not entry.running:
                died = desk.tries.crash(number, desk.takeovers, now)
                if died is not None:
                    desk.inputs.append(died)
        # They came first: a turn that ended in a hold had taken them in already, in this order
        # (rule 39).
        desk.inputs[:0] = [end for _, _, end in sorted(kept, key=lambda end: end[:2])]
        early, desk.early = desk.early, []
        for item in early:
            entry = desk.tries.get(item.key.event_id)
            if entry is not None and entry.running and entry.attempt == item.attempt:
                desk.end_try(item.key.event_id, item.result, item.heartbeat, now)
        desk.tries.catch_up(now)
        return [desk.key(number) for number in still_running]

    def _turn(
        self,
        desk: Desk,
        step: Step,
        created: ExecutionRow | None,
        opened: tuple[int, str, str, int, Resolution] | None,
        catalogue: Catalogue,
        observed: Observed,
    ) -> TerminalEvent | None:
        assert desk.execution is not None
        desk.trying = desk.execution.fingerprint
        cancel = None if desk.cancel is None else desk.cancel.reason
        turn = desk.execution.turn(
            step.now, desk.inputs, desk.inbox, cancel=cancel, has_begun=desk.tries.has_begun
        )
        # Not before: a turn that ends in a hold has taken in none of them (rule 39).
        desk.wants, desk.inputs = turn.wants, list(turn.left)
        try:
            return self._record(desk, step, turn, created, opened, catalogue, observed)
        except Exception as error:
            raise _HalfMade(error) from error

    def _record(
        self,
        desk: Desk,
        step: Step,
        turn: Turn,
        created: ExecutionRow | None,
        opened: tuple[int, str, str, int, Resolution] | None,
        catalogue: Catalogue,
        observed: Observed,
    ) -> TerminalEvent | None:
        """Gather what a turn that stands has decided."""
        assert desk.execution is not None
        if (
            turn.events
            and self._recorder.recording
            and (ended := self._recorder.moment()) is not None
        ):
            step.records.append(turn_record(desk, turn, observed, ended, step.now))
        if turn.started or turn.recalled:
            self._start_children(desk, step, turn, catalogue)
        step.consumed.extend(turn.consumed)
        step.custom_status = turn.custom_status or step.custom_status
        if turn.logs:
            step.effects.append(WriteLogs(desk.identity, turn.logs, desk.current.traceparent))
        for event in turn.scheduled:
            desk.tries.add(Try(event, started_at=step.now))
        for number in turn.asked:
            desk.tries.stop(number)
            step.effects.append(StopActivity(desk.key(number)))
        if turn.settled:
            self._settle_activities(desk, step, turn.settled)
        ending, journal = turn.ending, desk.execution.journal
        desk.history_events, desk.history_bytes = journal.count, journal.size
        if created is not None or opened is not None or turn.events:
            step.deltas.append(
                ExecutionDelta(
                    desk.current.number,
                    create=created,
                    opened=opened,
                    events=turn.events,
                    closed=None if ending is None else _closed(ending, step.now),
                    event_count=desk.history_events,
                    byte_count=desk.history_bytes,
                    traceparent=None if opened is None else desk.current.traceparent,
                    children=ending is not None and desk.execution.has_children,
                )
            )
        if ending is not None:
            self._end_execution(desk, step, turn)
        return ending

    def _start_children(self, desk: Desk, step: Step, turn: Turn, catalogue: Catalogue) -> None:
        links = [child_link(desk, event) for event in turn.started]
        starts = [
            child_start(desk, link, event, catalogue, self.node_id, step.now)
            for link, event in zip(links, turn.started, strict=True)
        ]
        step.starts.extend(starts)
        step.unknown.update(
            (link, event)
            for link, event, start in zip(links, turn.started, starts, strict=True)
            if start.start is None
        )
        step.cancels.extend(child_cancel(desk, event) for event in turn.recalled)

    def _end_execution(self, desk: Desk, step: Step, turn: Turn) -> None:
        if desk.has_activities:
            step.effects.extend(AbortActivity(key) for key in desk.begun_keys())
            desk.tries.clear()
            desk.remembered.clear()
        desk.inputs.clear()
        step.settled.clear()  # closing the execution forgets its activities
        if not isinstance(turn.ending, ContinuedAsNew):
            assert turn.ending is not None
            step.status = _ENDS[_end_kind(turn.ending)]
            if isinstance(turn.ending, ExecutionFailed):
                step.failure = turn.ending.error

    def _cross_boundary(
        self, desk: Desk, step: Step, ending: ContinuedAsNew, catalogue: Catalogue
    ) -> ExecutionRow:
        """Make the next execution, unopened (rule 16)."""
        version, resolution = boundary_version(
            catalogue,
            desk.kind,
            desk.current.version,
            explicit=ending.version,
            pin=desk.pin,
            node=self.node_id,
        )
        desk.current = ExecutionRow(
            number=desk.current.number + 1,
            name=desk.kind.name,
            version=version,
            resolution=resolution,
            state=ending.state,
            state_version=desk.current.version,
            created_at=step.now,
            traceparent=desk.current.traceparent,
        )
        assert not isinstance(resolution.how, Unknown)
        # What was written at a higher level ends with its execution, unless it waits in the inbox.
        unread = desk.kind.level if len(desk.inbox) or not desk.inbox.is_whole else BASE_LEVEL
        level = max(unread, resolution_level(catalogue, resolution.how))
        floating = resolution.how is ResolvedBy.POLICY
        desk.kind = kind_of(desk.kind.queue, desk.kind.name, version, FORMAT, floating, level)
        desk.opened = False
        desk.execution = None
        desk.put_backs = ()
        desk.history_events = desk.history_bytes = 0
        desk.inbox.drop_reports()
        return desk.current

    def _terminate(self, desk: Desk, step: Step, catalogue: Catalogue) -> None:
        """End an instance that is marked for it, without running code (rule 18)."""
        assert desk.cancel is not None
        reason, now = desk.cancel.reason, step.now
        has_children = desk.opened
        if desk.execution is not None:
            now, has_children = max(now, desk.execution.now), desk.execution.has_children
            desk.execution.evict()
            desk.execution = None
        events: tuple[EventRecord, ...] = ()
        if desk.opened:
            terminated = ExecutionTerminated(desk.history_events + 1, now, reason)
            events = (to_record(terminated, self._writer(desk, catalogue)),)
            desk.history_events += 1
            desk.history_bytes += events[0].size
        step.effects.extend(AbortActivity(key) for key in desk.begun_keys())
        desk.tries.clear()
        desk.still_running.clear()
        desk.inputs.clear()
        closed = (
            now,
            ExecutionEnd.TERMINATED,
            None,
            pack({"error": error_to_wire(ErrorInfo("orchestra.Terminated", reason))}),
        )
        step.deltas.append(
            ExecutionDelta(
                desk.current.number,
                events=events,
                closed=closed,
                event_count=desk.history_events,
                byte_count=desk.history_bytes,
                children=has_children,
            )
        )
        step.status = Status.TERMINATED
        if self._recorder.recording:
            step.records.append(EndRecord(desk.identity, "terminated"))

    def _cancel_unopened(self, desk: Desk, step: Step, created: ExecutionRow | None) -> None:
        """End an execution that is cancelled before its first turn, without running code (rule
        18).
        """
        assert desk.cancel is not None
        error = pack({"error": error_to_wire(ErrorInfo("orchestra.Cancelled", desk.cancel.reason))})
        closed = (step.now, ExecutionEnd.CANCELLED, None, error)
        step.deltas.append(ExecutionDelta(desk.current.number, create=created, closed=closed))
        step.status = Status.CANCELLED
        if self._recorder.recording:
            step.records.append(EndRecord(desk.identity, "cancelled"))

    # --- after running ---

    @staticmethod
    def _settle_activities(desk: Desk, step: Step, settled: Iterable[int]) -> None:
        """Forget activities that have ended or were cancelled."""
        for number in settled:
            entry = desk.tries.settle(number)
            if entry is not None and (entry.running or entry.route is not None):
                step.effects.append(AbortActivity(desk.key(number)))
            if entry is not None and entry.stored:
                step.settled.append(number)

    def _begin_activities(self, desk: Desk, step: Step) -> None:
        """Begin the tries that may begin, here once the write stands, or on another node."""
        if desk.releasing or step.hold is not None or step.unservable:
            return
        for entry in list(desk.tries.narrowed_due(step.now)) if desk.tries._narrowed else ():
            if entry.route is not None and not self._placement.is_served(entry.route):
                desk.tries.call_back(entry.event.id)
        for entry in desk.tries.begin_due(step.now):
            event = entry.event
            route = Route(event.queue or desk.kind.queue, event.name).of_format(desk.kind.format)
            reader = self._placement.reader(route, entry.unread) if entry.unread else route
            if reader is None:
                died = desk.tries.wait_for_reader(event.id, step.now)
                if died is not None:
                    desk.inputs.append(died)
            elif reader != route:
                desk.tries.narrow(event.id, reader, step.now)
            elif self._placement.hands_out(route, step.free):
                desk.tries.hand_out(event.id, route)
            else:
                step.free.take(event.name)
                step.effects.append(_run_activity(desk, entry))

    def _park(self, desk: Desk, step: Step) -> None:
        """Decide whether the instance stays on the desk, and when it is to be looked at again."""
        if step.hold is not None or step.status is not Status.OPEN:
            step.keep, step.wake_at = False, None
        elif step.unservable or not desk.opened:
            step.keep, step.wake_at = not (step.unservable or desk.releasing), 0
            if step.keep and step.crowded:
                step.keep, step.wake_at = (
                    False,
                    step.now,
                )  # and not 0: others have waited for longer
        elif desk.wants:
            step.keep, step.wake_at = (
                True,
                0,
            )  # it goes on once they are read; what has ended and is not taken yet stays here
        else:
            assert desk.execution is not None
            timer, due = desk.execution.next_timer, desk.tries.next_due
            step.wake_at = due if timer is None else timer if due is None else min(timer, due)
            if desk.inputs:
                step.wake_at = step.now  # an activity has died since the turn
            waits_long = step.wake_at is None or step.wake_at - step.now > self._keep_owned
            step.keep = not desk.releasing and (desk.tries.any_running or not waits_long)
            if (
                step.keep
                and step.crowded
                and (desk.yielding or desk.tries.running_count <= HANDED_OVER)
            ):
                step.keep = False
                desk.tries.hand_over(desk.kind.queue, self.node_id, desk.kind.format)
            if not step.keep and desk.tries.any_unfinished:
                step.wake_at = 0  # what ran here must begin again elsewhere
        if step.hold is not None or step.beyond:
            # What runs runs on, and what it comes to is kept for the next turn (rule 39).
            desk.tries.hand_over(desk.kind.queue, self.node_id, desk.kind.format)
        if not step.keep and desk.has_activities:
            step.effects.extend(AbortActivity(key) for key in desk.running_keys())

    @staticmethod
    def _is_idle(desk: Desk, step: Step) -> bool:
        return step.keep and not (
            step.deltas or step.settled or step.consumed or desk.tries.any_changed
        )

    def _hold(self, desk: Desk, now: int, error: Exception) -> Hold:
        match error:
            case TurnHeld():
                return replace(
                    self._held(desk, now, error.kind, stored_detail(error.detail)),
                    error=error.error,
                )
            case NondeterminismError():
                kind = HoldKind.NONDETERMINISM
            case HistoryCorrupt():
                kind = HoldKind.HISTORY
            case DecodeError():
                kind = HoldKind.STATE
            case _:
                kind = HoldKind.INTERNAL
        return self._held(desk, now, kind, describe_error(error))

    def _fingerprint(self, desk: Desk, catalogue: Catalogue) -> str | None:
        """Return the fingerprint of the code that would run now."""
        if desk.opened:
            return desk.current.fingerprint
        try:
            definition = self._registry.find(desk.kind.name, opening_version(catalogue, desk.kind))
        except Exception:  # noqa: BLE001 - it is for this fault that the instance is held
            return None
        return None if definition is None else definition.fingerprint

    def _held(self, desk: Desk, now: int, kind: HoldKind, detail: str) -> Hold:
        """Return a hold that names the code that was tried. Whatever ran of the execution is
        dropped.
        """
        if desk.execution is not None:
            desk.execution.evict()
            desk.execution = None
        tried, at_fault = (
            (set[str](), set[str]())
            if desk.hold is None
            else (set(desk.hold.tried), set(desk.hold.at_fault))
        )
        trying = set(filter(None, [desk.trying]))
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
        return Hold(kind, detail, now, self.node_id, tuple(sorted(tried)), tuple(sorted(at_fault)))

    @staticmethod
    def _is_parked(desk: Desk, step: Step) -> bool:
        """Return whether the instance is let go in order, to wait: this node has survived it."""
        return not (step.keep or step.unservable or desk.releasing) and step.hold is None

    # --- the write ---

    def _write(self, desk: Desk, step: Step) -> Write:
        if step.deltas or self._is_parked(desk, step):
            # Whatever crashed before has been overcome (rule 14).
            desk.takeovers = 0
            desk.tries.forget_crashes()
        changed = desk.tries.take_changed()
        rows: dict[int, ActivityRow] = {}
        if changed:
            step.handed_over.extend(
                _task(desk, entry) for entry in changed if entry.owner is not None
            )
            if step.status is Status.OPEN:
                rows = {entry.event.id: entry.row(desk.current.number) for entry in changed}
        if step.hold is not None or step.beyond:
            rows |= self._kept_rows(desk, step)
        summary = EMPTY_SUMMARY
        if step.beyond and not step.deltas:
            summary = desk.summary  # nothing of it has changed
        if desk.execution is not None and desk.execution.level > desk.kind.level:
            desk.kind = desk.kind._replace(level=desk.execution.level)
        if desk.execution is not None and step.status is Status.OPEN:
            summary = write_summary(
                desk.execution.pending,
                desk.execution.pending_counts,
                desk.tries.shown,
                desk.execution.put_backs,
            )
        state = InstanceState(
            kind=desk.kind,
            owner=self.node_id if step.keep else None,
            wake_at=step.wake_at,
            seen_seq=desk.known_seq,
            execution=desk.current.number,
            opened=desk.opened,
            takeovers=desk.takeovers,
            status=step.status,
            history_events=desk.history_events,
            history_bytes=desk.history_bytes,
            summary=summary,
        )
        unmarked = desk.tries.take_unmarked()
        write = Write(
            instance_id=desk.instance_id,
            incarnation=desk.incarnation,
            revision=desk.revision,
            owner=self.node_id,
            state=state,
            executions=tuple(step.deltas),
            consumed=tuple(step.consumed),
            activities=tuple(rows.values()),
            settled=tuple(step.settled),
            custom_status=step.custom_status,
            hold=step.hold,
            prune=None if desk.current.number == step.first else self._prune(desk, step),
            starts=tuple(step.starts),
            cancels=tuple(step.cancels),
            has_parent=desk.parent is not None,
            stops=tuple([Stop(number, _WITHDRAWN) for number in unmarked]) if unmarked else (),
        )
        desk.revision += 1
        desk.seen_seq = desk.known_seq
        if step.status is not Status.OPEN and (closed := step.deltas[-1].closed) is not None:
            step.effects.append(InstanceEnded(desk.instance_id, step.status, closed[2], closed[3]))
        return write

    def _kept_rows(self, desk: Desk, step: Step) -> dict[int, ActivityRow]:
        """Return what a hold keeps of activities: those that its turn knew to have ended never run
        again (rule 39).
        """
        number = desk.current.number
        rows: dict[int, ActivityRow] = {}
        for place, end in enumerate(desk.inputs):
            entry = desk.tries.get(end.source)
            if entry is not None:
                rows[end.source] = entry.ended_row(number, end, place)
        for item in desk.early:
            remembered = desk.remembered.get(item.key.event_id)
            if remembered is None or not remembered.has_ended:
                rows[item.key.event_id] = early_row(item, remembered, desk.takeovers, step.now)
        return rows

    def _prune(self, desk: Desk, step: Step) -> Prune | None:
        """Return what the write of a boundary lets go of."""
        number = desk.current.number
        keep = self._registry.retentions.get(desk.kind.name, self._retention)
        closed_until: int | None = None
        if keep.keep_for is not None:
            age = micros(keep.keep_for)
            if (
                step.now - desk.pruned_at >= age // _LOOKS_FOR_OLD
                or number // _MOST_OVER != step.first // _MOST_OVER
            ):
                desk.pruned_at, closed_until = step.now, step.now - age
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


def _run_activity(desk: Desk, entry: Try) -> RunActivity:
    return RunActivity(
        key=desk.key(entry.event.id),
        name=entry.event.name,
        arguments=entry.event.arguments,
        attempt=entry.attempt,
        timeout=entry.event.timeout,
        heartbeat_timeout=entry.event.heartbeat_timeout,
        last_heartbeat=entry.heartbeat,
        orchestration=desk.kind.name,
        version=desk.current.version,
        traceparent=desk.current.traceparent,
    )


def _task(desk: Desk, entry: Try) -> Task:
    """Return a try that was handed over as the node that runs it knows it from now on."""
    return Task(
        *desk.key(entry.event.id),
        revision=entry.revision,
        attempt=entry.attempt,
        orchestration=desk.kind.name,
        version=desk.current.version,
        scheduled=to_record(entry.event),
        heartbeat=entry.heartbeat,
        traceparent=desk.current.traceparent,
        stopping=entry.marked,
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


def _closed(
    ending: TerminalEvent, now: int
) -> tuple[int, ExecutionEnd, Payload | None, bytes | None]:
    output = ending.output if isinstance(ending, ExecutionCompleted) else None
    error: bytes | None = None
    if isinstance(ending, ExecutionFailed):
        error = pack({"error": error_to_wire(ending.error)})
    elif isinstance(ending, ExecutionCancelled):
        error = pack({"error": error_to_wire(ErrorInfo("orchestra.Cancelled", ending.reason))})
    return now, _end_kind(ending), output, error
