"""Schedules: create, change, look at and run them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import anyio

from orchestra import schedules as pure
from orchestra.client.access import Access
from orchestra.client.arguments import (
    check_author,
    check_choice,
    check_limit,
    check_name,
    check_reason,
    check_revision,
    check_text,
)
from orchestra.client.instances import Instances
from orchestra.client.starts import Starts
from orchestra.clock import from_micros, new_id, to_micros
from orchestra.codec import Payload, UserText, encode, plain
from orchestra.errors import (
    InvalidArgument,
    LevelTooLow,
    OutcomeUnknown,
    ScheduleChangedMeanwhile,
    ScheduleExists,
    ScheduleNotFound,
    ScheduleUnreadable,
)
from orchestra.operations.scheduling import (
    Circumstances,
    ReadSchedule,
    Unreadable,
    definition_of,
    edited,
    facts_of,
    first_row,
    instant_of,
    outcome_of,
    read_schedule,
    traced,
    write_of,
)
from orchestra.options import check_count, check_moment
from orchestra.schedules import (
    Event,
    OpenRun,
    Overlap,
    Schedule,
    ScheduleInfo,
    SchedulePause,
    SlotOutcome,
    Tick,
)
from orchestra.store.audit import Record
from orchestra.store.catalogue import Catalogue
from orchestra.store.changes import ScheduleWrite
from orchestra.store.inbox_limits import InboxLimits
from orchestra.store.kinds import SCHEDULE_LEVEL
from orchestra.store.outcomes import ScheduleWritten
from orchestra.store.routes import DEFAULT_QUEUE
from orchestra.store.schedules import TRIGGERED, FollowedRun, ScheduleRecord, ScheduleRow
from orchestra.telemetry import engine_logger

__all__ = ["BackfillReport", "SchedulePage", "Schedules"]

_TRIES: Final = 50
_PAUSE: Final = 0.01
_SHOWN_SLOTS: Final = 20
_MOST_PREVIEWED: Final = 1_000
_NAMED_RUNS: Final = 10
_OVERLAPS: Final = (
    "skip",
    "buffer_one",
    "buffer_all",
    "cancel_other",
    "terminate_other",
    "allow_all",
)


@dataclass(frozen=True, slots=True)
class SchedulePage:
    """A page of schedules. Give ``next_page`` back to get more; ``None``: there are no more.
    ``unreadable`` says of each schedule that this library cannot read why it cannot.
    """

    items: tuple[ScheduleInfo, ...]
    next_page: str | None
    unreadable: dict[str, str]


@dataclass(frozen=True, slots=True)
class BackfillReport:
    """The slots of a backfill and, unless it was a ``dry_run``, what became of them: those that are
    not in ``outcomes`` wait for the runs before them.
    """

    dry_run: bool
    slots: tuple[datetime, ...]
    outcomes: tuple[SlotOutcome, ...] = ()


@dataclass(frozen=True, slots=True)
class _Found:
    """A schedule as it was read for a change."""

    read: ReadSchedule
    record: ScheduleRecord
    around: Circumstances
    now: datetime

    @property
    def runs(self) -> Sequence[FollowedRun]:
        return self.record.runs


@dataclass(frozen=True, slots=True)
class _Act:
    """Who changes a schedule, how and why. ``request_id`` tells whether a lost reply was yes."""

    action: str
    by: str
    reason: str
    expected: int | None
    request_id: str


class Schedules:
    """The schedules of a store: :attr:`Client.schedules`.

    Each change is one conditional write, and durable when the method returns. It is in the audit
    (:meth:`Client.list_operations`) with its author and its reason.

    All methods raise LevelTooLow while a node with a library lives that knows no schedules.
    """

    def __init__(
        self,
        access: Access,
        starts: Starts,
        instances: Instances,
        limits: InboxLimits,
        payload_limit: int,
    ) -> None:
        self._access = access
        self._starts = starts
        self._instances = instances
        self._limits = limits
        self._payload_limit = payload_limit

    # --- making and changing ---

    async def create(
        self,
        schedule: Schedule,
        *,
        reason: str = "",
        by: str = "",
        allow_unregistered: bool = False,
    ) -> ScheduleInfo:
        """Create a schedule. It has no slots before now.

        Args:
            schedule: when something happens, and what.
            reason: why, for the audit.
            by: who; by default the client or the node.
            allow_unregistered: create it also if no living node has the orchestration that it
                starts. Its runs wait for one that has it.

        Raises:
            ScheduleExists: there is one with this id.
            UnknownOrchestration, UnknownVersion, NoVersionInRange, UnreadablePolicy: what it starts
                could not be started now.
            EncodeError, DecodeError, PayloadTooLarge: its value cannot travel, or does not fit.
            InvalidArgument: it is no schedule, or an argument is not valid.
        """
        _check_schedule(schedule)
        act = self._act("create schedule", by, reason, None)
        row = await self._row(schedule, act, None, allow_unregistered=allow_unregistered)
        if not await self._make(row, act):
            raise ScheduleExists(
                f"a schedule {schedule.id!r} exists already; change it with "
                "client.schedules.update(...), or choose another id",
                schedule_id=schedule.id,
            )
        return await self.get(schedule.id)

    async def update(
        self,
        schedule: Schedule,
        *,
        expected_revision: int | None = None,
        reason: str = "",
        by: str = "",
        allow_unregistered: bool = False,
    ) -> ScheduleInfo:
        """Replace a schedule under its id. Its counters, its pause, its waiting slots and its runs
        stay; the new one has no slots before now.

        Args:
            expected_revision: change it only if it has this revision: what ``get`` returned.

        Raises:
            ScheduleNotFound: there is none with this id.
            ScheduleChangedMeanwhile: it has another revision than the expected one.
            ScheduleUnreadable: a newer library has written it.
            UnknownOrchestration, ...: as for :meth:`create`.
        """
        _check_schedule(schedule)
        _check_act(reason, by, expected_revision)
        act = self._act("update schedule", by, reason, expected_revision)
        row = await self._row(schedule, act, None, allow_unregistered=allow_unregistered)
        await self._change(schedule.id, act, lambda found: _replaced(found, schedule, row))
        return await self.get(schedule.id)

    async def delete(
        self,
        schedule_id: str,
        *,
        expected_revision: int | None = None,
        reason: str = "",
        by: str = "",
    ) -> None:
        """Delete a schedule, and what is recorded of its slots. Its runs go on.

        Raises:
            ScheduleNotFound: there is none with this id.
            ScheduleChangedMeanwhile: it has another revision than the expected one.
        """
        check_name(schedule_id, "a schedule's id")
        _check_act(reason, by, expected_revision)
        act = self._act("delete schedule", by, reason, expected_revision)
        for number in range(_TRIES):
            record = await self._record(schedule_id)
            if record is None:
                if number:
                    return  # by this call, or by another one
                raise _not_found(schedule_id)
            _require_edition(record.row, expected_revision)
            row = record.row
            write = ScheduleWrite(
                schedule_id, row.incarnation, row.revision, None, record=_entry(schedule_id, act)
            )
            if await self._submit(write, number) is not None:
                return
        raise _always_written(schedule_id)

    async def pause(
        self,
        schedule_id: str,
        reason: str = "",
        until: datetime | None = None,
        *,
        by: str = "",
        expected_revision: int | None = None,
    ) -> ScheduleInfo:
        """Pause a schedule: no slot runs until :meth:`resume`, or until a time. Its runs go on. A
        deploy does not end a pause. To pause a paused one sets the reason and the time anew.

        Raises:
            ScheduleNotFound, ScheduleChangedMeanwhile, ScheduleUnreadable: as for :meth:`update`.
            InvalidArgument: ``until`` is no aware datetime.
        """
        check_moment(until, "until", optional=True)
        act = self._act("pause schedule", by, reason, expected_revision)

        def pause(found: _Found) -> ScheduleWrite:
            read = found.read
            asked = SchedulePause(reason, act.by, found.now, until)
            state = pure.paused(read.schedule, read.state, asked)
            return write_of(read, (), Tick(state), found.around, row=edited(read.row, act.by))

        await self._change(schedule_id, act, pause)
        return await self.get(schedule_id)

    async def resume(
        self,
        schedule_id: str,
        *,
        catch_up: bool = False,
        reason: str = "",
        by: str = "",
        expected_revision: int | None = None,
    ) -> ScheduleInfo:
        """End the pause of a schedule. One that is not paused stays as it is.

        Args:
            catch_up: let the slots of the pause count as missed ones, which run as the schedule's
                ``catch_up`` says; by default none of them runs.

        Raises:
            ScheduleNotFound, ScheduleChangedMeanwhile, ScheduleUnreadable: as for :meth:`update`.
        """
        act = self._act("resume schedule", by, reason, expected_revision)

        def resume(found: _Found) -> ScheduleWrite | None:
            read = found.read
            if read.state.pause is None:
                return None
            decided = pure.resume(read.schedule, read.state, found.now, catch_up=catch_up)
            return write_of(read, (), decided, found.around, row=edited(read.row, act.by))

        await self._change(schedule_id, act, resume)
        return await self.get(schedule_id)

    # --- running ---

    async def trigger(
        self,
        schedule_id: str,
        *,
        overlap: Overlap | None = None,
        reason: str = "",
        by: str = "",
    ) -> SlotOutcome | None:
        """Do what the schedule does at a slot, now, also if it is paused. Return what became of it;
        ``None``: it waits for the end of another run.

        Args:
            overlap: instead of the schedule's own.

        Raises:
            ScheduleNotFound, ScheduleUnreadable: as for :meth:`update`.
        """
        if overlap is not None:
            check_choice(overlap, "overlap", _OVERLAPS)
        act = self._act("trigger schedule", by, reason, None)

        def trigger(found: _Found) -> ScheduleWrite:
            taken = [slot.slot for slot in found.record.slots if slot.cause == TRIGGERED]
            now = max([to_micros(found.now), *(slot + 1 for slot in taken)])
            facts = facts_of(found.read.schedule, found.runs)
            decided = pure.trigger(
                found.read.schedule, found.read.state, facts, from_micros(now), overlap=overlap
            )
            return write_of(found.read, found.runs, decided, found.around)

        written = await self._change(schedule_id, act, trigger)
        done = [outcome_of(slot) for slot in written.slots] if written is not None else []
        return next((one for one in reversed(done) if one.cause == "trigger"), None)

    async def backfill(
        self,
        schedule_id: str,
        start: datetime,
        end: datetime,
        *,
        dry_run: bool = True,
        overlap: Overlap = "buffer_all",
        reason: str = "",
        by: str = "",
    ) -> BackfillReport:
        """Run the slots of a past interval, both ends within, also if the schedule is paused. A
        slot whose instance still exists has run, and does not run again.

        Args:
            dry_run: only return the slots; the default.
            overlap: by default one runs after the other.

        Raises:
            ScheduleNotFound, ScheduleUnreadable: as for :meth:`update`.
            InvalidSchedule: they are more than 1,000, or the schedule sends events.
            InvalidArgument: an end of the interval is no aware datetime.
        """
        check_moment(start, "start")
        check_moment(end, "end")
        check_choice(overlap, "overlap", _OVERLAPS)
        act = self._act("backfill schedule", by, reason, None)
        slots: tuple[datetime, ...] = ()

        def backfill(found: _Found) -> ScheduleWrite | None:
            nonlocal slots
            read = found.read
            slots = pure.backfill_slots(read.schedule, start, end, found.now)
            if dry_run or not slots:
                return None
            facts = facts_of(read.schedule, found.runs)
            decided = pure.backfill(
                read.schedule, read.state, facts, slots, found.now, overlap=overlap
            )
            return write_of(read, found.runs, decided, found.around)

        written = await self._change(schedule_id, act, backfill)
        outcomes = tuple(map(outcome_of, written.slots)) if written is not None else ()
        return BackfillReport(dry_run, slots, outcomes)

    # --- looking ---

    async def get(self, schedule_id: str) -> ScheduleInfo:
        """Return a schedule, and how it does.

        Raises:
            ScheduleNotFound: there is none with this id.
            ScheduleUnreadable: a newer library has written it.
        """
        check_name(schedule_id, "a schedule's id")
        catalogue = await self._catalogue()
        record = await self._record(schedule_id)
        if record is None:
            raise _not_found(schedule_id)
        try:
            info = self._info(record, catalogue)
        except Unreadable as error:
            raise _unreadable(schedule_id, error) from error
        running = [await self._named(run) for run in info.running[:_NAMED_RUNS]]
        return replace(info, running=(*running, *info.running[_NAMED_RUNS:]))

    async def list(self, *, limit: int = 100, page: str | None = None) -> SchedulePage:
        """Return schedules in the order of their ids, each with its newest slot.

        Args:
            limit: how many, at most 1,000.
            page: the ``next_page`` of the page before.
        """
        check_limit(limit)
        check_text(page, "a page")
        catalogue = await self._catalogue()
        records = await self._read_page(page or "", limit + 1)
        items: list[ScheduleInfo] = []
        unreadable: dict[str, str] = {}
        for record in records[:limit]:
            try:
                items.append(self._info(record, catalogue))
            except Unreadable as error:
                unreadable[record.row.schedule_id] = str(error)
        more = records[limit - 1].row.schedule_id if len(records) > limit else None
        return SchedulePage(tuple(items), more, unreadable)

    async def preview(
        self, schedule: str | Schedule, n: int = 10, *, after: datetime | None = None
    ) -> tuple[datetime, ...]:
        """Return the next slots of a schedule, of a stored one or of one that is still to be
        created, in UTC.

        Args:
            schedule: its id, or the schedule itself.
            n: how many, at most 1,000.
            after: the slots after this instant; by default after now, by the store's clock.

        Raises:
            ScheduleNotFound, ScheduleUnreadable: as for :meth:`get`.
        """
        check_count(n, "n")
        check_moment(after, "after", optional=True)
        if isinstance(schedule, str):
            schedule = (await self.get(schedule)).schedule
        _check_schedule(schedule)
        if after is None:
            after = from_micros((await self._access.catalogue(0)).now)
        return schedule.preview(after, min(n, _MOST_PREVIEWED))

    # --- declarations in code ---

    async def declare(self, schedules: Sequence[Schedule]) -> None:
        """Make the schedules that the code declares, and update those that it declares under a
        higher revision. A pause stays. Log what no living node declares any more.
        """
        catalogue = await self._catalogue()
        act = _Act("declare schedule", self._access.name, "", None, new_id())
        for schedule in schedules:
            try:
                await self._declare(schedule, act)
            except ScheduleUnreadable as error:  # a deploy must not keep this node from its work
                engine_logger.warning("a declared schedule is left as it is stored: %s", error)
        names = {schedule.id for schedule in schedules}
        after = ""
        while rows := await self._read_page(after, 100):
            for record in rows:
                row, after = record.row, record.row.schedule_id
                if row.schedule_id not in names and _is_declared(row, catalogue) is False:
                    engine_logger.warning(
                        "schedule %r was declared in code, and no living node declares it any "
                        "more; it goes on. client.schedules.delete(%r) ends it",
                        row.schedule_id,
                        row.schedule_id,
                    )

    async def _declare(self, schedule: Schedule, act: _Act) -> None:
        row = await self._row(schedule, act, schedule.revision, allow_unregistered=True)
        for _ in range(_TRIES):
            record = await self._record(schedule.id)
            if record is None:
                if await self._make(row, act):
                    engine_logger.info(
                        "schedule %r was created, as the code declares it", row.schedule_id
                    )
                    return
                continue
            standing = record.row
            if standing.declared is not None and standing.declared >= schedule.revision:
                if standing.declared == schedule.revision and (
                    (standing.definition, standing.value) != (row.definition, row.value)
                ):
                    engine_logger.warning(
                        "schedule %r is stored with other content under revision %d, and stays; "
                        "raise Schedule(revision=) to replace it",
                        schedule.id,
                        schedule.revision,
                    )
                if await self._submit(_touched(standing, row.created_at), 0) is not None:
                    return
                continue
            written = await self._change(
                schedule.id, act, lambda found: _replaced(found, schedule, row)
            )
            if written is not None:
                engine_logger.info(
                    "schedule %r was updated to revision %d, as the code declares it",
                    schedule.id,
                    schedule.revision,
                )
                return
        raise _always_written(schedule.id)

    # --- behind them ---

    def _act(self, action: str, by: str, reason: str, expected: int | None) -> _Act:
        _check_act(reason, by, expected)
        return _Act(action, by or self._access.name, reason, expected, new_id())

    async def _catalogue(self) -> Catalogue:
        """Return the catalogue.

        Raises:
            LevelTooLow: the store has no schedules yet.
        """
        catalogue = await self._access.catalogue(0)
        if catalogue.levels.write < SCHEDULE_LEVEL:
            raise LevelTooLow(
                f"schedules need write level {SCHEDULE_LEVEL} of the store, which is at level "
                f"{catalogue.levels.write}; the level rises by itself once all living nodes have a "
                "library that reads it"
            )
        return catalogue

    async def _record(self, schedule_id: str) -> ScheduleRecord | None:
        return await self._access.read(
            lambda directory: directory.schedule(schedule_id, _SHOWN_SLOTS)
        )

    async def _read_page(self, after: str, limit: int) -> Sequence[ScheduleRecord]:
        return await self._access.read(lambda directory: directory.schedules(after, limit))

    async def _row(
        self, schedule: Schedule, act: _Act, declared: int | None, *, allow_unregistered: bool
    ) -> ScheduleRow:
        """Return the row of a schedule as it is before its first write."""
        catalogue = await self._catalogue()
        value, writer, shape = await self._value(schedule, allow_unregistered=allow_unregistered)
        return first_row(
            schedule,
            definition_of(schedule, writer, shape),
            value,
            catalogue.now,
            by=act.by,
            request_id=act.request_id,
            declared=declared,
        )

    async def _value(
        self, schedule: Schedule, *, allow_unregistered: bool
    ) -> tuple[Payload, str | None, str | None]:
        action = schedule.action
        if isinstance(action, Event):
            subject = f"the event of schedule {schedule.id!r}"
            return encode(action.payload, subject=subject, limit=self._payload_limit), None, None
        return await self._starts.prepare(
            action.name,
            action.version,
            action.queue or DEFAULT_QUEUE,
            action.input,
            allow_unregistered=allow_unregistered,
        )

    async def _make(self, row: ScheduleRow, act: _Act) -> bool:
        """Create a schedule; return whether it was done."""
        write = ScheduleWrite(
            row.schedule_id, new_id(), 0, row, record=_entry(row.schedule_id, act)
        )
        if await self._submit(write, 0) is not None:
            return True
        record = await self._record(row.schedule_id)
        return record is not None and record.row.request_id == act.request_id

    async def _change(
        self, schedule_id: str, act: _Act, decide: Callable[[_Found], ScheduleWrite | None]
    ) -> ScheduleWritten | None:
        """Read a schedule, and write what is decided of it; again, if it changes meanwhile.
        ``None``: there was nothing to write, or an earlier try has written it.
        """
        check_name(schedule_id, "a schedule's id")
        for number in range(_TRIES):
            catalogue = await self._catalogue()
            record = await self._record(schedule_id)
            if record is None:
                raise _not_found(schedule_id)
            if number and record.row.request_id == act.request_id:
                return None
            _require_edition(record.row, act.expected)
            library = self._access.provider.library
            around = Circumstances(catalogue, catalogue.now, act.by, self._limits, library)
            try:
                read = read_schedule(record.row, library)
                write = decide(_Found(read, record, around, instant_of(catalogue.now)))
            except Unreadable as error:
                raise _unreadable(schedule_id, error) from error
            if write is None:
                return None
            written = await self._submit(_signed(write, act), number)
            if written is not None:
                return written
        raise _always_written(schedule_id)

    async def _submit(self, write: ScheduleWrite, number: int) -> ScheduleWritten | None:
        """Submit a write. ``None``: it was refused, or its reply was lost; the row tells."""
        if number:
            await anyio.sleep(_PAUSE * min(number, 10))
        running = (
            self._access.recorder.running_schedule(write.schedule_id)
            if write.acts
            else nullcontext(None)
        )
        try:
            with running as trace:
                outcome = await self._access.port.submit(traced(write, trace))
        except OutcomeUnknown:
            return None
        if not isinstance(outcome, ScheduleWritten):
            return None
        self._access.port.written_past()
        return outcome

    def _info(self, record: ScheduleRecord, catalogue: Catalogue) -> ScheduleInfo:
        row = record.row
        read = read_schedule(row, self._access.provider.library)
        info = pure.describe(
            _with_value(read.schedule, row.value),
            read.state,
            facts_of(read.schedule, record.runs).running,
            [outcome_of(slot) for slot in record.slots],
            instant_of(catalogue.now),
            revision=row.edition,
        )
        return replace(
            info,
            declared=_is_declared(row, catalogue),
            created_at=from_micros(row.created_at),
            changed_at=from_micros(row.updated_at),
            changed_by=row.changed_by,
        )

    async def _named(self, run: OpenRun) -> OpenRun:
        """Return an open run with the reason for which it is held, if it is."""
        try:
            info = await self._instances.info(run.instance_id)
        except LookupError:  # deleted meanwhile
            return run
        held = None if info.hold is None else f"{info.hold.kind}: {info.hold.detail}"
        return replace(run, held=held)


def _with_value(schedule: Schedule, value: Payload) -> Schedule:
    """Return a schedule as it is shown: with the plain value of its action."""
    shown = plain(value)
    action = schedule.action
    if isinstance(action, Event):
        return replace(schedule, action=replace(action, payload=shown))
    return replace(schedule, action=replace(action, input=shown))


def _replaced(found: _Found, schedule: Schedule, row: ScheduleRow) -> ScheduleWrite:
    """Return the write that puts a schedule in the place of the stored one."""
    read, standing = found.read, found.read.row
    state = pure.updated(schedule, read.state, found.now)
    fresh = replace(
        standing,
        definition=row.definition,
        value=row.value,
        level=row.level,
        declared=standing.declared if row.declared is None else row.declared,
        declared_at=standing.declared_at if row.declared is None else row.declared_at,
        changed_by=row.changed_by,
        edition=standing.edition + 1,
    )
    return write_of(read, (), Tick(state), found.around, row=fresh)


def _touched(row: ScheduleRow, now: int) -> ScheduleWrite:
    """Return the write that notes that a node which declares a schedule has begun."""
    noted = replace(row, declared_at=now)
    return ScheduleWrite(row.schedule_id, row.incarnation, row.revision, noted)


def _signed(write: ScheduleWrite, act: _Act) -> ScheduleWrite:
    """Return a write with its entry of the audit, and with the request that it answers."""

    def sign(row: ScheduleRow) -> ScheduleRow:
        return replace(row, request_id=act.request_id)

    def settled(reasons: Mapping[int, str]) -> ScheduleRow:
        assert write.refused is not None
        return sign(write.refused(reasons))

    assert write.row is not None
    return replace(
        write,
        row=sign(write.row),
        refused=None if write.refused is None else settled,
        record=_entry(write.schedule_id, act),
    )


def _entry(schedule_id: str, act: _Act) -> Record:
    return Record(act.by, act.action, schedule_id, reason=UserText(act.reason))


def _is_declared(row: ScheduleRow, catalogue: Catalogue) -> bool | None:
    if row.declared is None:
        return None
    begun = min((node.started_at for node in catalogue.nodes), default=0)
    return row.declared_at is not None and row.declared_at >= begun


def _require_edition(row: ScheduleRow, expected: int | None) -> None:
    if expected is not None and row.edition != expected:
        raise ScheduleChangedMeanwhile(
            f"schedule {row.schedule_id!r} is not at revision {expected}: revision {row.edition} "
            f"was written by {row.changed_by!r}; read it with client.schedules.get(...), and "
            "decide again",
            schedule_id=row.schedule_id,
            revision=row.edition,
        )


def _not_found(schedule_id: str) -> ScheduleNotFound:
    return ScheduleNotFound(
        f"there is no schedule {schedule_id!r}; client.schedules.list() shows all",
        schedule_id=schedule_id,
    )


def _unreadable(schedule_id: str, error: Unreadable) -> ScheduleUnreadable:
    return ScheduleUnreadable(
        f"schedule {schedule_id!r} cannot be read by this library: {error}; upgrade the library "
        "here. Nodes that read it go on with it",
        schedule_id=schedule_id,
    )


def _always_written(schedule_id: str) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"schedule {schedule_id!r} was written by others all the time; read it with "
        "client.schedules.get(...), and try again"
    )


def _check_schedule(schedule: object) -> None:
    if not isinstance(schedule, Schedule):
        raise InvalidArgument(
            f"{schedule!r} is no schedule; give Schedule(id, spec, Start(...) or Event(...))"
        )


def _check_act(reason: str, by: str, expected: int | None) -> None:
    check_reason(reason)
    check_author(by)
    check_revision(expected)
