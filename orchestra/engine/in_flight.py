"""Changes that are being committed, and how to handle each outcome."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from orchestra.engine.activities import Activities, key_of
from orchestra.engine.arrivals import Arrivals
from orchestra.engine.claims import Claims
from orchestra.engine.log_notices import LogNotices
from orchestra.engine.messages import (
    AbortActivity,
    InstanceEnded,
    Outbox,
    Reply,
    RequestsAnswered,
    RunActivity,
    StopActivity,
    Submit,
)
from orchestra.engine.owned import OwnedInstance
from orchestra.engine.ownership import Ownership, UnknownOutcomes
from orchestra.engine.ownership_check import OwnershipCheck
from orchestra.engine.publications import Publications
from orchestra.engine.run_queue import RunQueue
from orchestra.engine.schedules import Schedules
from orchestra.engine.steps.step import Step
from orchestra.engine.store_time import PUT_BACK, StoreTime
from orchestra.errors import OutcomeUnknown, StoreError
from orchestra.store.changes import (
    Append,
    Cancel,
    Change,
    Claim,
    Publish,
    Recover,
    Report,
    Resume,
    ScheduleWrite,
    Start,
    Suspend,
    Write,
    size_of,
)
from orchestra.store.kinds import HoldKind
from orchestra.store.outcomes import (
    Appended,
    Claimed,
    Granted,
    Outcome,
    Recovered,
    Refused,
    Reported,
    ScheduleWritten,
    Started,
    StartExists,
)
from orchestra.telemetry import Recorder, RefusedSendRecord, engine_logger, log_instance

__all__ = ["InFlightWrite", "InFlightWrites", "Outcomes", "refusal"]

_RETRIES_AFTER_UNKNOWN: Final = 5


@dataclass(slots=True)
class InFlightWrite:
    """A change under way: the write of an instance's step, a client's change (``submit``), or the
    engine's own.
    """

    change: Change
    instance: OwnedInstance | None = None
    step: Step | None = None
    submit: Submit | None = None
    unknown: int = 0
    """How often the reply to a client's change was lost."""


class InFlightWrites:
    """The group that is being gathered or committed, and the changes that wait for the next one.

    Args:
        most: how many steps make a group full. As many waiting changes come on top.
        most_bytes: about how large a group gets.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._group: list[InFlightWrite] = []
        self._on_top = 0
        """How many changes of the group count for no step."""
        self._bytes = 0
        self._waiting: list[InFlightWrite] = []

    @property
    def has_any(self) -> bool:
        """Whether there is anything to commit."""
        return bool(self._group or self._waiting)

    @property
    def changes(self) -> list[Change]:
        """The changes of the group."""
        return [sent.change for sent in self._group]

    # --- the group ---

    def begin(self, changes: Iterable[Change]) -> None:
        """Begin a group with changes that come before all others."""
        self._group = [InFlightWrite(change) for change in changes]
        self._bytes = self._on_top = 0

    def add(self, sent: InFlightWrite) -> None:
        """Put a change into the group."""
        self._group.append(sent)
        self._bytes += size_of(sent.change)

    @property
    def is_full(self) -> bool:
        """Whether the group takes no more steps."""
        return len(self._group) - self._on_top >= self._most or self._bytes >= self._most_bytes

    def add_waiting(self) -> list[InFlightWrite]:
        """Put waiting changes into the group while there is room, and one in any case. Return them.
        A start may bring a first turn.
        """
        taken = turns = 0
        for sent in self._waiting:
            size = len(self._group) + turns
            if taken and (size >= 2 * self._most or self._bytes >= self._most_bytes):
                break
            self.add(sent)
            taken += 1
            turns += isinstance(sent.change, Start)
        added = self._waiting[:taken]
        del self._waiting[:taken]
        self._on_top += taken
        return added

    def take_group(self) -> list[InFlightWrite]:
        """Return the group, whose outcomes are known, and empty it."""
        group, self._group = self._group, []
        return group

    # --- changes that wait for a group ---

    def queue(self, change: Change, submit: Submit | None = None) -> None:
        """Have a change committed with one of the next groups."""
        self._waiting.append(InFlightWrite(change, submit=submit))

    def ask_again(self, sent: InFlightWrite) -> bool:
        """Have a client's change committed again, as its reply was lost. Return whether the answer
        would tell its outcome.
        """
        # Starts and messages carry ids of their sender, and cancels are idempotent.
        if (
            not isinstance(sent.change, (Start, Append, Cancel, Suspend, Resume))
            or sent.unknown >= _RETRIES_AFTER_UNKNOWN
        ):
            return False
        sent.unknown += 1
        _disown(sent)
        self._waiting.append(sent)
        return True

    def keep_clients(self) -> None:
        """Drop all but clients' changes, which wait for the next group."""
        self._waiting = self.drop_clients()
        for sent in self._waiting:
            _disown(sent)
        self.take_group()

    def drop_clients(self) -> list[InFlightWrite]:
        """Drop clients' changes, and return them."""
        clients = [sent for sent in (*self._group, *self._waiting) if sent.submit is not None]
        self._group = [sent for sent in self._group if sent.submit is None]
        self._waiting = [sent for sent in self._waiting if sent.submit is None]
        return clients


