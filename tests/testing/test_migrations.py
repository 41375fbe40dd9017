"""States migrate at the opening of an execution, once, and replay reads what was recorded
(scenarios 64 and 66).
"""

from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from pydantic import BaseModel, ConfigDict

from orchestra import (
    Exact,
    InvalidVersion,
    MigrationInfo,
    OrchestrationRegistry,
    RegistrationError,
    UnresolvableAnnotation,
)
from orchestra.testing import ScenarioFails, TestRuntime, check_store, crash_everywhere

pytestmark = pytest.mark.anyio

DAY = timedelta(days=1)


@dataclass
class First:
    url: str


@dataclass
class Second:
    host: str
    port: int


@dataclass
class Third:
    hosts: list[str]
    seen: int = 0


async def first(ctx, state: First) -> None:
    await ctx.schedule_timer(DAY)
    ctx.continue_as_new(state)


async def second(ctx, state: Second) -> None:
    await ctx.schedule_timer(DAY)
    ctx.continue_as_new(state)


async def third(ctx, state: Third) -> None:
    await ctx.schedule_timer(DAY)
    ctx.continue_as_new(replace(state, seen=state.seen + 1))


def to_second(state: First) -> Second:
    host, _, port = state.url.partition(":")
    return Second(host, int(port))


def back_to_first(state: Second) -> First:
    return First(f"{state.host}:{state.port}")


def to_third(state: Second) -> Third:
    return Third([f"{state.host}/{state.port}"])


FUNCTIONS = {"1.0.0": first, "1.1.0": first, "2.0.0": second, "2.1.0": second, "3.0.0": third}


def registry(*versions, migrations=(), policy=None, functions=FUNCTIONS):
    builder = OrchestrationRegistry.builder()
    for version in versions:
        builder.register("watch", functions[version], version=version)
    for version, *directions in migrations:
        builder.migrate("watch", version, *directions)
    if policy is not None:
        builder.set_version_policy("watch", policy)
    return builder.build()


TO_SECOND = ("2.0.0", to_second, back_to_first)
TO_THIRD = ("3.0.0", to_third)


async def laps(env, instance_id="w"):
    return [
        (row.version, row.state_version, row.migrations)
        for row in env.provider.directory.executions(instance_id)
    ]


async def held(handle):
    return (await handle.info()).held_reason


# --- paths ------------------------------------------------------------------------------------


async def test_a_state_passes_one_migration_as_the_boundary_takes_the_new_version():
    async with TestRuntime(registry("1.0.0")) as env:
        handle = await env.client.start("watch", First("a:1"), instance_id="w")
        await env.upgrade(registry("1.0.0", "2.0.0", migrations=[TO_SECOND]))
        await env.advance(2 * DAY)
        assert await laps(env) == [
            ("1.0.0", "1.0.0", ()),
            ("2.0.0", "1.0.0", ("2.0.0",)),
            ("2.0.0", "2.0.0", ()),
        ]
        (before, opened, after) = await env.client.list_executions("w")
        assert (opened.input, opened.written_by, opened.migrations) == (
            {"url": "a:1"},
            "1.0.0",
            ("2.0.0",),
        )
        assert after.input == {"host": "a", "port": 1}
        assert before.migrations == ()
        begun = (await env.client.get_history("w", 2))[0]
        assert begun.details["input"] == {"host": "a", "port": 1}
        assert begun.details["written_by"] == "1.0.0"
        assert begun.details["migrations"] == ("2.0.0",)
        assert await held(handle) is None


async def test_a_chain_over_retired_versions_runs_in_one_opening():
    async with TestRuntime(registry("1.0.0")) as env:
        await env.client.start("watch", First("a:1"), instance_id="w")
        await env.run_until_idle()
        await env.upgrade(registry("1.0.0", "3.0.0", migrations=[TO_SECOND, TO_THIRD]))
        await env.advance(DAY)
        assert (await laps(env))[1] == ("3.0.0", "1.0.0", ("2.0.0", "3.0.0"))
        await env.advance(DAY)
        (*_, last) = await env.client.list_executions("w")
        assert last.input == {"hosts": ["a/1"], "seen": 1}


