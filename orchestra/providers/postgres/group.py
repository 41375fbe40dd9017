"""One group of changes: what the protocol says of them, in three round trips whatever their number.

The first makes new instances and locks the rows of all others that the group names, in the order of their ids (rule 7); it
brings back all that the outcomes depend on. What happens then is decided here, in memory, change by change. The second writes
each hot row once, and everything else with one statement a table; without claims it commits. Claims see what the group has
made ready, and their instances are read in the third.

A group of nothing but steps of instances that go on, as most are, makes all of this in one round trip, on trust: a statement
that meets a fence which does not hold ends the script before anything is written, and the longer way is taken.

Nothing waits for a lock after the first round trip: new ids and then rows are taken in one order by all nodes, and claims
pass over what is locked. So two groups cannot wait for each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, zip_longest
from typing import Any, Final, TypeVar

from orchestra.codec import Payload
from orchestra.providers.decoding import payload_values, read_activity, read_message, read_task
from orchestra.providers.inboxes import Full, InboxLimits, Waiting
from orchestra.providers.postgres import statements as sql
from orchestra.providers.postgres.arrays import Blobs, Flags, Numbers, Texts, columns
from orchestra.providers.postgres.calls import Read, Transaction
from orchestra.providers.postgres.effects import Effects
from orchestra.providers.postgres.kinds import Kinds, kind_arrays, route_arrays
from orchestra.providers.postgres.rows import Row, fenced_arrays, row_arrays
from orchestra.providers.postgres.settings import Settings
from orchestra.providers.postgres.snapshots import SnapshotReads
from orchestra.providers.postgres.wire import Result, Script
from orchestra.providers.rows import (
    PARENT_CLOSED,
    ActivityRow,
    Append,
    Appended,
    AppendRefused,
    Cancel,
    CancelMark,
    Change,
    Claim,
    Claimed,
    Granted,
    Kind,
    MessageKind,
    MessageRow,
    OnParentClose,
    Outcome,
    ParentLink,
    Recover,
    Recovered,
    Refusal,
    Refused,
    Release,
    Report,
    Reported,
    Snapshot,
    Start,
    Started,
    StartExists,
    Status,
    Write,
)

__all__ = ["Committed", "Group"]

_MESSAGE: Final = (Texts, Numbers, Texts, Texts, Blobs, Numbers, Numbers, Numbers, Numbers, Texts, Texts)
_ROOM: Final = (Texts, Texts, Flags, Numbers, Numbers, Numbers, Numbers, Numbers, Numbers)
_CANCELLED: Final = (Texts, Numbers, Texts, Texts, Flags, Numbers)
_DETAIL: Final = (Texts, Texts, Texts, Texts, Texts, Texts, Numbers, Numbers, Texts, Numbers)
_START: Final = (Texts, Texts, Numbers, Numbers, Numbers, Flags)

_REPORTED: Final = (Texts, Numbers, Numbers, Blobs, Numbers, Texts, Blobs, Numbers, Blobs, Numbers)

C = TypeVar("C", Write, Start, Append, Claim, Report)
_Key = tuple[str, int, int]


@dataclass(slots=True)
class _Addressee:
    """What is known of an append's message and inbox."""

    unread: MessageRow | None = None
    removed: tuple[int, int] | None = None
    """The sequence and the time of the tombstone."""


@dataclass(slots=True)
class _Inbox:
    """What the group itself has done to an inbox."""

    consumed: set[int] = field(default_factory=set[int])
    appended: dict[str, MessageRow] = field(default_factory=dict[str, MessageRow])
    whole: Waiting | None = None
    """What waits in it, where that was counted."""
    names: dict[str, Waiting] = field(default_factory=dict[str, Waiting])
    """What waits of each name that was counted."""


@dataclass(slots=True)
class _Taking:
    """A claim in progress."""

    position: int
    claim: Claim
    kinds: list[Kind]
    taken: dict[int, list[Row]] = field(default_factory=dict[int, list[Row]])
    snapshots: list[SnapshotReads] = field(default_factory=list[SnapshotReads])
    tasks: Result | None = None

    @property
    def wants_instances(self) -> bool:
        """Whether there is room for an instance of some kind."""
        return bool(self.kinds) and self.claim.limit > 0

    @property
    def wants_tasks(self) -> bool:
        """Whether there is room for an activity of some route."""
        return bool(self.claim.routes) and self.claim.slots > 0

    @property
    def rest(self) -> int:
        """How many instances it may still take."""
        return self.claim.limit - sum(len(rows) for rows in self.taken.values())


