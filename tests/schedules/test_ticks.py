"""What a tick decides: slots, overlap, catch-up, pauses, counters."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra import (
    Cron,
    Daily,
    Event,
    Every,
    InvalidArgument,
    InvalidSchedule,
    Schedule,
    ScheduleCounters,
    SchedulePause,
    Start,
)
from orchestra.schedules import (
    BACKFILL_LIMIT,
    BUFFER_LIMIT,
    BUFFER_POLL,
    CATCH_UP_LIMIT,
    EndedRun,
    Facts,
    OpenRun,
    UnknownSchedule,
    backfill,
    backfill_slots,
    describe,
    first_state,
    outcome_from_json,
    outcome_to_json,
    paused,
    resume,
    run_id,
    schedule_from_json,
    schedule_to_json,
    state_from_json,
    state_to_json,
    tick,
    trigger,
    updated,
    verdict,
)
from tests.support.examples import examples

START = datetime(2026, 3, 1, 9, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
DAY = timedelta(days=1)
NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001


def schedule(spec=None, action=None, **options):
    return Schedule(
        "digest", spec or Every(HOUR), action or Start("digest", {"user": 1}), **options
    )


def at(hours):
    return START + hours * HOUR


class World:
    """A schedule, its state, and its runs, as a store would keep them."""

    def __init__(self, known, now=START):
        self.schedule = known
        self.now = now
        self.state = first_state(known, now)
        self.open = {}
        self.ended = []
        self.unread = None
        self.outcomes = []
        self.fired = []

    def facts(self):
        return Facts(tuple(self.open.values()), tuple(self.ended), self.unread)

    def tick(self, now):
        self.now = now
        return self.apply(tick(self.schedule, self.state, self.facts(), now))

    def apply(self, decided):
        self.state = decided.state
        for run in (*decided.cancels, *decided.terminates):
            assert run in self.open, "it ends only what is open"
        for run in decided.cancels:
            self.open[run] = replace(self.open[run], is_ending=True)
        for run in decided.terminates:
            self.end(run, "terminated")
        for one in decided.starts:
            assert one.run not in self.open
            self.open[one.run] = OpenRun(one.run)
            self.fired.append(one.slot)
        for one in decided.events:
            self.unread = one.run
            self.fired.append(one.slot)
        self.outcomes += decided.outcomes
        assert state_from_json(state_to_json(self.state)) == self.state
        assert [outcome_from_json(outcome_to_json(o)) for o in decided.outcomes] == list(
            decided.outcomes
        )
        return decided

    def end(self, run=None, status="completed"):
        run = run or next(iter(self.open))
        del self.open[run]
        self.ended.append(EndedRun(run, status))

    def counted(self):
        names = {
            "fired": "fired",
            "skipped_overlap": "skipped",
            "missed_window": "missed",
            "dropped_buffer": "dropped",
            "failed": "failed",
            "paused": "paused",
        }
        counts = dict.fromkeys(names.values(), 0)
        for outcome in self.outcomes:
            counts[names[outcome.outcome]] += outcome.count
        return ScheduleCounters(**counts, late=sum(o.is_late for o in self.outcomes))


def hours(slots):
    return [(slot - START) / HOUR for slot in slots]


# --- a plain tick ---


def test_a_slot_starts_a_run_whose_id_is_made_of_the_schedule_and_the_slot():
    world = World(schedule())
    assert world.state.next_at == at(1)
    decided = world.tick(at(1))
    (start,) = decided.starts
    assert start.run == run_id("digest", at(1)) == "digest/2026-03-01T10:00:00Z"
    assert (start.slot, start.due) == (at(1), at(1))
    assert decided.state.cursor == at(1)
    assert decided.state.next_at == at(2)
    (outcome,) = decided.outcomes
    assert (outcome.outcome, outcome.run, outcome.is_late) == ("fired", start.run, False)


def test_a_tick_without_a_slot_and_a_clock_that_goes_back_do_nothing():
    world = World(schedule())
    assert world.tick(at(0.5)).outcomes == ()
    world.tick(at(1))
    world.end()
    again = world.tick(at(0.2))
    assert (again.starts, again.outcomes, again.state.cursor) == ((), (), at(1))
    assert again.state.next_at == at(2)
    assert world.tick(at(1)).starts == ()


def test_slots_lie_between_start_and_end():
    known = schedule(start_at=at(2), end_at=at(3), overlap="allow_all")
    world = World(known)
    assert world.state.next_at == at(2)
    for hour in range(1, 6):
        world.tick(at(hour))
    assert hours(world.fired) == [2, 3]
    assert world.state.next_at is None
    assert known.preview(at(-50), 9) == (at(2), at(3))


# --- overlap ---


def test_skip_names_the_run_in_the_way_and_a_held_one_first():
    world = World(schedule())
    world.tick(at(1))
    assert world.tick(at(2)).outcomes[0].reason == "digest/2026-03-01T10:00:00Z still runs"
    run = next(iter(world.open))
    world.open["digest/x"] = OpenRun("digest/x")
    world.open[run] = OpenRun(run, held="error: KeyError")
    (outcome,) = world.tick(at(3)).outcomes
    assert outcome.outcome == "skipped_overlap"
    assert outcome.reason == f"{run} is held (error: KeyError), and 1 more"
    assert verdict(world.state, at(3)) == "skipping"
    world.open.clear()
    assert world.tick(at(4)).starts


def test_buffer_one_keeps_the_newest_slot_until_the_run_has_ended():
    world = World(schedule(overlap="buffer_one"))
    world.tick(at(1))
    assert world.tick(at(2)).outcomes == ()
    (dropped,) = world.tick(at(3)).outcomes
    assert (dropped.slot, dropped.outcome) == (at(2), "dropped_buffer")
    assert world.state.next_at == at(3) + BUFFER_POLL
    world.end()
    (start,) = world.tick(at(3) + BUFFER_POLL).starts
    assert start.run == "digest/2026-03-01T12:00:00Z"
    assert world.state.next_at == at(4)
    assert world.counted() == world.state.counters == ScheduleCounters(fired=2, dropped=1)


def test_buffer_all_runs_one_after_another_and_is_bounded(monkeypatch):
    world = World(schedule(overlap="buffer_all"))
    for hour in range(1, 5):
        world.tick(at(hour))
    assert [one.slot for one in world.state.buffered] == [at(2), at(3), at(4)]
    for _ in range(3):
        assert len(world.open) == 1
        world.end()
        world.tick(world.now + BUFFER_POLL)
    assert hours(world.fired) == [1, 2, 3, 4]
    monkeypatch.setattr("orchestra.schedules.ticks.BUFFER_LIMIT", 2)
    for hour in range(5, 9):
        world.tick(at(hour))
    assert [one.slot for one in world.state.buffered] == [at(7), at(8)]
    assert world.counted() == world.state.counters


def test_cancel_other_cancels_once_and_waits_for_the_end():
    world = World(schedule(overlap="cancel_other"))
    world.tick(at(1))
    first = next(iter(world.open))
    decided = world.tick(at(2))
    assert (decided.cancels, decided.starts) == ((first,), ())
    decided = world.tick(at(3))
    assert decided.cancels == ()
    assert [o.outcome for o in decided.outcomes] == ["dropped_buffer"]
    world.end(status="cancelled")
    assert [one.slot for one in world.tick(at(3) + BUFFER_POLL).starts] == [at(3)]
    # The run has ended, and a newer slot is due in the same tick.
    world.tick(at(4))
    world.end()
    decided = world.tick(at(5))
    assert [one.slot for one in decided.starts] == [at(5)]
    assert decided.cancels == ()
    assert world.counted() == world.state.counters


def test_terminate_other_starts_at_once():
    world = World(schedule(overlap="terminate_other"))
    world.tick(at(1))
    world.open["digest/x"] = OpenRun("digest/x", held="nondeterminism")
    decided = world.tick(at(2))
    assert decided.terminates == ("digest/2026-03-01T10:00:00Z", "digest/x")
    assert [one.slot for one in decided.starts] == [at(2)]


def test_runs_of_one_tick_never_end_each_other():
    for overlap in ("cancel_other", "terminate_other"):
        world = World(schedule(overlap=overlap, catch_up="all"))
        decided = world.tick(at(5))
        assert [one.slot for one in decided.starts] == [at(5)]
        assert not decided.cancels
        assert not decided.terminates
        assert world.state.counters == ScheduleCounters(fired=1, dropped=4)


def test_allow_all_starts_beside_others():
    world = World(schedule(overlap="allow_all"))
    for hour in range(1, 4):
        assert len(world.tick(at(hour)).starts) == 1
    assert len(world.open) == 3


# --- missed slots ---


def test_latest_runs_the_newest_missed_slot_once():
    world = World(schedule())
    decided = world.tick(at(20) + MINUTE * 30)
    assert [one.slot for one in decided.starts] == [at(20)]
    missed, fired = decided.outcomes
    assert (missed.outcome, missed.count, missed.first, missed.slot) == (
        "missed_window", 19, at(1), at(19),
    )  # fmt: skip
    assert fired.is_late
    assert world.state.counters == ScheduleCounters(fired=1, missed=19, late=1)
    assert world.tick(at(20) + MINUTE * 30).outcomes == ()


def test_none_runs_a_slot_that_is_on_time_and_no_missed_one():
    world = World(schedule(catch_up="none"))
    assert world.tick(at(5) + 2 * MINUTE).starts == ()
    assert world.state.counters == ScheduleCounters(missed=5)
    assert [one.slot for one in world.tick(at(8) + 30 * SECOND).starts] == [at(8)]
    assert world.counted() == world.state.counters


def test_all_runs_the_newest_of_many_and_says_so():
    world = World(schedule(Every(MINUTE), overlap="allow_all", catch_up="all", catch_up_window=DAY))
    decided = world.tick(at(30))
    assert len(decided.starts) == CATCH_UP_LIMIT
    assert decided.starts[-1].slot == at(30)
    assert [o.reason for o in decided.outcomes][:2] == [
        "older than the catch-up window, 1 day, 0:00:00",
        f"more than {CATCH_UP_LIMIT} slots were missed; the newest are caught up",
    ]
    assert sum(o.count for o in decided.outcomes) == 30 * 60
    assert world.counted() == world.state.counters


@pytest.mark.parametrize("spec", [Every(SECOND), Cron("* * * * * *", seconds=True)])
def test_a_year_of_seconds_is_missed_at_no_great_cost(spec):
    world = World(schedule(spec))
    decided = world.tick(START + 365 * DAY)
    assert [one.slot for one in decided.starts] == [START + 365 * DAY]
    assert len(decided.outcomes) == 4
    if isinstance(spec, Every):
        assert world.state.counters.missed == 365 * 86_400 - 1
        assert all(o.is_all for o in decided.outcomes)
    else:
        assert not decided.outcomes[0].is_all


def test_slots_older_than_the_window_are_missed_whatever_is_caught_up():
    world = World(schedule(overlap="buffer_all", catch_up="all", catch_up_window=3 * HOUR))
    world.tick(at(10))
    assert hours(world.fired) == [8]
    assert [one.slot for one in world.state.buffered] == [at(9), at(10)]
    assert world.state.counters == ScheduleCounters(fired=1, missed=7, late=1)


# --- jitter ---


def test_jitter_delays_a_run_by_a_stable_time_and_moves_no_slot():
    known = schedule(jitter=timedelta(minutes=5))
    due = known.due(at(1))
    assert at(1) <= due <= at(1) + timedelta(minutes=5)
    assert known.due(at(1)) == due
    assert len({known.due(at(n)) - at(n) for n in range(50)}) > 40
    assert len({replace(known, id=f"s{n}").due(at(1)) for n in range(50)}) > 40
    world = World(known)
    assert world.state.next_at == due
    (start,) = world.tick(due).starts
    assert (start.slot, start.due) == (at(1), due)
    assert start.run == "digest/2026-03-01T10:00:00Z"
    assert world.state.next_at == known.due(at(2))


@pytest.mark.parametrize("catch_up", ["latest", "none"])
def test_a_jitter_longer_than_the_interval_misses_nothing(catch_up):
    known = schedule(
        Every(MINUTE), jitter=timedelta(minutes=7), overlap="allow_all", catch_up=catch_up
    )
    world = World(known)
    while world.now < at(2):
        decided = world.tick(world.state.next_at)
        for start in decided.starts:
            assert start.slot <= start.due <= start.slot + timedelta(minutes=7)
    assert world.state.counters.missed == 0
    assert world.fired == [START + MINUTE * n for n in range(1, len(world.fired) + 1)]


# --- events ---


def test_an_event_has_at_most_one_unread_tick():
    world = World(schedule(action=Event("loop-1", "tick")))
    (event,) = world.tick(at(1)).events
    assert event.run == "digest/2026-03-01T10:00:00Z"
    (skipped,) = world.tick(at(2)).outcomes
    assert (skipped.outcome, skipped.reason) == ("skipped_overlap", f"{event.run} is still unread")
    world.unread = None
    assert world.tick(at(3)).events
    assert not world.open


# --- failures, refusals ---


def test_a_schedule_pauses_after_failures_in_a_row():
    world = World(schedule(pause_after_failures=2))
    for hour, status in enumerate(["failed", "completed", "failed", "cancelled", "failed"], 1):
        assert world.tick(at(hour)).starts
        world.end(status=status)
    decided = world.tick(at(6))
    assert decided.starts == ()
    assert decided.state.pause == SchedulePause("2 runs failed in a row", "orchestra", at(6))
    assert decided.state.next_at is None
    assert verdict(decided.state, at(6)) == "paused"
    resumed = world.apply(resume(world.schedule, world.state, at(8.5), catch_up=False))
    assert [(o.outcome, o.count) for o in resumed.outcomes] == [("paused", 3)]
    assert world.state.failures == 0
    assert world.tick(at(9)).starts
    assert world.counted() == world.state.counters


def test_the_end_of_a_run_is_counted_once():
    world = World(schedule(pause_after_failures=9))
    world.tick(at(1))
    world.end(status="failed")
    for minutes in range(5):
        world.tick(at(1) + minutes * MINUTE)
    assert world.state.failures == 1
    assert verdict(world.state, at(1)) == "failing"


def test_a_refused_start_is_a_failed_slot():
    known = schedule(overlap="allow_all", catch_up="all", pause_after_failures=1)
    world = World(known)
    decided = tick(known, world.state, Facts(), at(2))
    run = decided.starts[0].run
    refused = decided.refused(run, "another instance has the id")
    assert [one.slot for one in refused.starts] == [at(2)]
    assert [(o.outcome, o.reason) for o in refused.outcomes] == [
        ("failed", "another instance has the id"),
        ("fired", ""),
    ]
    assert refused.state.counters == ScheduleCounters(fired=1, failed=1)
    assert refused.state.failures == 1
    assert run not in refused.state.watched
    assert decided.refused(run, "it ran", is_failure=False).state.failures == 0
    assert refused.refused("another", "x") == refused
    world.apply(refused)
    assert world.tick(at(3)).state.pause.reason == "1 runs failed in a row"


# --- pause, trigger, backfill, update ---


def test_a_pause_ends_by_itself_and_its_slots_are_paused():
    world = World(schedule())
    pause = SchedulePause("deploy", "ops", at(0.5), until=at(3))
    world.state = paused(world.schedule, world.state, pause)
    assert world.state.next_at == at(3)
    assert verdict(world.state, at(2)) == "paused"
    assert world.tick(at(2)).outcomes == ()
    decided = world.tick(at(4))
    assert [(o.outcome, o.count, o.reason) for o in decided.outcomes] == [
        ("paused", 3, "paused by ops: deploy"),
        ("fired", 1, ""),
    ]
    assert [one.slot for one in decided.starts] == [at(4)]
    assert world.counted() == world.state.counters


def test_a_schedule_resumes_with_catch_up_if_it_is_asked_to():
    world = World(schedule(overlap="allow_all", catch_up="all"))
    world.state = paused(world.schedule, world.state, SchedulePause("deploy", "ops", at(0.5)))
    assert world.tick(at(3)).outcomes == ()
    decided = world.apply(resume(world.schedule, world.state, at(3.5), catch_up=True))
    assert decided.outcomes == ()
    assert decided.state.next_at == at(1), "at once"
    assert [one.slot for one in world.tick(at(3.5)).starts] == [at(1), at(2), at(3)]


def test_a_trigger_runs_now_also_in_a_pause_and_counts_as_a_run():
    world = World(schedule())
    world.state = paused(world.schedule, world.state, SchedulePause("deploy", "ops", START))
    now = START + timedelta(minutes=7, microseconds=5)
    decided = world.apply(trigger(world.schedule, world.state, world.facts(), now))
    (start,) = decided.starts
    assert start.run == "digest/2026-03-01T09:07:00.000005Z/trigger"
    assert decided.outcomes[0].cause == "trigger"
    assert decided.state.cursor == START
    again = trigger(world.schedule, world.state, world.facts(), now + SECOND)
    assert again.outcomes[0].outcome == "skipped_overlap"
    again = trigger(world.schedule, world.state, world.facts(), now, overlap="allow_all")
    assert len(again.starts) == 1


def test_a_backfill_runs_past_slots_one_after_another():
    world = World(schedule(overlap="buffer_one"))
    slots = backfill_slots(world.schedule, at(-3), at(7), START)
    assert hours(slots) == [-3, -2, -1, 0]
    world.apply(backfill(world.schedule, world.state, world.facts(), slots, START))
    assert world.state.cursor == START
    for hour in range(1, 4):  # a slot of its own replaces none that is backfilled
        world.tick(at(hour))
    while world.open:
        world.end()
        world.tick(world.now + BUFFER_POLL)
    assert hours(world.fired) == [-3, -2, -1, 0, 3]
    assert world.counted() == world.state.counters
    at_once = backfill(
        world.schedule, world.state, world.facts(), slots, START, overlap="allow_all"
    )
    assert len(at_once.starts) == 4


def test_a_backfill_is_bounded_and_starts_runs():
    with pytest.raises(InvalidSchedule, match=f"more than {BACKFILL_LIMIT} slots"):
        backfill_slots(schedule(Every(SECOND)), at(-1), at(0), START)
    with pytest.raises(InvalidSchedule, match="sends events"):
        backfill_slots(schedule(action=Event("loop-1", "tick")), at(-1), at(0), START)
    assert BACKFILL_LIMIT <= BUFFER_LIMIT


def test_a_changed_schedule_has_no_slots_before_the_change():
    world = World(schedule())
    changed = schedule(Every(MINUTE), overlap="allow_all", catch_up="all")
    state = updated(changed, world.state, at(5))
    assert (state.cursor, state.next_at) == (at(5), at(5) + MINUTE)
    state = updated(changed, world.state, at(5), before=world.schedule)
    assert state.cursor == at(5)


def test_a_change_that_leaves_the_slots_as_they_are_loses_no_missed_one():
    world = World(schedule())
    changed = schedule(action=Start("digest", {"user": 2}))
    state = updated(changed, world.state, at(5), before=world.schedule)
    assert (state.cursor, state.next_at) == (START, at(1))
    assert [one.slot for one in tick(changed, state, Facts(), at(5)).starts] == [at(5)]


# --- what people see ---


def test_the_verdict_says_how_a_schedule_does():
    known = schedule()
    world = World(known)
    assert verdict(world.state, START) == "never_ran"
    assert verdict(world.state, at(1) + 2 * MINUTE) == "late"
    world.tick(at(1))
    assert verdict(world.state, at(1)) == "healthy"
    info = describe(known, world.state, (), world.outcomes, at(1), revision=4)
    assert (info.id, info.verdict, info.revision) == ("digest", "healthy", 4)
    assert info.next_slots == tuple(at(n) for n in range(2, 7))
    assert info.next_at == at(2)
    state = paused(known, world.state, SchedulePause("deploy", "ops", at(1)))
    assert describe(known, state, (), (), at(1), revision=4).next_slots == ()


# --- errors at creation ---


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"catch_up": "all"}, "buffer_all"),
        ({"overlap": "queue"}, "buffer_one"),
        ({"catch_up": "some"}, "latest"),
        ({"catch_up_window": timedelta(0)}, "positive"),
        ({"jitter": DAY}, "less than its catch_up_window"),
        ({"jitter": -SECOND}, "at least"),
        ({"start_at": NAIVE}, "no time zone"),
        ({"start_at": at(2), "end_at": at(1)}, "before its start_at"),
        ({"pause_after_failures": 0}, "at least 1"),
        ({"revision": 0}, "at least 1"),
        ({"action": "digest"}, "write Start"),
        ({"spec": "0 9 * * *"}, "write Cron"),
        ({"action": Event("loop-1", "tick"), "overlap": "allow_all"}, "at most one is unread"),
    ],
)
def test_a_schedule_that_cannot_be_one_is_refused_with_a_remedy(options, match):
    with pytest.raises(InvalidSchedule, match=match):
        schedule(**options)


@pytest.mark.parametrize("schedule_id", ["", "x" * 901, "a\0b", 5])
def test_a_schedules_id_is_one_of_which_ids_of_runs_are_made(schedule_id):
    with pytest.raises(InvalidSchedule, match="id"):
        Schedule(schedule_id, Every(HOUR), Start("digest"))


def test_an_action_is_checked_when_it_is_made():
    for make in (
        lambda: Start(""),
        lambda: Start("digest", labels={"": "x"}),
        lambda: Start("digest", queue=""),
        lambda: Event("", "tick"),
        lambda: Event("loop-1", ""),
    ):
        with pytest.raises(InvalidArgument):
            make()


# --- stored forms ---

STORED = schedule(
    Daily(START.time()) - START.date(),
    Start("digest", {"user": 1}, "1.2.0", {"team": "x"}, "slow"),
    overlap="buffer_all",
    catch_up="all",
    jitter=MINUTE,
    start_at=START,
    end_at=at(99),
    pause_after_failures=3,
    revision=7,
)


@pytest.mark.parametrize("known", [STORED, schedule(action=Event("loop-1", "tick", [1]))])
def test_a_schedule_comes_back_from_its_stored_form(known):
    form = schedule_to_json(known)
    value = known.action.input if isinstance(known.action, Start) else known.action.payload
    again = schedule_from_json("digest", form, value)
    assert again == known
    assert hash(again) == hash(known)
    assert "user" not in str(form), "values of users stand apart"


@pytest.mark.parametrize(
    "change",
    [
        {"sparkle": 1},
        {"overlap": "queue"},
        {"spec": {"kind": "lunar"}},
        {"action": {"kind": "signal"}},
        {"action": {"kind": "event", "instance_id": "a", "name": "b", "ttl": 1}},
        {"action": None},
        {"jitter": "1"},
        {"start_at": "soon"},
        {"revision": None},
    ],
)
def test_a_schedule_that_is_not_wholly_read_is_left_alone(change):
    unknown = schedule_from_json("digest", schedule_to_json(STORED) | change)
    assert isinstance(unknown, UnknownSchedule)
    assert unknown.reason
    assert hash(unknown)


def test_a_state_or_outcome_that_is_not_wholly_read_is_left_alone():
    world = World(schedule())
    world.tick(at(1))
    form = state_to_json(world.state)
    for change in ({"mood": 1}, {"cursor": None}, {"buffered": [[1, "whim"]]}, {"counters": {}}):
        assert isinstance(state_from_json(form | change), UnknownSchedule)
    assert isinstance(state_from_json(None), UnknownSchedule)
    form = outcome_to_json(world.outcomes[0])
    for change in ({"mood": 1}, {"outcome": "vanished"}, {"cause": "whim"}, {"slot": None}):
        assert isinstance(outcome_from_json(form | change), UnknownSchedule)


# --- properties ---

SPECS = st.sampled_from([
    Every(timedelta(minutes=7)),
    Every(HOUR) | Cron("*/20 * * * *", "Europe/Berlin"),
    Cron("*/13 * * * *", "Australia/Lord_Howe") - Every(HOUR),
])  # fmt: skip
OVERLAPS = st.sampled_from(
    ["skip", "buffer_one", "buffer_all", "cancel_other", "terminate_other", "allow_all"]
)
STARTS = st.sampled_from(
    [START, datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 4, 4, 14, tzinfo=UTC)]
)
CUTS = st.lists(st.integers(0, 360), max_size=8).map(sorted)


@settings(max_examples=examples(200))
@given(SPECS, STARTS, CUTS, st.sampled_from([timedelta(0), timedelta(minutes=20)]))
def test_a_tick_that_is_split_lets_the_same_slots_run(spec, start, cuts, jitter):
    known = schedule(spec, overlap="allow_all", catch_up="all", jitter=jitter)
    end = start + 360 * MINUTE
    whole, split = World(known, start), World(known, start)
    whole.tick(end)
    for minutes in cuts:
        split.tick(start + minutes * MINUTE)
    split.tick(end)
    assert split.fired == whole.fired == list(known.slots(start, end))
    assert split.open == whole.open


@settings(max_examples=examples(300))
@given(
    SPECS, OVERLAPS, st.sampled_from(["latest", "none", "all"]),
    st.sampled_from([timedelta(0), timedelta(minutes=20)]),
    st.lists(
        st.tuples(
            st.sampled_from(["tick", "tick", "end", "fail", "hold", "pause", "resume", "catch", "refuse"]),
            st.integers(-60, 300),
        ),
        max_size=30,
    ),
)  # fmt: skip
def test_no_slot_runs_twice_and_counters_equal_outcomes(spec, overlap, catch_up, jitter, steps):
    if (overlap, catch_up) == ("skip", "all"):
        return
    known = schedule(
        spec, overlap=overlap, catch_up=catch_up, jitter=jitter, catch_up_window=5 * HOUR,
        pause_after_failures=4,
    )  # fmt: skip
    world = World(known)
    now = latest = START
    for step, minutes in steps:
        now += minutes * MINUTE
        match step:
            case "tick":
                world.tick(now)
            case "end" | "fail" if world.open:
                world.end(status="completed" if step == "end" else "failed")
            case "hold" if world.open:
                run = next(iter(world.open))
                world.open[run] = OpenRun(run, held="error")
            case "pause":
                until = None if minutes % 2 else now + HOUR
                world.state = paused(known, world.state, SchedulePause("why", "ops", now, until))
            case "resume" | "catch":
                world.apply(resume(known, world.state, now, catch_up=step == "catch"))
            case "refuse":
                decided = tick(known, world.state, world.facts(), now)
                for one in decided.starts:
                    decided = decided.refused(one.run, "no")
                world.apply(decided)
            case _:
                pass
        latest = max(latest, now)
        assert world.counted() == world.state.counters
        assert world.state.cursor <= latest
    ran = [o.slot for o in world.outcomes if o.outcome in {"fired", "failed"}]
    assert len(ran) == len(set(ran))
    evaluated = sum(o.count for o in world.outcomes) + len(world.state.buffered)
    assert evaluated == known.count_slots(START, world.state.cursor, 10**6).slots
    if overlap != "allow_all":
        assert sum(not run.is_ending for run in world.open.values()) <= 1
