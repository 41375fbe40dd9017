"""TestRuntime: orchestrations of months in milliseconds, in the order of their time."""

import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import anyio
import anyio.lowlevel
import pytest

from orchestra import (
    ActivityFailed,
    ChildFailed,
    Exact,
    InstanceCancelled,
    InstanceFailed,
    InvalidArgument,
    OrchestrationRegistry,
    RetryPolicy,
    RuntimeClosed,
    WaitTimeout,
    activity,
    activity_context,
)
from orchestra.errors import InstanceHeld, InstanceNotFound
from orchestra.testing import (
    NEVER,
    ActivityDoesNotEnd,
    FakeExhausted,
    NothingHappens,
    TestRuntime,
    after,
)

pytestmark = pytest.mark.anyio

DAY = timedelta(days=1)
MARCH = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass
class Watch:
    url: str
    checks: int = 0


@activity(retry=RetryPolicy(max_attempts=5), timeout=timedelta(seconds=30))
async def probe(url: str) -> int:
    return len(url)


async def watch(ctx, state: Watch) -> None:
    await ctx.schedule_activity(probe, state.url)
    await ctx.schedule_timer(timedelta(days=30))
    ctx.continue_as_new(replace(state, checks=state.checks + 1))


async def once(ctx, url: str) -> int:
    return await ctx.schedule_activity(probe, url)


async def asks(ctx, _: None) -> str:
    return await ctx.wait_for_event("answer", str)


async def sleeps(ctx, days: int) -> str:
    await ctx.schedule_timer(timedelta(days=days))
    return ctx.now().isoformat()


async def parent(ctx, state: str) -> str:
    return await ctx.start_child(child, state, instance_id=f"child of {ctx.instance_id}")


async def child(ctx, state: str) -> str:
    await ctx.schedule_timer(timedelta(days=400))
    return f"really {state}"


async def breaks(ctx, _: None) -> None:
    raise ValueError("no good")


def registry(*functions, **versions):
    builder = OrchestrationRegistry.builder()
    for function in functions:
        builder.register(function.__name__, function)
    for version in versions.get("watch", ()):
        builder.register("watch", watch, version=version)
    return builder.build()


ALL = registry(watch, once, asks, sleeps, parent, child, breaks)


# --- time -------------------------------------------------------------------------------------


async def test_twelve_monthly_laps_with_a_crash_and_an_upgrade_in_the_middle():
    async with TestRuntime(registry(watch), activities=[probe], start=MARCH) as env:
        faked = env.fake(probe, lambda url: 200)
        handle = await env.client.start("watch", Watch("http://example.org"), instance_id="w")
        await env.advance(timedelta(days=6 * 30))
        await env.crash()
        await env.upgrade(registry(watch=("1.0.0", "1.1.0")))
        await env.advance(timedelta(days=6 * 30))
        info = await handle.info()
        assert (info.execution_id, info.version, info.input["checks"]) == (13, "1.1.0", 12)
        assert len(faked.calls) == 13
        assert env.now == MARCH + timedelta(days=360)


async def test_what_becomes_due_runs_in_the_order_of_its_time():
    ends = []

    @activity
    async def note(number: int) -> None:
        ends.append((number, env.now))

    async def waits(ctx, number: int) -> None:
        await ctx.schedule_timer(DAY * number)
        await ctx.schedule_activity(note, number)

    async with TestRuntime(registry(waits), [note], start=MARCH) as env:
        for number in (3, 1, 2):
            await env.client.start("waits", number)
        await env.advance(timedelta(days=10))
    assert ends == [(number, MARCH + DAY * number) for number in (1, 2, 3)]


async def test_advance_right_after_start_is_no_coin_flip_and_stops_short_of_what_is_not_due():
    async with TestRuntime(ALL, start=MARCH) as env:
        handle = await env.client.start("sleeps", 7)
        await env.advance(DAY * 7 - timedelta(microseconds=1))
        assert (await handle.info()).completed_at is None
        await env.advance(timedelta(microseconds=1))
        info = await handle.info()
        assert info.completed_at == MARCH + DAY * 7
        assert info.output == (MARCH + DAY * 7).isoformat()


