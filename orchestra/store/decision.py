"""The commit protocol: which changes of a group are granted, how they affect other instances, and
which rows result.

Nothing here reads or writes a store. A provider reads the :class:`~orchestra.store.facts.Facts` of
a group, calls :func:`decide`, and writes the :class:`Decision`. The provider itself answers claims:
they see the instances that the group made ready.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Final

from orchestra.codec import EMPTY, Payload, as_payload
from orchestra.events import OnParentClose
from orchestra.store.audit import Record
from orchestra.store.changes import (
    NO_EXTRAS,
    Append,
    Cancel,
    Change,
    ChildStart,
    IfEnded,
    Publish,
    Recover,
    Release,
    Report,
    Resume,
    ScheduleWrite,
    Send,
    Start,
    Steps,
    Suspend,
    Write,
    record_of,
)
from orchestra.store.effects import Effects
from orchestra.store.executions import ExecutionRow
from orchestra.store.facts import (
    ActivityId,
    Address,
    Addressee,
    AttemptId,
    ChildLink,
    Facts,
    activities_named,
)
from orchestra.store.hot_row import HotRow
from orchestra.store.inbox import Inbox
from orchestra.store.inbox_limits import Full
from orchestra.store.instances import PARENT_CLOSED, CancelMark, Nudge, OperatorHold, ParentLink
from orchestra.store.kinds import Dialect, ExecutionEnd, MessageKind, Status
from orchestra.store.messages import MessageRow
from orchestra.store.outcomes import (
    Appended,
    AppendRefused,
    Granted,
    Outcome,
    Recovered,
    Refusal,
    Refused,
    RefusedSend,
    Reported,
    ScheduleWritten,
    Started,
    StartExists,
)
from orchestra.store.receipts import DELIVERED, refusal_payload
from orchestra.store.requests import RequestRow
from orchestra.store.routes import Kind
from orchestra.store.schedule_writes import Doing, ScheduleChange, decide_schedule
from orchestra.store.tasks import ActivityRow

__all__ = ["Circumstances", "Decision", "Recovery", "decide", "hands_out"]


@dataclass(frozen=True, slots=True)
class Circumstances:
    """The time of a decision, and the forms in which rows are written.

    ``now`` was read when all locks were held. ``kinds`` has the numbers of the instance kinds that
    the group writes; ``dialect`` says how other kinds are stored. A tombstone older than
    ``remembered_since`` has no effect (rule 21).
    """

    now: int
    remembered_since: int
    kinds: Mapping[Kind, int]
    dialect: Dialect


@dataclass(frozen=True, slots=True)
class Recovery:
    """Read the instance of a change, as it is after the earlier steps; ``row`` is its hot row
    then.
    """

    position: int
    row: HotRow


@dataclass(slots=True)
class Decision:
    """The result of a group, and what a provider writes for it, in this order.

    Attributes:
        steps: effects to carry out and instances to read, in order.
        started: the granted starts, by their new ids.
        restarted: the granted starts that begin an ended instance again, by their ids.
        unmade: ids that were made for starts of writes that were then refused.
        rows: the hot rows of all instances that the group names; the ``changed`` ones are written.
        reported: activities that reports have changed.
        messages: messages to add, with their instances.
        outcomes: the outcome of each change, by its position; those of recoveries follow from
            ``steps``.
        touched: instances whose owner must act, with that owner.
        hands_out: whether an activity became available for other nodes.
        records: what the audit keeps of granted changes.
        schedules: the granted writes of schedules, in their order.
        requests: requests to add, with their instances. One that an earlier life has left, or whose
            answer is forgotten, is replaced.
    """

    steps: list[Effects | Recovery] = field(default_factory=lambda: [])
    started: dict[str, Start] = field(default_factory=lambda: {})
    restarted: dict[str, Start] = field(default_factory=lambda: {})
    unmade: list[str] = field(default_factory=lambda: [])
    rows: dict[str, HotRow] = field(default_factory=lambda: {})
    reported: dict[ActivityId, ActivityRow] = field(default_factory=lambda: {})
    messages: list[tuple[str, MessageRow]] = field(default_factory=lambda: [])
    outcomes: dict[int, Outcome] = field(default_factory=lambda: {})
    touched: set[tuple[str, str | None]] = field(default_factory=set[tuple[str, str | None]])
    hands_out: bool = False
    records: list[Record] = field(default_factory=lambda: [])
    schedules: list[ScheduleChange] = field(default_factory=lambda: [])
    requests: list[tuple[str, RequestRow]] = field(default_factory=lambda: [])

    @property
    def changed_rows(self) -> list[HotRow]:
        """The hot rows to write."""
        return [row for row in self.rows.values() if row.changed]

    @property
    def marked_rows(self) -> list[HotRow]:
        """The hot rows whose cancel marks to write, or to remove."""
        return [row for row in self.rows.values() if row.marked]

    @property
    def consumed(self) -> int:
        """How many messages the group has consumed."""
        return sum(len(step.consumed) for step in self.steps if isinstance(step, Effects))

    @property
    def answered(self) -> int:
        """How many requests the group has answered."""
        return sum(len(step.extras.answers) for step in self.steps if isinstance(step, Effects))


def decide(changes: Mapping[int, Change], facts: Facts, circumstances: Circumstances) -> Decision:
    """Decide a group, in the order that :meth:`Store.commit` promises, without its claims.

    The facts are used up: rows and counts change in place.
    """
    deciding = _Deciding(facts, circumstances, set(activities_named(changes.values())))
    kinds = set(map(type, changes.values()))
    if Publish in kinds:
        for position, change in changes.items():
            if isinstance(change, Publish):  # before the writes: one of them may end the attempt
                deciding.publish(position, change)
    if Start in kinds:
        for position, change in changes.items():
            if isinstance(change, Start) and change.owner is not None:
                deciding.decide_arrival(position, change)  # its owner's first write may follow
    for position, change in changes.items():
        deciding.decide_owner(position, change)
    deciding.make_the_rest()
    for position, change in changes.items():
        deciding.follow(position, change)
    for position, change in changes.items():
        if position not in deciding.decision.outcomes:
            deciding.decide_arrival(position, change)
    for position, change in changes.items():
        record = record_of(change)
        if record is not None and _has_changed(deciding.decision.outcomes.get(position)):
            deciding.decision.records.append(record)
    deciding.decision.unmade.extend(facts.made - deciding.decision.started.keys())
    return deciding.decision


def _has_changed(outcome: Outcome | None) -> bool:
    """Return whether an operator's change has changed something. The audit keeps nothing else."""
    if isinstance(outcome, Appended):
        return outcome.fresh
    return isinstance(outcome, Granted | Started | ScheduleWritten)