async def test_a_version_between_two_migrations_has_the_shape_below_it():
    both = registry("1.1.0", "2.1.0", migrations=[TO_SECOND])
    async with TestRuntime(both) as env:
        await env.client.start("watch", First("a:1"), version="1.1.0", instance_id="w")
        await env.client.set_version_policy("watch", Exact("2.1.0"))
        await env.advance(DAY)
        assert (await laps(env))[1] == ("2.1.0", "1.1.0", ("2.0.0",))


async def test_a_rollback_passes_the_downs_in_reverse():
    async with TestRuntime(registry("1.0.0", "2.0.0", migrations=[TO_SECOND])) as env:
        await env.client.start("watch", Second("a", 1), instance_id="w")
        await env.client.set_version_policy("watch", Exact("1.0.0"))
        await env.advance(DAY)
        assert (await laps(env))[1] == ("1.0.0", "2.0.0", ("-2.0.0",))
        await env.advance(DAY)
        (*_, last) = await env.client.list_executions("w")
        assert last.input == {"url": "a:1"}


async def test_two_lines_that_are_maintained_go_by_the_shape_that_both_come_from():
    @dataclass
    class Patched:
        address: str

    async def patched(ctx, state: Patched) -> None:
        await ctx.schedule_timer(DAY)
        ctx.continue_as_new(state)

    def to_patched(state: First) -> Patched:
        return Patched(state.url)

    def from_patched(state: Patched) -> First:
        return First(state.address)

    builder = OrchestrationRegistry.builder()
    for version, function in (("1.0.0", first), ("1.2.0", patched), ("2.0.0", second)):
        builder.register("watch", function, version=version)
    builder.migrate("watch", "2.0.0", to_second, back_to_first)
    builder.migrate("watch", "1.2.0", to_patched, from_patched, after="1.0.0")
    async with TestRuntime(builder.build()) as env:
        await env.client.set_version_policy("watch", Exact("1.2.0"))
        await env.seed("watch", "1.0.0", {"url": "a:1"}, "w")
        await env.client.set_version_policy("watch", Exact("2.0.0"))
        await env.advance(DAY)
        await env.client.set_version_policy("watch", Exact("1.2.0"))
        await env.advance(DAY)
        assert [path for _, _, path in await laps(env)] == [
            ("1.2.0",),
            ("-1.2.0", "2.0.0"),
            ("-2.0.0", "1.2.0"),
        ]
        await env.advance(DAY)
        (*_, last) = await env.client.list_executions("w")
        assert last.input == {"address": "a:1"}


async def test_a_pre_release_has_the_shape_that_its_state_was_written_with():
    functions = {**FUNCTIONS, "2.0.0-rc.1": second}
    candidate = registry("2.0.0-rc.1", functions=functions)
    async with TestRuntime(candidate) as env:
        await env.client.start("watch", Second("a", 1), instance_id="w")
        await env.run_until_idle()
        await env.upgrade(
            registry("2.0.0-rc.1", "2.0.0", functions=functions, migrations=[TO_SECOND])
        )
        await env.advance(DAY)
        assert (await laps(env))[1] == ("2.0.0", "2.0.0-rc.1", ())


async def test_a_pre_release_reaches_a_version_behind_its_release():
    functions = {**FUNCTIONS, "2.0.0-rc.1": second}
    async with TestRuntime(registry("2.0.0-rc.1", functions=functions)) as env:
        await env.client.start("watch", Second("a", 1), instance_id="w")
        await env.run_until_idle()
        both = [TO_SECOND, TO_THIRD]
        await env.upgrade(registry("2.0.0-rc.1", "3.0.0", functions=functions, migrations=both))
        await env.advance(DAY)
        assert (await laps(env))[1] == ("3.0.0", "2.0.0-rc.1", ("3.0.0",))


