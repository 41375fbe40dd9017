"""When specs have slots: local times over changed clocks, elapsed time, months, exclusions
(scenario 70).
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestra.errors import InvalidArgument, InvalidSchedule, UnknownZone
from orchestra.schedules import (
    AnyOf,
    At,
    Cron,
    Daily,
    Every,
    Except,
    Monthly,
    UnknownSpec,
    Weekly,
    count_slots,
    last_slots,
    next_slot,
    slots_between,
    spec_from_json,
    spec_to_json,
)
from tests.support.examples import examples

BERLIN, LORD_HOWE = "Europe/Berlin", "Australia/Lord_Howe"
SANTIAGO, CASABLANCA = "America/Santiago", "Africa/Casablanca"
DAY, HOUR, TICK = timedelta(days=1), timedelta(hours=1), timedelta(microseconds=1)
NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001


def utc(*parts):
    return datetime(*parts, tzinfo=UTC)


def local(spec, zone, day, days=1):
    """Return the slots of some local days, by the zone's clocks."""
    start = datetime.combine(day, time(), ZoneInfo(zone))
    end = datetime.combine(day + days * DAY, time(), ZoneInfo(zone))
    found = slots_between(spec, start.astimezone(UTC) - TICK, end.astimezone(UTC) - TICK)
    return [slot.astimezone(ZoneInfo(zone)).strftime("%d %H:%M %z") for slot in found]


# --- changed clocks ---


@pytest.mark.parametrize(
    ("zone", "day", "at", "expected"),
    [
        (BERLIN, date(2026, 3, 29), time(2, 30), "29 03:00 +0200"),
        (BERLIN, date(2026, 10, 25), time(2, 30), "25 02:30 +0200"),
        (BERLIN, date(2026, 10, 25), time(3, 0), "25 03:00 +0100"),
        (LORD_HOWE, date(2026, 10, 4), time(2, 15), "04 02:30 +1100"),
        (LORD_HOWE, date(2026, 4, 5), time(1, 45), "05 01:45 +1100"),
        (LORD_HOWE, date(2026, 4, 5), time(2, 0), "05 02:00 +1030"),
        (SANTIAGO, date(2026, 9, 6), time(0, 0), "06 01:00 -0300"),
        (SANTIAGO, date(2026, 4, 4), time(23, 30), "04 23:30 -0300"),
        (CASABLANCA, date(2026, 3, 22), time(2, 30), "22 03:00 +0100"),
        (CASABLANCA, date(2026, 2, 15), time(2, 30), "15 02:30 +0100"),
    ],
)
def test_a_slot_in_a_gap_is_at_its_end_and_one_in_a_fold_at_its_first_passing(
    zone, day, at, expected
):
    cron = Cron(f"{at.minute} {at.hour} * * *", zone)
    if (zone, day) == (CASABLANCA, date(2026, 3, 22)) and not _changes(zone, day):
        pytest.skip("this host's zone database has other rules for Casablanca")
    assert local(Daily(at, zone), zone, day) == [expected]
    assert local(cron, zone, day) == [expected]


def _changes(zone, day):
    start = datetime.combine(day, time(), ZoneInfo(zone))
    return start.utcoffset() != datetime.combine(day, time(23), ZoneInfo(zone)).utcoffset()


def test_slots_that_meet_at_a_gaps_end_are_one_slot():
    assert local(Cron("*/15 2,3 * * *", BERLIN), BERLIN, date(2026, 3, 29)) == [
        f"29 03:{minute} +0200" for minute in ("00", "15", "30", "45")
    ]


@pytest.mark.parametrize(
    ("day", "hours"), [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25), (date(2026, 6, 1), 24)]
)
@pytest.mark.parametrize("minute", [0, 30])
def test_an_hourly_cron_is_hourly_on_each_day(day, hours, minute):
    spec = Cron(f"{minute} * * * *", BERLIN)
    start = datetime.combine(day, time(), ZoneInfo(BERLIN)).astimezone(UTC)
    found = list(slots_between(spec, start - TICK, start + hours * HOUR - TICK))
    assert len(found) == hours
    assert all(after - before == HOUR for before, after in pairwise(found))


