"""Specs: when a schedule has slots.

A *slot* is an instant at which a schedule is due. All slots are aware datetimes in UTC. A spec has
slots from the year 1970 to the year 9990, each at most once.

Local times follow the zone's clocks. A slot in a gap is at the gap's end, a slot in a fold at its
first passing. Slots that meet there are one slot. Only a :class:`Cron` whose hour field matches
every hour goes by elapsed time: an hourly job neither pauses in a fold nor doubles in a gap.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from bisect import bisect_left
from calendar import monthrange
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from functools import lru_cache
from itertools import chain
from typing import Final, Literal, cast

from cronsim import CronSim, CronSimError

from orchestra.errors import InvalidSchedule
from orchestra.options import check_duration
from orchestra.schedules.local_clock import BEFORE, EARLIEST, LATEST, TICK, LocalClock
from orchestra.schedules.zones import start_of_day, zone_named

__all__ = [
    "MOST_EXCLUDED",
    "AnyOf",
    "At",
    "Cron",
    "Daily",
    "Every",
    "Except",
    "Exclusion",
    "Monthly",
    "Spec",
    "Weekly",
]

MOST_EXCLUDED: Final = 200_000
"""After so many excluded slots in a row (two days of seconds), a spec has no further one."""

_LONGEST_PAUSE: Final = timedelta(days=50 * 366)
"""A spec whose slots of fifty years are all excluded has no further one, as a cron has none."""

_SECOND: Final = timedelta(seconds=1)
_DAY: Final = timedelta(days=1)
_NOTHING: Final = timedelta(0)
_MOST_PARTS: Final = 10_000
_STEPS: Final = 16
_LONGEST_EXPRESSION: Final = 1_000
_SUBTRACT: Final = "subtract a date, a datetime, a spec, or a set of them"
_WEEKDAYS: Final = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")


class Spec(ABC):
    """When a schedule has slots. ``|`` joins specs, ``-`` excludes slots.

    ``spec - date(2026, 12, 25)`` excludes all slots of that local day, in the zone of the spec.
    ``spec - other`` excludes the slots that ``other`` has at the same instant: ``- Cron("* * 25 12
    *", zone)`` excludes each minute of a day. ``spec - datetime`` excludes one instant. A set or
    list excludes all that it holds, so holidays are a set of dates.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def zone_info(self) -> tzinfo:
        """The zone whose days ``-`` excludes."""

    @abstractmethod
    def forward(self, after: datetime, until: datetime = LATEST) -> Iterator[datetime]:
        """Yield the slots after an instant, and not after another, the earliest first."""

    @abstractmethod
    def backward(self, upto: datetime, after: datetime = BEFORE) -> Iterator[datetime]:
        """Yield the slots at or before an instant, and after another, the latest first."""

    def has(self, instant: datetime) -> bool:
        """Return whether an instant is a slot."""
        return next(self.forward(instant - TICK, instant), None) == instant

    def day_of(self, slot: datetime) -> date:
        """Return the local day of a slot."""
        return slot.astimezone(self.zone_info).date()

    def __or__(self, other: Spec) -> Spec:
        if not isinstance(other, Spec):  # pyright: ignore[reportUnnecessaryIsInstance]
            return NotImplemented
        return AnyOf(*_parts(self), *_parts(other))

    def __sub__(self, excluded: Exclusion | Iterable[Exclusion]) -> Spec:
        return _excluding(self, excluded)


Exclusion = date | datetime | Spec
"""What ``-`` takes from a spec: a local day, an instant, or the slots of another spec."""


# --- local times -------------------------------------------------------------------------------


class _LocalSpec(Spec):
    """A spec whose slots are local times of a zone."""

    __slots__ = ()

    zone: str

    @property
    def zone_info(self) -> tzinfo:
        return zone_named(self.zone)

    @property
    @abstractmethod
    def _clock(self) -> LocalClock: ...

    def forward(self, after: datetime, until: datetime = LATEST) -> Iterator[datetime]:
        return self._clock.after(after, until)

    def backward(self, upto: datetime, after: datetime = BEFORE) -> Iterator[datetime]:
        return self._clock.upto(upto, after)


# --- cron -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cron(_LocalSpec):
    """Slots by a cron expression: minute, hour, day of month, month, day of week.

    Days of the week are ``0`` to ``7``, where 0 and 7 are Sunday, or ``SUN`` to ``SAT``. ``L`` is a
    month's last day, ``LW`` its last weekday, ``FRI#2`` its second Friday, ``5L`` its last Friday.
    If both day fields are given, a day matches that either of them has, as in Vixie cron. If one of
    them begins with ``*``, both must match.

    Args:
        expression: five fields; six, seconds first, with ``seconds=True``.
        zone: an IANA name.
        dst: ``"run_once"``: a slot in a gap is at the gap's end, one in a fold at its first
            passing. If the hour field matches every hour, a slot in a fold occurs in both passings,
            and a slot in a gap is dropped if the job has a slot as much later as the gap is long.
            So an hourly job is hourly on each day. ``"wall_clock"``: exactly when the clocks show
            it, which is never in a gap and twice in a fold.
        seconds: whether the expression has six fields.

    Raises:
        InvalidSchedule: the expression is none, or has no slot in fifty years.
        UnknownZone: the zone is unknown.
    """

    expression: str
    zone: str = "UTC"
    dst: Literal["run_once", "wall_clock"] = "run_once"
    seconds: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        zone_named(self.zone)
        if self.dst not in {"run_once", "wall_clock"}:
            raise InvalidSchedule(f"dst is {self.dst!r}; it takes 'run_once' or 'wall_clock'")
        _parsed(self.expression, self.seconds)

    @property
    def _clock(self) -> LocalClock:
        has_every_hour = _parsed(self.expression, self.seconds)
        zone = self.zone_info
        if self.dst == "wall_clock":
            return LocalClock(zone, self._after, self._upto, True, lambda _local, _gap: False)
        if has_every_hour:
            return LocalClock(
                zone, self._after, self._upto, True, lambda local, gap: not self._has(local + gap)
            )
        return LocalClock(zone, self._after, self._upto)

    def _after(self, local: datetime) -> Iterator[datetime]:
        try:
            yield from CronSim(self.expression, local)
        except OverflowError:  # beyond the last year
            return

    def _upto(self, local: datetime) -> Iterator[datetime]:
        try:
            yield from CronSim(
                self.expression, local.replace(microsecond=0) + _SECOND, reverse=True
            )
        except OverflowError:  # before the first year
            return

    def _has(self, local: datetime) -> bool:
        return next(CronSim(self.expression, local - _SECOND), None) == local


@lru_cache(maxsize=4096)
def _parsed(expression: str, seconds: bool) -> bool:  # noqa: FBT001 - a cache's key
    """Check an expression; return whether its hour field matches every hour."""
    if not isinstance(expression, str) or len(expression) > _LONGEST_EXPRESSION:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidSchedule(f"{expression!r} is no cron expression; write '0 9 * * MON-FRI'")
    fields = 6 if seconds else 5
    found = len(expression.split())
    if found != fields:
        remedy = (
            "write seconds=True if the first field is seconds"
            if found == 6
            else "write '0 9 * * MON-FRI'"
            if not seconds
            else "write '30 0 9 * * MON-FRI', seconds first"
        )
        raise InvalidSchedule(
            f"the cron expression {expression!r} has {found} fields instead of {fields}; {remedy}"
        )
    try:
        parsed = CronSim(expression, datetime(2000, 1, 1))  # noqa: DTZ001 - local time
        first = next(parsed, None)
    except (CronSimError, ValueError, AssertionError, RecursionError) as error:
        raise InvalidSchedule(
            f"{expression!r} is no cron expression: {error or 'it cannot be read'}; the fields are "
            f"{'second, ' if seconds else ''}minute, hour, day of month, month, day of week"
        ) from error
    if first is None:
        raise InvalidSchedule(f"the cron expression {expression!r} has no slot in fifty years")
    return set(parsed.hours) == set(range(24))


# --- days, weeks, months ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Daily(_LocalSpec):
    """A slot a day, at a local time.

    Raises:
        InvalidSchedule: the time is no naive ``time``.
        UnknownZone: the zone is unknown.
    """

    time: time
    zone: str = "UTC"

    def __post_init__(self) -> None:
        _check_time(self.time)
        zone_named(self.zone)

    @property
    def _clock(self) -> LocalClock:
        return _days(self.zone_info, self.time, lambda _day: True)


@dataclass(frozen=True, slots=True)
class Weekly(_LocalSpec):
    """A slot a week, at a local time.

    ``weekday`` is 0 (Monday) to 6 (Sunday), as ``date.weekday()`` counts, or ``"MON"`` to
    ``"SUN"``.

    Raises:
        InvalidSchedule: the weekday or the time is none.
        UnknownZone: the zone is unknown.
    """

    weekday: int | str
    time: time
    zone: str = "UTC"

    def __post_init__(self) -> None:
        weekday: object = self.weekday
        if isinstance(weekday, str) and weekday.upper()[:3] in _WEEKDAYS:
            object.__setattr__(self, "weekday", weekday.upper()[:3])
        elif isinstance(weekday, int) and not isinstance(weekday, bool) and 0 <= weekday <= 6:
            object.__setattr__(self, "weekday", _WEEKDAYS[weekday])
        else:
            raise InvalidSchedule(
                f"{weekday!r} is no weekday; write 'MON' to 'SUN', or 0 (Monday) to 6 (Sunday)"
            )
        _check_time(self.time)
        zone_named(self.zone)

    @property
    def _clock(self) -> LocalClock:
        weekday = _WEEKDAYS.index(cast("str", self.weekday))
        return _days(self.zone_info, self.time, lambda day: day.weekday() == weekday)


@dataclass(frozen=True, slots=True)
class Monthly(_LocalSpec):
    """A slot a month, at a local time.

    ``day`` is 1 to 31, or -1 (the last day) to -31. A month that is too short takes its nearest
    day: ``Monthly(31, ...)`` is the last day of each month. ``Cron("0 9 31 * *")`` leaves short
    months out instead.

    Raises:
        InvalidSchedule: the day or the time is none.
        UnknownZone: the zone is unknown.
    """

    day: int
    time: time
    zone: str = "UTC"

    def __post_init__(self) -> None:
        day: object = self.day
        if (
            not isinstance(day, int)
            or isinstance(day, bool)
            or not (1 <= day <= 31 or -31 <= day <= -1)
        ):
            raise InvalidSchedule(
                f"{day!r} is no day of a month; write 1 to 31, or -1 for the last day"
            )
        _check_time(self.time)
        zone_named(self.zone)

    @property
    def _clock(self) -> LocalClock:
        return _days(self.zone_info, self.time, self._is_day)

    def _is_day(self, day: date) -> bool:
        last = _last_day(day)
        if self.day > 0:
            return day.day == min(self.day, last)
        return day.day == max(1, last + 1 + self.day)


def _last_day(day: date) -> int:
    return monthrange(day.year, day.month)[1]


def _days(zone: tzinfo, at: time, is_day: Callable[[date], bool]) -> LocalClock:
    """Return the clock of slots at one time of the days that match."""

    def forward(local: datetime) -> Iterator[datetime]:
        day = local.date() if local.time() < at else local.date() + _DAY
        while day.year < date.max.year:
            if is_day(day):
                yield datetime.combine(day, at)
            day += _DAY

    def backward(local: datetime) -> Iterator[datetime]:
        day = local.date() if local.time() >= at else local.date() - _DAY
        while day.year > date.min.year:
            if is_day(day):
                yield datetime.combine(day, at)
            day -= _DAY

    return LocalClock(zone, forward, backward)


def _check_time(at: object) -> None:
    if not isinstance(at, time) or at.tzinfo is not None:
        raise InvalidSchedule(f"{at!r} is no local time; write time(9, 30), and the zone apart")


# --- elapsed time, and instants ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Every(Spec):
    """A slot each time that a period has elapsed, whatever clocks are changed meanwhile.

    ``anchor`` is one of the slots (others lie before and after it); without it, 1970-01-01 00:00
    UTC is one.

    Raises:
        InvalidSchedule: the period is less than a second, or the anchor is no aware datetime.
    """

    period: timedelta
    anchor: datetime | None = None

    def __post_init__(self) -> None:
        check_duration(self.period, "Every.period", least=_SECOND, error=InvalidSchedule)
        if self.anchor is not None:
            object.__setattr__(self, "anchor", _instant(self.anchor, "Every.anchor"))

    @property
    def zone_info(self) -> tzinfo:
        return UTC

    def forward(self, after: datetime, until: datetime = LATEST) -> Iterator[datetime]:
        after, until = max(after, BEFORE), min(until, LATEST)
        if after >= until:
            return
        slot = self._upto(after) + self.period
        while slot <= until:
            yield slot
            slot += self.period

    def backward(self, upto: datetime, after: datetime = BEFORE) -> Iterator[datetime]:
        after, upto = max(after, BEFORE), min(upto, LATEST)
        if after >= upto:
            return
        slot = self._upto(upto)
        while slot > after:
            yield slot
            slot -= self.period

    def count(self, after: datetime, until: datetime) -> int:
        """Return how many slots lie after an instant, and not after another: at no cost."""
        after, until = max(after, BEFORE), min(until, LATEST)
        if until <= after:
            return 0
        return (self._upto(until) - self._upto(after)) // self.period

    def _upto(self, instant: datetime) -> datetime:
        anchor = self.anchor or EARLIEST
        return anchor + (instant - anchor) // self.period * self.period


@dataclass(frozen=True, slots=True, init=False)
class At(Spec):
    """Slots at given instants.

    Raises:
        InvalidSchedule: there is none, one of them is no aware datetime, or there are too many.
    """

    instants: tuple[datetime, ...]

    def __init__(self, *instants: datetime) -> None:
        if not instants or len(instants) > _MOST_PARTS:
            raise InvalidSchedule(
                f"At takes 1 to {_MOST_PARTS} datetimes, not {len(instants)}; write "
                "At(datetime(2026, 3, 1, 9, tzinfo=UTC))"
            )
        # The offset is kept: exclusions of days go by it.
        found = {
            _instant(instant, "At"): instant.astimezone(timezone(instant.utcoffset() or _NOTHING))
            for instant in instants
        }
        object.__setattr__(self, "instants", tuple(found[instant] for instant in sorted(found)))

    @property
    def zone_info(self) -> tzinfo:
        return UTC

    def forward(self, after: datetime, until: datetime = LATEST) -> Iterator[datetime]:
        return (at.astimezone(UTC) for at in self.instants if after < at <= until)

    def backward(self, upto: datetime, after: datetime = BEFORE) -> Iterator[datetime]:
        return (at.astimezone(UTC) for at in reversed(self.instants) if after < at <= upto)

    def day_of(self, slot: datetime) -> date:
        place = bisect_left(self.instants, slot)
        is_slot = place < len(self.instants) and self.instants[place] == slot
        return (self.instants[place] if is_slot else slot).date()


def _instant(value: object, what: str) -> datetime:
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise InvalidSchedule(
            f"{what} takes an aware datetime, not {value!r}; write datetime(..., tzinfo=UTC)"
        )
    instant = value.astimezone(UTC)
    if not EARLIEST <= instant <= LATEST:
        raise InvalidSchedule(f"{what} is {value}; slots lie between 1970 and 9990")
    return instant


# --- joined, and excluded ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True, init=False)
class AnyOf(Spec):
    """The slots of several specs; one that several have is one slot. ``a | b`` makes it."""

    specs: tuple[Spec, ...]

    def __init__(self, *specs: Spec) -> None:
        parts = tuple(dict.fromkeys(chain.from_iterable(_parts(spec) for spec in specs)))
        if not 1 <= len(parts) <= _MOST_PARTS:
            raise InvalidSchedule(f"AnyOf takes 1 to {_MOST_PARTS} specs, not {len(parts)}")
        object.__setattr__(self, "specs", parts)

    @property
    def zone_info(self) -> tzinfo:
        return self.specs[0].zone_info

    def forward(self, after: datetime, until: datetime = LATEST) -> Iterator[datetime]:
        last = None
        for slot in heapq.merge(*(spec.forward(after, until) for spec in self.specs)):
            if slot != last:
                yield slot
                last = slot

    def backward(self, upto: datetime, after: datetime = BEFORE) -> Iterator[datetime]:
        last = None
        for slot in heapq.merge(*(spec.backward(upto, after) for spec in self.specs), reverse=True):
            if slot != last:
                yield slot
                last = slot


@dataclass(frozen=True, slots=True)
class Except(Spec):
    """The slots of a spec without those of local days and of other specs. ``spec - excluded`` makes
    it.
    """

    spec: Spec
    days: frozenset[date] = frozenset()
    specs: tuple[Spec, ...] = ()

    def __post_init__(self) -> None:
        if len(self.days) > _MOST_PARTS or len(self.specs) > _MOST_PARTS:
            raise InvalidSchedule(
                f"a spec excludes at most {_MOST_PARTS} days and as many specs; use a Cron for "
                "what repeats"
            )

    @property
    def zone_info(self) -> tzinfo:
        return self.spec.zone_info

    def day_of(self, slot: datetime) -> date:
        return self.spec.day_of(slot)

    def forward(self, after: datetime, until: datetime = LATEST) -> Iterator[datetime]:
        others = [_Slots(spec.forward) for spec in self.specs]
        excluded, last = 0, max(after, EARLIEST)
        slots = self.spec.forward(after, until)
        while excluded < MOST_EXCLUDED and (slot := next(slots, None)) is not None:
            if slot - last > _LONGEST_PAUSE and excluded:
                return
            excluded += 1
            if (day := self.spec.day_of(slot)) in self.days:
                end = start_of_day(day + _DAY, self.zone_info)
                if end > slot and not isinstance(self.spec, At):
                    slots = self.spec.forward(end - TICK, until)  # a day of seconds is one step
            elif not any(other.has(slot, slot - TICK) for other in others):
                yield slot
                excluded, last = 0, slot

    def backward(self, upto: datetime, after: datetime = BEFORE) -> Iterator[datetime]:
        others = [_Slots(spec.backward) for spec in self.specs]
        excluded, last = 0, min(upto, LATEST)
        slots = self.spec.backward(upto, after)
        while excluded < MOST_EXCLUDED and (slot := next(slots, None)) is not None:
            if last - slot > _LONGEST_PAUSE and excluded:
                return
            excluded += 1
            if (day := self.spec.day_of(slot)) in self.days:
                start = start_of_day(day, self.zone_info)
                if start <= slot and not isinstance(self.spec, At):
                    slots = self.spec.backward(start - TICK, after)
            elif not any(other.has(slot, slot) for other in others):
                yield slot
                excluded, last = 0, slot


class _Slots:
    """The slots of an excluded spec, in step with those of another one.

    It walks as long as both are about as dense, and searches anew from far behind. So neither a
    dense nor a rare exclusion costs more than the slots that it is asked for.
    """

    __slots__ = ("_found", "_from", "_slots")

    def __init__(self, slots_from: Callable[[datetime], Iterator[datetime]]) -> None:
        self._from = slots_from
        self._slots: Iterator[datetime] = iter(())
        self._found: datetime | None = None

    def has(self, slot: datetime, start: datetime) -> bool:
        """Return whether the spec has a slot. ``start`` is where a search for it begins: just
        before it, in the direction of the walk.
        """
        if not self._reaches(slot, start):
            self._slots = self._from(start)
            self._found = next(self._slots, None)
        return self._found == slot

    def _reaches(self, slot: datetime, start: datetime) -> bool:
        is_forward = start < slot
        for _ in range(_STEPS):
            if self._found is None:
                return False
            if self._found == slot or (self._found > slot) == is_forward:
                return True
            self._found = next(self._slots, None)
        return False


def _parts(spec: Spec) -> tuple[Spec, ...]:
    if not isinstance(spec, Spec):  # pyright: ignore[reportUnnecessaryIsInstance] - users may give anything
        raise InvalidSchedule(
            f"{spec!r} is no spec; write Cron, Every, Daily, Weekly, Monthly or At"
        )
    return spec.specs if isinstance(spec, AnyOf) else (spec,)


def _excluding(spec: Spec, excluded: object) -> Spec:
    if isinstance(excluded, (date, Spec)):
        found: list[object] = [excluded]
    elif isinstance(excluded, Iterable) and not isinstance(excluded, (str, bytes)):
        found = list(cast("Iterable[object]", excluded))
    else:
        raise InvalidSchedule(f"{excluded!r} cannot be excluded; {_SUBTRACT}")
    days: set[date] = set()
    instants: list[datetime] = []
    specs: list[Spec] = []
    for one in found:
        if isinstance(one, datetime):
            instants.append(one)
        elif isinstance(one, date):
            days.add(one)
        elif isinstance(one, Spec):
            specs.append(one)
        else:
            raise InvalidSchedule(f"{one!r} cannot be excluded; {_SUBTRACT}")
    if instants:
        specs.append(At(*instants))
    if not days and not specs:
        return spec
    # Each part has days of its own zone.
    parts = [_without(part, frozenset(days), tuple(specs)) for part in _parts(spec)]
    return parts[0] if len(parts) == 1 else AnyOf(*parts)


def _without(spec: Spec, days: frozenset[date], specs: tuple[Spec, ...]) -> Spec:
    if isinstance(spec, Except):
        return Except(spec.spec, spec.days | days, tuple(dict.fromkeys((*spec.specs, *specs))))
    return Except(spec, days, specs)
