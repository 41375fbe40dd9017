"""TestRuntime under careless hands: what does not fit fails the test at once, and is named."""

import functools
from datetime import UTC, datetime, timedelta

import anyio
import anyio.lowlevel
import pytest

import orchestra.testing.runtime
from orchestra import (
    Exact,
    InstanceCancelled,
    InvalidArgument,
    OrchestrationRegistry,
    RetryPolicy,
    RuntimeClosed,
    activity,
)
from orchestra.testing import (
    NEVER,
    FakeUnfit,
    NothingHappens,
    TestRuntime,
    after,
    check_determinism,
    crash_everywhere,
)
from tests.testing import programs

pytestmark = pytest.mark.anyio

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
MARCH = datetime(2026, 3, 1, tzinfo=UTC)


@activity
async def probe(number: int) -> int:
    return number


@activity(queue="gpu")
async def render(number: int) -> int:
    return number


async def once(ctx, number: int) -> int:
    return await ctx.schedule_activity(probe, number)


async def film(ctx, number: int) -> int:
    return await ctx.schedule_activity(render, number)


async def asks(ctx, _: None) -> str:
    return await ctx.wait_for_event("answer", str)


async def daily(ctx, number: int) -> None:
    await ctx.schedule_timer(DAY)
    ctx.continue_as_new(number + 1)


def registry(*functions, **versions):
    builder = OrchestrationRegistry.builder()
    for function in functions:
        builder.register(function.__name__, function)
    for version, function in versions.get("loop", ()):
        builder.register("loop", function, version=version)
    return builder.build()


async def result_of(env, function, state=1):
    return await (await env.client.start(function.__name__, state)).result()


# --- queues -----------------------------------------------------------------------------------


async def test_the_queues_of_the_activities_are_served():
    async with TestRuntime(registry(film), [render]) as env:
        assert await result_of(env, film) == 1


@pytest.mark.parametrize("queues", [None, ["default"]])
@pytest.mark.parametrize("is_known", [True, False])
async def test_a_faked_activity_is_served_wherever_it_would_run(queues, is_known):
    async with TestRuntime(registry(film), [render] if is_known else [], queues=queues) as env:
        faked = env.fake(render, [5])
        assert await result_of(env, film) == 5
        assert len(faked.calls) == 1


async def test_what_is_not_served_is_told_where_the_test_waits_for_it():
    async with TestRuntime(registry(film), [render], queues=["default"]) as env:
        with pytest.raises(NothingHappens, match=r"'render'.* serves the queues 'default'"):
            await result_of(env, film)
    async with TestRuntime(registry(once)) as env:
        with pytest.raises(NothingHappens, match="has no activity 'probe': give it to TestRuntime"):
            await result_of(env, once)


# --- fakes ------------------------------------------------------------------------------------


async def test_fakes_may_be_set_before_the_runtime_is_entered_and_replaced_while_it_runs():
    env = TestRuntime(registry(once, film), [probe])
    env.fake(probe, [1])
    env.fake(film, lambda state: state * 2)
    async with env:
        assert await result_of(env, once) == 1
        assert await result_of(env, film, 4) == 8
        env.fake(probe, [2])
        assert await result_of(env, once) == 2


async def test_a_fake_is_called_when_the_test_lets_activities_run_and_not_by_the_start():
    async with TestRuntime(registry(once), [probe]) as env:
        faked = env.fake(probe, [1])
        handle = await env.client.start("once", 5)
        assert faked.calls == []
        later = env.fake(probe, [2])
        assert await handle.result() == 2
        assert (faked.calls, len(later.calls)) == ([], 1)
        cancelled = await env.client.start("once", 5)
        await cancelled.cancel("at once")
        with pytest.raises(InstanceCancelled):
            await cancelled.result()
        assert len(later.calls) == 1


