"""Watches every commit of a simulated world, and holds what it did against the invariants.

The witness keeps a small account of its own for each instance: what the fence is, what arrived,
what was read, how far history was checked. A commit must do what its outcomes say, and what is
stored afterwards must be what the account says.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Final

from orchestra.clock import micros
from orchestra.codec import Payload
from orchestra.engine.messages import ActivityKey
from orchestra.events import (
    ActivityCompleted,
    ActivityFailedEvent,
    ActivityScheduled,
    CancelRequested,
    ChildCompleted,
    ChildFailedEvent,
    ChildStarted,
    CommandCancelled,
    ContinuedAsNew,
    Event,
    EventAwaited,
    EventReceived,
    EventRecord,
    ExecutionStarted,
    TerminalEvent,
    TimerCreated,
    TimerFired,
    from_record,
)
from orchestra.levels import Unknown
from orchestra.retention import Retention
from orchestra.store.changes import (
    Append,
    Cancel,
    Change,
    Claim,
    Recover,
    Release,
    Report,
    Start,
    Write,
)
from orchestra.store.inbox_limits import Full, Waiting
from orchestra.store.kinds import THIS_LIBRARY, HoldKind, Library, Status
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
    Started,
    StartExists,
)
from orchestra.store.port import Directory
from orchestra.store.queries import InstanceRecord
from orchestra.store.snapshots import Snapshot
from tests.support.simulation.ages import Ages
from tests.support.simulation.errands import Errands
from tests.support.simulation.families import Families, take_reports
from tests.support.simulation.lives import Life
from tests.support.simulation.programs import PROGRAMS

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
        self.lives: dict[str, Life] = {}
        self.past: dict[tuple[str, str], Life] = {}
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
        self.ages: Ages = Ages(library_of, self.counts)
        self._families = Families(self.lives, self._begin, self.counts, library.events)
        self._errands = Errands(self.lives, self.counts)
        self._digest = blake2b(digest_size=8)

    @property
    def digest(self) -> str:
        """A number of all that was committed: the same seed gives the same."""
        return self._digest.hexdigest()

    def life(self, instance_id: str, incarnation: str) -> Life | None:
        """Return what is known of an incarnation, also a deleted one."""
        life = self.lives.get(instance_id)
        if life is not None and life.incarnation == incarnation:
            return life
        return self.past.get((instance_id, incarnation))

    # --- commits ---

    def committed(self, changes: Sequence[Change], commit: Commit) -> None:
        """Check a group that was committed just now."""
        pairs = list(zip(changes, commit.outcomes, strict=True))
        self.counts["commits"] += 1
        self.counts["changes"] += len(pairs)
        for change, outcome in pairs:
            if isinstance(change, Write):
                self._write(change, outcome, commit.now)
                if isinstance(outcome, Granted):
                    self._errands.written(change, outcome)
            elif isinstance(change, Recover):
                self._recover(change, outcome)
        touched = {change.instance_id: None for change in changes if not isinstance(change, Claim)}
        for change, outcome in pairs:
            if isinstance(change, Write) and isinstance(outcome, Granted):
                touched.update(dict.fromkeys(self._families.follow(change, outcome, commit.now)))
        for change, outcome in pairs:
            match change:
                case Start():
                    self._start(change, outcome)
                case Append():
                    self._append(change, outcome, commit.now)
                case Cancel():
                    self._cancel(change, outcome)
                case Release():
                    self._release(change, outcome)
                case Report():
                    self._errands.reported(change, outcome)
                case _:
                    pass
        for change, outcome in pairs:
            if isinstance(change, Claim):
                assert isinstance(outcome, Claimed)
                for snapshot in outcome.snapshots:
                    self._claimed(change, snapshot)
                    touched[snapshot.row.instance_id] = None
                self._errands.claimed(change, outcome)
                touched.update(dict.fromkeys(task.instance_id for task in outcome.tasks))
        for instance_id in touched:
            self._look(instance_id, commit.now)
        trace = [(type(change).__name__, type(outcome).__name__) for change, outcome in pairs]
        state = [
            (one, self.lives[one].revision, len(self.lives[one].records))
            for one in touched
            if one in self.lives
        ]
        self._digest.update(repr((commit.now, trace, state)).encode())

    def _write(self, write: Write, outcome: Outcome, now: int) -> None:
        life = self.lives.get(write.instance_id)
        fits = (
            life is not None
            and life.status is Status.OPEN
            and (life.incarnation, life.revision) == (write.incarnation, write.revision)
            and write.owner in (None, life.owner)
        )
        if isinstance(outcome, Refused):
            self.counts["refused"] += 1
            assert not fits, f"I6: the owner of {write.instance_id} was refused: {life}"
            return
        assert isinstance(outcome, Granted)
        assert life is not None, (
            f"I6: a write to {write.instance_id}, which is not there, was granted"
        )
        assert fits, (
            f"I6: {write.instance_id} is at {life}, a write at {write.revision} by {write.owner} "
            "was granted"
        )
        self.counts["writes"] += 1
        self.ages.written(write)
        self._deliver(life, write, now)
        self._let_go(life, write)
        life.revision += 1
        life.number = write.state.execution
        life.status = write.state.status
        life.owner = write.state.owner if life.status is Status.OPEN else None
        life.held = write.hold is not None and life.status is Status.OPEN
        if life.doomed and write.state.seen_seq >= life.doomed_by and write.hold is None:
            assert life.status is Status.TERMINATED, (
                f"rule 18: {life.instance_id} was to be terminated, and goes on"
            )
        if write.hold is not None:
            self._check_hold(life, write.hold.kind, write.hold.detail)
        if life.status is not Status.OPEN:
            life.ended_at = now
            terminated = life.status is Status.TERMINATED
            assert not terminated or write.owner is None or life.doomed, (
                f"rule 18: {life.instance_id} was terminated by nobody"
            )
            self.counts[life.status.name.lower()] += 1
            for message in life.inbox.values():
                del life.known[
                    message.message_id
                ]  # it was not read, and whoever sends it again is told so (rule 19)
            life.inbox.clear()

    def _deliver(self, life: Life, write: Write, now: int) -> None:
        """Messages are delivered once, in order within a name, and none is passed over (I1, I8)."""
        events = [
            from_record(record, self._forms)
            for delta in write.executions
            for record in delta.events
        ]
        received = [event for event in events if isinstance(event, EventReceived)]
        consumed, read = set(write.consumed), {event.sequence for event in received}
        assert len(consumed) == len(write.consumed), "I8: a message was removed twice"
        assert read <= consumed, "I8: delivered is what was not removed"
        take_reports(life, write, events, consumed - read)
        for event in received:
            message = life.inbox.pop(event.sequence, None)
            assert message is not None, (
                f"I8: message {event.sequence} of {life.instance_id} was delivered and is not there"
            )
            assert (message.name, message.payload) == (event.name, event.payload), (
                "I8: it is another message"
            )
            earlier = [other.sequence for other in life.inbox.values() if other.name == event.name]
            assert all(event.sequence < other for other in earlier), (
                f"I8: {event.sequence} passed {min(earlier)}"
            )
            life.known[message.message_id] = message.sequence, now
            life.delivered.append(message)

    def _let_go(self, life: Life, write: Write) -> None:
        """Retention lets go of a prefix, and of as much as it must, but never of more (I3)."""
        for delta in write.executions:
            if delta.closed is not None:
                life.closed_at[delta.number] = delta.closed.at
        current, prune, keep = write.state.execution, write.prune, self._retention
        if prune is not None:
            aged = 0
            if prune.closed_until is not None:
                for number in range(life.rows_gone + 1, current - 1):
                    if life.closed_at[number] > prune.closed_until:
                        break
                    aged = number
            life.rows_gone = max(life.rows_gone, min(max(prune.executions, aged), current - 1))
            life.histories_gone = max(
                life.histories_gone, min(max(prune.histories, life.rows_gone), current - 1)
            )
            self.counts["prunes"] += 1
        closed = current - 1
        for kept, gone in (
            (keep.histories, life.histories_gone),
            (keep.executions, life.rows_gone),
        ):
            least = closed if kept is None else min(kept, closed)
            least = least if keep.keep_for is None else min(1, closed)
            most = closed if kept is None else max(0, 2 * kept - 1)
            assert least <= closed - gone <= max(least, most), (
                f"I3: of {life.instance_id} {closed - gone} of {closed} laps are kept"
            )

    def _check_hold(self, life: Life, kind: HoldKind | Unknown, detail: str) -> None:
        self.counts["holds"] += 1
        allowed = PROGRAMS[life.name].holds
        poisoned = kind is HoldKind.STORE and life.instance_id in self.poisoned
        assert kind in allowed or poisoned, f"I12: {life.instance_id} is held for {kind}: {detail}"

    def _recover(self, recover: Recover, outcome: Outcome) -> None:
        assert isinstance(outcome, Recovered)
        life = self.lives.get(recover.instance_id)
        owns = life is not None and life.owner == recover.node
        assert (outcome.snapshot is not None) == owns, (
            f"I6: {recover.node} recovered {recover.instance_id} of {life}"
        )
        if life is not None and outcome.snapshot is not None:
            self.counts["recoveries"] += 1
            life.revision += 1
            self._check_snapshot(life, outcome.snapshot, recover.node)

    def _start(self, start: Start, outcome: Outcome) -> None:
        life = self.lives.get(start.instance_id)
        if life is not None:
            same = life.incarnation == start.incarnation
            assert outcome == StartExists(same=same), (
                f"I1: {start.instance_id} was there, the answer was {outcome}"
            )
            return
        assert isinstance(outcome, Started), (
            f"I1: {start.instance_id} was not there, the answer was {outcome}"
        )
        self.counts["starts"] += 1
        self._begin(start)

    def _begin(self, start: Start) -> Life:
        assert (start.instance_id, start.incarnation) not in self.past, (
            f"I1: {start.incarnation} lives twice"
        )
        life = self.lives[start.instance_id] = Life(
            start.instance_id, start.incarnation, start.kind.name
        )
        return life

    @staticmethod
    def _full(life: Life, append: Append) -> Full | None:
        sizes = [(message.name, len(message.payload.data)) for message in life.inbox.values()]
        whole = Waiting(len(sizes), sum(size for _, size in sizes))
        of_name = [size for name, size in sizes if name == append.name]
        return append.limits.met_by(
            whole, Waiting(len(of_name), sum(of_name)), len(append.payload.data)
        )

    def _append(self, append: Append, outcome: Outcome, now: int) -> None:
        life = self.lives.get(append.instance_id)
        if life is None:
            assert outcome == AppendRefused(Refusal.NOT_FOUND)
            return
        sequence, read_at = life.known.get(append.message_id, (0, None))
        if sequence and (read_at is None or read_at > now - _TOMBSTONES):
            told = (
                isinstance(outcome, Appended) and not outcome.fresh and outcome.sequence == sequence
            )
            assert told, (
                f"I8: {append.message_id} was stored as {sequence}, the answer was {outcome}"
            )
            self.counts["repeated messages"] += 1
            return
        if life.status is not Status.OPEN:
            assert outcome == AppendRefused(Refusal.CLOSED)
            return
        if isinstance(outcome, AppendRefused):
            assert outcome.reason is Refusal.FULL, outcome
            assert outcome.full is not None
            assert outcome.full == self._full(life, append), (
                "I1: an inbox that is not full refused a message"
            )
            return
        assert isinstance(outcome, Appended), outcome
        assert self._full(life, append) is None, "a full inbox took a message"
        assert outcome.fresh, f"I1: {append.message_id} was not there, the answer was {outcome}"
        life.inbox_seq += 1
        assert outcome.sequence == life.inbox_seq, "I8: a number was left out or given twice"
        assert outcome.message is not None
        self.counts["messages"] += 1
        life.inbox[outcome.sequence] = outcome.message
        life.known[append.message_id] = outcome.sequence, None

    def _cancel(self, cancel: Cancel, outcome: Outcome) -> None:
        life = self.lives.get(cancel.instance_id)
        if (
            life is None
            or life.status is not Status.OPEN
            or cancel.incarnation not in (None, life.incarnation)
        ):
            assert isinstance(outcome, AppendRefused)
            return
        assert isinstance(outcome, Appended)
        fresh = not life.doomed if cancel.terminate else not life.cancelled
        assert outcome.fresh == fresh, "I1: a cancel was answered otherwise than it stands"
        if fresh:
            self.counts["marks to terminate" if cancel.terminate else "cancels"] += 1
            life.inbox_seq += 1
            life.cancelled = True
            if cancel.terminate:
                life.doomed, life.doomed_by = True, life.inbox_seq

    def _release(self, release: Release, outcome: Outcome) -> None:
        life = self.lives.get(release.instance_id)
        fits = (
            life is not None
            and life.held
            and (life.incarnation, life.revision) == (release.incarnation, release.revision)
            and life.status is Status.OPEN
        )
        assert isinstance(outcome, Granted) == fits, f"a release of {life} was answered {outcome}"
        if life is not None and fits:
            self.counts["releases"] += 1
            life.revision += 1
            life.held = False

    def _claimed(self, claim: Claim, snapshot: Snapshot) -> None:
        life = self.lives.get(snapshot.row.instance_id)
        assert life is not None, "I6: something was claimed that is not there"
        assert life.owner is None, f"I6: {claim.node} claimed what {life.owner} owns"
        assert life.status is Status.OPEN, f"I4: {life.instance_id} was claimed after its end"
        assert not life.held, f"rule 5: {life.instance_id} was claimed and is held"
        assert snapshot.row.kind in claim.kinds, "a node was given what it cannot run"
        self.counts["claims"] += 1
        self.ages.claimed(claim, snapshot)
        life.revision += 1
        life.owner = claim.node
        self._check_snapshot(life, snapshot, claim.node)

    def _check_snapshot(self, life: Life, snapshot: Snapshot, node: str) -> None:
        row = snapshot.row
        assert (row.incarnation, row.revision, row.owner) == (
            life.incarnation,
            life.revision,
            node,
        ), f"I6: {row} for {life}"
        whole_to = row.inbox_seq if snapshot.whole_to is None else snapshot.whole_to
        events = {sequence for sequence in life.inbox if sequence <= whole_to}
        sequences = [message.sequence for message in snapshot.messages]
        assert sequences == sorted(events | life.reports.keys()), (
            "I1: other messages than were sent"
        )
        assert (row.cancel is not None) == life.cancelled, "I1: a cancel mark came or went"

    # --- other writes ---

    def deleted(self, instance_id: str) -> None:
        """An instance was deleted."""
        life = self.lives.pop(instance_id)
        assert life.status is not Status.OPEN, "an open instance was deleted"
        self.counts["deletes"] += 1
        self._check_gone(life)

    def has_expired(self, count: int) -> None:
        """Instances were deleted whose time has run out since they ended: those, and no other."""
        if not count:
            return
        now, finished = self._directory.catalogue().now, self._retention.finished
        closed = [life for life in self.lives.values() if life.status is not Status.OPEN]
        gone = [life for life in closed if self._directory.get(life.instance_id) is None]
        assert len(gone) == count, f"I9: {count} have expired, gone are {gone}"
        assert finished is not None, f"nothing expires here, and {gone} are gone"
        for life in gone:
            assert now >= life.ended_at + micros(finished), (
                f"I1: {life.instance_id} was deleted too early"
            )
            del self.lives[life.instance_id]
            self.expired.add((life.instance_id, life.incarnation))
            self.counts["expired"] += 1
            self._check_gone(life)

    def _check_gone(self, life: Life) -> None:
        instance_id = life.instance_id
        self.past[instance_id, life.incarnation] = life
        assert self._directory.get(instance_id) is None, "I9: it was deleted and is there"
        assert not self._directory.executions(instance_id), (
            "I9: something of a deleted instance is left"
        )
        assert not self._directory.history(instance_id, life.execution), (
            "I9: something of a deleted instance is left"
        )

    def ownership_changed(self, *, swept: bool = False) -> None:
        """Nodes were swept or left, or an operator revoked ownership: some rows have no owner now
        and another revision.
        """
        catalogue = self._directory.catalogue()
        now, living = catalogue.now, {node.record.node_id for node in catalogue.nodes}
        for life in [life for life in self.lives.values() if not life.ended]:
            record = self._record(life)
            self._errands.released(life, record, living)
            if record.row.revision != life.revision:
                assert record.row.owner is None, (
                    f"I6: {life.instance_id} has another owner without a claim"
                )
                assert record.row.revision == life.revision + 1, (
                    f"I6: {life.instance_id}: {record.row} after {life}"
                )
                assert not swept or life.owner not in living, (
                    f"I6: {life.instance_id} was taken from {life.owner}, which lives"
                )
                if record.row.takeovers and life.owner is not None:
                    self.counts["take-overs"] += 1
                life.revision, life.owner = record.row.revision, None
            self._look(life.instance_id, now)

    # --- what is stored ---

    def _record(self, life: Life) -> InstanceRecord:
        record = self._directory.get(life.instance_id)
        assert record is not None, f"I1: {life.instance_id} is lost"
        return record

    def _look(self, instance_id: str, now: int) -> None:
        life = self.lives.get(instance_id)
        if life is None:
            assert self._directory.get(instance_id) is None, (
                f"{instance_id} was never started, and is there"
            )
            return
        if life.ended:
            return
        record = self._record(life)
        self._check_row(life, record)
        self._check_history(life, record, now)
        life.ended = life.status is not Status.OPEN

    def _check_row(self, life: Life, record: InstanceRecord) -> None:
        row = record.row
        stored = row.incarnation, row.revision, row.owner, record.status, row.inbox_seq, record.held
        expected = (
            life.incarnation,
            life.revision,
            life.owner,
            life.status,
            life.inbox_seq,
            life.held,
        )
        assert stored == expected, (
            f"I6: {life.instance_id} is stored as {stored}, and should be {expected}"
        )
        assert (row.cancel is not None) == life.cancelled, (
            f"I1: the cancel of {life.instance_id} is lost"
        )
        assert (row.cancel is not None and row.cancel.terminate) == life.doomed, (
            f"rule 18: {life.instance_id} is as good as ended"
        )
        assert (row.parent, row.root_id) == (life.parent, life.root), (
            f"rule 20: the parent of {life.instance_id} is another one"
        )
        sources = tuple(sorted(report.source for report in life.reports.values()))
        assert record.reports == sources, (
            f"I9: {life.instance_id} has the ends of {record.reports}, and should have {sources}"
        )
        assert record.unread_messages == len(life.inbox), (
            f"I1: {life.instance_id} has other messages than were sent"
        )
        if life.status is not Status.OPEN:
            assert record.execution.end is not None, (
                f"I4: {life.instance_id} has ended, its execution has not"
            )
            assert record.execution.end.value == life.status.value, (
                f"I4: {life.instance_id} ended otherwise"
            )
            assert not record.activities, (
                f"I9: {life.instance_id} has ended and remembers activities"
            )
            return
        assert record.execution.closed_at is None, (
            f"I4: {life.instance_id} is open, its execution has ended"
        )
        self._errands.check(life, record)
        if (
            row.owner is None
            and not record.held
            and row.inbox_seq > row.seen_seq
            and row.takeovers < _DELAYING_TAKEOVERS
        ):
            sleeps = row.wake_at is None or row.wake_at > record.updated_at
            assert not sleeps, (
                f"rule 4: {life.instance_id} sleeps until {row.wake_at} over message "
                f"{row.inbox_seq}"
            )

    def _check_history(self, life: Life, record: InstanceRecord, now: int) -> None:
        number = record.row.execution
        if number != life.execution:
            assert number > life.execution, "I3: an execution went back"
            self._check_laps(life, number, now)
        records = self._directory.history(life.instance_id, number)
        self._check_suffix(life, record.execution.version, records, now)
        closed = record.execution.closed_at is not None
        last = from_record(records[-1], self._forms) if records else None
        if record.execution.opened_at is None:
            assert not records, f"I3: {life.instance_id} has events before it was opened"
        else:
            assert isinstance(last, TerminalEvent) == closed, (
                f"I4: {life.instance_id}: history and row disagree on the end"
            )

    def _check_laps(self, life: Life, number: int, now: int) -> None:
        """All executions between the last one seen and the current one are there, and each ended in
        a boundary (I3).
        """
        gone = life.histories_gone
        rows = {
            row.number: row
            for row in self._directory.executions(life.instance_id, life.execution - 1)
        }
        kept = list(range(max(life.execution, life.rows_gone + 1), number + 1))
        assert list(rows) == kept, (
            f"I3: {life.instance_id} has {list(rows)}, and should have {kept}"
        )
        for closed in range(life.execution, number):
            records = self._directory.history(life.instance_id, closed)
            if closed <= gone:
                assert not records, (
                    f"I3: the events of execution {closed} of {life.instance_id} were let go of, "
                    "and are there"
                )
            else:
                self._check_suffix(life, rows[closed].version, records, now)
                last = from_record(records[-1], self._forms)
                assert isinstance(last, ContinuedAsNew), (
                    f"I3: execution {closed} of {life.instance_id} did not continue"
                )
                assert rows[closed + 1].state == last.state, (
                    f"I3: {life.instance_id}: the state was changed at a boundary"
                )
            life.execution = closed + 1
            life.records, life.commands, life.told = [], {}, False
            self.counts["boundaries"] += 1
        if gone:
            directory, instance_id = self._directory, life.instance_id
            first = directory.executions(instance_id, 0, 1)[0].number
            assert first == life.rows_gone + 1, (
                f"I3: {instance_id} begins with execution {first}, and not {life.rows_gone + 1}"
            )
            assert not directory.history(instance_id, gone), (
                f"I3: events that were let go of are there of {instance_id}"
            )
            if gone + 1 < number:
                assert directory.history(instance_id, gone + 1), (
                    f"I3: events of {instance_id} are gone that were to be kept"
                )

    def _check_suffix(self, life: Life, version: str, records: list[EventRecord], now: int) -> None:
        """History only grows, and what it grew by follows from what was there (I2, I5, I7)."""
        done = len(life.records)
        assert records[:done] == life.records, f"I2: {life.instance_id}: history was rewritten"
        at = from_record(records[done - 1], self._forms).at if done else 0
        for position, record in enumerate(records[done:], done):
            event = from_record(record, self._forms)
            place = f"{life.instance_id}, execution {life.execution}, event {event.id}"
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
            self._check_event(life, version, event, place)
            self.counts["events"] += 1
        life.records = records

    def _check_event(self, life: Life, version: str, event: Event, place: str) -> None:
        match event:
            case ExecutionStarted():
                identity = event.instance_id, event.incarnation, event.execution, event.version
                assert identity == (life.instance_id, life.incarnation, life.execution, version), (
                    f"I2: {place}: of {identity}"
                )
            case ActivityScheduled() | TimerCreated() | EventAwaited() | ChildStarted():
                life.commands[event.id] = event
            case ActivityCompleted() | ActivityFailedEvent():
                command = life.commands.pop(event.source, None)
                assert isinstance(command, ActivityScheduled), f"I5: {place}: it answers {command}"
                if isinstance(event, ActivityCompleted):
                    key = ActivityKey(
                        life.instance_id, life.incarnation, life.execution, event.source
                    )
                    assert event.result in self.returned[key], (
                        f"I5: {place}: no worker returned this"
                    )
            case TimerFired():
                command = life.commands.pop(event.source, None)
                assert isinstance(command, TimerCreated), f"I5: {place}: it answers {command}"
                assert event.at >= command.due, (
                    f"I7: {place}: the timer was due at {command.due}, and fired at {event.at}"
                )
            case EventReceived():
                command = life.commands.pop(event.source, None)
                assert isinstance(command, EventAwaited), f"I5: {place}: it answers {command}"
                assert command.name == event.name, (
                    f"I8: {place}: it is {event.name}, awaited was {command.name}"
                )
            case ChildCompleted() | ChildFailedEvent():
                command = life.commands.pop(event.source, None)
                assert isinstance(command, ChildStarted), f"I5: {place}: it answers {command}"
            case CommandCancelled():
                assert life.commands.pop(event.source, None) is not None, (
                    f"I5: {place}: it cancels nothing"
                )
            case CancelRequested():
                assert life.cancelled, f"{place}: nobody cancelled it"
                assert not life.told, f"rule 18: {place}: it is told of its cancel twice"
                life.told = True
            case _:
                pass