class _Rooms:
    """How much room inboxes have: what is asked of them for some appends, each name of an inbox once."""

    def __init__(self, appends: Sequence[Append]) -> None:
        self._coming: dict[str, Waiting] = {}
        self._names: dict[tuple[str, str, InboxLimits], None] = {}
        for append in appends:
            instance_id = append.instance_id
            self._coming[instance_id] = self._coming.get(instance_id, Waiting()).plus(len(append.payload.data))
            self._names[instance_id, append.name, append.limits] = None

    @property
    def read(self) -> Read:
        """What to read."""
        rows: list[tuple[Any, ...]] = []
        asked: set[tuple[str, InboxLimits]] = set()
        for instance_id, name, limits in self._names:
            is_first = (instance_id, limits) not in asked
            asked.add((instance_id, limits))
            bounds = (limits.messages, limits.bytes, *limits.of_name)
            rows.append((instance_id, name, is_first, *self._coming[instance_id], *bounds))
        return sql.READ_ROOMS, tuple(columns(_ROOM, rows))

    def take(self, result: Result) -> Iterator[tuple[tuple[str, str], Waiting | None, Waiting | None]]:
        """Yield what was counted, by instance and name: of the name, and of the whole inbox."""
        names = list(self._names)
        for place, named, whole in result.rows:
            instance_id, name, _ = names[int(place) - 1]
            yield (instance_id, name), named and Waiting(*named), whole and Waiting(*whole)


def _look_for_room(append: Append, inbox: _Inbox, row: Row) -> tuple[Waiting, Full | None]:
    """Return the most that may wait in an inbox, and the bound that forbids one more. What it needs was counted."""
    limits, size = append.limits, len(append.payload.data)
    if inbox.whole is not None:
        row.most = inbox.whole
    most = row.most or Waiting()
    if limits.have_room(most, size):
        return most, None
    return most, limits.met_by(most, inbox.names.get(append.name, Waiting()), size)


class Group:
    """Applies changes in the order of the protocol: owners' writes, then arrivals, then claims.

    Args:
        local_nodes: the nodes of this provider; they need no hint of what is done to their instances through it.
    """

    def __init__(self, changes: Sequence[Change], kinds: Kinds, settings: Settings, local_nodes: Container[str]) -> None:
        self._changes = changes
        self._settings = settings
        self._local_nodes = local_nodes
        self._numbers = kinds.make_sure_of(_kinds_written(changes))

    @property
    def is_plain(self) -> bool:
        """Whether it is nothing but owners' writes, one for each of some instances, that take no messages.

        Most groups are, and nearly all of their writes are granted.
        """
        writes = [change for change in self._changes if isinstance(change, Write) and change.owner and not change.consumed]
        if any(write.concerns_others for write in writes):
            return False
        return 0 < len(self._changes) == len({write.instance_id for write in writes})

    def commit_plain(self, transaction: Transaction) -> Committed:
        """Apply a plain group and commit, in one round trip.

        Raises:
            psycopg.errors.DivisionByZero: a write is to be refused, or does not fit what is stored. Nothing was written.
        """
        writes = sorted((change for change in self._changes if isinstance(change, Write)), key=lambda write: write.instance_id)
        script = transaction.script()
        locked = script.add(
            sql.LOCK_FENCED,
            Texts(write.instance_id for write in writes),
            Texts(write.incarnation for write in writes),
            Numbers(write.revision for write in writes),
            Texts(write.owner for write in writes),
            len(writes),
        )
        effects = Effects(script, 0, self._settings)
        for write in writes:
            effects.add(write)
        effects.flush()
        script.add(sql.WRITE_FENCED, *fenced_arrays(writes, self._numbers), *transaction.time.read[1], len(writes))
        transaction.commit_at_once(script)
        (instance_ids, inbox_seqs, _), now = locked.rows[0], transaction.now
        inboxes: dict[str, int] = dict(zip(instance_ids, inbox_seqs, strict=True))
        outcomes = tuple(Granted(inboxes[change.instance_id]) for change in self._changes if isinstance(change, Write))
        wakes_others = any(
            write.owner is None
            or write.owner not in self._local_nodes
            or _is_due(write, inboxes[write.instance_id], now)
            or _hands_out(write)
            or write.hold is not None
            for write in writes
        )
        return Committed(now, wakes_others, lambda: outcomes)

    def commit(self, transaction: Transaction) -> Committed:
        """Apply the changes and commit. May be called again if it fails."""
        return _Application(self, transaction).run()