async def test_waiting_for_a_result_lets_time_go_by_to_the_end_and_no_further():
    async with TestRuntime(ALL, start=MARCH) as env:
        later = await env.client.start("sleeps", 700)
        handle = await env.client.start("sleeps", 400)
        assert await handle.result() == (MARCH + 400 * DAY).isoformat()
        assert env.now == MARCH + 400 * DAY
        with pytest.raises(WaitTimeout, match="within 1 day"):
            await later.result(timeout=DAY)
        assert env.now == MARCH + 401 * DAY


async def test_200_daily_jobs_over_a_week_call_their_activity_once_a_day():
    async def job(ctx, number: int) -> int:
        for _ in range(7):
            await ctx.schedule_timer(DAY)
            await ctx.schedule_activity(probe, str(number))
        return number

    async with TestRuntime(registry(job), [probe]) as env:
        faked = env.fake(probe, lambda text: int(text))
        handles = [await env.client.start("job", number) for number in range(200)]
        await env.advance(DAY * 7)
        assert [await handle.result() for handle in handles] == list(range(200))
        assert len(faked.calls) == 1400


async def test_ended_instances_leave_when_their_retention_is_over():
    from orchestra import Retention

    async with TestRuntime(ALL, retention=Retention(finished=DAY)) as env:
        handle = await env.client.start("sleeps", 1)
        await env.advance(DAY)
        assert (await handle.info()).completed_at is not None
        await env.advance(2 * DAY)
        with pytest.raises(InstanceNotFound):
            await handle.info()


# --- waiting for a state ----------------------------------------------------------------------


async def test_run_until_stops_as_a_lap_begins():
    async with TestRuntime(ALL, activities=[probe], start=MARCH) as env:
        env.fake(probe, lambda url: 200)
        handle = await env.client.start("watch", Watch("u"))
        await env.run_until(handle, execution=4)
        assert (await handle.info()).execution_id == 4
        assert env.now == MARCH + 90 * DAY


async def test_run_until_takes_a_condition_and_an_id():
    async with TestRuntime(ALL, start=MARCH) as env:
        await env.client.start("sleeps", 3, instance_id="s")
        await env.run_until(lambda: env.now >= MARCH + 3 * DAY)
        await env.run_until("s")
        assert env.now == MARCH + 3 * DAY

        async def has_ended():
            return (await env.client.get_instance_info("s")).completed_at is not None

        await env.run_until(has_ended)


async def test_what_does_not_come_is_told_with_what_the_instance_waits_for():
    async with TestRuntime(ALL, activities=[probe]) as env:
        asked = await env.client.start("asks", None, instance_id="a")
        with pytest.raises(
            NothingHappens,
            match=r"'a' does not end: asks 1\.0\.0, lap 1; it waits for event 'answer'",
        ):
            await asked.result()
        with pytest.raises(NothingHappens, match=r"has not ended.*event 'answer'"):
            await env.run_until(asked)
        sleeping = await env.client.start("sleeps", 5, instance_id="s")
        with pytest.raises(NothingHappens, match=r"within 1 day.*timer until 2026-01-06"):
            await env.run_until(sleeping, within=DAY)
        with pytest.raises(NothingHappens, match="nothing is due"):
            await env.run_until(lambda: False)
        env.fake(probe, [NEVER])
        stuck = await env.client.start("once", "x", instance_id="p")
        await env.advance(timedelta(seconds=1))
        assert (await stuck.info()).waiting_on[0].name == "probe"


async def test_waiting_for_an_instance_that_an_error_holds_raises_the_error_at_once():
    async with TestRuntime(ALL) as env:
        handle = await env.client.start("breaks", None)
        with pytest.raises(InstanceHeld, match="ValueError: no good"):
            await handle.result()
        assert "no good" in (await handle.info()).held_reason