def hands_out(write: Write) -> bool:
    """Return whether a write leaves an activity that other nodes may take."""
    for activity in write.activities:  # most writes have none
        if activity.route is not None and activity.owner is None:
            return True
    return False


_STARTED: Final = Started()
_ENDED: Final = (Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.TERMINATED)


class _Deciding:
    def __init__(
        self, facts: Facts, circumstances: Circumstances, named: Collection[ActivityId]
    ) -> None:
        self._facts = facts
        self._named = named
        self._now = circumstances.now
        self._remembered_since = circumstances.remembered_since
        self._kinds = circumstances.kinds
        self._dialect = circumstances.dialect
        self._effects = Effects(self._dialect)
        self._inboxes: dict[str, Inbox] = {}
        self._former_links: dict[tuple[str, str], ChildLink | None] = {}
        """The parents of lives that have ended and were followed by another one in this group."""
        self._unmade: dict[str, ExecutionRow] = {}
        """First executions that the first turns of their instances may add opened."""
        self.decision = Decision(steps=[self._effects], rows=facts.rows)

    # --- items of activities --------------------------------------------------------------

    def publish(self, position: int, publish: Publish) -> None:
        """Decide items of an attempt."""
        attempt = AttemptId.of(publish)
        known = self._facts.published.get(attempt, 0)
        items = tuple([item for item in publish.items if item.number > known])
        if not items:  # they all stand: the reply was lost, or this one comes late (rule 9)
            self.decision.outcomes[position] = Granted(0)
        elif not self._is_current(publish):
            self.decision.outcomes[position] = Refused()  # I6
        else:
            if not self._effects.can_publish(publish):
                self._begin_step()
            self._effects.publish(publish, items)
            if publish.steps is not None:
                self._keep_steps(publish.steps, attempt.activity)
            self._facts.published[attempt] = max(known, items[-1].number)
            self.decision.outcomes[position] = Granted(0)

    def _keep_steps(self, steps: Steps, key: ActivityId) -> None:
        """Have steps go with the row of their activity: in the write that stores them, so that no
        fault comes in between (I9).
        """
        standing = self._facts.activities.get(key)
        if standing is None:
            assert steps.row is not None  # else it was handed out, and has a row
            self._effects.keep(key, steps.row)
            self._facts.activities[key] = replace(steps.row, revision=0)
        elif standing.heartbeat is None:
            self._facts.activities[key] = marked = replace(standing, heartbeat=EMPTY)
            self._effects.stop(key, marked)

    def _is_current(self, publish: Publish) -> bool:
        """Return whether an attempt runs, under the fence that it names."""
        row = self._standing(publish.instance_id)
        if (
            row is None
            or not row.is_open
            or (row.incarnation, row.execution) != (publish.incarnation, publish.execution)
        ):
            return False
        activity = self._facts.activities.get(AttemptId.of(publish).activity)
        if publish.revision is not None:
            fence = publish.node, publish.revision
            return activity is not None and (activity.owner, activity.revision) == fence
        if row.owner != publish.node:
            return False
        if activity is None:
            # Its steps would be left behind if the activity had ended meanwhile: a change may come
            # late, or again because its reply was lost.
            return publish.steps is None or publish.steps.revision == row.revision
        return (
            activity.attempt == publish.attempt
            and activity.route is None
            and not activity.has_ended
        )

    # --- owners ---------------------------------------------------------------------------

    def decide_owner(self, position: int, change: Change) -> None:
        """Decide a change of an instance's owner, or of an operator in the owner's place."""
        if isinstance(change, Write):
            self.decision.outcomes[position] = self._write(change)
        elif isinstance(change, Recover):
            self._recover(position, change)

    def make_the_rest(self) -> None:
        """Add the first executions of instances that were started for owners and not written."""
        for instance_id, execution in self._unmade.items():
            self._effects.create(instance_id, execution)
        self._unmade = {}

    def _write(self, write: Write) -> Granted | Refused:
        row = self._reachable(write.instance_id)  # the group may have started it for its owner
        if (
            row is None
            or not row.is_open
            or (row.incarnation, row.revision) != (write.incarnation, write.revision)
            or (write.owner is not None and write.owner != row.owner)
        ):
            return Refused()  # I6
        self._touch(row)  # its owner has something to drop, if an operator writes
        status = self._dialect.statuses[write.state.status]
        row.write(
            write.state,
            self._kinds[write.state.kind],
            status,
            self._now,
            held=write.hold is not None,
        )
        if row.is_due(self._now) or (
            row.owner is None and write.hold is not None
        ):  # other code may be able to go on
            self._touch(row)
        self.decision.hands_out |= hands_out(write)
        self._take_over_activities(write, row)
        inbox = self._inbox(write.instance_id)
        inbox.consume(write.consumed)
        extras = write.extras
        if extras is not NO_EXTRAS:
            if extras.uncancels:
                row.unmark()
            if extras.answers:
                self._answer(write, inbox)
            if extras.restored:
                inbox.restore(extras.restored, row)
        if not self._effects.can_take(write):
            self._begin_step()
        self._effects.add(write, self._unmade.pop(write.instance_id, None))
        if extras is NO_EXTRAS:
            return Granted(row.inbox_seq)
        if extras.due is not None and row.is_open:
            self._is_due(extras.due, row)
        return Granted(row.inbox_seq, tuple(self._stop(write, row)))

    def _answer(self, write: Write, inbox: Inbox) -> None:
        """Note the answers of a granted write, for those who ask again in this group."""
        answers = write.extras.answers
        inbox.consume([answer.sequence for answer in answers])
        for answer in answers:
            address = Address(write.instance_id, answer.request_id)
            asked = self._facts.asked.get(address)
            if asked is not None and asked.answer is None:
                self._facts.asked[address] = replace(asked, answer=answer)

    def _is_due(self, act: Nudge | CancelMark | OperatorHold, row: HotRow) -> None:
        """Do to an instance what its boundary does that was due."""
        match act:
            case Nudge():
                self._effects.nudge(row.instance_id, act)
            case CancelMark():
                if not _stands_against(row.cancel, act.terminate):
                    row.mark_by_owner(act)
            case OperatorHold():
                if not row.paused and not row.cancel_terminate:
                    row.paused = row.held = True
                    self._effects.suspend(row.instance_id, act)

    def _take_over_activities(self, write: Write, row: HotRow) -> None:
        """Note the activities that a granted write completed or handed out again: their nodes have
        lost them.
        """
        if not self._named:
            return
        activities = self._facts.activities
        closes = any(delta.closed is not None for delta in write.executions)
        for key in [key for key in activities if key.instance_id == write.instance_id]:
            if closes or (row.is_open and key.event_id in write.completed):
                del activities[key]
        for activity in write.activities if row.is_open else ():  # an end writes none
            key = ActivityId(write.instance_id, activity.execution, activity.event_id)
            if key in self._named:
                standing = activities.get(key)
                activities[key] = replace(
                    activity, revision=0 if standing is None else standing.revision + 1
                )

    def _stop(self, write: Write, row: HotRow) -> Iterator[tuple[str, Appended]]:
        """Put the stop marks of a granted write. Yield the ends of activities that no node had
        taken.
        """
        for stop in write.extras.stops:
            key = ActivityId(write.instance_id, write.state.execution, stop.event_id)
            activity = self._facts.activities.get(key)
            if activity is None or activity.route is None or activity.has_ended:
                continue
            activity = replace(activity, stopping=True)
            if activity.owner is None:
                activity = replace(activity, failure=stop.failure, revision=activity.revision + 1)
            self._facts.activities[key] = activity
            self._effects.stop(key, activity)
            if activity.has_ended and row.is_open:
                yield write.instance_id, self._end_activity(row, activity)

    def _end_activity(self, row: HotRow, activity: ActivityRow) -> Appended:
        """Make an instance ready for the end of an activity: due now, or earlier if it was."""
        arrival = Appended(
            row.ring(self._now, ready=self._now), row.owner, fresh=True, activity=activity
        )
        self._touch(row)
        return arrival

    def _recover(self, position: int, recover: Recover) -> None:
        row = self._standing(recover.instance_id)
        if row is None or row.owner != recover.node:
            self.decision.outcomes[position] = Recovered(None)
            return
        # The lock has waited for the lost write, if that was still running. The new revision fences
        # it off (rule 9).
        row.recover()
        self.decision.steps.append(Recovery(position, copy(row)))
        self._begin_step()

    def _begin_step(self) -> None:
        self._effects = Effects(self._dialect)
        self.decision.steps.append(self._effects)

    def _standing(self, instance_id: str) -> HotRow | None:
        """Return the row of an instance that was there before this group."""
        return None if instance_id in self._facts.made else self._facts.rows.get(instance_id)

    # --- what a granted write does to other instances (rule 20) ----------------------------

    def follow(self, position: int, change: Change) -> None:
        """Apply a granted write's effects to other instances."""
        outcome = self.decision.outcomes.get(position)
        if (
            not isinstance(change, Write)
            or not isinstance(outcome, Granted)
            or not change.concerns_others
        ):
            return
        arrivals: list[tuple[str, Appended]] = []
        extras = change.extras
        taken = [
            child.child_id for child in extras.starts if not self._start_child(child, arrivals)
        ]
        for cancel in extras.cancels:
            link = self._facts.links.get(cancel.child_id)
            if link is not None and link.parent == cancel.parent:
                self._mark_child(
                    cancel.child_id,
                    CancelMark(self._now, cancel.reason, cancel.parent.instance_id),
                    arrivals,
                )
        refused = [one for send in extras.sends if (one := self._send(send, arrivals)) is not None]
        for execution in () if extras.leaves_children else change.closed_with_children:
            self._leave_children(change, execution, arrivals)
        if change.state.status is not Status.OPEN:
            self._tell_parent(change, arrivals)
        if extras.restart is not None:
            self._begin_again(self._facts.rows[change.instance_id], extras.restart)
            _, full = self._append_all(extras.restart)
            assert full is None, "a new inbox has room"
        self.decision.outcomes[position] = replace(
            outcome,
            arrivals=(*outcome.arrivals, *arrivals),
            taken=tuple(taken),
            refused=tuple(refused),
        )

    def _start_child(self, child: ChildStart, arrivals: list[tuple[str, Appended]]) -> bool:
        """Start a child, or send its parent the refusal. Return whether either was done."""
        outcome = None if child.start is None else self._start(child.start)
        if isinstance(outcome, Started) or (isinstance(outcome, StartExists) and outcome.same):
            return True
        if child.refusal is None:
            return False
        on_close = OnParentClose.KEEP if child.keeps else OnParentClose.ABANDON
        link = ChildLink(child.parent, on_close)
        refusal = as_payload(child.refusal)
        self._tell_end(link, child.child_id, Status.FAILED, refusal, None, arrivals)
        return True

    def _send(self, send: Send, arrivals: list[tuple[str, Appended]]) -> RefusedSend | None:
        """Give its target what an instance has sent, and the sender a receipt. Return a refusal of
        which the sender does not learn.
        """
        message = send.message
        outcome = self._append(message) if isinstance(message, Append) else self._cancel(message)
        kind, payload = MessageKind.SEND_DELIVERED, DELIVERED
        if isinstance(outcome, AppendRefused):
            kind, payload = MessageKind.SEND_REFUSED, refusal_payload(outcome)
        elif outcome.fresh:
            arrivals.append((message.instance_id, outcome))
        is_told = self._tell(send.sender, message.instance_id, kind, payload, None, arrivals)
        if is_told or not isinstance(outcome, AppendRefused):
            return None
        name = message.name if isinstance(message, Append) else None
        return RefusedSend(message.instance_id, name, outcome.reason.value)

    def _leave_children(
        self, write: Write, execution: int, arrivals: list[tuple[str, Appended]]
    ) -> None:
        of = (write.instance_id, write.incarnation, execution)
        bound = sorted(
            (link.parent.event_id, child_id, link.on_close)
            for child_id, link in self._facts.links.items()
            if (link.parent.instance_id, link.parent.incarnation, link.parent.execution) == of
            and link.on_close
            in (OnParentClose.CANCEL, OnParentClose.TERMINATE)  # what is not known is left alone
        )
        for _, child_id, on_close in bound:
            terminate = on_close == OnParentClose.TERMINATE
            self._mark_child(
                child_id,
                CancelMark(self._now, PARENT_CLOSED, write.instance_id, terminate),
                arrivals,
            )

    def _mark_child(
        self, child_id: str, mark: CancelMark, arrivals: list[tuple[str, Appended]]
    ) -> None:
        row = self._reachable(child_id)
        if row is None or not row.is_open or _stands_against(row.cancel, mark.terminate):
            return
        arrivals.append((child_id, row.mark(mark)))
        self._touch(row)

    def _tell_parent(self, write: Write, arrivals: list[tuple[str, Appended]]) -> None:
        life = write.instance_id, write.incarnation
        link = self._former_links.get(life, self._facts.links.get(write.instance_id))
        closed = write.executions[-1].closed if write.executions else None
        if link is None or closed is None:
            return
        completed = closed.end is ExecutionEnd.COMPLETED
        payload = closed.output if completed else as_payload(closed.error or b"")
        self._tell_end(
            link,
            write.instance_id,
            write.state.status,
            payload or Payload(b"null"),
            self._trace_of(write),
            arrivals,
        )

    def _tell_end(
        self,
        link: ChildLink,
        child_id: str,
        status: Status,
        payload: Payload,
        trace: str | None,
        arrivals: list[tuple[str, Appended]],
    ) -> None:
        """Send a child's end to the execution that has asked for it; that of a background child to
        the life of the instance.
        """
        kind, keeps = MessageKind(status.value), link.on_close is OnParentClose.KEEP
        if keeps:
            kind = MessageKind.BACKGROUND_CHILD_ENDED
        source = status.value if keeps else None
        self._tell(link.parent, child_id, kind, payload, trace, arrivals, source)

    def _trace_of(self, write: Write) -> str | None:
        """Return the trace of the execution that a write ends."""
        trace = self._facts.traces.get(write.instance_id)
        for delta in write.executions:
            if delta.number == write.state.execution:
                if delta.opened is not None:
                    trace = delta.traceparent
                elif delta.create is not None:
                    trace = delta.create.traceparent
        return trace

    def _tell(
        self,
        parent: ParentLink,
        child_id: str,
        kind: MessageKind,
        payload: Payload,
        trace: str | None,
        arrivals: list[tuple[str, Appended]],
        status: int | None = None,
    ) -> bool:
        """Send a child's end, or a receipt, to the execution that asked for it. Return whether that
        is open.

        With a ``status`` it is the end of a background child: it goes to any execution of that
        life.
        """
        row = self._reachable(parent.instance_id)
        if (
            row is None
            or not row.is_open
            or row.incarnation != parent.incarnation
            or (status is None and row.execution != parent.execution)
        ):
            return False
        now = self._now
        message = MessageRow(
            row.ring(now),
            str(parent),
            child_id,
            payload,
            now,
            kind,
            parent.event_id if status is None else status,
            trace,
            child_id,
        )
        self.decision.messages.append((parent.instance_id, message))
        self._touch(row)
        arrivals.append(
            (parent.instance_id, Appended(message.sequence, row.owner, fresh=True, message=message))
        )
        return True

    # --- arrivals -------------------------------------------------------------------------

    def decide_arrival(self, position: int, change: Change) -> None:
        """Decide a change that needs no ownership."""
        match change:
            case Start():
                outcome = self._start(change)
            case Append():
                outcome = self._append(change)
            case Cancel():
                outcome = self._cancel(change)
            case Release():
                outcome = self._release(change)
            case Suspend():
                outcome = self._suspend(change)
            case Resume():
                outcome = self._resume(change)
            case Report():
                outcome = self._report(change)
            case ScheduleWrite():
                outcome = self._write_schedule(change)
            case _:
                return
        self.decision.outcomes[position] = outcome

    def _start(self, start: Start) -> Started | StartExists:
        instance_id, facts = start.instance_id, self._facts
        if instance_id not in facts.made or instance_id in facts.requests:
            return self._start_standing(start)
        facts.requests[instance_id] = start.request_id
        facts.names[instance_id] = start.kind.name
        facts.rows[instance_id] = HotRow.started(start, self._kinds[start.kind], self._now)
        if start.parent is not None:
            facts.links[instance_id] = ChildLink(start.parent, start.on_parent_close)
        self.decision.started[instance_id] = start
        self.decision.touched.add((instance_id, start.owner))
        if start.owner is None:
            self._effects.create(instance_id, start.execution)
        else:
            self._unmade[instance_id] = start.execution
        if not (start.events or start.restored):
            return _STARTED
        self._effects.restore(start)
        appended, full = self._append_all(start)
        assert full is None, "a new inbox has room"
        return Started(appended)

    def _start_standing(self, start: Start) -> Started | StartExists:
        """Decide a start whose id is taken."""
        instance_id, facts = start.instance_id, self._facts
        is_same = start.request_id in {
            facts.requests.get(instance_id),
            *facts.former_requests.get(instance_id, ()),
        }
        row = self._reachable(instance_id) if start.concerns_standing else None
        if row is None:
            return StartExists(same=is_same)
        if is_same:
            return StartExists(same=True, is_open=row.is_open)
        name = facts.names.get(instance_id, start.kind.name)
        if name != start.kind.name:
            return StartExists(same=False, is_open=row.is_open, other=name)
        if row.is_open:
            given = start if start.gives_events else replace(start, events=())
            appended, full = self._append_all(given)
            return StartExists(same=False, is_open=True, appended=appended, full=full)
        if self._has_read(start):
            # An earlier try of this start gave its events to the life that has ended since.
            return StartExists(same=True, is_open=False)
        if not self._may_begin_again(start, row):
            return StartExists(same=False, is_open=False)
        self._begin_again(row, start)
        appended, full = self._append_all(start)
        assert full is None, "a new inbox has room"
        return Started(appended, restarted=True)

    def _has_read(self, start: Start) -> bool:
        """Return whether events of a start were read already: their ids come from its request."""
        inbox = self._inbox(start.instance_id)
        for event in start.events:
            known = self._facts.addressees.get(
                Address(event.instance_id, event.message_id), Addressee()
            )
            unread = inbox.appended.get(event.message_id) or known.unread
            if unread is not None and unread.sequence in inbox.consumed:
                return True
            if known.removed_as is not None and known.removed_at > self._remembered_since:
                return True
        return False

    def _may_begin_again(self, start: Start, row: HotRow) -> bool:
        if start.follows not in (None, (row.incarnation, row.revision)):
            return False
        if row.status not in self._dialect.statuses_of(_ENDED):
            return False  # a newer library knows how it has ended
        match start.if_ended:
            case IfEnded.LEAVE:
                return False
            case IfEnded.RESTART:
                return True
            case IfEnded.RESTART_IF_FAILED:
                return row.status != self._dialect.statuses[Status.COMPLETED]
            case IfEnded.RESTART_OWN:
                link, parent = self._facts.links.get(row.instance_id), start.parent
                return (
                    link is not None
                    and parent is not None
                    and (link.parent.instance_id, link.parent.incarnation)
                    == (parent.instance_id, parent.incarnation)
                )

    def _begin_again(self, row: HotRow, start: Start) -> None:
        """Begin an ended instance again (rule 31). Its executions are numbered on."""
        instance_id, facts = row.instance_id, self._facts
        execution = replace(start.execution, number=row.execution + 1)
        start = replace(start, execution=execution)
        former = row.incarnation
        row.begin_again(start, self._kinds[start.kind], self._now)
        facts.requests[instance_id] = start.request_id
        self._former_links[instance_id, former] = facts.links.pop(instance_id, None)
        if start.parent is not None:
            facts.links[instance_id] = ChildLink(start.parent, start.on_parent_close)
        self._inboxes.pop(instance_id, None)
        facts.whole.pop(instance_id, None)
        for name in [name for name in facts.named if name.instance_id == instance_id]:
            del facts.named[name]
        self.decision.restarted[instance_id] = start
        self._touch(row)
        self._begin_step()
        self._effects.create(instance_id, execution)
        self._effects.restore(start)
        if start.restored:
            self._inbox(instance_id).restore(start.restored, row)

    def _append_all(self, start: Start) -> tuple[tuple[Appended, ...], Full | None]:
        """Put the events of a start into the inbox of the instance that has its id: all, or none.
        Return why there is no room.
        """
        row = self._facts.rows[start.instance_id]
        inbox = self._inbox(start.instance_id)
        full = inbox.look_for_room_of_all(start.events, row)
        if full is not None:
            return (), full
        appended: list[Appended] = []
        for event in start.events:
            outcome = self._append(event)
            assert isinstance(outcome, Appended)
            appended.append(outcome)
        return tuple(appended), None

    def _append(self, append: Append) -> Appended | AppendRefused:
        row = self._reachable(append.instance_id)
        if row is None:
            return AppendRefused(Refusal.NOT_FOUND)
        if append.asks:
            return self._ask(append, row)
        known = self._facts.addressees.get(
            Address(append.instance_id, append.message_id), Addressee()
        )
        inbox = self._inbox(append.instance_id)
        unread = inbox.appended.get(append.message_id) or known.unread
        if unread is not None and unread.sequence in inbox.consumed:
            return Appended(unread.sequence, row.owner, fresh=False)
        if unread is not None and row.is_open:
            return Appended(unread.sequence, row.owner, fresh=False, message=unread)
        if known.removed_as is not None and known.removed_at > self._remembered_since:
            # Also after the end: the sender learns that its message was read (rule 21).
            return Appended(known.removed_as, row.owner, fresh=False)
        if not row.is_open:
            return AppendRefused(Refusal.CLOSED)
        return self._put(append, row, MessageKind.EVENT)

    def _ask(self, append: Append, row: HotRow) -> Appended | AppendRefused:
        """Put a request into an inbox, unless it was asked before (rule 33)."""
        asked = self._facts.asked.get(Address(append.instance_id, append.message_id))
        if asked is not None and asked.answer is not None:
            if asked.answer.at > self._remembered_since:
                # Also after the end: the same request gets the same answer.
                return Appended(asked.sequence, row.owner, fresh=False, answer=asked.answer)
        elif asked is not None:
            if not row.is_open or row.incarnation != asked.incarnation:
                return AppendRefused(Refusal.CLOSED)
            return Appended(asked.sequence, row.owner, fresh=False)
        if not row.is_open:
            return AppendRefused(Refusal.CLOSED)
        outcome = self._put(append, row, MessageKind.REQUEST)
        if isinstance(outcome, Appended):
            request = RequestRow(
                append.message_id, row.incarnation, append.name, outcome.sequence, self._now
            )
            self._facts.asked[Address(append.instance_id, append.message_id)] = request
            self.decision.requests.append((append.instance_id, request))
        return outcome

    def _put(self, append: Append, row: HotRow, kind: MessageKind) -> Appended | AppendRefused:
        """Put a new message into an inbox, if there is room."""
        inbox = self._inbox(append.instance_id)
        full = inbox.look_for_room(append, row)
        if full is not None:
            return AppendRefused(Refusal.FULL, full)
        message = MessageRow(
            row.ring(self._now),
            append.message_id,
            append.name,
            append.payload,
            self._now,
            kind,
            traceparent=append.traceparent,
            sender=append.sender,
        )
        inbox.add(message)
        self.decision.messages.append((append.instance_id, message))
        self._touch(row)
        return Appended(message.sequence, row.owner, fresh=True, message=message)

    def _cancel(self, cancel: Cancel) -> Appended | AppendRefused:
        row = self._reachable(cancel.instance_id)
        if row is None or cancel.incarnation not in (None, row.incarnation):
            return AppendRefused(Refusal.NOT_FOUND)
        if not row.is_open:
            return AppendRefused(Refusal.CLOSED)
        if _stands_against(row.cancel, cancel.terminate):
            return Appended(row.cancel_seq or 0, row.owner, fresh=False, cancel=row.cancel)
        appended = row.mark(CancelMark(self._now, cancel.reason, cancel.by, cancel.terminate))
        self._touch(row)
        return appended

    def _release(self, release: Release) -> Granted | Refused:
        row = self._reachable(release.instance_id)
        if (
            row is None
            or not row.is_open
            or not row.held
            or row.paused
            or (row.incarnation, row.revision) != (release.incarnation, release.revision)
        ):
            return Refused()
        row.release(self._now)
        self._touch(row)
        return Granted(row.inbox_seq)

    def _suspend(self, suspend: Suspend) -> Granted | Refused | AppendRefused:
        row = self._reachable(suspend.instance_id)
        if row is None or suspend.incarnation not in (None, row.incarnation):
            return AppendRefused(Refusal.NOT_FOUND)
        if not row.is_open:
            return AppendRefused(Refusal.CLOSED)
        if row.paused or row.cancel_terminate:
            return Refused()
        self._touch(row)
        row.suspend(self._now)
        hold = OperatorHold(self._now, suspend.by, suspend.reason)
        self._effects.suspend(row.instance_id, hold)
        for key, activity in self._handed_out_of(row.instance_id):
            if not activity.stopping:
                self._pause(
                    key,
                    replace(activity, owner=None, revision=activity.revision + 1, paused=True),
                )
        return Granted(row.inbox_seq)

    def _handed_out_of(self, instance_id: str) -> list[tuple[ActivityId, ActivityRow]]:
        """Return the activities of an instance that the group names and that have not ended."""
        return [
            (key, activity)
            for key, activity in self._facts.activities.items()
            if key.instance_id == instance_id
            and activity.route is not None
            and not activity.has_ended
        ]

    def _pause(self, key: ActivityId, activity: ActivityRow) -> None:
        """Note what a hold or its end does to an activity. Reports of the group are written behind
        the hold, so they must write the same.
        """
        self._facts.activities[key] = activity
        if key in self.decision.reported:
            self.decision.reported[key] = activity

    def _resume(self, resume: Resume) -> Granted | Refused | AppendRefused:
        row = self._reachable(resume.instance_id)
        if row is None or resume.incarnation not in (None, row.incarnation):
            return AppendRefused(Refusal.NOT_FOUND)
        if not row.is_open:
            return AppendRefused(Refusal.CLOSED)
        if not row.paused:
            return Refused()
        row.resume(self._now)
        self._touch(row)
        self._effects.further().resumed.append(row.instance_id)
        for key, activity in self._handed_out_of(row.instance_id):
            self._pause(key, replace(activity, paused=False))
        self.decision.hands_out = True
        return Granted(row.inbox_seq)

    def _report(self, report: Report) -> Reported | Refused:
        key = ActivityId(report.instance_id, report.execution, report.event_id)
        row, activity = self._standing(report.instance_id), self._facts.activities.get(key)
        if row is None or activity is None or row.incarnation != report.incarnation:
            return Refused()
        if (activity.owner, activity.revision) != (report.node, report.revision):
            return Refused()  # I6
        activity = replace(activity, heartbeat=report.heartbeat or activity.heartbeat)
        arrival = None
        if report.is_end:
            activity = replace(
                activity,
                owner=None,
                result=report.result,
                failure=report.failure,
                revision=activity.revision + 1,
            )
            if row.is_open:
                arrival = self._end_activity(row, activity)
        self._facts.activities[key] = self.decision.reported[key] = activity
        return Reported(arrival, activity.stopping)

    def _write_schedule(self, write: ScheduleWrite) -> ScheduleWritten | Refused:
        doing = Doing(self._start, self._append, self._cancel)
        decided = decide_schedule(write, self._facts.schedules, self._now, doing)
        if decided is None:
            return Refused()
        change, outcome = decided
        self.decision.schedules.append(change)
        return outcome

    # --- common ---------------------------------------------------------------------------

    def _reachable(self, instance_id: str) -> HotRow | None:
        """Return the row that an arrival finds: one that the group started, or one from before the
        group.
        """
        is_there = instance_id not in self._facts.made or instance_id in self._facts.requests
        return self._facts.rows.get(instance_id) if is_there else None

    def _inbox(self, instance_id: str) -> Inbox:
        inbox = self._inboxes.get(instance_id)
        if inbox is None:
            inbox = self._inboxes[instance_id] = Inbox(instance_id, self._facts)
        return inbox

    def _touch(self, row: HotRow) -> None:
        self.decision.touched.add((row.instance_id, row.owner))


def _stands_against(standing: CancelMark | None, terminate: bool) -> bool:  # noqa: FBT001 - what the new mark asks for
    """Return whether a mark stays. A second one changes nothing, but terminate beats cancel (rule
    18).
    """
    return standing is not None and (standing.terminate or not terminate)