def test_an_hourly_cron_loses_no_slot_in_a_gap_of_half_an_hour():
    # The clocks skip 02:00 to 02:30.
    found = local(Cron("0 * * * *", LORD_HOWE), LORD_HOWE, date(2026, 10, 4))
    assert found[:4] == ["04 00:00 +1030", "04 01:00 +1030", "04 02:30 +1100", "04 03:00 +1100"]


def test_a_cron_by_the_clock_on_the_wall_runs_twice_in_a_fold_and_never_in_a_gap():
    spec = Cron("30 2 * * *", BERLIN, dst="wall_clock")
    assert local(spec, BERLIN, date(2026, 10, 25)) == ["25 02:30 +0200", "25 02:30 +0100"]
    assert local(spec, BERLIN, date(2026, 3, 29)) == []


def test_elapsed_time_knows_no_clocks():
    found = list(
        slots_between(Every(timedelta(hours=6)), utc(2026, 3, 28, 23), utc(2026, 3, 30, 23))
    )
    assert all(after - before == 6 * HOUR for before, after in pairwise(found))
    anchored = Every(timedelta(minutes=10), anchor=utc(2026, 1, 1, 0, 3))
    assert next_slot(anchored, utc(2026, 1, 1, 0, 3)) == utc(2026, 1, 1, 0, 13)
    assert next_slot(anchored, utc(2025, 1, 1)) == utc(2025, 1, 1, 0, 3)


def test_a_day_that_a_zone_skips_runs_at_its_end():
    # Apia went over the date line: 2011-12-30 never was.
    found = local(Daily(time(9), "Pacific/Apia"), "Pacific/Apia", date(2011, 12, 29), days=3)
    assert found == ["29 09:00 -1000", "31 00:00 +1400", "31 09:00 +1400"]


def test_a_zone_whose_rules_change_has_no_slot_twice(monkeypatch):
    spec = Daily(time(9), "Europe/Moscow")
    rules = [timezone(timedelta(hours=hours)) for hours in (3, 4, 2)]
    cursor, found = utc(2026, 1, 1), []
    for number, zone in enumerate(rules, 1):
        monkeypatch.setattr("orchestra.schedules.specs.zone_named", lambda _, zone=zone: zone)
        until = utc(2026, 1, 1, 12) + number * DAY
        found += slots_between(spec, cursor, until)
        cursor = until
    assert found == [
        utc(2026, 1, 1, 6), utc(2026, 1, 2, 6), utc(2026, 1, 3, 5), utc(2026, 1, 4, 7),
    ]  # fmt: skip


# --- months ---