# --- fakes ------------------------------------------------------------------------------------


async def test_outcomes_are_given_in_order_and_calls_can_be_asked():
    async with TestRuntime(ALL, activities=[probe]) as env:
        faked = env.fake(probe, [TimeoutError("slow"), 503])
        handle = await env.client.start("once", "http://a", instance_id="o")
        assert await handle.result() == 503
        assert [(call.args, call.attempt, call.instance_id) for call in faked.calls] == [
            (("http://a",), 1, "o"),
            (("http://a",), 2, "o"),
        ]
        assert faked.remaining == 0


async def test_a_fake_by_name_needs_no_function():
    async def by_name(ctx, _: None) -> int:
        return await ctx.schedule_activity("measure", 1, unit="m")

    async with TestRuntime(registry(by_name)) as env:
        faked = env.fake("measure", [7])
        assert await (await env.client.start("by_name", None)).result() == 7
        assert (faked.calls[0].args, faked.calls[0].kwargs) == ((1,), {"unit": "m"})


async def test_one_outcome_too_few_fails_the_test_with_the_call():
    async with TestRuntime(ALL, activities=[probe]) as env:
        env.fake(probe, [1])
        await (await env.client.start("once", "a")).result()
        handle = await env.client.start("once", "b", instance_id="too much")
        with pytest.raises(
            FakeExhausted, match=r"'probe' has 1 outcomes .* by 'too much' with \('b'\)"
        ):
            await handle.result()


async def test_one_outcome_too_few_is_told_at_the_end_where_nothing_was_awaited():
    with pytest.raises(FakeExhausted):  # noqa: PT012
        async with TestRuntime(ALL) as env:
            env.fake(child, [])
            await env.client.start("parent", "a")


async def test_a_fake_takes_virtual_time_and_runs_into_its_timeout():
    async def patient(ctx, _: None) -> str:
        try:
            return str(await ctx.schedule_activity(probe, "x"))
        except ActivityFailed as error:
            return f"{error.cause.type} after {len(error.attempts)}"

    async with TestRuntime(registry(patient), [probe], start=MARCH) as env:
        env.fake(probe, [after(timedelta(seconds=20), 9)])
        assert await (await env.client.start("patient", None)).result() == "9"
        assert env.now == MARCH + timedelta(seconds=20)
        env.fake(probe, [after(timedelta(seconds=31), 9), *[NEVER] * 4])
        assert await (await env.client.start("patient", None)).result() == "TimeoutError after 5"


async def test_a_race_that_is_lost_leaves_a_faked_activity():
    async def races(ctx, _: None) -> int:
        timer = ctx.schedule_timer(timedelta(seconds=5))
        won = await ctx.race(ctx.schedule_activity(probe, "x"), timer)
        return won.index

    async with TestRuntime(registry(races), [probe], start=MARCH) as env:
        env.fake(probe, [NEVER])
        assert await (await env.client.start("races", None)).result() == 1
        assert env.now == MARCH + timedelta(seconds=5)


async def test_a_child_is_faked_by_function_or_name_also_over_a_crash():
    async with TestRuntime(ALL) as env:
        faked = env.fake(child, ["faked a", ValueError("no child")])
        first = await env.client.start("parent", "a")
        assert await first.result() == "faked a"
        await env.crash()
        second = await env.client.start("parent", "b")
        with pytest.raises((InstanceFailed, InstanceHeld), match="no child"):
            await second.result()
        assert [call.args for call in faked.calls] == [("a",), ("b",)]
    async with TestRuntime(ALL, start=MARCH) as env:
        env.fake("child", [after(DAY, "later")])
        assert await (await env.client.start("parent", "a")).result() == "later"
        assert env.now == MARCH + DAY