async def test_a_fake_with_other_parameters_is_refused_with_the_call():
    async with TestRuntime(registry(once), [probe]) as env:
        env.fake(probe, lambda: 5)
        with pytest.raises(FakeUnfit, match=r"'probe' does not take \(1\)"):
            await result_of(env, once)


async def test_a_type_error_inside_of_a_fake_is_an_outcome_as_any_other():
    async def careful(ctx, number: int) -> str:
        try:
            return str(await ctx.schedule_activity(probe, number))
        except Exception as error:
            return error.cause.type

    def fails(number):
        return len(number)

    async with TestRuntime(registry(careful), [probe]) as env:
        env.fake(probe, fails)
        assert await result_of(env, careful) == "TypeError"


async def test_a_fake_whose_result_does_not_fit_fails_the_test_even_if_the_code_would_go_on():
    async def careless(ctx, number: int) -> int:
        try:
            return await ctx.schedule_activity(probe, number)
        except Exception:
            return -1

    async with TestRuntime(registry(careless), [probe]) as env:
        env.fake(probe, ["text"])
        with pytest.raises(FakeUnfit, match=r"'probe' gives 'text'.*int is annotated"):
            await result_of(env, careless)


@pytest.mark.parametrize("is_async", [True, False])
async def test_an_assertion_in_a_fake_fails_the_test_even_if_the_code_would_go_on(is_async):
    async def careless(ctx, number: int) -> int:
        try:
            return await ctx.schedule_activity(probe, number)
        except Exception:
            return -1

    def plain(number):
        assert number == 2, "a wrong number"

    async def stand_in(number):
        plain(number)

    async with TestRuntime(registry(careless), [probe]) as env:
        env.fake(probe, stand_in if is_async else plain)
        with pytest.raises(AssertionError, match="a wrong number"):
            await result_of(env, careless)


async def test_pytest_fail_in_a_fake_fails_the_test_and_the_runtime_can_be_left():
    with pytest.raises(pytest.fail.Exception, match="not this one"):  # noqa: PT012
        async with TestRuntime(registry(once), [probe]) as env:
            env.fake(probe, lambda number: pytest.fail("not this one"))
            await result_of(env, once)


async def test_an_exit_or_a_class_in_a_list_of_outcomes_fails_the_attempt_as_in_production():
    async with TestRuntime(registry(once), [probe]) as env:
        faked = env.fake(probe, [SystemExit(3), KeyError, 4])
        assert await result_of(env, once) == 4
        assert [call.attempt for call in faked.calls] == [1, 2, 3]


async def test_whatever_is_awaited_may_stand_in_and_a_forgotten_async_is_told():
    class Standing:
        async def __call__(self, number):
            return 8

        async def method(self, number):
            return 9

    async def function(number, more):
        return more

    async with TestRuntime(registry(once), [probe]) as env:
        for expected, outcomes in [
            (8, Standing()),
            (9, Standing().method),
            (7, functools.partial(function, more=7)),
        ]:
            env.fake(probe, outcomes)
            assert await result_of(env, once) == expected
        env.fake(probe, lambda number: function(number, 1))
        with pytest.raises(FakeUnfit, match=r"gives something to await.*async def"):
            await result_of(env, once)


async def test_a_fake_of_a_child_takes_and_gives_the_types_of_the_child():
    async def parent(ctx, _: None) -> str:
        return (await ctx.start_child(programs.priced, programs.Question("corner"))).shop

    known = registry(parent, programs.priced)
    async with TestRuntime(known) as env:
        faked = env.fake(programs.priced, lambda question: programs.Price(question.shop, 1))
        assert await result_of(env, parent, None) == "corner"
        assert faked.calls[0].args == (programs.Question("corner"),)
        with pytest.raises(InvalidArgument, match="a child's fake is a plain function"):
            env.fake(programs.priced, anyio.sleep)