def test_a_month_that_is_too_short_takes_its_nearest_day():
    year = (utc(2026, 1, 1) - TICK, utc(2027, 1, 1) - TICK)
    days = [slot.day for slot in slots_between(Monthly(31, time(9)), *year)]
    assert days == [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    assert days == [slot.day for slot in slots_between(Monthly(-1, time(9)), *year)]
    assert [s.day for s in slots_between(Monthly(-31, time(9)), *year)] == [1] * 12
    assert [s.day for s in slots_between(Monthly(-2, time(9)), *year)][:3] == [30, 27, 30]
    assert [slot.month for slot in slots_between(Cron("0 9 31 * *"), *year)] == [
        1, 3, 5, 7, 8, 10, 12,
    ]  # fmt: skip


def test_the_leap_day_is_a_slot_in_leap_years_only():
    assert list(islice(Cron("0 0 29 2 *").forward(utc(2026, 1, 1)), 2)) == [
        utc(2028, 2, 29),
        utc(2032, 2, 29),
    ]
    assert next_slot(Cron("0 0 29 2 *"), utc(2096, 3, 1)) == utc(2104, 2, 29)
    assert next_slot(Monthly(29, time(0)), utc(2026, 2, 1)) == utc(2026, 2, 28)
    assert next_slot(Monthly(29, time(0)), utc(2028, 2, 1)) == utc(2028, 2, 29)


def test_weekdays_are_named_or_counted_from_monday():
    assert Weekly("mon", time(9)) == Weekly(0, time(9)) == Weekly("Monday", time(9))
    slot = next_slot(Weekly("SUN", time(9), BERLIN), utc(2026, 3, 23))
    assert slot == utc(2026, 3, 29, 7)


# --- joined, excluded ---


def test_joined_specs_have_a_common_slot_once():
    spec = Daily(time(9)) | Cron("0 9,12 * * *") | At(utc(2026, 1, 1, 10))
    found = list(slots_between(spec, utc(2026, 1, 1), utc(2026, 1, 2)))
    assert [slot.hour for slot in found] == [9, 10, 12]
    assert isinstance(spec, AnyOf)
    assert len(spec.specs) == 3
    assert spec | spec == spec


def test_a_date_excludes_the_local_day_of_each_part():
    holidays = {date(2026, 12, 25), date(2026, 12, 26)}
    tokyo = Daily(time(1), "Asia/Tokyo")  # 16:00 UTC of the day before
    spec = (Daily(time(1), BERLIN) | tokyo) - holidays
    found = list(slots_between(spec, utc(2026, 12, 23, 12), utc(2026, 12, 27)))
    assert found == [
        utc(2026, 12, 23, 16),
        utc(2026, 12, 24, 0),
        utc(2026, 12, 26, 16),
        utc(2026, 12, 27, 0),
    ]


def test_a_spec_excludes_its_own_instants():
    spec = Every(HOUR) - Cron("0 0-7 * * *") - utc(2026, 1, 1, 12)
    found = [slot.hour for slot in slots_between(spec, utc(2026, 1, 1) - TICK, utc(2026, 1, 1, 23))]
    assert found == [*range(8, 12), *range(13, 24)]
    christmas = Cron("0 9 * * *", BERLIN) - Cron("* * 25 12 *", BERLIN)
    year = list(slots_between(christmas, utc(2026, 1, 1), utc(2027, 1, 1)))
    assert len(year) == 364
    assert last_slots(christmas, utc(2026, 1, 1), utc(2027, 1, 1), 1_000) == year


def test_excluded_days_of_seconds_are_passed_at_once():
    days = {date(2026, 1, 1) + n * DAY for n in range(365)}
    spec = Cron("* * * * * *", BERLIN, seconds=True) - days
    after = datetime(2027, 1, 1, tzinfo=ZoneInfo(BERLIN)).astimezone(UTC)
    assert next_slot(spec, utc(2026, 1, 1)) == after
    before = datetime(2026, 1, 1, tzinfo=ZoneInfo(BERLIN)).astimezone(UTC)
    assert last_slots(spec, utc(2020, 1, 1), utc(2026, 12, 1), 1) == [before - timedelta(seconds=1)]


def test_what_is_excluded_wholly_ends(monkeypatch):
    monkeypatch.setattr("orchestra.schedules.specs.MOST_EXCLUDED", 1_000)
    spec = Every(HOUR) - Cron("0 * * * *")
    assert next_slot(spec, utc(2026, 1, 1)) is None
    assert last_slots(spec, utc(2025, 1, 1), utc(2026, 1, 1), 1) == []
    rare = Monthly(-1, time(9)) - Daily(time(9))
    assert next_slot(rare, utc(2026, 1, 1)) is None
    assert last_slots(rare, utc(1970, 1, 1), utc(9000, 1, 1), 1) == []
    once = At(utc(1980, 1, 1), utc(2300, 1, 1)) - date(2026, 1, 1)
    assert next_slot(once, utc(1990, 1, 1)) == utc(2300, 1, 1)


# --- bounds ---


def test_the_newest_slots_of_centuries_of_seconds_cost_nothing_more():
    every = Every(timedelta(seconds=1))
    found = last_slots(every, utc(1970, 1, 1), utc(2900, 1, 1), 3)
    assert found == [utc(2899, 12, 31, 23, 59, 58), utc(2899, 12, 31, 23, 59, 59), utc(2900, 1, 1)]
    assert count_slots(every, utc(1970, 1, 1), utc(2900, 1, 1), 5) == (29_348_006_400, True)
    cron = Cron("* * * * *", BERLIN)
    assert last_slots(cron, utc(1970, 1, 1), utc(2900, 1, 1), 1) == [utc(2900, 1, 1)]
    assert count_slots(cron, utc(1970, 1, 1), utc(2900, 1, 1), 500) == (500, False)


@pytest.mark.parametrize(
    "spec",
    [Cron("0 0 * * *", BERLIN), Daily(time(9), BERLIN), Every(DAY), Monthly(1, time(0), BERLIN)],
)
def test_slots_end_with_the_calendar(spec):
    last = datetime.max.replace(tzinfo=UTC)
    first = datetime.min.replace(tzinfo=UTC)
    assert next_slot(spec, last) is None
    assert last_slots(spec, first, last, 1)[0].year in {9989, 9990}
    assert next_slot(spec, first).year in {1969, 1970}
    assert list(slots_between(spec, first, utc(1969, 12, 1))) == []
    assert list(islice(spec.backward(utc(1970, 2, 3)), 99))[-1] >= utc(1970, 1, 1)


def test_an_interval_needs_instants():
    with pytest.raises(InvalidArgument, match="no time zone"):
        next_slot(Every(HOUR), NAIVE)


# --- errors at construction ---


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Cron("0 9 * *"), "4 fields instead of 5"),
        (lambda: Cron("0 0 9 * * *"), "seconds=True"),
        (lambda: Cron("0 9 * * *", seconds=True), "seconds first"),
        (lambda: Cron("0 25 * * *"), "hour"),
        (lambda: Cron("0 0 30 2 *"), "day-of-month"),
        (lambda: Cron("0 0 */31 * MON#2"), "no slot in fifty years"),
        (lambda: Cron("@daily"), "1 fields"),
        (lambda: Cron("0 9 * * *", dst="twice"), "run_once"),
        (lambda: Cron(9), "no cron expression"),
        (lambda: Every(timedelta(0)), "Every.period"),
        (lambda: Every(HOUR, NAIVE), "aware"),
        (lambda: Daily("9:00"), "time\\(9, 30\\)"),
        (lambda: Daily(time(9, tzinfo=UTC)), "the zone apart"),
        (lambda: Weekly(7, time(9)), "no weekday"),
        (lambda: Monthly(0, time(9)), "1 to 31"),
        (lambda: Monthly(32, time(9)), "1 to 31"),
        (lambda: At(), "1 to"),
        (lambda: At(NAIVE), "aware"),
        (lambda: Every(HOUR) - 5, "cannot be excluded"),
        (lambda: Every(HOUR) - ["2026-01-01"], "cannot be excluded"),
        (lambda: Every(HOUR) - NAIVE, "aware"),
    ],
)
def test_a_spec_that_cannot_be_one_is_refused_at_once(make, match):
    with pytest.raises(InvalidSchedule, match=match):
        make()


