"""One group of changes: what the protocol says of them, in three round trips whatever their number.

The first makes new instances and locks the rows of all others that the group names, in the order of their ids (rule 7); it
brings back all that the outcomes depend on. What happens then is decided here, in memory, change by change. The second writes
each hot row once, and everything else with one statement a table; without claims it commits. Claims see what the group has
made ready, and their instances are read in the third.

Nothing waits for a lock after the first round trip: new ids and then rows are taken in one order by all nodes, and claims
pass over what is locked. So two groups cannot wait for each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import Any, Final, TypeVar

from orchestra.providers.decoding import read_message
from orchestra.providers.postgres import statements as sql
from orchestra.providers.postgres.arrays import Blobs, Flags, Numbers, Texts, columns
from orchestra.providers.postgres.calls import Read, Transaction
from orchestra.providers.postgres.effects import Effects
from orchestra.providers.postgres.kinds import Kinds, kind_arrays
from orchestra.providers.postgres.rows import Row, fenced_arrays, row_arrays
from orchestra.providers.postgres.settings import Settings
from orchestra.providers.postgres.snapshots import SnapshotReads
from orchestra.providers.postgres.wire import Result, Script
from orchestra.providers.rows import (
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
    MessageRow,
    Outcome,
    Recover,
    Recovered,
    Refusal,
    Refused,
    Release,
    Snapshot,
    Start,
    Started,
    StartExists,
    Status,
    Write,
)

__all__ = ["Committed", "Group"]

_MESSAGE: Final = (Texts, Texts, Numbers, Texts, Texts, Blobs, Numbers, Numbers, Texts)
_CANCELLED: Final = (Texts, Numbers, Texts, Texts, Numbers)
_START: Final = (Texts, Texts, Numbers, Numbers, Numbers, Flags)

C = TypeVar("C", Write, Start, Append, Claim)


@dataclass(slots=True)
class _Addressee:
    """What is known of an append's message and inbox."""

    unread: MessageRow | None = None
    removed: tuple[int, int] | None = None
    """The sequence and the time of the tombstone."""
    count: int | None = None


@dataclass(slots=True)
class _Inbox:
    """What the group itself has done to an inbox."""

    consumed: set[int] = field(default_factory=set[int])
    appended: dict[str, MessageRow] = field(default_factory=dict[str, MessageRow])


