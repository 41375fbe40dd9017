"""Schedules on virtual time: declared, ticked, paused, run by hand; over downtimes and deploys."""

import logging
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta

import pytest

from orchestra import (
    Cron,
    Daily,
    Event,
    Every,
    InstanceStatus,
    InvalidArgument,
    InvalidSchedule,
    OrchestrationRegistry,
    Schedule,
    ScheduleChangedMeanwhile,
    ScheduleExists,
    ScheduleNotFound,
    Start,
    UnknownOrchestration,
)
from orchestra.testing import TestRuntime, crash_everywhere

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
FIRST = datetime(2026, 3, 1, tzinfo=UTC)


async def quick(ctx, state: str) -> str:
    return state


async def slow(ctx, hours: int) -> None:
    await ctx.schedule_timer(hours * HOUR)


async def stuck(ctx, state: None) -> None:
    raise KeyError("a mistake")


async def looping(ctx, laps: int) -> None:
    await ctx.schedule_timer(HOUR)
    ctx.continue_as_new(laps + 1)


async def listening(ctx, ticks: int) -> None:
    await ctx.wait_for_event("tick", str)
    await ctx.schedule_timer(timedelta(minutes=90))
    ctx.continue_as_new(ticks + 1)


def registry():
    return (
        OrchestrationRegistry.builder()
        .register("quick", quick)
        .register("slow", slow)
        .register("stuck", stuck)
        .register("failing", stuck, failures=(Exception,))
        .register("looping", looping)
        .register("listening", listening)
        .build()
    )


def hourly(name="quick", value="hello", **options):
    return Schedule("s", Every(HOUR, anchor=FIRST), Start(name, value), **options)


def world(*schedules, **options):
    return TestRuntime(registry(), schedules=schedules, start=FIRST, **options)


async def outcomes(env, schedule_id="s"):
    info = await env.client.schedules.get(schedule_id)
    return [(slot.slot - FIRST, slot.outcome) for slot in reversed(info.last_slots)]


async def runs(env):
    page = await env.client.list_instances(limit=1000)
    return sorted(one.instance_id for one in page.items)


async def test_a_declared_schedule_starts_a_run_at_each_slot_of_a_month():
    schedule = Schedule("digest", Daily(time(9), "Europe/Berlin"), Start("quick", "u1"))
    async with world(schedule) as env:
        await env.advance(timedelta(days=31))
        info = await env.client.schedules.get("digest")
        assert (info.verdict, info.counters.fired, info.declared) == ("healthy", 31, True)
        assert info.last_slots[0].slot == datetime(2026, 3, 31, 7, tzinfo=UTC), "summer time"
        assert info.last_slots[-1].slot == datetime(2026, 3, 12, 8, tzinfo=UTC)
        run = await env.client.get_instance_info("digest/2026-03-01T08:00:00Z")
        assert (run.status, run.output) == (InstanceStatus.COMPLETED, "u1")
        assert run.created_at == datetime(2026, 3, 1, 8, tzinfo=UTC)
        assert (run.schedule_id, run.scheduled_at) == ("digest", run.created_at)
        await env.client.start("quick", "by hand")
        page = await env.client.list_instances(schedule="digest", limit=1000)
        assert len(page.items) == 31


async def test_a_slot_starts_one_instance_wherever_its_process_dies():
    async def scenario():
        async with world(hourly()) as env:
            await env.advance(3 * HOUR)
            info = await env.client.schedules.get("s")
            assert info.counters.fired == 3
            assert await runs(env) == [f"s/2026-03-01T0{hour}:00:00Z" for hour in (1, 2, 3)]

    await crash_everywhere(scenario)


@pytest.mark.parametrize(
    ("catch_up", "overlap", "found"),
    [
        ("latest", "skip", ["missed_window", "fired"]),
        ("none", "skip", ["missed_window"]),
        ("all", "allow_all", ["fired"] * 5),
    ],
)
async def test_after_a_downtime_the_catch_up_does_what_it_says_once(catch_up, overlap, found):
    """Scenario 71."""
    async with world(hourly(catch_up=catch_up, overlap=overlap)) as env:
        await env.away(5 * HOUR + timedelta(minutes=10))
        assert [outcome for _, outcome in await outcomes(env)] == found
        await env.advance(timedelta(minutes=40))
        assert [outcome for _, outcome in await outcomes(env)] == found
        await env.advance(timedelta(minutes=20))
        assert (await outcomes(env))[-1] == (6 * HOUR, "fired")