@pytest.mark.parametrize(
    "zone", ["Mars/Base", "America", "", "../etc/passwd", "/etc/passwd", "localtime", None, 5]
)
def test_an_unknown_zone_is_refused_by_name(zone):
    with pytest.raises(UnknownZone, match="Europe/Berlin") as caught:
        Daily(time(9), zone)
    assert caught.value.zone == str(zone)


def test_utc_needs_no_zone_database(monkeypatch):
    monkeypatch.setattr("zoneinfo.ZoneInfo", None)
    assert next_slot(Daily(time(9)), utc(2026, 1, 1)) == utc(2026, 1, 1, 9)


# --- stored forms ---

SPECS = [
    Cron("0 9 * * MON-FRI", BERLIN),
    Cron("30 0 9 * * *", dst="wall_clock", seconds=True),
    Every(timedelta(seconds=90)),
    Every(HOUR, utc(2026, 1, 1, 0, 3)),
    Daily(time(9, 30, 15, 500), SANTIAGO),
    Weekly("SUN", time(9), LORD_HOWE),
    Monthly(-1, time(23, 59), CASABLANCA),
    At(utc(2026, 1, 1), datetime(2026, 5, 1, 1, tzinfo=ZoneInfo("Asia/Tokyo"))),
    Daily(time(9), BERLIN) | Every(HOUR),
    (Daily(time(9), BERLIN) | Every(HOUR)) - {date(2026, 12, 25), Cron("0 0 * * *")},
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: type(spec).__name__)
def test_a_spec_comes_back_from_its_stored_form(spec):
    form = spec_to_json(spec)
    again = spec_from_json(form)
    assert again == spec
    assert hash(again) == hash(spec)
    assert spec_to_json(again) == form
    start = utc(2026, 3, 1)
    assert list(islice(again.forward(start), 5)) == list(islice(spec.forward(start), 5))