@dataclass(slots=True)
class _Taking:
    """A claim in progress."""

    position: int
    claim: Claim
    kinds: list[Kind]
    taken: dict[int, list[Row]] = field(default_factory=dict[int, list[Row]])
    snapshots: list[SnapshotReads] = field(default_factory=list[SnapshotReads])

    @property
    def rest(self) -> int:
        """How many instances it may still take."""
        return self.claim.limit - sum(len(rows) for rows in self.taken.values())


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
            write.owner is None or write.owner not in self._local_nodes or _is_due(write, inboxes[write.instance_id], now)
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
        self._cancelled: list[tuple[Any, ...]] = []
        self._details: list[tuple[str, str, str, str | None]] = []
        self._labels: list[tuple[str, str, str]] = []
        self._recovered: dict[int, SnapshotReads | None] = {}
        self._outcomes: dict[int, Outcome] = {}
        self._for_others: set[str] = set()

    def run(self) -> Committed:
        self._begin()
        script = self._transaction.script()
        effects = Effects(script, self._transaction.now, self._settings)
        self._apply_owners(effects, script)
        self._apply_arrivals(effects)
        self._write(effects, script)
        claims = [_Taking(position, change, list(dict.fromkeys(change.kinds))) for position, change in self._of(Claim)]
        if any(taking.kinds and taking.claim.limit > 0 for taking in claims):
            self._claim(claims, script)
        else:
            self._transaction.commit(script)
        return Committed(self._transaction.now, bool(self._for_others), lambda: self._finish(claims))

    # --- the first round trip -------------------------------------------------------------

    def _begin(self) -> None:
        starts = list({start.instance_id: start for _, start in reversed(self._of(Start))}.values())
        appends = self._of(Append)
        named = {change.instance_id for change in self._changes if not isinstance(change, Claim | Start)}
        reads: list[Read] = []
        if starts:
            reads.append(self._new_instances(starts))
            reads.append((sql.READ_REQUESTS, (Texts(start.instance_id for start in starts),)))
        if named:
            reads.append((sql.LOCK_ROWS, (Texts(sorted(named)),)))
        if appends:
            reads.append(self._addressees_of(appends))
        results = iter(self._transaction.begin(*reads))
        if starts:
            self._made = {row[0] for row in next(results).rows}
            self._requests = dict(next(results).rows)
        if named:
            self._rows = {row[0]: Row(*row) for row in next(results).rows}
        if appends:
            self._read_addressees(appends, next(results))

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

    def _addressees_of(self, appends: Sequence[tuple[int, Append]]) -> Read:
        # An inbox is counted only where it may be full: there are never more unread messages than there ever were.
        coming = Counter(append.instance_id for _, append in appends)
        going = Counter(write.instance_id for _, write in self._of(Write) for _ in write.consumed)
        return sql.READ_ADDRESSEES, (
            Texts(append.instance_id for _, append in appends),
            Texts(append.message_id for _, append in appends),
            Numbers(append.limit - coming[append.instance_id] for _, append in appends),
            Numbers(max(0, append.limit) + going[append.instance_id] for _, append in appends),
        )

    def _read_addressees(self, appends: Sequence[tuple[int, Append]], result: Result) -> None:
        for place, sequence, name, payload, encoding, sent_at, trace, removed_as, removed_at, count in result.rows:
            position, append = appends[int(place) - 1]
            self._addressees[position] = _Addressee(
                None
                if sequence is None
                else read_message((sequence, append.message_id, name, payload, encoding, sent_at, trace)),
                None if removed_as is None else (removed_as, removed_at),
                count,
            )

    # --- owners ---------------------------------------------------------------------------

    def _apply_owners(self, effects: Effects, script: Script) -> None:
        for position, change in enumerate(self._changes):
            if isinstance(change, Write):
                self._outcomes[position] = self._apply_write(change, effects)
            elif isinstance(change, Recover):
                self._recovered[position] = self._recover(change, effects, script)
        effects.flush()

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
        if row.owner is None and row.wake_at is not None and row.wake_at <= self._transaction.now:
            self._for_others.add(row.instance_id)
        self._inbox(write.instance_id).consumed.update(write.consumed)
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
                case _:
                    pass

    def _start(self, start: Start, effects: Effects) -> Started | StartExists:
        instance_id = start.instance_id
        if instance_id not in self._made or instance_id in self._requests:
            return StartExists(same=self._requests.get(instance_id) == start.request_id)
        self._requests[instance_id] = start.request_id
        self._details.append((instance_id, start.request_id, start.created_by, start.traceparent))
        self._labels.extend((instance_id, key, value) for key, value in start.labels.items())
        effects.create(instance_id, start.execution)
        self._for_others.add(instance_id)
        return Started()

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
        if self._unread(inbox, known) >= append.limit:
            return AppendRefused(Refusal.FULL)
        now = self._transaction.now
        message = MessageRow(row.ring(now), append.message_id, append.name, append.payload, now, append.traceparent)
        inbox.appended[append.message_id] = message
        self._messages.append(
            (
                append.instance_id,
                append.sender,
                message.sequence,
                message.message_id,
                message.name,
                message.payload.data,
                message.payload.encoding,
                now,
                append.traceparent,
            )
        )
        self._tell(row)
        return Appended(message.sequence, row.owner, fresh=True, message=message)

    @staticmethod
    def _unread(inbox: _Inbox, known: _Addressee) -> int:
        # Not counted: it holds so few that this group's appends cannot fill it.
        return 0 if known.count is None else known.count - len(inbox.consumed) + len(inbox.appended)

    def _cancel(self, cancel: Cancel) -> Appended | AppendRefused:
        row = self._reachable(cancel.instance_id)
        if row is None:
            return AppendRefused(Refusal.NOT_FOUND)
        if not row.is_open:
            return AppendRefused(Refusal.CLOSED)
        standing = row.cancel
        if standing is not None:
            return Appended(row.cancel_seq or 0, row.owner, fresh=False, cancel=standing)
        mark = CancelMark(self._transaction.now, cancel.reason, cancel.by)
        sequence = row.ring(mark.at)
        row.cancel_at, row.cancel_reason, row.cancel_by, row.cancel_seq = mark.at, mark.reason, mark.by, sequence
        self._cancelled.append((cancel.instance_id, mark.at, mark.reason, mark.by, sequence))
        self._tell(row)
        return Appended(sequence, row.owner, fresh=True, cancel=mark)

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
        if self._details:
            script.add(sql.ADD_DETAILS, *columns((Texts,) * 4, self._details))
        if self._labels:
            script.add(sql.ADD_LABELS, *columns((Texts,) * 3, self._labels))
        if self._messages:
            script.add(sql.ADD_MESSAGES, *columns(_MESSAGE, self._messages))
        if self._cancelled:
            script.add(sql.MARK_CANCELLED, *columns(_CANCELLED, self._cancelled), len(self._cancelled))
        changed = [row for row in self._rows.values() if row.changed]
        if changed:
            script.add(sql.WRITE_ROWS, *row_arrays(changed), self._transaction.now, len(changed))
        effects.finish()

    # --- claims ---------------------------------------------------------------------------

    def _claim(self, claims: Sequence[_Taking], script: Script) -> None:
        asking = [taking for taking in claims if taking.kinds and taking.claim.limit > 0]
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
                taking.snapshots.append(SnapshotReads(script, rows))
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
            self._outcomes[taking.position] = Claimed(tuple(ordered), more=len(ordered) == taking.claim.limit)
        return tuple(self._outcomes[position] for position in range(len(self._changes)))

    def _of(self, kind: type[C]) -> list[tuple[int, C]]:
        return [(position, change) for position, change in enumerate(self._changes) if isinstance(change, kind)]


def _is_due(write: Write, inbox_seq: int, now: int) -> bool:
    """Return whether a write has left its instance to whoever takes it now."""
    state = write.state
    if state.status is not Status.OPEN or state.owner is not None:
        return False
    return inbox_seq > state.seen_seq or (state.wake_at is not None and state.wake_at <= now)


def _kinds_written(changes: Sequence[Change]) -> list[Kind]:
    kinds: list[Kind] = []
    for change in changes:
        if isinstance(change, Write):
            kinds.append(change.state.kind)
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