@dataclass(frozen=True, slots=True)
class Committed:
    """A group that is committed: what was read for its outcomes still has to be put together."""

    now: int
    wakes_others: bool
    """Whether it has left something that other nodes should look at."""
    finish: Callable[[], tuple[Outcome, ...]]


class _Application:
    """One try to apply a group."""

    def __init__(self, group: Group, transaction: Transaction) -> None:
        self._group = group
        self._changes = group._changes
        self._numbers = group._numbers
        self._settings = group._settings
        self._transaction = transaction
        self._rows: dict[str, Row] = {}
        self._made: set[str] = set()
        self._requests: dict[str, str] = {}
        self._addressees: dict[int, _Addressee] = {}
        self._inboxes: dict[str, _Inbox] = {}
        self._messages: list[tuple[Any, ...]] = []
        self._details: list[tuple[Any, ...]] = []
        self._candidates: dict[str, Start] = {}
        self._made_anew: list[Start] = []
        self._links: dict[str, tuple[ParentLink, int]] = {}
        self._traces: dict[str, str | None] = {}
        self._consumed_events: dict[tuple[str, int], tuple[str, int]] = {}
        """Their names and sizes."""
        self._labels: list[tuple[str, str, str]] = []
        self._recovered: dict[int, SnapshotReads | None] = {}
        self._outcomes: dict[int, Outcome] = {}
        self._tasks: dict[_Key, ActivityRow] = {}
        """What reports speak of, as the group leaves it."""
        self._reported: dict[_Key, ActivityRow] = {}
        self._for_others: set[str] = set()
        self._hands_out = False

    def run(self) -> Committed:
        self._begin()
        script = self._transaction.script()
        effects = Effects(script, self._transaction.now, self._settings)
        self._apply_owners(effects, script)
        self._apply_arrivals(effects)
        self._write(effects, script)
        claims = [_Taking(position, change, list(dict.fromkeys(change.kinds))) for position, change in self._of(Claim)]
        if any(taking.wants_instances or taking.wants_tasks for taking in claims):
            self._claim(claims, script)
        else:
            self._transaction.commit(script)
        return Committed(self._transaction.now, bool(self._for_others) or self._hands_out, lambda: self._finish(claims))

    # --- the first round trip -------------------------------------------------------------

    def _begin(self) -> None:
        writes = [write for _, write in self._of(Write)]
        # The first who asks for an id makes it; a child's write may yet be refused, and its row is then taken back.
        starts = [child.start for write in writes for child in write.starts if child.start is not None]
        starts += [start for _, start in self._of(Start)]
        self._candidates = {start.instance_id: start for start in reversed(starts)}
        candidates = list(self._candidates.values())
        appends = self._of(Append)
        rooms = _Rooms([append for _, append in appends])
        named = {change.instance_id for change in self._changes if not isinstance(change, Claim | Start)}
        family = [write for write in writes if write.concerns_others]
        if family:
            named.update(self._candidates)
            named.update(child.child_id for write in family for child in (*write.starts, *write.cancels))
            named.update(child.parent.instance_id for write in family for child in write.starts)
        ending = Texts(write.instance_id for write in family if write.state.status is not Status.OPEN)
        closing = [(write.instance_id, number) for write in family for number in write.closed_with_children]
        closed = Texts(instance_id for instance_id, _ in closing), Numbers(number for _, number in closing)
        reports = self._of(Report)
        reads: list[Read] = []
        if candidates:
            reads.append(self._new_instances(candidates))
            reads.append((sql.READ_REQUESTS, (Texts(self._candidates),)))
        if family:
            reads.append((sql.LOCK_FAMILIES, (Texts(sorted(named)), ending, *closed)))
            reads.append((sql.READ_LINKS, (Texts(named), *closed)))
            reads.append((sql.READ_TRACES, (Texts(w.instance_id for w in writes), Numbers(w.state.execution for w in writes))))
        elif named:
            reads.append((sql.LOCK_ROWS, (Texts(sorted(named)),)))
        if appends:
            reads.append(self._addressees_of(appends))
            reads.append(rooms.read)
            reads.append(self._consumed_of(writes, {append.instance_id for _, append in appends}))
        if reports:
            reads.append((sql.READ_REPORTED, columns((Texts, Numbers, Numbers), [_key_of(report) for _, report in reports])))
        results = iter(self._transaction.begin(*reads))
        if candidates:
            self._made = {row[0] for row in next(results).rows}
            self._requests = dict(next(results).rows)
        if named:
            self._rows = {row[0]: Row(*row) for row in next(results).rows}
        if family:
            self._links = {row[0]: (ParentLink(*row[1:5]), row[5]) for row in next(results).rows}
            self._traces = dict(next(results).rows)
        if appends:
            self._read_addressees(appends, next(results))
            for (instance_id, name), named, whole in rooms.take(next(results)):
                inbox = self._inbox(instance_id)
                if named is not None:
                    inbox.names[name] = named
                inbox.whole = whole or inbox.whole
            self._consumed_events = {(row[0], row[1]): (row[2], row[3]) for row in next(results).rows}
        if reports:
            places = [_key_of(report) for _, report in reports]
            self._tasks = {places[int(row[0]) - 1]: read_activity(tuple(row[1:])) for row in next(results).rows}

    @staticmethod
    def _consumed_of(writes: Sequence[Write], addressed: set[str]) -> Read:
        consumed = [(w.instance_id, sequence) for w in writes if w.instance_id in addressed for sequence in w.consumed]
        return sql.READ_CONSUMED_EVENTS, (Texts(key for key, _ in consumed), Numbers(number for _, number in consumed))

    def _new_instances(self, starts: Sequence[Start]) -> Read:
        rows = [
            (
                start.instance_id,
                start.incarnation,
                self._numbers[start.kind],
                start.wake_at,
                start.execution.number,
                start.execution.opened_at is not None,
            )
            for start in starts
        ]
        _, moment = self._transaction.time.read
        return sql.ADD_INSTANCES, (*columns(_START, rows), *moment)

    @staticmethod
    def _addressees_of(appends: Sequence[tuple[int, Append]]) -> Read:
        return sql.READ_ADDRESSEES, (
            Texts(append.instance_id for _, append in appends),
            Texts(append.message_id for _, append in appends),
        )

    def _read_addressees(self, appends: Sequence[tuple[int, Append]], result: Result) -> None:
        for (
            place,
            sequence,
            name,
            payload,
            encoding,
            sent_at,
            kind,
            source,
            trace,
            sender,
            removed_as,
            removed_at,
        ) in result.rows:
            position, append = appends[int(place) - 1]
            columns_of = (sequence, append.message_id, name, payload, encoding, sent_at, kind, source, trace, sender)
            self._addressees[position] = _Addressee(
                None if sequence is None else read_message(columns_of),
                None if removed_as is None else (removed_as, removed_at),
            )

    # --- owners ---------------------------------------------------------------------------

    def _apply_owners(self, effects: Effects, script: Script) -> None:
        for position, change in enumerate(self._changes):
            if isinstance(change, Write):
                self._outcomes[position] = self._apply_write(change, effects)
            elif isinstance(change, Recover):
                self._recovered[position] = self._recover(change, effects, script)
        effects.flush()
        for position, write in self._of(Write):
            outcome = self._outcomes[position]
            if isinstance(outcome, Granted) and write.concerns_others:
                arrivals, taken = self._follow(write, effects)
                self._outcomes[position] = replace(outcome, arrivals=tuple(arrivals), taken=tuple(taken))

    def _apply_write(self, write: Write, effects: Effects) -> Granted | Refused:
        row = self._standing(write.instance_id)
        if (
            row is None
            or not row.is_open
            or (row.incarnation, row.revision) != (write.incarnation, write.revision)
            or (write.owner is not None and write.owner != row.owner)
        ):
            return Refused()  # I6
        self._tell(row)  # whoever owns it has something to drop, if that is not who writes
        row.write(write.state, self._numbers[write.state.kind], self._transaction.now, held=write.hold is not None)
        is_due = row.wake_at is not None and row.wake_at <= self._transaction.now
        if row.owner is None and (is_due or write.hold is not None):  # a hold: other code may be able to go on
            self._for_others.add(row.instance_id)
        self._hands_out |= _hands_out(write)
        self._settle_tasks(write)
        self._take_out(write)
        effects.add(write)
        return Granted(row.inbox_seq)

    def _recover(self, recover: Recover, effects: Effects, script: Script) -> SnapshotReads | None:
        row = self._standing(recover.instance_id)
        if row is None or row.owner != recover.node:
            return None
        # The lock has waited for the lost write, if that was still under way; the revision fences it off (rule 9).
        row.recover()
        effects.flush()
        return SnapshotReads(script, [row])

    def _standing(self, instance_id: str) -> Row | None:
        """Return the row of an instance that was there before this group."""
        return None if instance_id in self._made else self._rows.get(instance_id)

    # --- arrivals -------------------------------------------------------------------------

    def _apply_arrivals(self, effects: Effects) -> None:
        for position, change in enumerate(self._changes):
            match change:
                case Start():
                    self._outcomes[position] = self._start(change, effects)
                case Append():
                    self._outcomes[position] = self._append(position, change)
                case Cancel():
                    self._outcomes[position] = self._cancel(change)
                case Release():
                    self._outcomes[position] = self._release(change)
                case Report():
                    self._outcomes[position] = self._report_task(change)
                case _:
                    pass

    def _start(self, start: Start, effects: Effects) -> Started | StartExists:
        instance_id = start.instance_id
        if instance_id not in self._made or instance_id in self._requests:
            return StartExists(same=self._requests.get(instance_id) == start.request_id)
        if self._candidates[instance_id] is not start:
            # It was made for a write that was refused since: the row that stands is another's.
            self._made_anew.append(start)
            standing = self._rows.get(instance_id)
            if standing is not None:
                standing.incarnation, standing.kind = start.incarnation, self._numbers[start.kind]
                standing.wake_at, standing.execution = start.wake_at, start.execution.number
                standing.opened = start.execution.opened_at is not None
        self._requests[instance_id] = start.request_id
        parent = start.parent
        link = (None,) * 4 if parent is None else (parent.instance_id, parent.incarnation, parent.execution, parent.event_id)
        if parent is not None:
            self._links[instance_id] = parent, start.on_parent_close.value
        head = (instance_id, start.request_id, start.created_by, start.traceparent)
        self._details.append((*head, *link, start.root_id, start.on_parent_close.value))
        self._labels.extend((instance_id, key, value) for key, value in start.labels.items())
        effects.create(instance_id, start.execution)
        self._for_others.add(instance_id)
        return Started()

    # --- what a granted write does to other instances (rule 20) ----------------------------

    def _follow(self, write: Write, effects: Effects) -> tuple[list[tuple[str, Appended]], list[str]]:
        """Do what follows from a granted write. Return what it has left with whom, and which ids were taken."""
        arrivals: list[tuple[str, Appended]] = []
        taken: list[str] = []
        for child in write.starts:
            outcome = None if child.start is None else self._start(child.start, effects)
            if isinstance(outcome, Started) or (isinstance(outcome, StartExists) and outcome.same):
                continue
            if child.refusal is None:
                taken.append(child.child_id)
            else:
                failed, refusal = MessageKind.CHILD_FAILED, Payload(child.refusal)
                self._report(child.parent, child.child_id, failed, refusal, None, arrivals)
        for cancel in write.cancels:
            if self._links.get(cancel.child_id, (None, 0))[0] == cancel.parent:
                mark = CancelMark(self._transaction.now, cancel.reason, cancel.parent.instance_id)
                self._mark(cancel.child_id, mark, arrivals)
        for execution in write.closed_with_children:
            self._leave_children(write, execution, arrivals)
        if write.state.status is not Status.OPEN:
            self._tell_parent(write, arrivals)
        return arrivals, taken

    def _leave_children(self, write: Write, execution: int, arrivals: list[tuple[str, Appended]]) -> None:
        of = (write.instance_id, write.incarnation, execution)
        bound = sorted(
            (link.event_id, child_id, close)
            for child_id, (link, close) in self._links.items()
            if (link.instance_id, link.incarnation, link.execution) == of and close != OnParentClose.ABANDON
        )
        for _, child_id, close in bound:
            terminate = close == OnParentClose.TERMINATE
            self._mark(child_id, CancelMark(self._transaction.now, PARENT_CLOSED, write.instance_id, terminate), arrivals)

    def _mark(self, child_id: str, mark: CancelMark, arrivals: list[tuple[str, Appended]]) -> None:
        row = self._reachable(child_id)
        if row is None or not row.is_open:
            return
        standing = row.cancel
        # Terminate beats cancel (rule 18); what stands otherwise stays.
        if standing is not None and (standing.terminate or not mark.terminate):
            return
        arrivals.append((child_id, row.mark(mark)))
        self._tell(row)

    def _tell_parent(self, write: Write, arrivals: list[tuple[str, Appended]]) -> None:
        link, _ = self._links.get(write.instance_id, (None, 0))
        closed = write.executions[-1].closed if write.executions else None
        if link is None or closed is None:
            return
        _, _, output, error = closed
        payload = output if write.state.status is Status.COMPLETED else Payload(error or b"")
        trace = self._traces.get(write.instance_id)
        for delta in write.executions:
            if delta.number == write.state.execution:
                made = None if delta.create is None else delta.create.traceparent
                trace = delta.traceparent if delta.opened is not None else made if delta.create is not None else trace
        kind = MessageKind(write.state.status.value)
        self._report(link, write.instance_id, kind, payload or Payload(b"null"), trace, arrivals)

    def _report(
        self,
        parent: ParentLink,
        child_id: str,
        kind: MessageKind,
        payload: Payload,
        trace: str | None,
        arrivals: list[tuple[str, Appended]],
    ) -> None:
        """Tell a parent how a child has ended, if the execution that asked for it is the open one."""
        row = self._reachable(parent.instance_id)
        if row is None or not row.is_open or (row.incarnation, row.execution) != (parent.incarnation, parent.execution):
            return
        now = self._transaction.now
        message = MessageRow(row.ring(now), str(parent), child_id, payload, now, kind, parent.event_id, trace, child_id)
        self._put(parent.instance_id, message)
        self._tell(row)
        arrivals.append((parent.instance_id, Appended(message.sequence, row.owner, fresh=True, message=message)))

    def _put(self, instance_id: str, message: MessageRow) -> None:
        self._messages.append(
            (
                instance_id,
                message.sequence,
                message.message_id,
                message.name,
                message.payload.data,
                message.payload.encoding,
                message.sent_at,
                message.kind.value,
                message.source,
                message.traceparent,
                message.sender,
            )
        )

    def _append(self, position: int, append: Append) -> Appended | AppendRefused:
        row = self._reachable(append.instance_id)
        if row is None:
            return AppendRefused(Refusal.NOT_FOUND)
        inbox = self._inbox(append.instance_id)
        known = self._addressees.get(position, _Addressee())
        unread = inbox.appended.get(append.message_id) or known.unread
        if unread is not None and unread.sequence in inbox.consumed:
            return Appended(unread.sequence, row.owner, fresh=False)
        if unread is not None and row.is_open:
            return Appended(unread.sequence, row.owner, fresh=False, message=unread)
        if known.removed is not None and known.removed[1] > self._transaction.now - self._settings.tombstone_window:
            # Also after the end: the sender learns that its message was read, which is the truth (rule 21).
            return Appended(known.removed[0], row.owner, fresh=False)
        if not row.is_open:
            return AppendRefused(Refusal.CLOSED)
        most, full = _look_for_room(append, inbox, row)
        if full is not None:
            return AppendRefused(Refusal.FULL, full)
        now = self._transaction.now
        sequence = row.ring(now)
        message = MessageRow(
            sequence,
            append.message_id,
            append.name,
            append.payload,
            now,
            traceparent=append.traceparent,
            sender=append.sender,
        )
        size = len(append.payload.data)
        row.most = most.plus(size)
        inbox.whole = None if inbox.whole is None else inbox.whole.plus(size)
        if append.name in inbox.names:
            inbox.names[append.name] = inbox.names[append.name].plus(size)
        inbox.appended[append.message_id] = message
        self._put(append.instance_id, message)
        self._tell(row)
        return Appended(message.sequence, row.owner, fresh=True, message=message)

    def _take_out(self, write: Write) -> None:
        """Take note of what a granted write has consumed."""
        inbox = self._inbox(write.instance_id)
        inbox.consumed.update(write.consumed)
        for sequence in write.consumed:
            event = self._consumed_events.get((write.instance_id, sequence))
            if event is None:
                continue  # the end of a child, or nothing is sent to this inbox
            name, size = event
            inbox.whole = None if inbox.whole is None else inbox.whole.less(Waiting(1, size))
            if name in inbox.names:
                inbox.names[name] = inbox.names[name].less(Waiting(1, size))

    def _cancel(self, cancel: Cancel) -> Appended | AppendRefused:
        row = self._reachable(cancel.instance_id)
        if row is None or cancel.incarnation not in (None, row.incarnation):
            return AppendRefused(Refusal.NOT_FOUND)
        if not row.is_open:
            return AppendRefused(Refusal.CLOSED)
        standing = row.cancel
        if standing is not None and (standing.terminate or not cancel.terminate):
            return Appended(row.cancel_seq or 0, row.owner, fresh=False, cancel=standing)
        appended = row.mark(CancelMark(self._transaction.now, cancel.reason, cancel.by, cancel.terminate))
        self._tell(row)
        return appended

    def _release(self, release: Release) -> Granted | Refused:
        row = self._reachable(release.instance_id)
        if (
            row is None
            or not row.is_open
            or not row.held
            or (row.incarnation, row.revision) != (release.incarnation, release.revision)
        ):
            return Refused()
        row.release(self._transaction.now)
        self._tell(row)
        return Granted(row.inbox_seq)

    def _settle_tasks(self, write: Write) -> None:
        """Forget what a granted write has forgotten, or handed out anew: nobody else has it any more."""
        if not self._tasks:
            return
        closes = any(delta.closed is not None for delta in write.executions)
        settled = {*write.settled, *(activity.event_id for activity in write.activities)}
        for key in [key for key in self._tasks if key[0] == write.instance_id and (closes or key[2] in settled)]:
            del self._tasks[key]

    def _report_task(self, report: Report) -> Reported | Refused:
        key = _key_of(report)
        row, task = self._standing(report.instance_id), self._tasks.get(key)
        if row is None or task is None or row.incarnation != report.incarnation:
            return Refused()
        if (task.owner, task.revision) != (report.node, report.revision):
            return Refused()  # I6
        task = replace(task, heartbeat=report.heartbeat or task.heartbeat)
        arrival: Appended | None = None
        if report.is_end:
            task = replace(task, owner=None, result=report.result, failure=report.failure, revision=task.revision + 1)
            if row.is_open:
                # Due now, and no later than it was: of many, the one goes first that has waited for the longest.
                now = self._transaction.now
                arrival = Appended(row.ring(now, ready=now), row.owner, fresh=True, activity=task)
                self._tell(row)
        self._tasks[key] = self._reported[key] = task
        return Reported(arrival)

    def _tell(self, row: Row) -> None:
        if row.owner is None or row.owner not in self._group._local_nodes:
            self._for_others.add(row.instance_id)

    def _reachable(self, instance_id: str) -> Row | None:
        """Return the row that an arrival finds: what an earlier change of the group has started, or what was there before."""
        is_there = instance_id not in self._made or instance_id in self._requests
        return self._rows.get(instance_id) if is_there else None

    def _inbox(self, instance_id: str) -> _Inbox:
        return self._inboxes.setdefault(instance_id, _Inbox())

    # --- the second round trip ------------------------------------------------------------

    def _write(self, effects: Effects, script: Script) -> None:
        if self._made:
            self._unmake(script)
        if self._details:
            script.add(sql.ADD_DETAILS, *columns(_DETAIL, self._details))
        if self._labels:
            script.add(sql.ADD_LABELS, *columns((Texts,) * 3, self._labels))
        if self._reported:
            values = [(*key, *_end_of(task)) for key, task in self._reported.items()]
            script.add(sql.REPORT_TASKS, *columns(_REPORTED, values), len(values))
        if self._messages:
            script.add(sql.ADD_MESSAGES, *columns(_MESSAGE, self._messages))
        marked = [row for row in self._rows.values() if row.marked]
        if marked:
            values = [
                (row.instance_id, row.cancel_at, row.cancel_reason, row.cancel_by, row.cancel_terminate, row.cancel_seq)
                for row in marked
            ]
            script.add(sql.MARK_CANCELLED, *columns(_CANCELLED, values), len(values))
        changed = [row for row in self._rows.values() if row.changed]
        if changed:
            script.add(sql.WRITE_ROWS, *row_arrays(changed), self._transaction.now, len(changed))
        effects.finish()

    def _unmake(self, script: Script) -> None:
        """Take back the rows that were made for writes that were refused, and make those anew that others then asked for."""
        anew = {start.instance_id for start in self._made_anew}
        unused = [instance_id for instance_id in self._made if instance_id not in self._requests or instance_id in anew]
        if unused:
            script.add(sql.UNMAKE_INSTANCES, Texts(unused), len(unused))
        if self._made_anew:
            statement, values = self._new_instances(self._made_anew)
            script.add(statement, *values)

    # --- claims ---------------------------------------------------------------------------

    def _claim(self, claims: Sequence[_Taking], script: Script) -> None:
        for taking in claims:
            if taking.wants_tasks:
                claim, routes = taking.claim, list(dict.fromkeys(taking.claim.routes))
                blocks = Flags(route in claim.blocking for route in routes)
                taking.tasks = script.add(sql.TAKE_TASKS, *route_arrays(routes), claim.slots, claim.node, blocks, claim.threads)
        asking = [taking for taking in claims if taking.wants_instances]
        if not asking:
            script.run()
            script = self._transaction.script()
        while asking:
            results = [(taking, self._ask(taking, script)) for taking in asking]
            script.run()
            # Where a kind gave less than it seemed to have, others were taking it at the same moment. The rest of the claim
            # goes to the other kinds: nobody is told "nothing" while work is ready.
            asking = [taking for taking, result in results if self._take(taking, result)]
            script = self._transaction.script()
        for taking in claims:
            rows = [row for rows in taking.taken.values() for row in rows]
            if rows:
                taking.snapshots.append(SnapshotReads(script, rows, taking.claim.page))
                self._for_others.difference_update(row.instance_id for row in rows)
        self._transaction.commit(script)

    def _ask(self, taking: _Taking, script: Script) -> Result:
        return script.add(sql.CLAIM, *kind_arrays(taking.kinds), self._transaction.now, taking.rest, taking.claim.node)

    def _take(self, taking: _Taking, result: Result) -> bool:
        """Take what a claim has got; return whether it is to be asked once more."""
        quotas: dict[int, int] = {}
        got: Counter[int] = Counter()
        for place, quota, instance_id, *rest in result.rows:
            quotas[place] = quota
            if instance_id is not None:
                row = Row(instance_id, *rest)
                taking.taken.setdefault(row.kind, []).append(row)
                got[place] += 1
        short = {place for place, quota in quotas.items() if got[place] < quota}
        taking.kinds = [kind for place, kind in enumerate(taking.kinds, 1) if place not in short]
        return bool(short) and bool(taking.kinds) and taking.rest > 0

    # --- outcomes -------------------------------------------------------------------------

    def _finish(self, claims: Sequence[_Taking]) -> tuple[Outcome, ...]:
        """Put together what was read; the transaction has ended."""
        for position, reads in self._recovered.items():
            self._outcomes[position] = Recovered(None if reads is None else reads.take()[0])
        for taking in claims:
            snapshots = [snapshot for reads in taking.snapshots for snapshot in reads.take()]
            ordered = _in_turn(snapshots, taking.claim.kinds)
            tasks = () if taking.tasks is None else tuple(map(read_task, taking.tasks.rows))
            more = 0 < taking.claim.limit == len(ordered) or 0 < taking.claim.slots == len(tasks)
            self._outcomes[taking.position] = Claimed(tuple(ordered), more, tasks)
        return tuple(self._outcomes[position] for position in range(len(self._changes)))

    def _of(self, kind: type[C]) -> list[tuple[int, C]]:
        return [(position, change) for position, change in enumerate(self._changes) if isinstance(change, kind)]