async def test_a_migration_between_equal_shapes_runs_for_the_meaning_may_have_changed():
    def in_cents(state: Second) -> Second:
        return Second(state.host, state.port * 100)

    async with TestRuntime(registry("2.0.0")) as env:
        await env.client.start("watch", Second("a", 1), instance_id="w")
        await env.run_until_idle()
        await env.upgrade(registry("2.0.0", "2.1.0", migrations=[("2.1.0", in_cents)]))
        await env.advance(2 * DAY)
        assert (await laps(env))[1] == ("2.1.0", "2.0.0", ("2.1.0",))
        (*_, last) = await env.client.list_executions("w")
        assert last.input == {"host": "a", "port": 100}


async def test_a_client_that_was_deployed_earlier_says_which_version_wrote_its_input():
    async with TestRuntime(registry("1.0.0", "2.0.0", migrations=[TO_SECOND])) as env:
        await env.client.start("watch", First("a:1"), instance_id="w", written_by="1.0.0")
        await env.run_until_idle()
        assert await laps(env) == [("2.0.0", "1.0.0", ("2.0.0",))]
        with pytest.raises(InvalidVersion):
            await env.client.start("watch", First("a:1"), written_by="one")


async def test_a_migration_may_know_the_versions_and_the_instance():
    told = []

    def up(state: First, info: MigrationInfo) -> Second:
        told.append(info)
        return to_second(state)

    async with TestRuntime(registry("1.0.0", "2.0.0", migrations=[("2.0.0", up)])) as env:
        await env.seed("watch", "1.0.0", {"url": "a:1"}, "w")
    assert told == [MigrationInfo("watch", "w", "1.0.0", "2.0.0")]


# --- what was recorded counts -----------------------------------------------------------------


async def test_replay_reads_what_was_recorded_and_never_migrates_again():
    runs = []

    def up(state: First) -> Second:
        runs.append(state)
        return Second(state.url, len(runs))

    code = registry("1.0.0", "2.0.0", migrations=[("2.0.0", up)])
    async with TestRuntime(code, cold=True) as env:
        await env.seed("watch", "1.0.0", {"url": "a"}, "w")
        await env.crash()
        await env.advance(DAY)
        (*_, last) = await env.client.list_executions("w")
        assert last.input == {"host": "a", "port": 1}
        assert len(runs) == 1
        check_store(env.provider, code).raise_if_violated()


async def test_a_death_at_any_commit_leaves_the_state_wholly_before_or_wholly_after():
    async def scenario():
        async with TestRuntime(registry("1.0.0")) as env:
            handle = await env.client.start("watch", First("a:1"), instance_id="w")
            await env.upgrade(registry("1.0.0", "3.0.0", migrations=[TO_SECOND, TO_THIRD]))
            await env.advance(2 * DAY)
            assert (await handle.info()).input == {"hosts": ["a/1"], "seen": 1}

    assert (await crash_everywhere(scenario)).commits >= 4


async def test_a_migration_that_counts_on_memory_is_found():
    async def scenario():
        seen = []

        def up(state: First) -> Second:
            seen.append(state)
            return Second(state.url, len(seen))

        async with TestRuntime(registry("1.0.0", "2.0.0", migrations=[("2.0.0", up)])) as env:
            await env.seed("watch", "1.0.0", {"url": "a"}, "w")
            await env.advance(DAY)
            (*_, last) = await env.client.list_executions("w")
            assert last.input == {"host": "a", "port": 1}

    with pytest.raises(ScenarioFails):
        await crash_everywhere(scenario)


# --- what does not migrate --------------------------------------------------------------------


@dataclass
class Strict:
    url: str
    title: str = "none"


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    url: str


@dataclass
class Nested:
    inner: list[First] = field(default_factory=list)


async def strict(ctx, state: Strict) -> None:
    await ctx.schedule_timer(DAY)
    ctx.continue_as_new(state)


async def keeps(ctx, state: Open) -> None:
    await ctx.schedule_timer(DAY)
    ctx.continue_as_new(state)


async def nested(ctx, state: Nested) -> None:
    await ctx.schedule_timer(DAY)