async def test_a_child_of_several_versions_is_faked_by_any_of_its_functions():
    async def first(ctx, number: int) -> int:
        return 1

    async def second(ctx, number: int) -> int:
        return 2

    async def parent(ctx, _: None) -> list[int]:
        return [
            await ctx.start_child(first, 1),
            await ctx.start_child("loop", 2),
            await ctx.start_child(second, 3, version="2.0.0"),
        ]

    known = registry(parent, loop=[("1.0.0", first), ("2.0.0", second)])
    for function in (first, second):
        async with TestRuntime(known) as env:
            faked = env.fake(function, [10, 11, 12])
            assert await result_of(env, parent, None) == [10, 11, 12]
            assert [call.args for call in faked.calls] == [(1,), (2,), (3,)]


async def test_a_fake_that_takes_time_sends_heartbeats_and_one_that_never_ends_does_not():
    @activity(heartbeat_timeout=5 * SECOND, timeout=60 * SECOND, retry=RetryPolicy(max_attempts=2))
    async def beats() -> int:
        raise NotImplementedError

    async def waits(ctx, _: None) -> int:
        return await ctx.schedule_activity(beats)

    async with TestRuntime(registry(waits), [beats], start=MARCH) as env:
        env.fake(beats, [after(20 * SECOND, 3)])
        assert await result_of(env, waits, None) == 3
        assert env.now == MARCH + 20 * SECOND
        faked = env.fake(beats, [NEVER, 4])
        assert await result_of(env, waits, None) == 4
        assert timedelta(seconds=25) <= env.now - MARCH < timedelta(seconds=30)
        assert len(faked.calls) == 2


@pytest.mark.parametrize("on_cancel", ["wait", "abandon"])
@pytest.mark.parametrize("outcome", [NEVER, after(DAY, 4)])
async def test_a_pending_fake_ends_with_the_cancellation_of_its_instance(on_cancel, outcome):
    @activity(on_cancel=on_cancel)
    async def slow() -> int:
        raise NotImplementedError

    async def waits(ctx, _: None) -> int:
        return await ctx.schedule_activity(slow)

    async with TestRuntime(registry(waits), [slow], start=MARCH) as env:
        env.fake(slow, [outcome, 5])
        handle = await env.client.start("waits", None)
        await env.run_until_idle()
        await handle.cancel("enough")
        with pytest.raises(InstanceCancelled):
            await handle.result()
        assert env.now == MARCH
        assert await result_of(env, waits, None) == 5


async def test_a_detached_child_is_faked_too():
    async def parent(ctx, _: None) -> None:
        ctx.start_detached(once, 7, instance_id="detached")

    async with TestRuntime(registry(parent, once), [probe]) as env:
        faked = env.fake(once, [3])
        await result_of(env, parent, None)
        assert await env.client.handle("detached").result() == 3
        assert faked.calls[0].args == (7,)


async def test_what_an_operator_releases_has_run_as_the_call_returns():
    async def lap(ctx, number: int) -> None:
        await ctx.wait_for_event("go")
        ctx.continue_as_new(number + 1)

    async with TestRuntime(registry(loop=[("1.0.0", lap)])) as env:
        await env.client.set_version_policy("loop", Exact("9.0.0"), allow_missing=True)
        handle = await env.client.start("loop", 1, version="1.0.0")
        await handle.raise_event("go")
        assert "9.0.0" in (await handle.info()).held_reason
        await env.client.set_version_policy("loop", Exact("1.0.0"))
        info = await handle.info()
        assert (info.held_reason, info.execution_id, len(info.waiting_on)) == (None, 2, 1)


# --- several tasks ----------------------------------------------------------------------------


async def test_one_task_waits_for_a_result_and_another_one_raises_the_event_later():
    results = []
    async with TestRuntime(registry(asks), start=MARCH) as env:
        handle = await env.client.start("asks", None)

        async def wait():
            results.append(await handle.result())

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            for _ in range(3):
                await env.advance(DAY)
            await handle.raise_event("answer", "yes")
        assert results == ["yes"]
        assert env.now == MARCH + 3 * DAY