def _is_due(write: Write, inbox_seq: int, now: int) -> bool:
    """Return whether a write has left its instance to whoever takes it now."""
    state = write.state
    if state.status is not Status.OPEN or state.owner is not None:
        return False
    return inbox_seq > state.seen_seq or (state.wake_at is not None and state.wake_at <= now)


def _hands_out(write: Write) -> bool:
    return any(activity.route is not None and activity.owner is None for activity in write.activities)


def _key_of(report: Report) -> _Key:
    return report.instance_id, report.execution, report.event_id


def _end_of(task: ActivityRow) -> tuple[Any, ...]:
    """Return what the statement takes of an activity that was reported."""
    return (*payload_values(task.heartbeat), task.owner, *payload_values(task.result), task.failure, task.revision)


def _kinds_written(changes: Sequence[Change]) -> list[Kind]:
    kinds: list[Kind] = []
    for change in changes:
        if isinstance(change, Write):
            kinds.append(change.state.kind)
            kinds += [child.start.kind for child in change.starts if child.start is not None]
        elif isinstance(change, Start):
            kinds.append(change.kind)
    return kinds


def _in_turn(snapshots: Sequence[Snapshot], kinds: Sequence[Kind]) -> list[Snapshot]:
    """Return claimed instances, one of each kind in turn, and within a kind the longest due first."""
    of_kind: dict[Kind, list[Snapshot]] = {kind: [] for kind in kinds}
    for snapshot in snapshots:
        of_kind[snapshot.row.kind].append(snapshot)
    for found in of_kind.values():
        found.sort(key=lambda snapshot: (snapshot.row.wake_at or 0, snapshot.row.instance_id))
    return [snapshot for snapshot in chain.from_iterable(zip_longest(*of_kind.values())) if snapshot is not None]