async def test_a_clock_that_is_put_back_runs_no_slot_twice():
    """Scenario 71."""
    async with world(hourly()) as env:
        await env.advance(3 * HOUR)
        env._clock.advance(-2 * HOUR)
        await env.advance(2 * HOUR + timedelta(minutes=30))
        assert len(await runs(env)) == 3
        await env.advance(HOUR)
        assert len(await runs(env)) == 4


async def test_a_run_that_laps_for_ever_is_one_run_and_the_next_slots_are_skipped():
    """Scenario 73."""
    async with world(hourly("looping", 0)) as env:
        await env.advance(4 * HOUR)
        info = await env.client.schedules.get("s")
        assert (info.verdict, info.counters.fired, info.counters.skipped) == ("skipping", 1, 3)
        assert [run.instance_id for run in info.running] == ["s/2026-03-01T01:00:00Z"]
        assert "s/2026-03-01T01:00:00Z still runs" in info.last_slots[0].reason


async def test_a_held_run_counts_as_running_and_is_named_with_its_reason():
    """Scenario 73."""
    async with world(hourly("stuck", None)) as env:
        await env.advance(2 * HOUR)
        info = await env.client.schedules.get("s")
        assert await outcomes(env) == [(HOUR, "fired"), (2 * HOUR, "skipped_overlap")]
        assert "is held" in info.last_slots[0].reason
        (run,) = info.running
        assert run.held is not None
        assert "KeyError" in run.held


async def test_a_schedule_whose_code_is_missing_stays_healthy_and_its_runs_are_held():
    """Scenario 74."""
    schedule = Schedule("s", Every(HOUR), Start("unknown", 1), overlap="allow_all")
    async with world(schedule) as env:
        await env.advance(2 * HOUR)
        info = await env.client.schedules.get("s")
        assert (info.verdict, info.counters.fired) == ("healthy", 2)
        assert ["version_missing" in str(run.held) for run in info.running] == [True, True]


@pytest.mark.parametrize(
    ("overlap", "counted", "ends"),
    [
        ("skip", {"fired": 3, "skipped": 4}, {"completed", "running"}),
        ("buffer_one", {"fired": 4, "dropped": 3}, {"completed", "running"}),
        ("buffer_all", {"fired": 4}, {"completed", "running"}),
        ("allow_all", {"fired": 7}, {"completed", "running"}),
        ("cancel_other", {"fired": 7}, {"cancelled", "running"}),
        ("terminate_other", {"fired": 7}, {"terminated", "running"}),
    ],
)
async def test_each_overlap_policy_does_what_it_says_to_a_run_that_takes_longer(
    overlap, counted, ends
):
    """Scenario 73."""
    async with world(hourly("slow", 2, overlap=overlap)) as env:
        await env.advance(7 * HOUR + timedelta(minutes=30))
        info = await env.client.schedules.get("s")
        counters = {name: getattr(info.counters, name) for name in info.counters.__slots__}
        assert {name: number for name, number in counters.items() if number} == counted
        infos = [await env.client.get_instance_info(one) for one in await runs(env)]
        assert {info.status.value for info in infos} == ends
        assert len(info.waiting) == {"buffer_all": 3}.get(overlap, 0)


async def test_a_schedule_pauses_after_runs_that_failed_in_a_row():
    """Scenario 73."""
    async with world(hourly("failing", None, pause_after_failures=2)) as env:
        await env.advance(5 * HOUR)
        info = await env.client.schedules.get("s")
        assert (info.verdict, info.counters.fired) == ("paused", 2)
        assert info.pause is not None
        assert info.pause.reason == "2 runs failed in a row"
        resumed = await env.client.schedules.resume("s", reason="mended")
        assert resumed.verdict != "paused"


async def test_an_event_wakes_a_loop_that_lives_and_at_most_one_tick_is_unread():
    schedule = Schedule("s", Every(HOUR, anchor=FIRST), Event("loop", "tick", "now"))
    async with world(schedule) as env:
        await env.client.start("listening", 0, instance_id="loop")
        await env.advance(4 * HOUR + timedelta(minutes=15))
        assert await outcomes(env) == [
            (HOUR, "fired"),
            (2 * HOUR, "fired"),
            (3 * HOUR, "fired"),
            (4 * HOUR, "skipped_overlap"),
        ]
        info = await env.client.get_instance_info("loop")
        assert (info.unread_messages, info.execution_id) == (0, 3)


