"""Watches every commit of a simulated world, and holds what it did against the invariants.

The witness keeps a small account of its own for each instance: what the fence is, what arrived,
what was read, how far history was checked. A commit must do what its outcomes say, and what is
stored afterwards must be what the account says.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Final

from orchestra.clock import micros
from orchestra.codec import Payload
from orchestra.engine.messages import ActivityKey
from orchestra.events import (
    ActivityCompleted,
    ActivityFailedEvent,
    ActivityScheduled,
    BoundaryRequested,
    CancelRequested,
    CancelSent,
    ChildAwaited,
    ChildCompleted,
    ChildEnded,
    ChildFailedEvent,
    ChildStarted,
    CommandCancelled,
    ContinuedAsNew,
    Event,
    EventAwaited,
    EventReceived,
    EventRecord,
    EventSent,
    ExecutionRewound,
    ExecutionStarted,
    OnParentClose,
    RequestAwaited,
    RequestReceived,
    SendDelivered,
    SendRefused,
    TerminalEvent,
    TimerCreated,
    TimerFired,
    from_record,
)
from orchestra.levels import Unknown
from orchestra.replay import SESSION_LOST
from orchestra.retention import Retention
from orchestra.sessions import ENTER
from orchestra.store.audit import Record
from orchestra.store.changes import (
    Append,
    Cancel,
    Change,
    Claim,
    IfEnded,
    Publish,
    Recover,
    Release,
    Report,
    Resume,
    ScheduleWrite,
    Start,
    Suspend,
    Write,
    instances_of,
)
from orchestra.store.executions import ExecutionRow
from orchestra.store.kinds import (
    THIS_LIBRARY,
    ExecutionEnd,
    HoldKind,
    Library,
    MessageKind,
    Status,
)
from orchestra.store.messages import MessageRow
from orchestra.store.outcomes import (
    Appended,
    AppendRefused,
    Claimed,
    Commit,
    Granted,
    Outcome,
    Recovered,
    Refusal,
    Refused,
    ScheduleWritten,
    Started,
    StartExists,
)
from orchestra.store.port import Directory
from orchestra.store.queries import InstanceRecord
from orchestra.store.routes import node_of
from orchestra.store.snapshots import Snapshot
from tests.support.simulation.ages import Ages
from tests.support.simulation.background import take_ends
from tests.support.simulation.children import WatchedChildren, take_reports
from tests.support.simulation.handed_out import HandedOutActivities
from tests.support.simulation.instances import WatchedInstance
from tests.support.simulation.programs import PROGRAMS
from tests.support.simulation.requests import WatchedRequests
from tests.support.simulation.schedules import ScheduleWitness
from tests.support.simulation.sends import full
from tests.support.simulation.streams import WatchedStreams
from tests.support.simulation.versions import Versions

__all__ = ["Witness"]

_DELAYING_TAKEOVERS: Final = 3
_TOMBSTONES: Final = 3_600_000_000


class Witness:
    """Sees commits and other writes right after they happened, in their order."""

    def __init__(
        self,
        directory: Directory,
        retention: Retention,
        library: Library = THIS_LIBRARY,
        library_of: Callable[[str], Library | None] = lambda _: None,
    ) -> None:
        self._directory = directory
        self._forms = library.events
        self._retention = retention
        self.instances: dict[str, WatchedInstance] = {}
        self.past: dict[tuple[str, str], WatchedInstance] = {}
        """Lives that were deleted, by id and incarnation."""
        self.expired: set[tuple[str, str]] = set()
        """Those of them that went by themselves."""
        self.returned: dict[ActivityKey, list[Payload]] = defaultdict(list)
        """What runs of activities have returned: results in histories are among these (I5)."""
        self.poisoned: set[str] = set()
        """Instances that the store has refused for a while; they alone may be held for that
        (I12).
        """
        self.counts: Counter[str] = Counter()
        self.versions: Versions = Versions(self.counts)
        self.ages: Ages = Ages(library_of, self.counts)
        self._children = WatchedChildren(
            self.instances,
            self._begin,
            self._child_begins_again,
            self.counts,
            library.events,
            self.ages.reads_all_ends,
        )
        self._handed_out = HandedOutActivities(self.instances, self.counts)
        self.asked: WatchedRequests = WatchedRequests(_TOMBSTONES, library.events, self.counts)
        self._streams = WatchedStreams(self.counts)
        self.taken: set[tuple[str, str]] = set()
        """Lives that operators have taken from nodes, or activities of them. That is no crash, whatever the owner
        was in.
        """
        self._now = 0
        """When the group was committed that is checked."""
        self._requests: set[str | None] = set()
        """The requests of rewinds that were done."""
        self._digest = blake2b(digest_size=8)
        self.schedules: ScheduleWitness = ScheduleWitness(directory)

    @property
    def digest(self) -> str:
        """A number of all that was committed: the same seed gives the same."""
        return self._digest.hexdigest()

    def instance(self, instance_id: str, incarnation: str) -> WatchedInstance | None:
        """Return what is known of an incarnation, also a deleted one."""
        instance = self.instances.get(instance_id)
        if instance is not None and instance.incarnation == incarnation:
            return instance
        return self.past.get((instance_id, incarnation))

    # --- commits ---

    def committed(self, changes: Sequence[Change], commit: Commit) -> None:
        """Check a group that was committed just now."""
        pairs = list(zip(changes, commit.outcomes, strict=True))
        self.counts["commits"] += 1
        self._now = commit.now
        self.counts["changes"] += len(pairs)
        for change, outcome in pairs:
            if isinstance(change, Publish):
                watched = self.instances.get(change.instance_id)
                self._streams.published(watched, change, outcome)
                self._handed_out.published(change, outcome)
        for change, outcome in pairs:
            if isinstance(change, Start) and change.owner is not None:
                self._start(change, outcome)
        for change, outcome in pairs:
            if isinstance(change, Write):
                self._write(change, outcome, commit.now)
                if isinstance(outcome, Granted):
                    self._handed_out.written(change, outcome)
            elif isinstance(change, Recover):
                self._recover(change, outcome)
        touched = {one: None for change in changes for one in sorted(instances_of(change))}
        for change, outcome in pairs:
            if isinstance(change, Write) and isinstance(outcome, Granted):
                touched.update(dict.fromkeys(self._children.follow(change, outcome, commit.now)))
                if change.extras.restart is not None:
                    self._begin_again(change.extras.restart)
        for change, outcome in pairs:
            match change:
                case Start(owner=None):
                    self._start(change, outcome)
                case Append():
                    self._append(change, outcome, commit.now)
                case Cancel():
                    self._cancel(change, outcome)
                case Release():
                    self._release(change, outcome)
                case Suspend():
                    self._suspend(change, outcome)
                case Resume():
                    self._resume(change, outcome)
                case ScheduleWrite():
                    self._scheduled(change, outcome, commit.now)
                case Report():
                    self._handed_out.reported(change, outcome)
                case _:
                    pass
        for change, outcome in pairs:
            if isinstance(change, Claim):
                assert isinstance(outcome, Claimed)
                for snapshot in outcome.snapshots:
                    self._claimed(change, snapshot)
                    touched[snapshot.row.instance_id] = None
                self._handed_out.claimed(change, outcome)
                touched.update(dict.fromkeys(task.instance_id for task in outcome.tasks))
        for instance_id in touched:
            self._look(instance_id, commit.now)
        trace = [(type(change).__name__, type(outcome).__name__) for change, outcome in pairs]
        state = [
            (one, self.instances[one].revision, len(self.instances[one].records))
            for one in touched
            if one in self.instances
        ]
        self._digest.update(repr((commit.now, trace, state)).encode())

    def _scheduled(self, write: ScheduleWrite, outcome: Outcome, now: int) -> None:
        """Take in what a granted write of a schedule has done to instances."""
        if not self.schedules.written(write, outcome):
            return
        assert isinstance(outcome, ScheduleWritten)
        arrivals = list(outcome.arrivals)
        marked = {one: appended for one, appended in arrivals if appended.cancel is not None}
        for cancel in write.cancels:
            if cancel.instance_id in marked:
                self._cancel(cancel, marked.pop(cancel.instance_id))
        sent = {
            appended.message.message_id: appended
            for _, appended in arrivals
            if appended.message is not None
        }
        for act, slot in zip(write.acts, outcome.slots, strict=False):
            self.counts[f"slots {slot.outcome}"] += 1
            if act.event is not None and act.event.message_id in sent:
                self._append(act.event, sent[act.event.message_id], now)
            has_fired = act.start is not None and slot.outcome == "fired"
            if has_fired and act.start.instance_id not in self.instances:
                self._start(act.start, Started())
        self.counts["ticks"] += 1

    def _write(self, write: Write, outcome: Outcome, now: int) -> None:
        instance = self.instances.get(write.instance_id)
        fits = (
            instance is not None
            and instance.status is Status.OPEN
            and (instance.incarnation, instance.revision) == (write.incarnation, write.revision)
            and write.owner in (None, instance.owner)
        )
        if isinstance(outcome, Refused):
            self.counts["refused"] += 1
            assert not fits, f"I6: the owner of {write.instance_id} was refused: {instance}"
            return
        assert isinstance(outcome, Granted)
        assert instance is not None, (
            f"I6: a write to {write.instance_id}, which is not there, was granted"
        )
        assert fits, (
            f"I6: {write.instance_id} is at {instance}, a write at {write.revision} by {write.owner} "
            "was granted"
        )
        self.counts["writes"] += 1
        self.ages.written(write)
        self.asked.written(instance, write)
        self._streams.written(write)
        self._deliver(instance, write, now)
        self._let_go(instance, write)
        instance.revision += 1
        instance.number = write.state.execution
        instance.status = write.state.status
        instance.owner = write.state.owner if instance.status is Status.OPEN else None
        is_open = instance.status is Status.OPEN
        instance.paused = instance.paused and is_open
        instance.held = (write.hold is not None or instance.paused) and is_open
        if write.record is not None and write.record.action == "rewind":
            self._rewind(instance, write)
        if instance.doomed and write.state.seen_seq >= instance.doomed_by and write.hold is None:
            assert instance.status is Status.TERMINATED, (
                f"rule 18: {instance.instance_id} was to be terminated, and goes on"
            )
        if write.hold is not None:
            self._check_hold(instance, write.hold.kind, write.hold.detail)
        if instance.status is not Status.OPEN:
            instance.ended_at = now
            terminated = instance.status is Status.TERMINATED
            assert not terminated or write.owner is None or instance.doomed, (
                f"rule 18: {instance.instance_id} was terminated by nobody"
            )
            self.counts[instance.status.name.lower()] += 1
            for message in instance.inbox.values():
                if message.kind is MessageKind.REQUEST:
                    continue
                del instance.known[
                    message.message_id
                ]  # it was not read, and whoever sends it again is told so (rule 19)
            instance.inbox.clear()
            instance.ends.clear()

    def _deliver(self, instance: WatchedInstance, write: Write, now: int) -> None:
        """Messages are delivered once, in order within a name, and none is passed over (I1, I8)."""
        placed = [
            (delta.number, from_record(record, self._forms))
            for delta in write.executions
            for record in delta.events
        ]
        events = [event for _, event in placed]
        received = [event for event in events if isinstance(event, EventReceived)]
        consumed, read = set(write.consumed), {event.sequence for event in received}
        assert len(consumed) == len(write.consumed), "I8: a message was removed twice"
        if write.record is not None and write.record.action == "rewind":
            self._read_again(instance, write.record, consumed, now)
            consumed = set[int]()
        assert read <= consumed, "I8: delivered is what was not removed"
        read |= take_ends(instance, placed, consumed)
        take_reports(instance, write, events, consumed - read)
        begun = [delta.number for delta in write.executions if delta.create is not None]
        for number, event in placed:
            if not isinstance(event, EventReceived):
                continue
            while begun and begun[0] <= number:
                instance.goes_on(begun[0], begun.pop(0) - 1)
            message = instance.inbox.pop(event.sequence, None)
            assert message is not None, (
                f"I8: message {event.sequence} of {instance.instance_id} was delivered and is not there"
            )
            assert (message.name, message.payload) == (event.name, event.payload), (
                "I8: it is another message"
            )
            earlier = [
                other.sequence for other in instance.inbox.values() if other.queue == event.name
            ]
            assert all(event.sequence < other for other in earlier), (
                f"I8: {event.sequence} passed {min(earlier)}"
            )
            instance.known[message.message_id] = message.sequence, now
            instance.delivered_in.setdefault(number, []).append(message)
        for number in begun:
            instance.goes_on(number, number - 1)

    def _read_again(
        self, instance: WatchedInstance, record: Record, removed: set[int], now: int
    ) -> None:
        """A rewind removes what the state has read, and an earlier rewind has put back."""
        former = record.detail["to"]
        assert isinstance(former, int)
        assert removed == instance.read_again(former), (
            f"rule 31: {instance.instance_id} went back to {former}, which has read "
            f"{instance.read_again(former)}; {removed} are read again"
        )
        for sequence in removed:
            if instance.ends.pop(sequence, None) is not None:
                continue
            message = instance.inbox.pop(sequence)
            instance.known[message.message_id] = sequence, now
            self.counts["messages read again"] += 1

    def _let_go(self, instance: WatchedInstance, write: Write) -> None:
        """Retention lets go of a prefix, and of as much as it must, but never of more (I3)."""
        for delta in write.executions:
            if delta.closed is not None:
                instance.closed_at[delta.number] = delta.closed.at
        current, prune, keep = write.state.execution, write.prune, self._retention
        if prune is not None:
            aged = 0
            if prune.closed_until is not None:
                for number in range(instance.rows_gone + 1, current - 1):
                    if instance.closed_at[number] > prune.closed_until:
                        break
                    aged = number
            instance.rows_gone = max(
                instance.rows_gone, min(max(prune.executions, aged), current - 1)
            )
            instance.histories_gone = max(
                instance.histories_gone, min(max(prune.histories, instance.rows_gone), current - 1)
            )
            self.counts["prunes"] += 1
        if write.owner is None or not write.executions:
            return  # the next turn's write lets go of what an operator's has closed
        closed = current - 1
        for kept, gone in (
            (keep.histories, instance.histories_gone),
            (keep.executions, instance.rows_gone),
        ):
            least = closed if kept is None else min(kept, closed)
            least = least if keep.keep_for is None else min(1, closed)
            most = closed if kept is None else max(0, 2 * kept - 1)
            assert least <= closed - gone <= max(least, most), (
                f"I3: of {instance.instance_id} {closed - gone} of {closed} laps are kept"
            )

    def _rewind(self, instance: WatchedInstance, write: Write) -> None:
        """A rewind puts back what was read since the boundary, and takes a cancel mark away (rule
        31).
        """
        assert write.record is not None
        self._rewound(instance, write.executions[-1].create, write.record, write.extras.restored)
        instance.cancelled, instance.doomed, instance.doomed_by = False, False, 0

    def _rewound(
        self,
        instance: WatchedInstance,
        execution: ExecutionRow | None,
        record: Record,
        restored: Sequence[MessageRow],
    ) -> None:
        assert execution is not None, "rule 31: a rewind begins an execution"
        assert execution.request_id not in self._requests, (
            f"rule 31: {instance.instance_id} was rewound twice for {execution.request_id}"
        )
        self._requests.add(execution.request_id)
        self.counts["rewinds" if record.action == "rewind" else "lives"] += 1
        former = record.detail["to"]
        assert isinstance(former, int)
        expected = instance.restored(former)
        assert [one.sequence for one in restored] == sorted(expected), (
            f"rule 31: {instance.instance_id} has {restored} again, and should have {expected}"
        )
        for message in restored:
            was = expected[message.sequence]
            assert (message.name, message.payload) == (was.name, was.payload), (
                f"rule 31: {was} came back as {message}"
            )
            if message.kind is MessageKind.BACKGROUND_CHILD_ENDED:
                assert replace(message, sent_at=was.sent_at, traceparent=was.traceparent) == was, (
                    f"rule 31: {was} came back as {message}"
                )
                instance.ends[message.sequence] = message
                self.counts["background ends put back"] += 1
                continue
            instance.inbox[message.sequence] = message
            instance.known[message.message_id] = message.sequence, None
            self.counts["messages put back"] += 1
        instance.begins_again(instance.number, former)

    def _check_hold(self, instance: WatchedInstance, kind: HoldKind | Unknown, detail: str) -> None:
        self.counts["holds"] += 1
        self.counts["holds for a migration"] += kind is HoldKind.MIGRATION
        allowed = PROGRAMS[instance.name].holds
        poisoned = kind is HoldKind.STORE and instance.instance_id in self.poisoned
        assert kind in allowed or poisoned, (
            f"I12: {instance.instance_id} is held for {kind}: {detail}"
        )

    def _recover(self, recover: Recover, outcome: Outcome) -> None:
        assert isinstance(outcome, Recovered)
        instance = self.instances.get(recover.instance_id)
        owns = instance is not None and instance.owner == recover.node
        assert (outcome.snapshot is not None) == owns, (
            f"I6: {recover.node} recovered {recover.instance_id} of {instance}"
        )
        if instance is not None and outcome.snapshot is not None:
            self.counts["recoveries"] += 1
            instance.revision += 1
            self._check_snapshot(instance, outcome.snapshot, recover.node)

    def _start(self, start: Start, outcome: Outcome) -> None:
        instance = self.instances.get(start.instance_id)
        if instance is not None:
            began = instance.lives.get(start.incarnation)
            same = instance.incarnation == start.incarnation or (
                began is not None and began > instance.rows_gone
            )
            if not same and self._may_begin_again(instance, start):
                assert isinstance(outcome, Started), (
                    f"I1: {start.instance_id} has ended, and {start} was answered {outcome}"
                )
                assert outcome.restarted, f"I1: {start.instance_id} was there"
                self._begin_again(start)
                return
            is_open = instance.status is Status.OPEN if start.looks else None
            assert outcome == StartExists(same=same, is_open=is_open), (
                f"I1: {start.instance_id} was there, the answer was {outcome}"
            )
            return
        assert isinstance(outcome, Started), (
            f"I1: {start.instance_id} was not there, the answer was {outcome}"
        )
        self.counts["starts"] += 1
        self._begin(start)

    def _child_begins_again(self, start: Start) -> WatchedInstance | None:
        """Return the new life of a child that has ended; ``None``: it goes on, or is another's."""
        instance = self.instances[start.instance_id]
        return self._begin_again(start) if self._may_begin_again(instance, start) else None

    def _begin(self, start: Start) -> WatchedInstance:
        assert (start.instance_id, start.incarnation) not in self.past, (
            f"I1: {start.incarnation} lives twice"
        )
        self._streams.begun(start.instance_id)
        instance = self.instances[start.instance_id] = WatchedInstance(
            start.instance_id, start.incarnation, start.kind.name
        )
        instance.owner = start.owner
        self.counts["starts for an owner"] += start.owner is not None
        return instance

    @staticmethod
    def _may_begin_again(instance: WatchedInstance, start: Start) -> bool:
        if instance.status is Status.OPEN or start.follows not in (
            None,
            (instance.incarnation, instance.revision),
        ):
            return False
        match start.if_ended:
            case IfEnded.LEAVE:
                return False
            case IfEnded.RESTART:
                return True
            case IfEnded.RESTART_IF_FAILED:
                return instance.status is not Status.COMPLETED
            case IfEnded.RESTART_OWN:
                link, parent = instance.parent, start.parent
                return (
                    link is not None
                    and parent is not None
                    and (link.instance_id, link.incarnation)
                    == (parent.instance_id, parent.incarnation)
                )

    def _begin_again(self, start: Start) -> WatchedInstance:
        """An instance that has ended begins a new life (rule 31)."""
        self.asked.begins_again(start.instance_id, self._now)
        former = self.instances[start.instance_id]
        assert former.status is not Status.OPEN, f"rule 31: {former.instance_id} has not ended"
        assert (start.instance_id, start.incarnation) not in self.past, (
            f"I1: {start.incarnation} lives twice"
        )
        former.ended = True
        self.past[former.instance_id, former.incarnation] = former
        self.counts["lives begun again"] += 1
        life = former.next_life(start.incarnation, start.kind.name)
        self.instances[start.instance_id] = life
        if start.record is not None:
            self._rewound(life, start.execution, start.record, start.restored)
        else:
            life.delivered_before[life.number] = []
        return life

    def _append(self, append: Append, outcome: Outcome, now: int) -> None:
        instance = self.instances.get(append.instance_id)
        if instance is None:
            assert outcome == AppendRefused(Refusal.NOT_FOUND)
            return
        if append.asks:
            if self.asked.appended(append, outcome, instance, now):
                return
            sequence, read_at = 0, None
        else:
            sequence, read_at = instance.known.get(append.message_id, (0, None))
        if sequence and (read_at is None or read_at > now - _TOMBSTONES):
            told = (
                isinstance(outcome, Appended) and not outcome.fresh and outcome.sequence == sequence
            )
            assert told, (
                f"I8: {append.message_id} was stored as {sequence}, the answer was {outcome}"
            )
            self.counts["repeated messages"] += 1
            return
        if instance.status is not Status.OPEN:
            assert outcome == AppendRefused(Refusal.CLOSED)
            return
        if isinstance(outcome, AppendRefused):
            assert outcome.reason is Refusal.FULL, outcome
            assert outcome.full is not None
            assert outcome.full == full(instance, append), (
                "I1: an inbox that is not full refused a message"
            )
            return
        assert isinstance(outcome, Appended), outcome
        assert full(instance, append) is None, "a full inbox took a message"
        assert outcome.fresh, f"I1: {append.message_id} was not there, the answer was {outcome}"
        instance.inbox_seq += 1
        assert outcome.sequence == instance.inbox_seq, "I8: a number was left out or given twice"
        assert outcome.message is not None
        self.counts["messages"] += 1
        instance.inbox[outcome.sequence] = outcome.message
        if append.asks:
            self.asked.accepted(append, outcome, instance)
        else:
            instance.known[append.message_id] = outcome.sequence, None

    def _cancel(self, cancel: Cancel, outcome: Outcome) -> None:
        instance = self.instances.get(cancel.instance_id)
        if (
            instance is None
            or instance.status is not Status.OPEN
            or cancel.incarnation not in (None, instance.incarnation)
        ):
            assert isinstance(outcome, AppendRefused)
            return
        assert isinstance(outcome, Appended)
        fresh = not instance.doomed if cancel.terminate else not instance.cancelled
        assert outcome.fresh == fresh, "I1: a cancel was answered otherwise than it stands"
        if fresh:
            self.counts["marks to terminate" if cancel.terminate else "cancels"] += 1
            instance.inbox_seq += 1
            instance.cancelled = instance.was_cancelled = True
            if cancel.terminate:
                instance.doomed, instance.doomed_by = True, instance.inbox_seq
                instance.held = instance.paused = False  # terminate beats a hold (rule 32)

    def _release(self, release: Release, outcome: Outcome) -> None:
        instance = self.instances.get(release.instance_id)
        fits = (
            instance is not None
            and instance.held
            and not instance.paused
            and (instance.incarnation, instance.revision) == (release.incarnation, release.revision)
            and instance.status is Status.OPEN
        )
        assert isinstance(outcome, Granted) == fits, (
            f"a release of {instance} was answered {outcome}"
        )
        if instance is not None and fits:
            self.counts["releases"] += 1
            instance.revision += 1
            instance.held = False

    def _suspend(self, suspend: Suspend, outcome: Outcome) -> None:
        """An operator's hold takes the instance, and what it has handed out, from who has it (rule
        32).
        """
        instance = self._refuses_operator(suspend, outcome)
        if instance is None:
            return
        fits = not instance.paused and not instance.doomed
        assert isinstance(outcome, Granted if fits else Refused), (
            f"rule 32: a hold of {instance} was answered {outcome}"
        )
        if fits:
            self.counts["operators' holds"] += 1
            self.counts["operators' holds while it was owned"] += instance.owner is not None
            self._take(instance)
            instance.revision += 1
            instance.owner, instance.held, instance.paused = None, True, True
            if self._handed_out.suspended(instance):
                self.taken.add((instance.instance_id, instance.incarnation))

    def _resume(self, resume: Resume, outcome: Outcome) -> None:
        instance = self._refuses_operator(resume, outcome)
        if instance is None:
            return
        assert isinstance(outcome, Granted if instance.paused else Refused), (
            f"rule 32: the release of {instance} was answered {outcome}"
        )
        if instance.paused:
            self.counts["operators' releases"] += 1
            instance.revision += 1
            instance.held = instance.paused = False
            self._handed_out.resumed(instance)

    def _take(self, instance: WatchedInstance) -> None:
        if instance.owner is not None:
            self.taken.add((instance.instance_id, instance.incarnation))

    def _refuses_operator(
        self, change: Suspend | Resume, outcome: Outcome
    ) -> WatchedInstance | None:
        """Return the open instance that an operator means; ``None``: he was told that there is
        none.
        """
        instance = self.instances.get(change.instance_id)
        if instance is None or change.incarnation not in (None, instance.incarnation):
            assert outcome == AppendRefused(Refusal.NOT_FOUND), outcome
            return None
        if instance.status is not Status.OPEN:
            assert outcome == AppendRefused(Refusal.CLOSED), outcome
            return None
        return instance

    def nudged(self, instance_id: str, incarnation: str, execution: int) -> None:
        """An execution was asked to reach its boundary."""
        instance = self.instances[instance_id]
        assert (instance.incarnation, instance.number) == (incarnation, execution), (
            f"rule 40: {instance} was nudged for execution {execution} of {incarnation}"
        )
        self.counts["nudges"] += 1
        instance.nudged.add(execution)
        self._take(instance)
        self.ownership_changed()

    def _claimed(self, claim: Claim, snapshot: Snapshot) -> None:
        instance = self.instances.get(snapshot.row.instance_id)
        assert instance is not None, "I6: something was claimed that is not there"
        assert instance.owner is None, f"I6: {claim.node} claimed what {instance.owner} owns"
        assert instance.status is Status.OPEN, (
            f"I4: {instance.instance_id} was claimed after its end"
        )
        assert not instance.held, f"rule 5: {instance.instance_id} was claimed and is held"
        assert snapshot.row.kind in claim.kinds, "a node was given what it cannot run"
        self.counts["claims"] += 1
        self.ages.claimed(claim, snapshot)
        instance.revision += 1
        instance.owner = claim.node
        self._check_snapshot(instance, snapshot, claim.node)

    def _check_snapshot(self, instance: WatchedInstance, snapshot: Snapshot, node: str) -> None:
        row = snapshot.row
        assert (row.incarnation, row.revision, row.owner) == (
            instance.incarnation,
            instance.revision,
            node,
        ), f"I6: {row} for {instance}"
        whole_to = row.inbox_seq if snapshot.whole_to is None else snapshot.whole_to
        events = {sequence for sequence in instance.inbox if sequence <= whole_to}
        sequences = [message.sequence for message in snapshot.messages]
        assert sequences == sorted(events | instance.reports.keys() | instance.ends.keys()), (
            "I1: other messages than were sent"
        )
        assert (row.cancel is not None) == instance.cancelled, "I1: a cancel mark came or went"

    # --- other writes ---

    def deleted(self, instance_id: str) -> None:
        """An instance was deleted."""
        instance = self.instances.pop(instance_id)
        self.asked.deleted(instance_id)
        assert instance.status is not Status.OPEN, "an open instance was deleted"
        self.counts["deletes"] += 1
        self._check_gone(instance)

    def has_expired(self, count: int) -> None:
        """Instances were deleted whose time has run out since they ended: those, and no other."""
        if not count:
            return
        now, finished = self._directory.catalogue().now, self._retention.finished
        closed = [
            instance for instance in self.instances.values() if instance.status is not Status.OPEN
        ]
        gone = [
            instance for instance in closed if self._directory.get(instance.instance_id) is None
        ]
        assert len(gone) == count, f"I9: {count} have expired, gone are {gone}"
        orphans = [instance for instance in gone if self._goes_with_its_lap(instance)]
        for instance in gone:
            is_late = finished is not None and now >= instance.ended_at + micros(finished)
            assert is_late or instance in orphans, (
                f"I1: {instance.instance_id} was deleted too early"
            )
            del self.instances[instance.instance_id]
            self.asked.deleted(instance.instance_id)
            self.expired.add((instance.instance_id, instance.incarnation))
            self.counts["expired"] += 1
            self._check_gone(instance)

    def _goes_with_its_lap(self, instance: WatchedInstance) -> bool:
        """Return whether the lap that started a child is deleted."""
        link = instance.parent
        if link is None:
            return False
        parent = self.instance(link.instance_id, link.incarnation)
        if parent is None:
            return False
        is_gone = (link.instance_id, link.incarnation) in self.past
        return is_gone or link.execution <= parent.rows_gone

    def _check_gone(self, instance: WatchedInstance) -> None:
        instance_id = instance.instance_id
        self.past[instance_id, instance.incarnation] = instance
        assert self._directory.get(instance_id) is None, "I9: it was deleted and is there"
        assert not self._directory.executions(instance_id), (
            "I9: something of a deleted instance is left"
        )
        assert not self._directory.history(instance_id, instance.execution), (
            "I9: something of a deleted instance is left"
        )

    def ownership_changed(self, *, swept: bool = False) -> None:
        """Nodes were swept or left, or an operator revoked ownership: some rows have no owner now
        and another revision.
        """
        catalogue = self._directory.catalogue()
        now, living = catalogue.now, {node.record.node_id for node in catalogue.nodes}
        for instance in [instance for instance in self.instances.values() if not instance.ended]:
            record = self._record(instance)
            self._handed_out.released(instance, record, living)
            if record.row.revision != instance.revision:
                assert record.row.owner is None, (
                    f"I6: {instance.instance_id} has another owner without a claim"
                )
                assert record.row.revision == instance.revision + 1, (
                    f"I6: {instance.instance_id}: {record.row} after {instance}"
                )
                assert not swept or instance.owner not in living, (
                    f"I6: {instance.instance_id} was taken from {instance.owner}, which lives"
                )
                if record.row.takeovers and instance.owner is not None:
                    self.counts["take-overs"] += 1
                instance.revision, instance.owner = record.row.revision, None
            self._look(instance.instance_id, now)

    # --- what is stored ---

    def _record(self, instance: WatchedInstance) -> InstanceRecord:
        record = self._directory.get(instance.instance_id)
        assert record is not None, f"I1: {instance.instance_id} is lost"
        return record

    def _look(self, instance_id: str, now: int) -> None:
        instance = self.instances.get(instance_id)
        if instance is None:
            assert self._directory.get(instance_id) is None, (
                f"{instance_id} was never started, and is there"
            )
            return
        if instance.ended:
            return
        record = self._record(instance)
        self._check_row(instance, record)
        self._check_history(instance, record, now)
        self.asked.check(instance, self._directory, now)
        self._streams.check(instance, self._directory)
        instance.ended = instance.status is not Status.OPEN

    def _check_row(self, instance: WatchedInstance, record: InstanceRecord) -> None:
        row = record.row
        stored = (
            row.incarnation,
            row.revision,
            row.owner,
            record.status,
            row.inbox_seq,
            record.held,
            row.paused,
        )
        expected = (
            instance.incarnation,
            instance.revision,
            instance.owner,
            instance.status,
            instance.inbox_seq,
            instance.held,
            instance.paused,
        )
        assert stored == expected, (
            f"I6: {instance.instance_id} is stored as {stored}, and should be {expected}"
        )
        assert (row.cancel is not None) == instance.cancelled, (
            f"I1: the cancel of {instance.instance_id} is lost"
        )
        assert (row.cancel is not None and row.cancel.terminate) == instance.doomed, (
            f"rule 18: {instance.instance_id} is as good as ended"
        )
        assert (row.parent, row.root_id) == (instance.parent, instance.root), (
            f"rule 20: the parent of {instance.instance_id} is another one"
        )
        sources = tuple(sorted(report.source for report in instance.reports.values()))
        assert record.reports == sources, (
            f"I9: {instance.instance_id} has the ends of {record.reports}, and should have {sources}"
        )
        assert record.unread_messages == len(instance.inbox), (
            f"I1: {instance.instance_id} has other messages than were sent"
        )
        if instance.status is not Status.OPEN:
            assert record.execution.end is not None, (
                f"I4: {instance.instance_id} has ended, its execution has not"
            )
            assert record.execution.end.value == instance.status.value, (
                f"I4: {instance.instance_id} ended otherwise"
            )
            assert not record.activities, (
                f"I9: {instance.instance_id} has ended and remembers activities"
            )
            return
        assert record.execution.closed_at is None, (
            f"I4: {instance.instance_id} is open, its execution has ended"
        )
        self._handed_out.check(instance, record)
        if (
            row.owner is None
            and not record.held
            and row.inbox_seq > row.seen_seq
            and row.takeovers < _DELAYING_TAKEOVERS
        ):
            sleeps = row.wake_at is None or row.wake_at > record.updated_at
            assert not sleeps, (
                f"rule 4: {instance.instance_id} sleeps until {row.wake_at} over message "
                f"{row.inbox_seq}"
            )

    def _check_history(self, instance: WatchedInstance, record: InstanceRecord, now: int) -> None:
        number = record.row.execution
        if record.execution.opened_at is not None and not instance.records:
            self.versions.check(record.execution)
        if number != instance.execution:
            assert number > instance.execution, "I3: an execution went back"
            self._check_laps(instance, number, now)
        records = self._directory.history(instance.instance_id, number)
        self._check_suffix(instance, record.execution.version, records, now)
        closed = record.execution.closed_at is not None
        last = from_record(records[-1], self._forms) if records else None
        if record.execution.opened_at is None:
            assert not records, f"I3: {instance.instance_id} has events before it was opened"
        else:
            assert isinstance(last, TerminalEvent) == closed, (
                f"I4: {instance.instance_id}: history and row disagree on the end"
            )

    def _check_laps(self, instance: WatchedInstance, number: int, now: int) -> None:
        """All executions between the last one seen and the current one are there, and each ended in
        a boundary (I3).
        """
        gone = instance.histories_gone
        rows = {
            row.number: row
            for row in self._directory.executions(instance.instance_id, instance.execution - 1)
        }
        kept = list(range(max(instance.execution, instance.rows_gone + 1), number + 1))
        assert list(rows) == kept, (
            f"I3: {instance.instance_id} has {list(rows)}, and should have {kept}"
        )
        for row in rows.values():
            if row.opened_at is not None:
                self.versions.check(row)
        for closed in range(instance.execution, number):
            records = self._directory.history(instance.instance_id, closed)
            if closed <= gone:
                assert not records, (
                    f"I3: the events of execution {closed} of {instance.instance_id} were let go of, "
                    "and are there"
                )
            else:
                self._check_suffix(instance, rows[closed].version, records, now)
                self._check_lap(instance, rows[closed], rows[closed + 1], records)
            instance.execution = closed + 1
            instance.records, instance.commands, instance.told = [], {}, False
            self.counts["boundaries"] += 1
        if gone:
            directory, instance_id = self._directory, instance.instance_id
            first = directory.executions(instance_id, 0, 1)[0].number
            assert first == instance.rows_gone + 1, (
                f"I3: {instance_id} begins with execution {first}, and not {instance.rows_gone + 1}"
            )
            assert not directory.history(instance_id, gone), (
                f"I3: events that were let go of are there of {instance_id}"
            )
            (next_row,) = directory.executions(instance_id, gone, 1)
            if gone + 1 < number and next_row.opened_at is not None:
                assert directory.history(instance_id, gone + 1), (
                    f"I3: events of {instance_id} are gone that were to be kept"
                )

    def _check_lap(
        self,
        instance: WatchedInstance,
        row: ExecutionRow,
        following: ExecutionRow,
        records: Sequence[EventRecord],
    ) -> None:
        """A lap hands its state over, or a rewind has given the next one that of a former lap."""
        place = f"execution {row.number} of {instance.instance_id}"
        last = from_record(records[-1], self._forms) if records else None
        former = instance.rewinds.get(following.number)
        if former is None:
            assert isinstance(last, ContinuedAsNew), f"I3: {place} did not continue"
            state = last.state
        else:
            assert row.end is ExecutionEnd.REWOUND, f"rule 31: {place} was not rewound"
            assert isinstance(last, ExecutionRewound) == (row.opened_at is not None), (
                f"rule 31: {place} ends with {last}"
            )
            if former <= instance.rows_gone:
                return
            state = self._directory.executions(instance.instance_id, former - 1, 1)[0].state
        assert following.state == state, f"I3: {place}: the state was changed at its boundary"

    def _check_suffix(
        self, instance: WatchedInstance, version: str, records: list[EventRecord], now: int
    ) -> None:
        """History only grows, and what it grew by follows from what was there (I2, I5, I7)."""
        done = len(instance.records)
        assert records[:done] == instance.records, (
            f"I2: {instance.instance_id}: history was rewritten"
        )
        at = from_record(records[done - 1], self._forms).at if done else 0
        for position, record in enumerate(records[done:], done):
            event = from_record(record, self._forms)
            place = f"{instance.instance_id}, execution {instance.execution}, event {event.id}"
            assert event.id == position + 1, f"I2: {place}: a gap or a duplicate"
            assert (position == 0) == isinstance(event, ExecutionStarted), (
                f"I2: {place}: Started is first, and once"
            )
            assert position == len(records) - 1 or not isinstance(event, TerminalEvent), (
                f"I2: {place}: the end is not last"
            )
            assert at <= event.at <= now, (
                f"I7: {place}: it is at {event.at}, the one before at {at}, the store at {now}"
            )
            at = event.at
            self._check_event(instance, version, event, place)
            self.counts["events"] += 1
        instance.records = records

    def _check_session(
        self, command: ActivityScheduled, event: ActivityCompleted | ActivityFailedEvent, place: str
    ) -> None:
        """What belongs to a session is lost with the session's node, and nothing else is."""
        node = node_of(command.queue)
        if command.name == ENTER:
            assert isinstance(event, ActivityCompleted), f"{place}: a session ends by {event}"
            self.counts["sessions"] += 1
        elif isinstance(event, ActivityFailedEvent) and event.cause.type == SESSION_LOST:
            assert node is not None, f"{place}: {command} is lost with no session"
            # Virtual time stands still while nodes work: of a node that has joined at this very
            # instant, a catalogue of this instant need not tell.
            nodes = self._directory.catalogue().nodes
            living = {row.record.node_id for row in nodes if row.started_at < event.at}
            assert node not in living, f"{place}: {command} is lost, and {node} lives"
            self.counts["lost with their sessions"] += 1

    def _check_event(
        self, instance: WatchedInstance, version: str, event: Event, place: str
    ) -> None:
        match event:
            case ExecutionStarted():
                self.counts["migrations"] += len(event.migrations)
                identity = event.instance_id, event.incarnation, event.execution, event.version
                assert identity == (
                    instance.instance_id,
                    instance.incarnation,
                    instance.execution,
                    version,
                ), f"I2: {place}: of {identity}"
            case (
                ActivityScheduled()
                | TimerCreated()
                | EventAwaited()
                | ChildStarted()
                | RequestAwaited()
                | ChildAwaited()
            ):
                if not (
                    isinstance(event, ChildStarted) and event.on_parent_close is OnParentClose.KEEP
                ):  # no code waits for the start of a background child
                    instance.commands[event.id] = event
            case EventSent() | CancelSent():
                instance.commands[event.id] = event
            case ActivityCompleted() | ActivityFailedEvent():
                command = instance.commands.pop(event.source, None)
                assert isinstance(command, ActivityScheduled), f"I5: {place}: it answers {command}"
                self._check_session(command, event, place)
                if isinstance(event, ActivityCompleted) and command.name != ENTER:
                    key = ActivityKey(
                        instance.instance_id, instance.incarnation, instance.execution, event.source
                    )
                    assert event.result in self.returned[key], (
                        f"I5: {place}: no worker returned this"
                    )
            case TimerFired():
                command = instance.commands.pop(event.source, None)
                assert isinstance(command, TimerCreated), f"I5: {place}: it answers {command}"
                assert event.at >= command.due, (
                    f"I7: {place}: the timer was due at {command.due}, and fired at {event.at}"
                )
            case EventReceived():
                command = instance.commands.pop(event.source, None)
                assert isinstance(command, EventAwaited), f"I5: {place}: it answers {command}"
                assert command.name == event.name, (
                    f"I8: {place}: it is {event.name}, awaited was {command.name}"
                )
            case RequestReceived():
                command = instance.commands.pop(event.source, None)
                assert isinstance(command, RequestAwaited), f"I5: {place}: it answers {command}"
                assert command.name == event.name, (
                    f"I8: {place}: it is {event.name}, awaited was {command.name}"
                )
            case ChildCompleted() | ChildFailedEvent():
                command = instance.commands.pop(event.source, None)
                assert isinstance(command, ChildStarted), f"I5: {place}: it answers {command}"
            case ChildEnded():
                command = instance.commands.pop(event.source, None)
                assert isinstance(command, ChildAwaited), f"I5: {place}: it answers {command}"
                assert command.link == event.link, f"I5: {place}: it is of {event.link}"
            case SendDelivered() | SendRefused():
                command = instance.commands.pop(event.source, None)
                assert isinstance(command, EventSent | CancelSent), (
                    f"I5: {place}: it answers {command}"
                )
            case CommandCancelled():
                assert instance.commands.pop(event.source, None) is not None, (
                    f"I5: {place}: it cancels nothing"
                )
            case CancelRequested():
                assert instance.cancelled, f"{place}: nobody cancelled it"
                assert not instance.told, f"rule 18: {place}: it is told of its cancel twice"
                instance.told = True
            case BoundaryRequested():
                assert instance.execution in instance.nudged, f"rule 40: {place}: nobody asked it"
                assert instance.execution not in instance.heard, f"rule 40: {place}: a second time"
                instance.heard.add(instance.execution)
                self.counts["nudges heard"] += 1
            case _:
                pass