async def test_a_task_that_waits_for_an_end_does_not_move_time_past_one_that_advances():
    async with TestRuntime(registry(asks, daily), start=MARCH) as env:
        await env.client.start("daily", 0)
        handle = await env.client.start("asks", None)
        ends = []

        async def wait():
            await handle.result()
            ends.append(env.now)

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.lowlevel.checkpoint()
            await env.advance(DAY * 10)
            await handle.raise_event("answer", "yes")
        assert ends[0] - MARCH < 12 * DAY


async def test_two_tasks_may_advance_at_once():
    async with TestRuntime(registry(daily), start=MARCH) as env:
        handle = await env.client.start("daily", 0)
        async with anyio.create_task_group() as group:
            group.start_soon(env.advance, DAY)
            group.start_soon(env.advance, DAY * 2)
        assert env.now == MARCH + DAY * 2
        assert (await handle.info()).execution_id == 3


# --- without end ------------------------------------------------------------------------------


async def spins(ctx, number: int) -> None:
    ctx.continue_as_new(number + 1)


async def spins_with_an_activity(ctx, number: int) -> None:
    await ctx.schedule_activity(probe, number)
    ctx.continue_as_new(number + 1)


@pytest.mark.parametrize("is_faked", [True, False])
@pytest.mark.parametrize("function", [spins, spins_with_an_activity])
async def test_a_loop_without_a_wait_is_named(function, is_faked, monkeypatch):
    monkeypatch.setattr(orchestra.testing.runtime, "_MOST_TURNS", 500)
    async with TestRuntime(registry(function), [probe]) as env:
        if is_faked:
            env.fake(probe, lambda number: number)
        with pytest.raises(NothingHappens, match=r"instance 's' runs without end: 50\d turns at"):
            await (await env.client.start(function.__name__, 1, instance_id="s")).result()


async def test_many_instances_at_one_instant_are_no_loop(monkeypatch):
    monkeypatch.setattr(orchestra.testing.runtime, "_MOST_TURNS", 20)
    async with TestRuntime(registry(once), [probe]) as env:
        env.fake(probe, lambda number: number)
        handles = [await env.client.start("once", number) for number in range(100)]
        await env.run_until_idle()
        assert [await handle.result() for handle in handles] == list(range(100))


async def test_a_loop_that_never_ends_is_told_where_its_end_is_waited_for(monkeypatch):
    monkeypatch.setattr(orchestra.testing.runtime, "_MOST_STEPS", 20)
    async with TestRuntime(registry(daily)) as env:
        handle = await env.client.start("daily", 0)
        with pytest.raises(NothingHappens, match=r"does not end after 20 steps .*timer until"):
            await handle.result()
        with pytest.raises(NothingHappens, match=r"has not ended after 20 steps .*`within`"):
            await env.run_until(handle)
        with pytest.raises(NothingHappens, match="has not become true after 20 steps"):
            await env.run_until(lambda: False)
        await env.run_until(handle, execution=100)
        with pytest.raises(NothingHappens, match="within 30 days"):
            await env.run_until(handle, within=30 * DAY)


@pytest.mark.parametrize("within", [5, -DAY])
async def test_within_is_a_timedelta_that_is_not_negative(within):
    async with TestRuntime(registry(daily)) as env:
        handle = await env.client.start("daily", 0)
        with pytest.raises(InvalidArgument, match="within"):
            await env.run_until(handle, within=within)


async def test_a_runtime_that_was_left_is_not_entered_again():
    env = TestRuntime(registry(once), [probe])
    async with env:
        pass
    with pytest.raises(RuntimeClosed, match="make a new one"):
        await env.__aenter__()


# --- crashes and determinism ------------------------------------------------------------------


