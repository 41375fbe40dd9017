"""What one commit does to the world, change by change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, zip_longest

from orchestra.codec import Payload, pack
from orchestra.errors import StoreError
from orchestra.events import OnParentClose
from orchestra.levels import Unknown
from orchestra.store.changes import (
    Append,
    Cancel,
    Change,
    ChildCancel,
    ChildStart,
    Claim,
    IfEnded,
    Publish,
    Recover,
    Release,
    Report,
    Resume,
    ScheduleWrite,
    Send,
    Start,
    Suspend,
    Write,
)
from orchestra.store.executions import PRUNED_AT_ONCE, ExecutionDelta, Prune
from orchestra.store.inbox_limits import Full, Waiting
from orchestra.store.instances import (
    PARENT_CLOSED,
    CancelMark,
    InstanceRow,
    Nudge,
    OperatorHold,
    ParentLink,
)
from orchestra.store.kinds import Dialect, MessageKind, Status
from orchestra.store.messages import MessageRow
from orchestra.store.outcomes import (
    Appended,
    AppendRefused,
    Claimed,
    Granted,
    Outcome,
    Recovered,
    Refusal,
    Refused,
    RefusedSend,
    ScheduleWritten,
    Started,
    StartExists,
)
from orchestra.store.requests import RequestAnswer, RequestRow
from orchestra.store.routes import Kind
from orchestra.store.snapshots import Snapshot
from orchestra.store.tasks import Task
from tests.support.model.ages import (
    as_stored,
    read_message,
    stored_form,
    write_execution,
    write_hold,
    write_resolution,
)
from tests.support.model.schedules import write_schedule
from tests.support.model.streams import publish, without_journals
from tests.support.model.tasks import publish_items, report, resume, stop, suspend, take
from tests.support.model.world import ModelInstance, ModelWorld, ring


@dataclass(frozen=True, slots=True)
class Limits:
    tombstone_window: int


class Group:
    """One commit in progress."""

    def __init__(self, world: ModelWorld, now: int, limits: Limits, dialect: Dialect) -> None:
        self._world = world
        self._dialect = dialect
        self._instances = world.instances
        self._kinds = world.kinds
        self._expiries = world.expiries
        self._now = now
        self._limits = limits
        self._families: list[tuple[str, Prune]] = []
        self._ended: dict[tuple[str, str], ModelInstance] = {}
        """Lives that another one has followed in this group."""

    def apply(self, changes: Sequence[Change]) -> tuple[Outcome, ...]:
        outcomes: dict[int, Outcome] = {}
        for phase in (_ITEMS, _OWNED_STARTS, _OWNERS, _OTHERS):
            for position, change in enumerate(changes):
                if not isinstance(change, Claim) and _phase(change) == phase:
                    outcomes[position] = self._apply_one(change)
            if phase == _OWNERS:
                for position, outcome in outcomes.items():
                    outcomes[position] = self._follow(changes[position], outcome)
        for position, change in enumerate(changes):
            self._record(change, outcomes.get(position))
        self._forget_answers(
            sum(
                len(changes[position].extras.answers)
                for position, outcome in outcomes.items()
                if isinstance(changes[position], Write) and isinstance(outcome, Granted)
            )
        )
        for family in self._families:
            self._let_children_go(*family)
        claims = [
            (position, change)
            for position, change in enumerate(changes)
            if isinstance(change, Claim)
        ]
        taken = [take(self._world, claim) for _, claim in claims]
        for (position, claim), tasks in zip(claims, taken, strict=True):
            outcomes[position] = self._claim(claim, tasks)
        return tuple(outcomes[position] for position in range(len(changes)))

    def _record(self, change: Change, outcome: Outcome | None) -> None:
        record = getattr(change, "record", None)
        done = isinstance(outcome, Granted | Started | ScheduleWritten) or getattr(
            outcome, "fresh", False
        )
        if record is not None and done:
            detail = {**record.detail, "text": record.reason} if record.reason else record.detail
            self._world.record(record.by, record.action, record.subject, detail)

    def _apply_one(
        self,
        change: Write
        | Recover
        | Start
        | Append
        | Cancel
        | Release
        | Report
        | Suspend
        | Resume
        | ScheduleWrite
        | Publish,
    ) -> Outcome:
        match change:
            case Publish():
                return publish_items(self._world, change)
            case ScheduleWrite():
                return write_schedule(self._world, self._now, change, self._apply_one)
            case Write():
                return self._write(change)
            case Recover():
                return self._recover(change)
            case Start():
                return self._start(change)
            case Append():
                return self._append(change)
            case Cancel():
                return self._cancel(change)
            case Release():
                return self._release(change)
            case Report():
                return report(self._world, self._now, change)
            case Suspend():
                return self._suspend(change)
            case Resume():
                return self._resume(change)

    def _write(self, write: Write) -> Granted | Refused:
        self._kinds.setdefault(write.state.kind)
        instance = self._instances.get(write.instance_id)
        if instance is None or instance.status is not Status.OPEN:
            return Refused()
        row, state = instance.row, write.state
        if (row.incarnation, row.revision) != (
            write.incarnation,
            write.revision,
        ) or write.owner not in (None, row.owner):
            return Refused()
        for delta in write.executions:
            instance = self._apply_delta(instance, delta)
        instance = self._set_aside(instance, write)
        instance = self._consume(instance, write.consumed)
        instance = self._answer(instance, write)
        if write.closed_with_children or any(delta.receipts for delta in write.executions):
            # Only the kinds that are ends of children: what a newer library has sent stays for it.
            kept = tuple(
                message
                for message in instance.messages
                if stored_form(message.kind) not in self._dialect.reports
            )
            instance = replace(instance, messages=kept)
        is_open = state.status is Status.OPEN
        is_ready = row.inbox_seq > state.seen_seq
        row = replace(
            row,
            revision=row.revision + 1,
            kind=state.kind,
            owner=state.owner if is_open else None,
            wake_at=None if not is_open else 0 if is_ready else state.wake_at,
            seen_seq=state.seen_seq,
            execution=state.execution,
            opened=state.opened,
            takeovers=state.takeovers,
            history_events=state.history_events,
            history_bytes=state.history_bytes,
            hold=write_hold(write.hold, self._dialect) or row.hold,
            paused=is_open and row.paused,
            boundary_due=state.boundary_due if is_open else None,
        )
        activities = dict(instance.activities)
        for event_id in write.completed:
            activities.pop((state.execution, event_id), None)
        for activity in write.activities:
            key = activity.execution, activity.event_id
            revision = activities[key].revision + 1 if key in activities else 0
            activities[key] = replace(activity, revision=revision)
        instance = replace(
            instance,
            row=row,
            status=as_stored(state.status, self._dialect.statuses[state.status]),
            held=is_open and (write.hold is not None or row.paused),
            summary=state.summary,
            custom_status=write.extras.custom_status or instance.custom_status,
            labels={
                key: value
                for key, value in {**instance.labels, **dict(write.extras.labels)}.items()
                if value is not None
            },
            activities=activities if is_open else instance.activities,
            updated_at=self._now,
        )
        if write.extras.uncancels:
            instance = replace(instance, row=replace(instance.row, cancel=None), cancel_sequence=0)
        if write.extras.pin is not None:
            instance = replace(instance, row=replace(instance.row, pin=write.extras.pin))
        if not is_open:
            unread = Counter(dict(instance.names))
            after = self._expiries.get(state.kind.name)
            expires_at = None if after is None else self._now + after
            instance = replace(
                instance,
                messages=(),
                aside=(),
                unread_at_end=dict(unread),
                expires_at=expires_at,
            )
        before = self._instances[write.instance_id].activities
        completed = {(state.execution, one) for one in write.completed} if is_open else set()
        streams = without_journals(instance.streams, before, instance.activities, completed)
        streams = publish(
            streams, write.incarnation, write.extras.published, write.extras.stream_bounds
        )
        instance = restore(replace(instance, streams=streams), write.extras.restored)
        if write.prune is not None:
            instance = prune(instance, write.prune)
        self._instances[write.instance_id] = instance
        if write.extras.due is not None and is_open:
            self._is_due(write.instance_id, write.extras.due)
        if write.prune is not None and write.prune.children:
            self._families.append((write.instance_id, write.prune))
        ends = [stop(self._world, self._now, write, one) for one in write.extras.stops]
        return Granted(
            row.inbox_seq, tuple((write.instance_id, end) for end in ends if end is not None)
        )

    def _is_due(self, instance_id: str, act: Nudge | CancelMark | OperatorHold) -> None:
        """Do what a boundary does that was due."""
        instance = self._instances[instance_id]
        row = instance.row
        terminated = row.cancel is not None and row.cancel.terminate
        if isinstance(act, Nudge):
            instance = replace(instance, row=replace(row, nudge=act))
        elif isinstance(act, CancelMark):
            if row.cancel is None:
                instance = replace(
                    instance, row=replace(row, cancel=act), cancel_sequence=row.inbox_seq
                )
        elif not row.paused and not terminated:
            row = replace(row, paused=True, operator_hold=act)
            instance = replace(instance, row=row, held=True)
            self._instances[instance_id] = instance
            suspend(self._world, instance_id)
            return
        self._instances[instance_id] = instance

    def _let_children_go(self, instance_id: str, asked: Prune) -> None:
        """Let ended children of laps without a row expire, of this life of their parent."""
        parent = self._instances[instance_id]
        laps = range(asked.children_from, min(parent.executions))
        found = sorted(
            (link.execution, key)
            for key, child in self._instances.items()
            if (link := child.row.parent) is not None
            and (link.instance_id, link.incarnation)
            == (parent.row.instance_id, parent.row.incarnation)
            and link.execution in laps
        )[:1_000]
        ended = [key for _, key in found if goes(self._instances[key])]
        for key in ended[: asked.children]:
            self._instances[key] = replace(self._instances[key], expires_at=1)

    def _apply_delta(self, instance: ModelInstance, delta: ExecutionDelta) -> ModelInstance:
        number = delta.number
        executions, events, activities = (
            dict(instance.executions),
            dict(instance.events),
            instance.activities,
        )
        if delta.create is not None:
            require(number not in executions, "an execution was made twice")
            executions[number] = write_execution(delta.create, self._dialect)
        require(number in executions, "an execution is not there")
        if delta.opened is not None:
            require(executions[number].opened_at is None, "an execution was opened twice")
            executions[number] = replace(
                executions[number],
                opened_at=delta.opened.at,
                version=delta.opened.version,
                fingerprint=delta.opened.fingerprint,
                migrations=delta.opened.migrations,
                format=delta.opened.format,
                resolution=write_resolution(delta.opened.resolution, self._dialect),
                traceparent=delta.traceparent,
            )
        if delta.retargeted is not None:
            require(executions[number].opened_at is None, "an execution was opened twice")
            executions[number] = replace(
                executions[number],
                version=delta.retargeted.version,
                resolution=write_resolution(delta.retargeted.resolution, self._dialect),
                traceparent=delta.traceparent,
            )
        if delta.patches:
            executions[number] = replace(executions[number], patches=delta.patches)
        if delta.events:
            history = (*events.get(number, ()), *delta.events)
            require(
                len({event.id for event in history}) == len(history), "an event was written twice"
            )
            events[number] = history
        if delta.closed is not None:
            require(executions[number].closed_at is None, "an execution was closed twice")
            end = delta.closed.end
            executions[number] = replace(
                executions[number],
                closed_at=delta.closed.at,
                end=as_stored(end, self._dialect.ends[end]),
                output=delta.closed.output,
                error=delta.closed.error,
                events=delta.event_count,
                bytes=delta.byte_count,
            )
            activities = {}
        return replace(instance, executions=executions, events=events, activities=activities)

    def _set_aside(self, instance: ModelInstance, write: Write) -> ModelInstance:
        kept = [one for one in instance.aside if one.sequence not in write.extras.unkept]
        for aside in write.extras.set_aside:
            kept += [
                replace(message, aside=aside.reason, aside_at=self._now)
                for message in instance.unread_events
                if message.sequence == aside.sequence
            ]
        kept.sort(key=lambda message: message.sequence)
        while kept[1_000:] or (
            kept[1:] and sum(len(one.payload.data) for one in kept) > 16 * 1024 * 1024
        ):
            del kept[0]
        return replace(instance, aside=tuple(kept))

    def _consume(self, instance: ModelInstance, consumed: Sequence[int]) -> ModelInstance:
        removed = [message for message in instance.messages if message.sequence in consumed]
        require(len(removed) == len(consumed), "a message was consumed that is not there")
        buried = {
            message.message_id: (message.sequence, self._now)
            for message in removed
            if message.kind is MessageKind.EVENT
        }
        rest = tuple(message for message in instance.messages if message.sequence not in consumed)
        return replace(instance, messages=rest, tombstones={**instance.tombstones, **buried})

    def _answer(self, instance: ModelInstance, write: Write) -> ModelInstance:
        """Store answers with requests that have none, and remove the messages of all of them."""
        requests = dict(instance.requests)
        for answer in write.extras.answers:
            asked = requests.get(answer.request_id)
            if asked is not None and asked.answer is None:
                stored = replace(answer, sequence=asked.sequence)
                requests[answer.request_id] = replace(asked, answer=stored)
        gone = {answer.sequence for answer in write.extras.answers}
        messages = tuple(
            message
            for message in instance.messages
            if message.kind is not MessageKind.REQUEST or message.sequence not in gone
        )
        return replace(instance, requests=requests, messages=messages)

    def _forget_answers(self, given: int) -> None:
        """Delete twice as many requests as were answered, whose answers are out of the window."""
        old = sorted(
            (one.answer.at, instance_id, key)
            for instance_id, instance in self._instances.items()
            for key, one in instance.requests.items()
            if one.answer is not None and one.answer.at <= self._now - self._limits.tombstone_window
        )
        for _, instance_id, key in old[: 2 * given]:
            instance = self._instances[instance_id]
            kept = {name: one for name, one in instance.requests.items() if name != key}
            self._instances[instance_id] = replace(instance, requests=kept)

    def _ask(self, append: Append, instance: ModelInstance) -> Appended | AppendRefused:
        asked, owner = instance.requests.get(append.message_id), instance.row.owner
        is_open = instance.status is Status.OPEN
        if asked is not None and asked.answer is None:
            if is_open and asked.incarnation == instance.row.incarnation:
                return Appended(asked.sequence, owner, fresh=False)
            return AppendRefused(Refusal.CLOSED)
        if (
            asked is not None
            and asked.answer is not None
            and asked.answer.at > self._now - self._limits.tombstone_window
        ):
            return Appended(asked.sequence, owner, fresh=False, answer=asked.answer)
        if not is_open:
            return AppendRefused(Refusal.CLOSED)
        outcome = self._put(append, instance, MessageKind.REQUEST)
        if isinstance(outcome, Appended):
            assert self._dialect.messages[MessageKind.REQUEST] == MessageKind.REQUEST.value
            request = RequestRow(
                append.message_id,
                instance.row.incarnation,
                append.name,
                outcome.sequence,
                self._now,
            )
            instance = self._instances[append.instance_id]
            self._instances[append.instance_id] = replace(
                instance, requests={**instance.requests, append.message_id: request}
            )
        return outcome

    def _recover(self, recover: Recover) -> Recovered:
        instance = self._instances.get(recover.instance_id)
        if instance is None or instance.row.owner != recover.node:
            return Recovered(None)
        instance = replace(instance, row=replace(instance.row, revision=instance.row.revision + 1))
        self._instances[recover.instance_id] = instance
        return Recovered(instance.snapshot(self._dialect))

    def _start(self, start: Start) -> Started | StartExists:
        self._kinds.setdefault(start.kind)
        standing = self._instances.get(start.instance_id)
        if standing is not None:
            return self._start_standing(start, standing)
        self._make(start)
        return Started(self._append_all(start))

    def _start_standing(self, start: Start, standing: ModelInstance) -> Started | StartExists:
        row = standing.row
        asked = bool(start.looks or start.events or start.if_ended is not IfEnded.LEAVE)
        former = {execution.request_id for execution in standing.executions.values()}
        same = start.request_id == standing.request_id or start.request_id in former
        if not asked:
            return StartExists(same=same)
        is_open = standing.status is Status.OPEN
        if same:
            return StartExists(same=True, is_open=is_open)
        if row.kind.name != start.kind.name:
            return StartExists(same=False, is_open=is_open, other=row.kind.name)
        if is_open:
            appended = self._append_all(start if start.gives_events else replace(start, events=()))
            if isinstance(appended, Full):
                return StartExists(same=False, is_open=True, full=appended)
            return StartExists(same=False, is_open=True, appended=appended)
        since = self._now - self._limits.tombstone_window
        read = {name for name, (_, at) in standing.tombstones.items() if at > since}
        if any(event.message_id in read for event in start.events):
            return StartExists(same=True, is_open=False)
        parents = [
            (link.instance_id, link.incarnation)
            for link in (row.parent, start.parent)
            if link is not None
        ]
        wanted = {
            IfEnded.LEAVE: False,
            IfEnded.RESTART: True,
            IfEnded.RESTART_IF_FAILED: standing.status is not Status.COMPLETED,
            IfEnded.RESTART_OWN: len(parents) == 2 and parents[0] == parents[1],
        }[start.if_ended]
        if start.follows is not None and start.follows != (row.incarnation, row.revision):
            wanted = False
        if not wanted or isinstance(standing.status, Unknown):
            return StartExists(same=False, is_open=False)
        self._begin_again(start, standing)
        return Started(self._append_all(start), restarted=True)

    def _begin_again(self, start: Start, standing: ModelInstance) -> None:
        number = standing.row.execution + 1
        start = replace(start, execution=replace(start.execution, number=number))
        self._ended[start.instance_id, standing.row.incarnation] = standing
        self._make(start)
        fresh, former = self._instances[start.instance_id], standing.row
        row = replace(
            fresh.row,
            owner=None,
            revision=former.revision + 1,
            inbox_seq=former.inbox_seq,
            seen_seq=former.inbox_seq,
        )
        self._instances[start.instance_id] = replace(
            fresh,
            row=row,
            executions={**standing.executions, **fresh.executions},
            events=standing.events,
            tombstones=standing.tombstones,
            requests={
                key: replace(one, answer=RequestAnswer(key, one.sequence, at=self._now))
                if one.answer is None
                else one
                for key, one in standing.requests.items()
            },
            streams=standing.streams,
        )

    def _append_all(self, start: Start) -> tuple[Appended, ...] | Full:
        before = self._instances[start.instance_id]
        outcomes = [self._append(event) for event in start.events]
        for outcome in outcomes:
            if isinstance(outcome, AppendRefused):
                assert outcome.full is not None
                self._instances[start.instance_id] = before
                return outcome.full
        return tuple(outcome for outcome in outcomes if isinstance(outcome, Appended))

    def _make(self, start: Start) -> None:
        row = InstanceRow(
            instance_id=start.instance_id,
            incarnation=start.incarnation,
            kind=start.kind,
            revision=1,
            owner=start.owner,
            wake_at=start.wake_at,
            inbox_seq=0,
            seen_seq=0,
            execution=start.execution.number,
            opened=start.execution.opened_at is not None,
            takeovers=0,
            history_events=0,
            history_bytes=0,
            traceparent=start.traceparent,
            parent=start.parent,
            root_id=start.root_id,
            not_before=start.not_before,
            pin=start.pin,
        )
        made = ModelInstance(
            row=row,
            request_id=start.request_id,
            created_at=self._now,
            updated_at=self._now,
            created_by=start.created_by,
            labels=dict(start.labels),
            executions={start.execution.number: write_execution(start.execution, self._dialect)},
            on_parent_close=start.on_parent_close,
            schedule=start.schedule,
        )
        self._instances[start.instance_id] = restore(made, start.restored)

    def _append(self, append: Append) -> Appended | AppendRefused:
        instance = self._instances.get(append.instance_id)
        if instance is None:
            return AppendRefused(Refusal.NOT_FOUND)
        if append.asks:
            return self._ask(append, instance)
        for message in instance.unread_events:
            if message.message_id == append.message_id:
                return Appended(message.sequence, instance.row.owner, fresh=False, message=message)
        sequence, removed_at = instance.tombstones.get(append.message_id, (0, 0))
        if sequence and removed_at > self._now - self._limits.tombstone_window:
            return Appended(sequence, instance.row.owner, fresh=False)
        if instance.status is not Status.OPEN:
            return AppendRefused(Refusal.CLOSED)
        return self._put(append, instance, MessageKind.EVENT)

    def _put(
        self, append: Append, instance: ModelInstance, kind: MessageKind
    ) -> Appended | AppendRefused:
        sizes = [(message.name, len(message.payload.data)) for message in instance.sent]
        whole = Waiting(len(sizes), sum(size for _, size in sizes))
        of_name = [size for name, size in sizes if name == append.name]
        full = append.limits.met_by(
            whole, Waiting(len(of_name), sum(of_name)), len(append.payload.data)
        )
        if full is not None:
            return AppendRefused(Refusal.FULL, full)
        row = ring(instance.row, self._now)
        message = MessageRow(
            row.inbox_seq,
            append.message_id,
            append.name,
            append.payload,
            self._now,
            kind,
            traceparent=append.traceparent,
            sender=append.sender,
        )
        self._instances[append.instance_id] = replace(
            instance, row=row, messages=(*instance.messages, message), updated_at=self._now
        )
        return Appended(message.sequence, row.owner, fresh=True, message=message)

    def _cancel(self, cancel: Cancel) -> Appended | AppendRefused:
        instance = self._instances.get(cancel.instance_id)
        if instance is None or (
            cancel.incarnation is not None and instance.row.incarnation != cancel.incarnation
        ):
            return AppendRefused(Refusal.NOT_FOUND)
        if instance.status is not Status.OPEN:
            return AppendRefused(Refusal.CLOSED)
        standing = instance.row.cancel
        if standing is not None and (standing.terminate or not cancel.terminate):
            return Appended(
                instance.cancel_sequence, instance.row.owner, fresh=False, cancel=standing
            )
        mark = CancelMark(self._now, cancel.reason, cancel.by, cancel.terminate)
        return self._mark(instance, mark)

    def _mark(self, instance: ModelInstance, mark: CancelMark) -> Appended:
        row = ring(replace(instance.row, cancel=mark), self._now)
        held = instance.held and not mark.terminate
        row = replace(row, paused=row.paused and not mark.terminate)
        self._instances[row.instance_id] = replace(
            instance, row=row, held=held, cancel_sequence=row.inbox_seq, updated_at=self._now
        )
        return Appended(row.inbox_seq, row.owner, fresh=True, cancel=mark)

    # --- what a write does to others ---

    def _follow(self, change: Change, outcome: Outcome) -> Outcome:
        if not isinstance(change, Write) or not isinstance(outcome, Granted):
            return outcome
        arrivals = [*outcome.arrivals]
        taken = [
            child.child_id
            for child in change.extras.starts
            if not self._start_child(child, arrivals)
        ]
        for cancel in change.extras.cancels:
            self._cancel_child(cancel, arrivals)
        refused = [lost for send in change.extras.sends for lost in self._send(send, arrivals)]
        for execution in () if change.extras.leaves_children else change.closed_with_children:
            self._leave_children(change, execution, arrivals)
        life = change.instance_id, change.incarnation
        instance = self._ended.get(life, self._instances[change.instance_id])
        closed = change.executions[-1].closed if change.executions else None
        if (
            change.state.status is not Status.OPEN
            and instance.row.parent is not None
            and closed is not None
        ):
            output = (
                closed.output
                if change.state.status is Status.COMPLETED
                else Payload(closed.error or b"")
            )
            trace = instance.executions[instance.row.execution].traceparent
            keeps = instance.on_parent_close is OnParentClose.KEEP
            end = change.state.status, output or Payload(b"null"), trace
            self._tell_end(instance.row.parent, change.instance_id, end, arrivals, keeps=keeps)
        if change.extras.restart is not None:
            self._kinds.setdefault(change.extras.restart.kind)
            self._begin_again(change.extras.restart, self._instances[change.instance_id])
            self._append_all(change.extras.restart)
        return replace(
            outcome, arrivals=tuple(arrivals), taken=tuple(taken), refused=tuple(refused)
        )

    def _start_child(self, child: ChildStart, arrivals: list[tuple[str, Appended]]) -> bool:
        """Start a child, or tell its parent that it cannot be. Return whether somebody knows how it
        went.
        """
        if child.start is not None:
            outcome = self._start(child.start)
            if isinstance(outcome, Started) or outcome.same:
                return True
        if child.refusal is None:
            return False
        end = Status.FAILED, Payload(child.refusal), None
        self._tell_end(child.parent, child.child_id, end, arrivals, keeps=child.keeps)
        return True

    def _tell_end(
        self,
        link: ParentLink,
        child_id: str,
        end: tuple[Status, Payload, str | None],
        arrivals: list[tuple[str, Appended]],
        *,
        keeps: bool,
    ) -> None:
        """Tell an execution that its child has ended, or any execution of that life if it keeps the
        child in the background.
        """
        status, payload, trace = end
        if not keeps:
            kind = MessageKind(status.value)
            self._report(link, child_id, (kind, payload, trace), arrivals)
            return
        parent = self._instances.get(link.instance_id)
        if parent is not None and parent.row.incarnation == link.incarnation:
            kind = MessageKind.BACKGROUND_CHILD_ENDED
            now = replace(link, execution=parent.row.execution)
            self._report(now, child_id, (kind, payload, trace), arrivals, str(link), status.value)

    def _cancel_child(self, cancel: ChildCancel, arrivals: list[tuple[str, Appended]]) -> None:
        child = self._instances.get(cancel.child_id)
        if child is None or child.status is not Status.OPEN or child.row.parent != cancel.parent:
            return
        if child.row.cancel is None:
            mark = CancelMark(self._now, cancel.reason, cancel.parent.instance_id)
            arrivals.append((cancel.child_id, self._mark(child, mark)))

    def _leave_children(
        self, write: Write, execution: int, arrivals: list[tuple[str, Appended]]
    ) -> None:
        bound = [
            (parent.event_id, key)
            for key, child in self._instances.items()
            if (parent := child.row.parent) is not None
            and (parent.instance_id, parent.incarnation, parent.execution)
            == (write.instance_id, write.incarnation, execution)
            and child.status is Status.OPEN
            and child.on_parent_close in (OnParentClose.CANCEL, OnParentClose.TERMINATE)
        ]
        for _, key in sorted(bound):
            child = self._instances[key]
            terminate = child.on_parent_close is OnParentClose.TERMINATE
            standing = child.row.cancel
            if standing is None or (terminate and not standing.terminate):
                mark = CancelMark(self._now, PARENT_CLOSED, write.instance_id, terminate)
                arrivals.append((key, self._mark(child, mark)))

    def _send(self, send: Send, arrivals: list[tuple[str, Appended]]) -> list[RefusedSend]:
        """Do what an instance has sent, and tell it how that went, or return the refusal."""
        message, name = send.message, None
        if isinstance(message, Append):
            outcome, name = self._append(message), message.name
        else:
            outcome = self._cancel(message)
        if isinstance(outcome, Appended):
            if outcome.fresh:
                arrivals.append((message.instance_id, outcome))
            receipt = (MessageKind.SEND_DELIVERED, Payload(b"null"), None)
            self._report(send.sender, message.instance_id, receipt, arrivals)
            return []
        facts: dict[str, object] = {"reason": str(outcome.reason)}
        if outcome.full is not None:
            full = outcome.full
            facts["full"] = [full.bound, full.limit, full.waiting, full.of_name]
        before = len(arrivals)
        receipt = (MessageKind.SEND_REFUSED, Payload(pack(facts)), None)
        self._report(send.sender, message.instance_id, receipt, arrivals)
        told = len(arrivals) > before
        return [] if told else [RefusedSend(message.instance_id, name, str(outcome.reason))]

    def _report(
        self,
        link: ParentLink,
        child_id: str,
        end: tuple[MessageKind, Payload, str | None],
        arrivals: list[tuple[str, Appended]],
        message_id: str | None = None,
        source: int | None = None,
    ) -> None:
        parent = self._instances.get(link.instance_id)
        if parent is None or parent.status is not Status.OPEN:
            return
        if (parent.row.incarnation, parent.row.execution) != (link.incarnation, link.execution):
            return
        row = ring(parent.row, self._now)
        kind, payload, traceparent = end
        message = MessageRow(
            row.inbox_seq,
            message_id or str(link),
            child_id,
            payload,
            self._now,
            kind,
            source or link.event_id,
            traceparent,
            child_id,
        )
        message = replace(message, kind=as_stored(kind, self._dialect.messages[kind]))
        twins = [
            one
            for one in parent.messages
            if (one.message_id, one.kind) == (message.message_id, message.kind)
        ]
        require(not twins, "the end of a child was told twice")
        self._instances[link.instance_id] = replace(
            parent, row=row, messages=(*parent.messages, message), updated_at=self._now
        )
        told = read_message(message, self._dialect)
        arrivals.append(
            (link.instance_id, Appended(message.sequence, row.owner, fresh=True, message=told))
        )

    def _release(self, release: Release) -> Granted | Refused:
        instance = self._instances.get(release.instance_id)
        if instance is None or not instance.held or instance.row.paused:
            return Refused()
        row = instance.row
        if (row.incarnation, row.revision) != (release.incarnation, release.revision):
            return Refused()
        row = replace(row, revision=row.revision + 1, wake_at=0)
        self._instances[release.instance_id] = replace(
            instance, row=row, held=False, updated_at=self._now
        )
        return Granted(row.inbox_seq)

    def _suspend(self, change: Suspend) -> Granted | Refused | AppendRefused:
        instance = self._instances.get(change.instance_id)
        if instance is None or change.incarnation not in (None, instance.row.incarnation):
            return AppendRefused(Refusal.NOT_FOUND)
        row = instance.row
        if instance.status is not Status.OPEN:
            return AppendRefused(Refusal.CLOSED)
        if row.paused or (row.cancel is not None and row.cancel.terminate):
            return Refused()
        row = replace(
            row,
            revision=row.revision + 1,
            wake_at=row.wake_at if row.owner is None else 0,
            owner=None,
            paused=True,
            operator_hold=OperatorHold(self._now, change.by, change.reason),
        )
        self._instances[change.instance_id] = replace(
            instance, row=row, held=True, updated_at=self._now
        )
        suspend(self._world, change.instance_id)
        return Granted(row.inbox_seq)

    def _resume(self, change: Resume) -> Granted | Refused | AppendRefused:
        instance = self._instances.get(change.instance_id)
        if instance is None or change.incarnation not in (None, instance.row.incarnation):
            return AppendRefused(Refusal.NOT_FOUND)
        if instance.status is not Status.OPEN:
            return AppendRefused(Refusal.CLOSED)
        row = instance.row
        if not row.paused:
            return Refused()
        row = replace(row, revision=row.revision + 1, wake_at=row.wake_at or 0, paused=False)
        self._instances[change.instance_id] = replace(
            instance, row=row, held=False, updated_at=self._now
        )
        resume(self._world, change.instance_id)
        return Granted(row.inbox_seq)

    def _claim(self, claim: Claim, tasks: tuple[Task, ...]) -> Claimed:
        ready = [self._ready(kind) for kind in dict.fromkeys(claim.kinds)]
        in_turn = (
            instance
            for instance in chain.from_iterable(zip_longest(*ready))
            if instance is not None
        )
        claimed: list[Snapshot] = []
        for instance in islice(in_turn, claim.limit):
            row = replace(instance.row, owner=claim.node, revision=instance.row.revision + 1)
            taken = replace(instance, row=row)
            self._instances[row.instance_id] = taken
            claimed.append(taken.snapshot(self._dialect, claim.page))
        return Claimed(
            tuple(claimed), 0 < claim.limit == len(claimed) or 0 < claim.slots == len(tasks), tasks
        )

    def _ready(self, kind: Kind) -> list[ModelInstance]:
        due = [
            (instance.row.wake_at or 0, instance.row.instance_id, instance)
            for instance in self._instances.values()
            if instance.row.kind == kind
            and instance.is_claimable()
            and (instance.row.wake_at or 0) <= self._now
        ]
        return [instance for _, _, instance in sorted(due, key=lambda item: item[:2])]


_ITEMS, _OWNED_STARTS, _OWNERS, _OTHERS = range(4)


def goes(child: ModelInstance) -> bool:
    """Return whether a child has ended and is not on its way out."""
    return child.status is not Status.OPEN and child.expires_at != 1


def prune(instance: ModelInstance, prune: Prune) -> ModelInstance:
    """Let go of the oldest executions; never of the current one."""
    current, aged = instance.row.execution, 0
    if prune.closed_until is not None:
        for number in sorted(instance.executions)[:PRUNED_AT_ONCE]:
            closed_at = instance.executions[number].closed_at
            if number >= current - 1 or closed_at is None or closed_at > prune.closed_until:
                break
            aged = number
    rows = min(
        max(prune.executions, aged), current - 1, min(instance.executions) + PRUNED_AT_ONCE - 1
    )
    oldest = min(instance.events, default=current)
    histories = min(
        max(prune.histories, prune.executions, aged), current - 1, oldest + PRUNED_AT_ONCE - 1
    )
    return replace(
        instance,
        executions={number: row for number, row in instance.executions.items() if number > rows},
        events={number: events for number, events in instance.events.items() if number > histories},
    )


def restore(instance: ModelInstance, messages: Sequence[MessageRow]) -> ModelInstance:
    """Put messages back at their numbers."""
    return replace(
        instance,
        messages=tuple(
            sorted((*instance.messages, *messages), key=lambda message: message.sequence)
        ),
    )


def _phase(change: Change) -> int:
    match change:
        case Publish():
            return _ITEMS
        case Start(owner=str()):
            return _OWNED_STARTS
        case Write() | Recover():
            return _OWNERS
        case _:
            return _OTHERS


def require(condition: bool, failure: str) -> None:
    if not condition:
        raise StoreError(f"a write does not fit what is stored: {failure}")