async def test_a_new_field_with_a_default_needs_no_migration_on_the_way_up():
    async with TestRuntime(registry("2.0.0", functions={"2.0.0": strict})) as env:
        handle = await env.seed("watch", "1.0.0", {"url": "a"}, "w")
        await env.run_until(handle, execution=2)
        assert (await handle.info()).input == {"url": "a", "title": "none"}


@pytest.mark.parametrize(
    ("function", "state", "named"),
    [
        (first, {"url": "a", "title": "t"}, r"field \.title"),
        (first, {}, r"\.url does not fit"),
        (first, {"url": 7}, r"\.url does not fit"),
        (nested, {"inner": [{"url": "a"}, {"url": "b", "old": 1}]}, r"field \.inner\[1\]\.old"),
    ],
)
async def test_a_state_that_does_not_fit_strictly_holds_the_instance_with_the_field(
    function, state, named
):
    async with TestRuntime(registry("2.0.0", functions={"2.0.0": function})) as env:
        handle = await env.seed("watch", "1.0.0", state, "w")
        reason = await held(handle)
        assert reason.startswith("migration: the state that 1.0.0 wrote")
        assert await handle.info()
        import re

        assert re.search(named, reason), reason
        assert "add migrate('watch', '2.0.0', up)" in reason


async def test_a_type_that_declares_extra_fields_keeps_them():
    async with TestRuntime(registry("2.0.0", functions={"2.0.0": keeps})) as env:
        handle = await env.seed("watch", "1.0.0", {"url": "a", "title": "t"}, "w")
        await env.run_until(handle, execution=2)
        assert (await handle.info()).input == {"url": "a", "title": "t"}


async def test_a_state_of_the_same_version_is_read_as_always():
    async with TestRuntime(registry("1.0.0")) as env:
        handle = await env.seed("watch", "1.0.0", {"url": "a", "grown": 1}, "w")
        assert await held(handle) is None


async def test_a_migration_that_raises_holds_and_mended_code_goes_on_by_itself():
    def broken(state: First) -> Second:
        raise LookupError("no port")

    async with TestRuntime(registry("1.0.0")) as env:
        handle = await env.client.start("watch", First("a:1"), instance_id="w")
        await env.upgrade(registry("1.0.0", "2.0.0", migrations=[("2.0.0", broken)]))
        await env.advance(DAY)
        assert (
            await held(handle)
            == "migration: the migration to 2.0.0 of 'watch' failed: LookupError: no port"
        )
        assert (await handle.info()).input == {"url": "a:1"}
        await env.advance(5 * DAY)
        assert (await handle.info()).execution_id == 2
        await env.upgrade(registry("1.0.0", "2.0.0", migrations=[TO_SECOND]))
        assert await held(handle) is None
        assert (await laps(env))[1] == ("2.0.0", "1.0.0", ("2.0.0",))


async def test_the_second_of_a_chain_holds_and_goes_on_by_itself_once_it_is_mended():
    def broken(state: Second) -> Third:
        raise LookupError("no seen")

    async with TestRuntime(registry("1.0.0")) as env:
        handle = await env.client.start("watch", First("a:1"), instance_id="w")
        chain = [TO_SECOND, ("3.0.0", broken)]
        await env.upgrade(registry("1.0.0", "3.0.0", migrations=chain))
        await env.advance(DAY)
        assert await held(handle) is not None
        await env.upgrade(registry("1.0.0", "3.0.0", migrations=[TO_SECOND, TO_THIRD]))
        assert await held(handle) is None
        assert (await laps(env))[1] == ("3.0.0", "1.0.0", ("2.0.0", "3.0.0"))


async def test_what_does_not_migrate_is_rolled_back_by_the_policy():
    def broken(state: First) -> Second:
        raise LookupError("no port")

    async with TestRuntime(registry("1.0.0")) as env:
        handle = await env.client.start("watch", First("a:1"), instance_id="w")
        await env.upgrade(registry("1.0.0", "2.0.0", migrations=[("2.0.0", broken)]))
        await env.advance(DAY)
        await env.client.set_version_policy("watch", Exact("1.0.0"))
        await env.advance(DAY)
        assert await held(handle) is None
        assert {version for version, _, _ in await laps(env)} == {"1.0.0"}