async def test_a_terminate_that_was_recorded_is_not_asked_for_again_after_the_crash():
    async def scenario(env):
        handle = await env.client.start("asks", None, instance_id="a", labels={"who": "me"})
        await handle.terminate("enough")
        await env.client.delete("a")
        handle = await env.client.start("asks", None, instance_id="a")
        await handle.raise_event("answer", "yes")
        assert await handle.result() == "yes"

    assert (await crash_everywhere(scenario, registry(asks))).commits >= 5


async def test_a_crash_in_an_upgrade_and_in_a_change_of_policy_is_survived():
    before = registry(loop=[("1.0.0", daily)])
    behind = registry(loop=[("1.0.0", daily), ("2.0.0", daily)])

    async def scenario(env):
        handle = await env.client.start("loop", 0, instance_id="l")
        await env.advance(DAY)
        await env.upgrade(behind)
        await env.run_until(handle, execution=4)
        assert (await handle.info()).version == "2.0.0"
        await env.client.set_version_policy("loop", Exact("1.0.0"))
        await env.run_until(handle, execution=5)
        assert (await handle.info()).version == "1.0.0"

    await crash_everywhere(scenario, before)


@pytest.mark.slow
async def test_children_events_cancels_and_boundaries_survive_a_crash_at_each_commit():
    async def slow(ctx, number: int) -> int:
        await ctx.schedule_timer(DAY * 100)
        return number

    async def parent(ctx, number: int) -> list[int]:
        name = f"{ctx.instance_id}/{number}"
        got = [await ctx.start_child(once, number, instance_id=name)]
        child = ctx.start_child(slow, number, instance_id=f"{name}/slow")
        won = await ctx.race(child, ctx.wait_for_event("go", int))
        if number < 3:
            ctx.continue_as_new(number + 1)
        ctx.start_detached(once, 7, instance_id="detached")
        return [*got, won.value]

    async def scenario(env):
        doubled = {}
        env.fake(probe, lambda number: doubled.setdefault(number, number * 2))
        handle = await env.client.start("parent", 1, instance_id="p")
        for number in range(3):
            await env.advance(DAY)
            await handle.raise_event("go", number)
        assert await handle.result() == [6, 2]
        assert await env.client.handle("detached").result() == 14
        other = await env.client.start("parent", 1, instance_id="o")
        await env.advance(DAY)
        await other.cancel("enough")
        with pytest.raises(InstanceCancelled):
            await other.result()
        await env.run_until_idle()
        instances = (await env.client.list_instances()).items
        assert all(instance.completed_at for instance in instances)

    report = await crash_everywhere(scenario, registry(once, slow, parent), [probe])
    assert report.commits > 20


@pytest.mark.slow
async def test_methods_and_decorated_functions_are_checked_for_determinism():
    async def scenario(env):
        await env.client.start("loop", 1)
        await env.advance(DAY)

    for function in (programs.HELD.method, programs.decorated, programs.ALIAS):
        known = registry(loop=[("1.0.0", function)])
        assert (await check_determinism(known, scenario, hash_seeds=[1])).executions == 1


@pytest.mark.slow
async def test_a_script_whose_code_is_checked_does_not_run_once_more(tmp_path):
    import subprocess
    import sys

    script = tmp_path / "script.py"
    script.write_text(
        "from datetime import timedelta\n"
        "import anyio\n"
        "from orchestra import OrchestrationRegistry\n"
        "from orchestra.testing import check_determinism\n"
        "async def naps(ctx, _: None) -> None:\n"
        "    await ctx.schedule_timer(timedelta(days=1))\n"
        "async def scenario(env):\n"
        "    await (await env.client.start('naps', None)).result()\n"
        "async def main():\n"
        "    known = OrchestrationRegistry.builder().register('naps', naps).build()\n"
        "    print(await check_determinism(known, scenario))\n"
        "if __name__ == '__main__':\n"
        "    anyio.run(main)\n"
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.startswith("Replayed(executions=1"), done.stderr