async def test_an_async_function_stands_in_as_the_activity_would_run():
    @activity
    async def real(number: int) -> int:
        raise AssertionError

    async def calls(ctx, _: None) -> int:
        return await ctx.schedule_activity(real, 4)

    async def stand_in(number: int) -> int:
        await anyio.sleep(0)
        return number * activity_context().attempt

    async with TestRuntime(registry(calls), [real]) as env:
        faked = env.fake(real, stand_in)
        assert await (await env.client.start("calls", None)).result() == 4
        assert faked.calls[0].args == (4,)


@pytest.mark.parametrize("outcomes", [503, "503", ValueError, ValueError("x"), None])
async def test_outcomes_are_a_list_or_a_function(outcomes):
    async with TestRuntime(ALL, activities=[probe]) as env:
        with pytest.raises(InvalidArgument, match=r"a function, or a list of outcomes"):
            env.fake(probe, outcomes)


async def test_what_is_faked_is_an_activity_an_orchestration_or_a_name():
    async with TestRuntime(ALL) as env:
        with pytest.raises(InvalidArgument, match="cannot be faked"):
            env.fake(7, [1])


# --- real activities --------------------------------------------------------------------------


async def test_real_activities_run_in_order_and_def_activities_on_no_thread():
    seen = []

    @activity
    async def slow(number: int) -> int:
        await anyio.lowlevel.checkpoint()
        seen.append(number)
        return number

    @activity
    def plain(number: int) -> int:
        seen.append(threading.current_thread() is threading.main_thread())
        return number

    async def many(ctx, _: None) -> int:
        numbers = await ctx.gather(*(ctx.schedule_activity(slow, number) for number in range(5)))
        return sum(numbers) + await ctx.schedule_activity(plain, 1)

    before = threading.active_count()
    async with TestRuntime(registry(many), [slow, plain]) as env:
        assert await (await env.client.start("many", None)).result() == 11
    assert seen == [0, 1, 2, 3, 4, True]
    assert threading.active_count() == before


async def test_a_real_activity_that_waits_in_vain_fails_the_test_and_names_itself():
    @activity
    async def hangs() -> None:
        await anyio.sleep_forever()

    async def calls(ctx, _: None) -> None:
        await ctx.schedule_activity(hangs)

    async with TestRuntime(registry(calls), [hangs], patience=timedelta(milliseconds=50)) as env:
        await env.client.start("calls", None)
        with pytest.raises(ActivityDoesNotEnd, match=r"'hangs' .*env\.fake"):
            await env.run_until_idle()


async def test_a_real_activity_retries_by_its_policy_in_virtual_time():
    tries = []

    @activity(
        retry=RetryPolicy(
            initial_interval=timedelta(hours=1), max_attempts=3, jitter=0, max_interval=DAY
        )
    )
    async def flaky() -> int:
        tries.append(env.now)
        if len(tries) < 3:
            raise OSError("away")
        return 1

    async def calls(ctx, _: None) -> int:
        return await ctx.schedule_activity(flaky)

    async with TestRuntime(registry(calls), [flaky], start=MARCH) as env:
        assert await (await env.client.start("calls", None)).result() == 1
    assert tries == [MARCH, MARCH + timedelta(hours=1), MARCH + timedelta(hours=3)]


# --- versions, crashes ------------------------------------------------------------------------


async def test_an_upgrade_takes_the_old_code_away_and_a_boundary_takes_the_new_one():
    async with TestRuntime(registry(watch=("1.0.0",)), [probe]) as env:
        env.fake(probe, lambda url: 200)
        handle = await env.client.start("watch", Watch("u"))
        await env.run_until_idle()
        await env.upgrade(registry(watch=("2.0.0",)))
        assert "1.0.0" in (await handle.info()).held_reason
        await env.upgrade(registry(watch=("1.0.0", "2.0.0")))
        await env.run_until(handle, execution=2)
        assert (await handle.info()).version == "2.0.0"