def test_instants_keep_the_day_that_they_were_written_in():
    tokyo = At(datetime(2026, 5, 1, 1, tzinfo=ZoneInfo("Asia/Tokyo")))
    again = spec_from_json(spec_to_json(tokyo))
    assert next_slot(again - date(2026, 5, 1), utc(2026, 1, 1)) is None
    assert next_slot(again - date(2026, 4, 30), utc(2026, 1, 1)) == utc(2026, 4, 30, 16)


CRON = {"kind": "cron", "expression": "0 9 * * *", "zone": "UTC", "dst": "run_once"}


@pytest.mark.parametrize(
    "form",
    [
        None,
        [],
        {},
        {"kind": 5},
        {"kind": "lunar", "phase": "full"},
        CRON | {"seed": 7},
        CRON | {"dst": "twice"},
        CRON | {"zone": "Mars/Base"},
        CRON | {"seconds": 1},
        CRON | {"seconds": False},
        {"kind": "cron", "expression": "0 9 * * *"},
        {"kind": "every", "period": "1"},
        {"kind": "every", "period": 1},
        {"kind": "daily", "time": 9, "zone": "UTC"},
        {"kind": "at", "instants": ["soon"]},
        {"kind": "any_of", "specs": [CRON, {"kind": "lunar"}]},
        {"kind": "except", "spec": CRON, "days": ["2026-13-01"]},
        {"kind": "except", "spec": CRON, "weeks": [1]},
    ],
)
def test_a_form_that_is_not_wholly_read_is_left_alone(form):
    unknown = spec_from_json(form)
    assert isinstance(unknown, UnknownSpec)
    assert unknown.form == form
    assert unknown.reason


def test_a_form_that_nests_too_deep_is_left_alone():
    form = CRON
    for _ in range(10_000):
        form = {"kind": "any_of", "specs": [form]}
    assert isinstance(spec_from_json(form), UnknownSpec)


# --- properties ---

