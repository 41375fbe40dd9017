"""Schedules: a spec, what to do at its slots, and how runs that overlap and slots that were missed
are handled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from itertools import islice
from typing import Any, Final, Literal, get_args

from orchestra.errors import InvalidArgument, InvalidSchedule
from orchestra.ids import check_labels, check_name, check_text
from orchestra.options import POSITIVE, check_count, check_duration, check_moment
from orchestra.schedules.local_clock import LATEST, TICK
from orchestra.schedules.slots import Counted, count_slots, last_slots, slots_between
from orchestra.schedules.specs import Spec
from orchestra.versions import parse_version

__all__ = ["Action", "CatchUp", "Event", "Overlap", "Schedule", "Start", "run_id"]

Overlap = Literal[
    "skip", "buffer_one", "buffer_all", "cancel_other", "terminate_other", "allow_all"
]
"""What a slot does while a run of the schedule is open."""

CatchUp = Literal["latest", "all", "none"]
"""Which missed slots are caught up."""

_OVERLAPS: Final = frozenset(get_args(Overlap))
_CATCH_UPS: Final = frozenset(get_args(CatchUp))
_LONGEST_ID: Final = 900
"""A run's id is the schedule's, and a slot."""

_DAY: Final = timedelta(days=1)
_NOTHING: Final = timedelta(0)
_MICROSECOND: Final = timedelta(microseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Start:
    """Start an instance at each slot: a *run* of the schedule.

    Args:
        name: the name of the orchestration.
        input: its input. The client encodes it when it creates the schedule.
        version: the version; without one, the policy of the name chooses it at each slot.
        labels: labels of each run.
        queue: the queue of each run.

    Raises:
        InvalidArgument: the name, a label or the queue is not valid.
        InvalidVersion: the version is not semver.
    """

    name: str
    input: Any = field(default=None, hash=False)
    version: str | None = None
    labels: Mapping[str, str] | None = field(default=None, hash=False)
    queue: str | None = None

    def __post_init__(self) -> None:
        check_name(self.name, "Start.name")
        check_labels(self.labels)
        check_text(self.queue, "Start.queue")
        if self.version is not None:
            parse_version(self.version)
        if self.labels is not None:
            object.__setattr__(self, "labels", dict(self.labels))


@dataclass(frozen=True, slots=True)
class Event:
    """Send an event to a living instance at each slot: a tick for its loop.

    At most one tick is unread: while it is, further slots are skipped.

    Args:
        instance_id: the instance that hears it.
        name: the event's name.
        payload: the event's payload. The client encodes it when it creates the schedule.

    Raises:
        InvalidArgument: the id or the name is not valid.
    """

    instance_id: str
    name: str
    payload: Any = field(default=None, hash=False)

    def __post_init__(self) -> None:
        check_name(self.instance_id, "Event.instance_id")
        check_name(self.name, "Event.name")


Action = Start | Event


@dataclass(frozen=True, slots=True)
class Schedule:
    """When something happens, and what.

    Args:
        id: the schedule's id. A run's id is made of it and the slot, in UTC:
            ``digest/2026-03-01T09:00:00Z``.
        spec: when it has slots.
        action: what happens at a slot.
        overlap: what a slot does while a run is open. A run is open over all its laps, and also
            while it is held. ``"skip"``: nothing. ``"buffer_one"``: it waits until the run has
            ended; only the newest slot waits. ``"buffer_all"``: all wait, and run one after
            another; at most 1,000, the newest kept. ``"cancel_other"``: the run is cancelled, and
            the slot waits for its end. ``"terminate_other"``: the run is terminated.
            ``"allow_all"``: both run.
        catch_up: which slots run that were missed, because no node lived or the clock jumped.
            ``"latest"``: the newest. ``"all"``: all, at most 100, the newest kept. ``"none"``:
            none; a slot that is at most a minute late was not missed.
        catch_up_window: slots that are older are never caught up.
        jitter: each slot runs up to this much later. How much is the same on each node. Order and
            windows go by the slot. An event may be sent with the slot before it.
        start_at: no slot before it.
        end_at: no slot after it.
        pause_after_failures: after so many failed runs in a row the schedule pauses. ``None``:
            never.
        revision: of a declaration in code. Only a higher one replaces what is stored.

    Raises:
        InvalidSchedule: one of them is not valid, or two do not go together.
    """

    id: str
    spec: Spec
    action: Action
    _: KW_ONLY
    overlap: Overlap = "skip"
    catch_up: CatchUp = "latest"
    catch_up_window: timedelta = _DAY
    jitter: timedelta = _NOTHING
    start_at: datetime | None = None
    end_at: datetime | None = None
    pause_after_failures: int | None = None
    revision: int = 1

    def __post_init__(self) -> None:
        check_name(self.id, "a schedule's id", InvalidSchedule)
        what = f"schedule {self.id!r}"
        if len(self.id) > _LONGEST_ID:
            raise InvalidSchedule(
                f"a schedule's id must have at most {_LONGEST_ID} characters, not {len(self.id)}"
            )
        self._check_parts(what)
        check_duration(
            self.catch_up_window,
            f"catch_up_window of {what}",
            least=POSITIVE,
            error=InvalidSchedule,
        )
        check_duration(self.jitter, f"jitter of {what}", error=InvalidSchedule)
        if self.jitter >= self.catch_up_window:
            raise InvalidSchedule(
                f"jitter of {what} is {self.jitter}; it must be less than its catch_up_window, "
                f"{self.catch_up_window}, or slots would be missed before they are due"
            )
        check_count(
            self.pause_after_failures,
            f"pause_after_failures of {what}",
            optional=True,
            error=InvalidSchedule,
        )
        check_count(self.revision, f"revision of {what}", error=InvalidSchedule)
        self._check_bounds(what)

    def _check_parts(self, what: str) -> None:
        if not isinstance(self.spec, Spec):  # pyright: ignore[reportUnnecessaryIsInstance] - users may give anything
            raise InvalidSchedule(
                f"the spec of {what} is {self.spec!r}; write Cron, Every, Daily, Weekly, "
                "Monthly or At"
            )
        if not isinstance(self.action, (Start, Event)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidSchedule(
                f"the action of {what} is {self.action!r}; write Start(name, input) or "
                "Event(instance_id, name, payload)"
            )
        if self.overlap not in _OVERLAPS:
            raise InvalidSchedule(
                f"overlap of {what} is {self.overlap!r}; it takes {', '.join(get_args(Overlap))}"
            )
        if self.catch_up not in _CATCH_UPS:
            raise InvalidSchedule(
                f"catch_up of {what} is {self.catch_up!r}; it takes {', '.join(get_args(CatchUp))}"
            )
        if isinstance(self.action, Event) and self.overlap != "skip":
            raise InvalidSchedule(
                f"{what} sends events, of which at most one is unread, so overlap is 'skip', not "
                f"{self.overlap!r}; use Start for runs that wait or overlap"
            )
        if self.catch_up == "all" and self.overlap == "skip":
            raise InvalidSchedule(
                f"{what} catches up all slots, and skips all but one of them; use "
                "overlap='buffer_all' or 'allow_all', or catch_up='latest'"
            )

    def _check_bounds(self, what: str) -> None:
        for name in ("start_at", "end_at"):
            moment: datetime | None = getattr(self, name)
            try:
                check_moment(moment, f"{name} of {what}", optional=True)
            except InvalidArgument as error:
                raise InvalidSchedule(str(error)) from error
            if moment is not None:
                object.__setattr__(self, name, moment.astimezone(UTC))
        if self.start_at and self.end_at and self.end_at < self.start_at:
            raise InvalidSchedule(f"end_at of {what} is before its start_at")

    # --- slots, between start_at and end_at ---

    def slots(self, after: datetime, until: datetime = LATEST) -> Iterator[datetime]:
        """Yield the slots after an instant, and not after another, the earliest first."""
        return slots_between(self.spec, *self._within(after, until))

    def preview(self, after: datetime, most: int) -> tuple[datetime, ...]:
        """Return the next slots after an instant."""
        return tuple(islice(self.slots(after), most))

    def last_slots(self, after: datetime, until: datetime, most: int) -> list[datetime]:
        """Return the newest slots of an interval, the earliest first."""
        return last_slots(self.spec, *self._within(after, until), most)

    def count_slots(self, after: datetime, until: datetime, most: int) -> Counted:
        """Count the slots of an interval."""
        return count_slots(self.spec, *self._within(after, until), most)

    def _within(self, after: datetime, until: datetime) -> tuple[datetime, datetime]:
        if self.start_at is not None:
            after = max(after, self.start_at - TICK)
        if self.end_at is not None:
            until = min(until, self.end_at)
        return after, until

    def due(self, slot: datetime) -> datetime:
        """Return when a slot runs: the slot, and its jitter. It is the same on each node."""
        if not self.jitter:
            return slot
        text = f"{self.id}\0{(slot - _EPOCH) // _MICROSECOND}".encode("utf-8", "surrogatepass")
        number = int.from_bytes(blake2b(text, digest_size=8).digest())
        return slot + number % (self.jitter // _MICROSECOND + 1) * _MICROSECOND


def run_id(schedule_id: str, slot: datetime, *, is_trigger: bool = False) -> str:
    """Return the id of the instance that a slot starts, or of the event that it sends (I14)."""
    text = slot.astimezone(UTC).replace(tzinfo=None).isoformat()
    return f"{schedule_id}/{text}Z{'/trigger' if is_trigger else ''}"