async def test_a_policy_that_is_set_in_a_test_is_followed():
    async with TestRuntime(registry(watch=("1.0.0", "2.0.0")), [probe]) as env:
        env.fake(probe, lambda url: 200)
        await env.client.set_version_policy("watch", Exact("1.0.0"))
        handle = await env.client.start("watch", Watch("u"))
        assert (await handle.info()).version == "1.0.0"
        await env.client.set_version_policy("watch", Exact("2.0.0"))
        await env.run_until(handle, execution=2)
        assert (await handle.info()).version == "2.0.0"


async def test_a_seeded_instance_goes_on_from_the_state_that_an_earlier_version_wrote():
    async with TestRuntime(registry(watch=("1.1.0",)), [probe]) as env:
        env.fake(probe, lambda url: 200)
        handle = await env.seed("watch", "1.0.0", {"url": "old", "checks": 41}, instance_id="old")
        await env.run_until(handle, execution=2)
        assert (await handle.info()).input == {"url": "old", "checks": 42}
        (first, _) = env.provider.directory.executions("old")
        assert (first.version, first.state_version) == ("1.1.0", "1.0.0")


async def test_a_crash_loses_what_no_commit_has_recorded_and_the_activity_runs_again():
    async with TestRuntime(ALL, activities=[probe]) as env:
        faked = env.fake(probe, [after(timedelta(seconds=10), 7)])
        handle = await env.client.start("once", "x")
        await env.advance(timedelta(seconds=5))
        await env.crash()
        assert await handle.result() == 7
        assert len(faked.calls) == 2


async def test_the_client_stays_the_same_over_crashes_and_messages_are_kept():
    async with TestRuntime(ALL) as env:
        handle = await env.client.start("asks", None)
        await env.crash()
        await handle.raise_event("answer", "yes")
        await env.crash()
        assert await handle.result() == "yes"
        other = await env.client.start("asks", None)
        await other.cancel("enough")
        with pytest.raises(InstanceCancelled, match="enough"):
            await other.result()


async def test_every_turn_may_be_cold():
    async with TestRuntime(ALL, activities=[probe], cold=True) as env:
        env.fake(probe, lambda url: 200)
        handle = await env.client.start("watch", Watch("u"))
        await env.run_until(handle, execution=5)
        assert (await handle.info()).execution_id == 5


# --- misuse -----------------------------------------------------------------------------------


async def test_it_is_used_inside_its_block():
    env = TestRuntime(ALL)
    with pytest.raises(RuntimeClosed, match="not entered"):
        await env.advance(DAY)
    async with env:
        with pytest.raises(RuntimeClosed, match="entered already"):
            await env.__aenter__()
    with pytest.raises(RuntimeClosed):
        await env.client.start("sleeps", 1)


@pytest.mark.parametrize("duration", [5, -DAY, None])
async def test_a_duration_is_a_timedelta_that_is_not_negative(duration):
    async with TestRuntime(ALL) as env:
        with pytest.raises(InvalidArgument, match="duration"):
            await env.advance(duration)


def test_the_start_is_aware():
    with pytest.raises(InvalidArgument, match="aware datetime"):
        TestRuntime(ALL, start=datetime(2026, 1, 1))  # noqa: DTZ001


async def test_a_parent_whose_child_fails_is_told_as_in_production():
    async def careful(ctx, state: str) -> str:
        try:
            return await ctx.start_child(child, state)
        except ChildFailed as error:
            return f"{error.cause.type}: {error.cause.message}"

    async with TestRuntime(registry(careful, child)) as env:
        env.fake(child, [LookupError("gone")])
        assert await (await env.client.start("careful", "x")).result() == "LookupError: gone"


async def test_a_client_tells_the_time_of_its_store():
    async with TestRuntime(registry(watch), activities=[probe], start=MARCH) as env:
        assert await env.client.now() == MARCH
        await env.advance(timedelta(days=400))
        assert await env.client.now() == MARCH + timedelta(days=400)
