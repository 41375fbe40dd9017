"""One group of changes inside one transaction: the phases of the commit protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, islice, zip_longest
from typing import Final, assert_never

from orchestra.providers.decoding import execution_values, read_cancel, read_message
from orchestra.providers.inboxes import Full, Waiting
from orchestra.providers.rows import (
    LONGEST_DELAY,
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
    Outcome,
    Recover,
    Recovered,
    Refusal,
    Refused,
    Release,
    Report,
    Start,
    Started,
    StartExists,
    Status,
    Task,
    Write,
)
from orchestra.providers.sqlite import statements as sql
from orchestra.providers.sqlite.batch import Batch
from orchestra.providers.sqlite.family import Family
from orchestra.providers.sqlite.settings import Settings
from orchestra.providers.sqlite.snapshots import read_snapshots
from orchestra.providers.sqlite.tasks import report_task, take_tasks
from orchestra.providers.sqlite.writer import Transaction

__all__ = ["Group"]

_OPEN: Final = Status.OPEN.value


class Group:
    """Applies changes in the order of the protocol: owners' writes, what follows for others, arrivals, claims (rule 7)."""

    def __init__(self, transaction: Transaction, settings: Settings) -> None:
        self._transaction = transaction
        self._connection = transaction.connection
        self._now = transaction.now
        self._settings = settings
        self._batch = Batch(transaction.connection, transaction.now, settings)

    def apply(self, changes: Sequence[Change]) -> tuple[Outcome, ...]:
        """Apply the changes; return their outcomes in their order."""
        outcomes: dict[int, Outcome] = {}
        arrivals: list[tuple[int, Start | Append | Cancel | Release | Report]] = []
        claims: list[tuple[int, Claim]] = []
        followed: list[tuple[int, Write, Granted]] = []
        for position, change in enumerate(changes):
            if isinstance(change, Write):
                outcomes[position] = written = self._write(change)
                if isinstance(written, Granted) and change.concerns_others:
                    followed.append((position, change, written))
            elif isinstance(change, Recover):
                outcomes[position] = self._recover(change)
            elif isinstance(change, Claim):
                claims.append((position, change))
            else:
                arrivals.append((position, change))
        self._batch.flush()
        if followed:
            # Made here only: the two know each other, and a cycle for each commit would be left to the collector.
            family = Family(self._transaction, self._start)
            for position, write, granted in followed:
                arrivals_elsewhere, taken = family.follow(write)
                if arrivals_elsewhere or taken:
                    outcomes[position] = replace(granted, arrivals=arrivals_elsewhere, taken=taken)
        for position, arrival in arrivals:
            outcomes[position] = self._arrive(arrival)
        taken = [take_tasks(self._connection, claim) for _, claim in claims]
        for (position, claim), tasks in zip(claims, taken, strict=True):
            outcomes[position] = self._claim(claim, tasks)
        return tuple(outcomes[position] for position in range(len(changes)))

    # --- owners ---------------------------------------------------------------------------

    def _write(self, write: Write) -> Granted | Refused:
        state = write.state
        status = int(state.status)
        is_open = status == _OPEN
        if is_open and write.owner is not None and write.owner == state.owner and write.hold is None:
            kept = self._write_and_keep(write)
            if kept is not None:
                return kept  # else it is refused, or it ends a hold
        values = (
            self._transaction.kinds.number(self._connection, state.kind),
            state.owner if is_open else None,
            status,
            is_open and write.hold is not None,
            status,
            state.seen_seq,
            state.wake_at if is_open else None,
            state.seen_seq,
            state.execution,
            state.opened,
            state.takeovers,
            state.history_events,
            state.history_bytes,
            state.summary,
            self._now,
            write.instance_id,
            write.incarnation,
            write.revision,
        )
        if write.owner is None:
            row = self._connection.execute(sql.WRITE_AS_OPERATOR, values).fetchone()
        else:
            row = self._connection.execute(sql.WRITE_AS_OWNER, (*values, write.owner)).fetchone()
        if row is None:
            return Refused()  # I6
        self._batch.add(write)
        return Granted(row[0])

    def _write_and_keep(self, write: Write) -> Granted | None:
        state = write.state
        values = (
            self._transaction.kinds.number(self._connection, state.kind),
            state.seen_seq,
            state.seen_seq,
            state.wake_at,
            state.execution,
            state.opened,
            state.takeovers,
            state.history_events,
            state.history_bytes,
            state.summary,
            self._now,
            write.instance_id,
            write.incarnation,
            write.revision,
            write.owner,
        )
        row = self._connection.execute(sql.WRITE_AND_KEEP, values).fetchone()
        if row is None:
            return None
        self._batch.add(write)
        return Granted(row[0])

    def _recover(self, recover: Recover) -> Recovered:
        # A write and not a read: it waits for the lost one, if that is still under way, and fences it off (rule 9).
        if self._connection.execute(sql.RECOVER, (recover.instance_id, recover.node)).rowcount == 0:
            return Recovered(None)
        self._batch.flush()
        return Recovered(read_snapshots(self._transaction, (recover.instance_id,))[0])

    # --- arrivals -------------------------------------------------------------------------

    def _arrive(self, arrival: Start | Append | Cancel | Release | Report) -> Outcome:
        match arrival:
            case Append():
                return self._append(arrival)
            case Start():
                return self._start(arrival)
            case Cancel():
                return self._cancel(arrival)
            case Release():
                return self._release(arrival)
            case Report():
                return report_task(self._connection, self._now, arrival)
            case _:
                assert_never(arrival)

    def _start(self, start: Start) -> Started | StartExists:
        execution = start.execution
        values = (
            start.instance_id,
            start.incarnation,
            self._transaction.kinds.number(self._connection, start.kind),
            start.wake_at,
            execution.number,
            execution.opened_at is not None,
            self._now,
            self._now,
        )
        if self._connection.execute(sql.ADD_INSTANCE, values).rowcount == 0:
            request_id = self._connection.execute(sql.READ_REQUEST, (start.instance_id,)).fetchone()[0]
            return StartExists(same=request_id == start.request_id)
        parent = start.parent
        link = (None,) * 4 if parent is None else (parent.instance_id, parent.incarnation, parent.execution, parent.event_id)
        self._connection.execute(
            sql.ADD_DETAIL,
            (
                start.instance_id,
                start.request_id,
                start.created_by,
                start.traceparent,
                *link,
                start.root_id,
                start.on_parent_close.value,
            ),
        )
        self._connection.execute(sql.ADD_EXECUTION, execution_values(start.instance_id, execution))
        for key, value in start.labels.items():
            self._connection.execute(sql.ADD_LABEL, (start.instance_id, key, value))
        return Started()

    def _append(self, append: Append) -> Appended | AppendRefused:
        instance_id, message_id = append.instance_id, append.message_id
        remembered_since = self._now - self._settings.tombstone_window
        addressee = self._connection.execute(
            sql.FIND_ADDRESSEE, (message_id, message_id, remembered_since, instance_id)
        ).fetchone()
        if addressee is None:
            return AppendRefused(Refusal.NOT_FOUND)
        status, inbox_seq, owner, most_unread, most_bytes, unread_as, removed_as = addressee
        if unread_as is not None:
            row = self._connection.execute(sql.READ_MESSAGE, (instance_id, unread_as)).fetchone()
            return Appended(unread_as, owner, fresh=False, message=read_message(row))
        if removed_as is not None:
            # Also after the end: the sender learns that its message was read, which is the truth (rule 21).
            return Appended(removed_as, owner, fresh=False)
        if status != _OPEN:
            return AppendRefused(Refusal.CLOSED)
        known = None if most_unread is None else Waiting(most_unread, most_bytes)
        most, full = self._look_for_room(append, known)
        if full is not None:
            if most != known:
                self._connection.execute(sql.SET_MOST_UNREAD, (*most, instance_id))
            return AppendRefused(Refusal.FULL, full)
        message = MessageRow(
            inbox_seq + 1,
            message_id,
            append.name,
            append.payload,
            self._now,
            traceparent=append.traceparent,
            sender=append.sender,
        )
        most = most.plus(len(append.payload.data))
        self._connection.execute(sql.RING, (*most, self._now, self._now, self._now + LONGEST_DELAY, instance_id)).fetchone()
        self._connection.execute(
            sql.ADD_MESSAGE,
            (
                instance_id,
                message.sequence,
                message_id,
                append.name,
                append.payload.data,
                append.payload.encoding,
                self._now,
                MessageKind.EVENT.value,
                0,
                append.traceparent,
                append.sender,
            ),
        )
        return Appended(message.sequence, owner, fresh=True, message=message)

    def _look_for_room(self, append: Append, most: Waiting | None) -> tuple[Waiting, Full | None]:
        """Return the most that may wait in an inbox, and the bound that forbids one more; counts where it must."""
        limits, size = append.limits, len(append.payload.data)
        if most is not None and limits.have_room(most, size):
            return most, None
        if most is None or limits.ask_for_a_count(most, size):
            counted = self._connection.execute(sql.COUNT_UNREAD, (append.name, append.instance_id)).fetchone()
            most, named = Waiting(*counted[:2]), Waiting(*counted[2:])
        else:
            named = Waiting(*self._connection.execute(sql.COUNT_NAME, (append.instance_id, append.name)).fetchone())
        return most, limits.met_by(most, named, size)

    def _cancel(self, cancel: Cancel) -> Appended | AppendRefused:
        row = self._connection.execute(sql.FIND_CANCEL, (cancel.instance_id,)).fetchone()
        if row is None or cancel.incarnation not in (None, row[-1]):
            return AppendRefused(Refusal.NOT_FOUND)
        status, inbox_seq, owner, at, reason, by, terminate, sequence, _ = row
        if status != _OPEN:
            return AppendRefused(Refusal.CLOSED)
        standing = read_cancel(at, reason, by, terminate)
        if standing is not None and (standing.terminate or not cancel.terminate):
            return Appended(sequence, owner, fresh=False, cancel=standing)
        mark = CancelMark(self._now, cancel.reason, cancel.by, cancel.terminate)
        values = (mark.at, mark.reason, mark.by, mark.terminate, cancel.instance_id)
        self._connection.execute(sql.MARK_CANCELLED, (self._now, self._now, self._now + LONGEST_DELAY, *values))
        return Appended(inbox_seq + 1, owner, fresh=True, cancel=mark)

    def _release(self, release: Release) -> Granted | Refused:
        row = self._connection.execute(
            sql.RELEASE_HOLD, (self._now, release.instance_id, release.incarnation, release.revision)
        ).fetchone()
        return Refused() if row is None else Granted(row[0])

    # --- claims ---------------------------------------------------------------------------

    def _claim(self, claim: Claim, tasks: tuple[Task, ...]) -> Claimed:
        ready = [self._find_ready(kind, claim.limit) for kind in dict.fromkeys(claim.kinds)]
        # One of each kind in turn, so that a kind with much to do starves no other.
        in_turn = (instance_id for instance_id in chain.from_iterable(zip_longest(*ready)) if instance_id is not None)
        instance_ids = list(islice(in_turn, claim.limit))
        if instance_ids:
            self._connection.executemany(sql.CLAIM, [(claim.node, instance_id) for instance_id in instance_ids])
        snapshots = read_snapshots(self._transaction, instance_ids, claim.page)
        more = 0 < claim.limit == len(snapshots) or 0 < claim.slots == len(tasks)
        return Claimed(tuple(snapshots), more, tasks)

    def _find_ready(self, kind: Kind, limit: int) -> list[str]:
        number = self._transaction.kinds.find(self._connection, kind)
        if number is None:
            return []
        return [row[0] for row in self._connection.execute(sql.FIND_READY, (number, self._now, limit))]