async def test_an_event_for_an_instance_that_is_not_there_is_a_failed_slot_and_the_next_one_tries():
    schedule = Schedule("s", Every(HOUR, anchor=FIRST), Event("loop", "tick"))
    async with world(schedule) as env:
        await env.advance(HOUR)
        info = await env.client.schedules.get("s")
        assert (info.verdict, info.counters.failed, info.counters.fired) == ("failing", 1, 0)
        assert info.last_slots[0].reason == "there is no instance 'loop'"
        await env.client.start("quick", "x", instance_id="loop")
        await env.advance(HOUR)
        info = await env.client.schedules.get("s")
        assert "'loop' has ended" in info.last_slots[0].reason


async def test_an_operators_pause_survives_a_deploy_and_resumes_with_or_without_its_slots():
    async with world(hourly(catch_up="all", overlap="allow_all")) as env:
        await env.advance(HOUR)
        paused = await env.client.schedules.pause("s", "an incident", by="ada")
        assert (paused.verdict, paused.pause.by, paused.next_at) == ("paused", "ada", None)
        await env.upgrade(
            registry(),
            schedules=[hourly(catch_up="all", overlap="allow_all", revision=2, jitter=0 * HOUR)],
        )
        await env.advance(2 * HOUR)
        assert (await env.client.schedules.get("s")).counters.fired == 1
        await env.client.schedules.resume("s", by="ada")
        await env.advance(HOUR)
        info = await env.client.schedules.get("s")
        assert (info.counters.fired, info.counters.paused) == (2, 2)
        await env.client.schedules.pause("s", until=env.now + 2 * HOUR)
        await env.advance(3 * HOUR)
        await env.client.schedules.pause("s")
        await env.advance(2 * HOUR)
        before = (await env.client.schedules.get("s")).counters.fired
        await env.client.schedules.resume("s", catch_up=True)
        await env.advance(timedelta())
        assert (await env.client.schedules.get("s")).counters.fired == before + 2
        page = await env.client.list_operations(subject="s")
        assert [(one.action, one.by) for one in page.items if one.by == "ada"] == [
            ("resume schedule", "ada"),
            ("pause schedule", "ada"),
        ]


async def test_a_higher_revision_replaces_what_is_stored_and_an_old_one_reverts_nothing(caplog):
    old, new = hourly(value="old"), hourly(value="new", revision=2)
    async with world(old) as env:
        await env.advance(HOUR)
        await env.upgrade(registry(), schedules=[new])
        await env.advance(HOUR)
        await env.upgrade(registry(), schedules=[old])
        await env.advance(HOUR)
        found = [(await env.client.get_instance_info(one)).output for one in await runs(env)]
        assert found == ["old", "new", "new"]
        with caplog.at_level(logging.WARNING):
            await env.upgrade(registry(), schedules=[replace(new, overlap="allow_all")])
        assert "raise Schedule(revision=)" in caplog.text
        assert (await env.client.schedules.get("s")).schedule.overlap == "skip"


async def test_what_no_code_declares_any_more_is_reported_and_goes_on(caplog):
    async with world(hourly()) as env:
        await env.advance(HOUR)
        with caplog.at_level(logging.WARNING):
            await env.upgrade(registry(), schedules=[])
            await env.advance(HOUR)
            other = Schedule("other", Every(HOUR), Start("quick", "x"))
            await env.upgrade(registry(), schedules=[other])
        assert "schedule 's' was declared in code" in caplog.text
        info = await env.client.schedules.get("s")
        assert (info.declared, info.counters.fired) == (False, 2)


async def test_a_schedule_is_created_changed_listed_and_deleted_by_a_client():
    async with world() as env:
        schedules = env.client.schedules
        made = await schedules.create(hourly(), reason="wanted", by="ada")
        assert (made.verdict, made.revision, made.declared) == ("never_ran", 1, None)
        with pytest.raises(ScheduleExists, match="'s' exists"):
            await schedules.create(hourly())
        await env.advance(HOUR)
        changed = await schedules.update(hourly(value="other"), expected_revision=1)
        assert (changed.revision, changed.counters.fired) == (2, 1)
        with pytest.raises(ScheduleChangedMeanwhile) as stale:
            await schedules.update(hourly(), expected_revision=1)
        assert stale.value.revision == 2
        await env.advance(HOUR)
        run = await env.client.get_instance_info("s/2026-03-01T02:00:00Z")
        assert run.output == "other"
        page = await schedules.list(limit=1)
        assert [one.id for one in page.items] == ["s"]
        assert page.next_page is None
        await schedules.delete("s", reason="no longer", by="ada")
        for call in (schedules.get, schedules.delete, schedules.pause, schedules.trigger):
            with pytest.raises(ScheduleNotFound, match="no schedule 's'"):
                await call("s")
        await env.advance(DAY)
        assert len(await runs(env)) == 2