async def test_a_missing_down_holds_and_names_the_call():
    async with TestRuntime(registry("1.0.0", "2.0.0", migrations=[("2.0.0", to_second)])) as env:
        handle = await env.client.start("watch", Second("a", 1), instance_id="w")
        await env.client.set_version_policy("watch", Exact("1.0.0"))
        await env.advance(DAY)
        reason = await held(handle)
        assert "has no `down`; give it one: migrate('watch', '2.0.0', up, down)" in reason


async def test_a_migration_whose_result_does_not_decode_holds():
    def wrong(state: First) -> dict:
        return {"host": state.url}

    async with TestRuntime(registry("1.0.0", "2.0.0", migrations=[("2.0.0", wrong)])) as env:
        handle = await env.seed("watch", "1.0.0", {"url": "a:1"}, "w")
        assert ".port does not fit Second" in await held(handle)


async def test_a_migration_that_cannot_read_the_state_holds_with_the_field():
    async with TestRuntime(registry("1.0.0", "2.0.0", migrations=[TO_SECOND])) as env:
        handle = await env.seed("watch", "1.0.0", {"uri": "a:1"}, "w")
        assert "cannot read the state that 1.0.0 wrote" in await held(handle)
        assert ".url" in await held(handle)


async def test_one_that_does_not_migrate_leaves_the_others_alone():
    def picky(state: First) -> Second:
        return to_second(state)

    async with TestRuntime(registry("1.0.0")) as env:
        for number in range(20):
            await env.client.start(
                "watch", First("a:1" if number else "broken"), instance_id=f"w{number}"
            )
        await env.upgrade(registry("1.0.0", "2.0.0", migrations=[("2.0.0", picky)]))
        await env.advance(DAY)
        page = await env.client.list_instances(held=True)
        assert [info.instance_id for info in page.items] == ["w0"]
        assert (await env.client.get_instance_info("w7")).version == "2.0.0"


# --- declared wrongly -------------------------------------------------------------------------


async def async_up(state: First) -> Second: ...


def three(state: First, info: MigrationInfo, more: int) -> Second: ...


def nothing() -> Second: ...


def unknown(state: "Nowhere") -> Second: ...  # noqa: F821


@pytest.mark.parametrize(
    ("declare", "error", "message"),
    [
        (lambda b: b.migrate("other", "2.0.0", to_second), RegistrationError, "not registered"),
        (lambda b: b.migrate("watch", "two", to_second), InvalidVersion, "'two'"),
        (
            lambda b: b.migrate("watch", "2.0.0", to_second).migrate("watch", "2.0.0", to_second),
            RegistrationError,
            "two migrations to 2.0.0",
        ),
        (
            lambda b: b.migrate("watch", "2.0.0", to_second).migrate("watch", "1.2.0", to_second),
            RegistrationError,
            "say which shape it follows",
        ),
        (
            lambda b: b.migrate("watch", "1.2.0", to_second, after="2.0.0"),
            RegistrationError,
            "cannot follow 2.0.0",
        ),
        (lambda b: b.migrate("watch", "2.0.0", async_up), RegistrationError, "is async"),
        (lambda b: b.migrate("watch", "2.0.0", three), RegistrationError, "MigrationInfo"),
        (lambda b: b.migrate("watch", "2.0.0", nothing), RegistrationError, "def up"),
        (lambda b: b.migrate("watch", "2.0.0", 7), RegistrationError, "plain function"),
        (lambda b: b.migrate("watch", "2.0.0", unknown), UnresolvableAnnotation, "Nowhere"),
    ],
)
async def test_a_migration_is_checked_as_the_registry_is_built(declare, error, message):
    builder = OrchestrationRegistry.builder().register("watch", first)
    with pytest.raises(error, match=message):
        declare(builder).build()