ZONES = st.sampled_from(["UTC", BERLIN, LORD_HOWE, SANTIAGO, CASABLANCA, "America/St_Johns"])
TIMES = st.builds(time, st.integers(0, 23), st.sampled_from([0, 1, 15, 30, 45, 59]))
HOURS = st.sampled_from(["*", "*/2", "2", "0,1,2,3", "1-3", "23"])
MINUTES = st.sampled_from(["0", "30", "*/20", "*", "5,55"])
DSTS = st.sampled_from(["run_once", "wall_clock"])
CRONS = st.builds(
    lambda minute, hour, zone, dst: Cron(f"{minute} {hour} * * *", zone, dst),
    MINUTES, HOURS, ZONES, DSTS,
)  # fmt: skip
ONCE = st.one_of(
    st.builds(Daily, TIMES, ZONES),
    st.builds(Weekly, st.sampled_from(["SAT", "SUN"]), TIMES, ZONES),
    st.builds(Monthly, st.sampled_from([-1, 1, 5, 25, 29, 31]), TIMES, ZONES),
)
SIMPLE = st.one_of(
    ONCE,
    CRONS,
    st.builds(Every, st.sampled_from([timedelta(minutes=7), HOUR, DAY])),
)
ANY = st.one_of(
    SIMPLE,
    st.builds(lambda one, other: one | other, SIMPLE, SIMPLE),
    st.builds(lambda one, other: one - other, SIMPLE, SIMPLE),
    st.builds(lambda one, day: one - date(2026, 3, day), SIMPLE, st.integers(28, 31)),
)
# Around the days on which clocks are changed.
STARTS = st.builds(
    lambda day, minutes: day + timedelta(minutes=minutes),
    st.sampled_from([
        utc(2026, 3, 28), utc(2026, 10, 24), utc(2026, 4, 4), utc(2026, 10, 3), utc(2026, 9, 5),
        utc(2026, 2, 14), utc(2026, 3, 21), utc(2026, 10, 31), utc(2024, 2, 28),
    ]),
    st.integers(0, 3 * 24 * 60),
)  # fmt: skip
LENGTHS = st.integers(0, 36 * 60).map(lambda minutes: timedelta(minutes=minutes))


@settings(max_examples=examples(400))
@given(ANY, STARTS, LENGTHS, LENGTHS)
def test_slots_increase_and_pieces_make_the_whole(spec, start, first, second):
    middle, end = start + first, start + first + second
    whole = list(slots_between(spec, start, end))
    assert all(before < after for before, after in pairwise(whole))
    pieces = [*slots_between(spec, start, middle), *slots_between(spec, middle, end)]
    assert pieces == whole
    assert last_slots(spec, start, end, 10_000) == whole
    assert last_slots(spec, start, end, 3) == whole[-3:]
    assert count_slots(spec, start, end, 10_000) == (len(whole), True)
    assert not whole or next_slot(spec, start) == whole[0]
    assert all(spec.has(slot) and not spec.has(slot + TICK) for slot in whole[:5])


@settings(max_examples=examples(300))
@given(ZONES, TIMES, STARTS)
@example(BERLIN, time(2, 30), utc(2026, 10, 24))
@example(LORD_HOWE, time(1, 45), utc(2026, 4, 4))
def test_each_local_time_of_a_day_runs_once_also_in_a_gap_and_a_fold(zone, at, start):
    for spec in (Daily(at, zone), Cron(f"{at.minute} {at.hour} * * *", zone)):
        day = start.astimezone(ZoneInfo(zone)).date()
        for n in range(4):
            assert len(local(spec, zone, day + n * DAY)) == 1


@settings(max_examples=examples(100))
@given(CRONS, STARTS)
def test_a_cron_by_the_wall_clock_has_the_minutes_that_match(cron, start):
    """The reference looks at each minute of the time line."""
    zone = ZoneInfo(cron.zone)
    wall = Cron(cron.expression, cron.zone, dst="wall_clock")
    plain = Cron(cron.expression)
    start = start.replace(second=0)
    minutes = [start + timedelta(minutes=n) for n in range(1, 301)]
    matching = [
        minute
        for minute in minutes
        if plain.has(minute.astimezone(zone).replace(tzinfo=UTC, fold=0))
    ]
    assert list(slots_between(wall, start, start + timedelta(minutes=300))) == matching


@settings(max_examples=examples(200))
@given(ANY)
def test_stored_forms_come_back(spec):
    assert spec_from_json(spec_to_json(spec)) == spec


def test_joined_and_excluded_specs_flatten():
    spec = (Every(HOUR) - date(2026, 1, 1)) - {date(2026, 1, 2)} - Cron("0 0 * * *")
    assert spec == Except(
        Every(HOUR), frozenset({date(2026, 1, 1), date(2026, 1, 2)}), (Cron("0 0 * * *"),)
    )
    assert Every(HOUR) - [] == Every(HOUR)
    with pytest.raises(TypeError):
        Every(HOUR) | 5