def _disown(sent: InFlightWrite) -> None:
    """Take the owner from a start that is sent again: the group does not have its first turn."""
    if isinstance(sent.change, Start) and sent.change.owner is not None:
        sent.change = replace(sent.change, owner=None)


def refusal(sent: InFlightWrite, error: StoreError) -> Reply:
    """Answer a client whose change could not be committed.

    If an earlier attempt may have been committed, its outcome is unknown (I1).
    """
    assert sent.submit is not None
    if sent.unknown and not isinstance(error, OutcomeUnknown):
        unknown = OutcomeUnknown(
            f"the reply to the commit was lost, and asking again failed: {error}"
        )
        unknown.__cause__ = error
        return Reply(sent.submit.token, unknown)
    return Reply(sent.submit.token, error)


class Outcomes:
    """Follows up the outcomes of a group."""

    def __init__(
        self,
        node_id: str,
        time: StoreTime,
        outbox: Outbox,
        run_queue: RunQueue,
        in_flight: InFlightWrites,
        activities: Activities,
        publications: Publications,
        arrivals: Arrivals,
        claims: Claims,
        unknown: UnknownOutcomes,
        ownership: Ownership,
        check: OwnershipCheck,
        notices: LogNotices,
        recorder: Recorder,
        schedules: Schedules,
    ) -> None:
        self._schedules = schedules
        self.node_id = node_id
        self._time = time
        self._outbox = outbox
        self._run_queue = run_queue
        self._in_flight = in_flight
        self._activities = activities
        self._publications = publications
        self._arrivals = arrivals
        self._claims = claims
        self._unknown = unknown
        self._ownership = ownership
        self._check = check
        self._notices = notices
        self._recorder = recorder

    def apply(self, outcomes: Sequence[Outcome | StoreError]) -> None:
        """Follow up the outcomes of the last group."""
        for sent, outcome in zip(self._in_flight.take_group(), outcomes, strict=True):
            if isinstance(outcome, OutcomeUnknown):
                self._outcome_unknown(sent, outcome)
            elif isinstance(outcome, StoreError):
                self._poisoned(sent, outcome)
            elif sent.instance is not None and sent.step is not None:
                self._written(sent.instance, sent.step, outcome)
            elif sent.submit is not None:
                self._submitted(sent, outcome)
            else:
                self._answered(sent, outcome)

    # --- writes of steps ---

    def _written(self, instance: OwnedInstance, step: Step, outcome: Outcome) -> None:
        if not isinstance(outcome, Granted):
            self._ownership.refused(instance)
            return
        self._claims.meet(instance.kind)
        if outcome.arrivals or outcome.taken:
            self._arrived(outcome, instance)
        if outcome.refused:
            step.further().refused.extend(outcome.refused)
        if not self._run_queue.holds(instance):
            return
        if outcome.inbox_seq > instance.known_seq:
            # A message has come meanwhile: a park that meets one is not a park (rule 10).
            self._arrivals.are_due = True
            self._claims.want()
        self.follow(instance, step)

    def follow(self, instance: OwnedInstance, step: Step) -> None:
        """Do what follows from a step that stands."""
        extras = step.extras
        if extras is not None and extras.refused and self._recorder.recording:
            step.records.extend(
                RefusedSendRecord(instance.identity, refused.reason) for refused in extras.refused
            )
        if step.records:
            self._recorder.stands(step.records, self._time.now)
        if extras is not None and extras.published:
            self._recorder.published(extras.published)
        self._notices.stands(instance, step)
        if not instance.inputs:  # else an end waits for the turn that takes it
            self._activities.unrecorded.pop(instance.instance_id, None)
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
        if wake_at and step.now > self._time.now + PUT_BACK:
            # The clock was put back as this was committed.
            wake_at -= step.now - self._time.now
            if not step.retain:
                self._time.parked[instance.instance_id] = None
        if not step.retain:
            self._ownership.release(instance)
            if wake_at is not None:
                self._claims.expect(wake_at)
        elif instance.releasing or (step.wake_at is not None and step.wake_at <= step.now):
            # Or: it was blocked when all were to be released, and had decided to stay before.
            self._run_queue.make_ready(instance.instance_id)
        elif wake_at is not None:
            self._run_queue.arm(instance, wake_at)

    def _arrived(self, granted: Granted, instance: OwnedInstance | None) -> None:
        """Take in what a write has left with other instances of this node, without reading it."""
        for instance_id, arrival in granted.arrivals:
            self._arrivals.appended(instance_id, arrival, self.node_id)
        if instance is not None and granted.taken:  # an operator's write starts nothing
            left_out = "a detached start of %r was left out: an instance with this id exists"
            for instance_id in granted.taken:
                log_instance(logging.WARNING, instance.identity, left_out, instance_id)

    # --- changes of clients, and the engine's own ---

    def _submitted(self, sent: InFlightWrite, outcome: Outcome) -> None:
        assert sent.submit is not None
        change = sent.change
        self._outbox.add(Reply(sent.submit.token, outcome))
        match change, outcome:
            case ((Append() | Cancel()), Appended()):
                self._arrivals.appended(change.instance_id, outcome, self.node_id)
            case Start(), Started() | StartExists():
                if isinstance(outcome, StartExists) or outcome.restarted:
                    self.start_refused(change)
                for arrival in outcome.appended:
                    self._arrivals.appended(change.instance_id, arrival, self.node_id)
            case ScheduleWrite(), ScheduleWritten():
                self._scheduled(change, outcome)
            case Suspend(), Granted():
                if change.incarnation is not None:
                    self._ownership.taken_away(change.instance_id, change.incarnation)
                self._check.tasks_due = True  # its activities that run here are revoked
            case Resume(), Granted():
                self._claims.want()
            case Write(), Granted():
                self._arrived(outcome, None)
                self._ownership.taken_away(change.instance_id, change.incarnation)
                answers = change.extras.answers
                if answers:
                    self._outbox.add(RequestsAnswered(change.instance_id, answers))
                closed = change.executions[-1].closed if change.executions else None
                if closed is not None:
                    self._outbox.add(
                        InstanceEnded(
                            change.instance_id, change.state.status, closed.output, closed.error
                        )
                    )
            case _:
                pass

    def _answered(self, sent: InFlightWrite, outcome: Outcome) -> None:
        match outcome:
            case Claimed(snapshots=snapshots, more=more, tasks=tasks):
                self._claims.claimed(more=more)
                now = self._time.now
                self._recorder.claimed(snapshots, now)
                for snapshot in snapshots:
                    self._ownership.adopt(snapshot, now)
                for task in tasks:
                    self._activities.begin_task(task, self.node_id)
            case Reported() | Refused() if isinstance(sent.change, Report):
                self._reported(sent.change, outcome)
            case Granted() | Refused() if isinstance(sent.change, Publish):
                mistaken = self._publications.answered(sent.change, outcome)
                if mistaken is not None:
                    self._ownership.unanswered(mistaken)
            case Recovered(snapshot=snapshot):
                assert isinstance(sent.change, Recover)
                self._ownership.recovered(sent.change.instance_id, snapshot, self._time.now)
                if snapshot is None:
                    # It may have been held, and what runs for it left to this node.
                    self._check.tasks_due = True
            case ScheduleWritten():
                assert isinstance(sent.change, ScheduleWrite)
                self._scheduled(sent.change, outcome)
            case Refused() if isinstance(sent.change, ScheduleWrite):
                self._schedules.answered(sent.change)  # another node has ticked it
            case Granted() | Refused():
                pass  # a hold that this node has released, or that another one has
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
            self._arrivals.appended(report.instance_id, outcome.arrival, self.node_id)

    def _scheduled(self, write: ScheduleWrite, written: ScheduleWritten) -> None:
        self._schedules.written(write, written)
        if write.starts:
            self._claims.want()
        for instance_id, arrival in written.arrivals:
            self._arrivals.appended(instance_id, arrival, self.node_id)

    def start_refused(self, change: Change) -> None:
        """Drop the instance of a start of this node that was not made."""
        if isinstance(change, Start) and change.owner is not None:
            self._ownership.taken_away(change.instance_id, change.incarnation)

    # --- failures ---

    def _outcome_unknown(self, sent: InFlightWrite, error: OutcomeUnknown) -> None:
        """Find out whether a change was committed, by writing again (rule 9)."""
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
            # If the first one has arrived, the fence refuses the second.
            self._in_flight.queue(change)
        elif isinstance(change, Publish):
            self._publications.unanswered(change)
        elif isinstance(change, ScheduleWrite):
            self._schedules.answered(change)  # its revision tells
        self._check.owned_due = True

    def _poisoned(self, sent: InFlightWrite, error: StoreError) -> None:
        """Hold the instance of a change that the store refuses for good. The others go on (rule 8,
        I12).
        """
        if sent.submit is not None:
            self._outbox.add(refusal(sent, error))
            self.start_refused(sent.change)
        elif sent.instance is not None:
            self._ownership.hold_as_stored(sent.instance, HoldKind.STORE, error)
        elif isinstance(sent.change, Recover):
            self._unknown.answered(sent.change.instance_id)
        elif isinstance(sent.change, Report):
            self._activities.report_unstorable(sent.change, error)
        elif isinstance(sent.change, Publish):
            self._publications.failed(sent.change, error)
        elif isinstance(sent.change, ScheduleWrite):
            self._schedules.refused(sent.change, error, self._time.now)
        else:
            engine_logger.error("the store will not take %s: %s", type(sent.change).__name__, error)
            if isinstance(sent.change, Claim):  # not again before the next poll
                self._claims.give_up()