async def test_lists_of_schedules_have_pages():
    async with world() as env:
        for name in ("a", "b", "c"):
            await env.client.schedules.create(Schedule(name, Every(HOUR), Start("quick", name)))
        first = await env.client.schedules.list(limit=2)
        assert [one.id for one in first.items] == ["a", "b"]
        last = await env.client.schedules.list(limit=2, page=first.next_page)
        assert ([one.id for one in last.items], last.next_page) == (["c"], None)


async def test_a_trigger_runs_the_action_now_and_a_backfill_runs_past_slots_after_a_preview():
    async with world(hourly(overlap="allow_all")) as env:
        await env.advance(2 * HOUR)
        schedules = env.client.schedules
        first = await schedules.trigger("s")
        second = await schedules.trigger("s", reason="again")
        assert (first.outcome, second.outcome) == ("fired", "fired")
        assert first.run != second.run
        await env.run_until(second.run)
        shown = await schedules.backfill("s", FIRST - 2 * HOUR, FIRST + HOUR)
        assert [slot - FIRST for slot in shown.slots] == [-2 * HOUR, -HOUR, 0 * HOUR, HOUR]
        assert (shown.dry_run, shown.outcomes) == (True, ())
        done = await schedules.backfill(
            "s", FIRST - 2 * HOUR, FIRST + HOUR, dry_run=False, overlap="allow_all"
        )
        assert [one.outcome for one in done.outcomes] == ["fired"] * 3 + ["failed"]
        assert "ran before" in done.outcomes[-1].reason
        await env.run_until("s/2026-02-28T22:00:00Z")
        assert (await schedules.get("s")).counters.failed == 1


async def test_a_trigger_waits_for_the_run_before_where_slots_do():
    async with world(hourly("slow", 5, overlap="buffer_all")) as env:
        await env.advance(HOUR)
        assert await env.client.schedules.trigger("s") is None
        assert len((await env.client.schedules.get("s")).waiting) == 1


async def test_a_preview_shows_the_next_slots_of_a_stored_schedule_and_of_one_to_come():
    async with world(hourly()) as env:
        slots = await env.client.schedules.preview("s", 2)
        assert [slot - FIRST for slot in slots] == [HOUR, 2 * HOUR]
        cron = Schedule("c", Cron("0 9 * * MON-FRI", "Europe/Berlin"), Start("quick", "x"))
        (slot,) = await env.client.schedules.preview(cron, 1)
        assert slot == datetime(2026, 3, 2, 8, tzinfo=UTC)


async def test_jitter_delays_the_run_and_not_its_slot():
    async with world(hourly(jitter=timedelta(minutes=30))) as env:
        await env.advance(2 * HOUR)
        (first,) = [one for one in await runs(env) if "T01" in one]
        run = await env.client.get_instance_info(first)
        assert FIRST + HOUR < run.execution_started_at <= FIRST + 1.5 * HOUR


async def test_a_schedule_ends_with_its_end_and_is_never_looked_at_again():
    async with world(hourly(end_at=FIRST + 2 * HOUR)) as env:
        await env.advance(DAY)
        info = await env.client.schedules.get("s")
        assert (info.counters.fired, info.next_at, info.next_slots) == (2, None, ())
        assert env.provider.store.next_tick() is None


async def test_what_cannot_be_a_schedule_is_refused_where_it_is_given():
    async with world() as env:
        with pytest.raises(UnknownOrchestration, match="'misspelt'"):
            await env.client.schedules.create(hourly("misspelt"))
        await env.client.schedules.create(hourly("later"), allow_unregistered=True)
        with pytest.raises(InvalidArgument, match="no schedule"):
            await env.client.schedules.create("s")
        event = Schedule("e", Every(HOUR), Event("i", "tick"))
        await env.client.schedules.create(event)
        with pytest.raises(InvalidSchedule, match="sends events"):
            await env.client.schedules.backfill("e", FIRST, FIRST + HOUR)
    with pytest.raises(InvalidArgument, match="declared twice"):
        world(hourly(), hourly())
    with pytest.raises(InvalidArgument, match="takes Schedule"):
        world("s")
