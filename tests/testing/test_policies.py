"""Version policies in tests on virtual time."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from orchestra import (
    Exact,
    HoldKind,
    InvalidArgument,
    Latest,
    NoVersionInRange,
    OrchestrationRegistry,
    OutcomeUnknown,
    PolicyChangedMeanwhile,
    PolicyInfo,
    Range,
    RegistrationError,
)
from orchestra.store.kinds import ResolvedBy
from orchestra.testing import TestRuntime

pytestmark = pytest.mark.anyio

MARCH = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass
class Watch:
    laps: int = 0


async def watch(ctx, state: Watch) -> None:
    await ctx.schedule_timer(timedelta(days=1))
    ctx.continue_as_new(replace(state, laps=state.laps + 1))


def builder(*versions):
    made = OrchestrationRegistry.builder()
    for version in versions:
        made.register("watch", watch, version=version)
    return made


THREE = builder("1.0.0", "1.1.0", "2.0.0")


async def versions_of(env, handle):
    executions = await env.client.list_executions(handle.instance_id)
    return [execution.version for execution in executions]


async def test_the_builders_range_counts_from_the_first_start_on():
    registry = builder("1.0.0", "1.1.0", "2.0.0").set_version_policy("watch", Range("^1")).build()
    async with TestRuntime(registry) as env:
        assert (await env.client.get_version_policy("watch")).policy == Range("^1")
        handle = await env.client.start("watch", Watch())
        await env.run_until(handle, execution=2)
        assert await versions_of(env, handle) == ["1.1.0", "1.1.0"]
        await env.upgrade(builder("1.0.0", "1.1.0", "1.2.0", "2.0.0").build())
        await env.run_until(handle, execution=3)
        assert (await versions_of(env, handle))[-1] == "1.2.0"


async def test_a_range_that_a_client_sets_counts_at_the_next_boundary():
    async with TestRuntime(THREE.build()) as env:
        handle = await env.client.start("watch", Watch(), version="1.0.0")
        await env.client.set_version_policy("watch", Range("~1.0"))
        await env.run_until(handle, execution=2)
        await env.client.set_version_policy("watch", Range(">=1.1,<2"))
        assert (await handle.info()).target_version == "1.1.0"
        await env.run_until(handle, execution=3)
        assert await versions_of(env, handle) == ["1.0.0", "1.0.0", "1.1.0"]


async def test_an_instance_above_the_range_never_goes_down_to_it():
    async with TestRuntime(THREE.build()) as env:
        handle = await env.client.start("watch", Watch())
        await env.client.set_version_policy("watch", Range("^1"))
        assert (await handle.info()).target_version == "2.0.0"
        await env.run_until(handle, execution=2)
        assert await versions_of(env, handle) == ["2.0.0", "2.0.0"]


async def test_a_range_that_no_version_is_in_is_refused_or_refuses_starts():
    async with TestRuntime(THREE.build()) as env:
        with pytest.raises(NoVersionInRange, match="allow_missing=True"):
            await env.client.set_version_policy("watch", Range("^3"))
        assert (await env.client.get_version_policy("watch")).policy == Latest()
        handle = await env.client.start("watch", Watch(), version="1.0.0")
        await env.client.set_version_policy("watch", Range("^3"), allow_missing=True)
        with pytest.raises(NoVersionInRange) as refused:
            await env.client.start("watch", Watch())
        assert refused.value.range == "^3"
        assert refused.value.registered == ("1.0.0", "1.1.0", "2.0.0")
        await env.run_until(handle, execution=2)
        assert await versions_of(env, handle) == ["1.0.0", "1.0.0"], "a boundary stays"
        assert (await handle.info()).target_version == "1.0.0"


async def test_what_a_mistake_has_stopped_follows_a_range():
    async with TestRuntime(THREE.build()) as env:
        handle = await env.client.start("watch", Watch(), version="1.0.0")
        await env.client.set_version_policy("watch", Exact("9.0.0"), allow_missing=True)
        await env.advance(timedelta(days=1))
        assert "9.0.0" in (await handle.info()).held_reason
        await env.client.set_version_policy("watch", Range("^1"))
        await env.run_until(handle, execution=3)
        assert await versions_of(env, handle) == ["1.0.0", "1.1.0", "1.1.0"]


async def test_after_a_pin_the_range_counts_again():
    async with TestRuntime(THREE.build()) as env:
        await env.client.set_version_policy("watch", Range("^1"))
        handle = await env.client.start("watch", Watch())
        await env.client.pin(handle.instance_id, "1.0.0")
        await env.run_until(handle, execution=2)
        await env.client.unpin(handle.instance_id)
        await env.run_until(handle, execution=3)
        assert await versions_of(env, handle) == ["1.1.0", "1.0.0", "1.1.0"]


def test_a_builder_refuses_a_range_that_has_no_registered_version():
    with pytest.raises(RegistrationError, match=r"Range\(text='\^3'\), but registered are 1\.0\.0"):
        builder("1.0.0", "2.0.0").set_version_policy("watch", Range("^3")).build()


async def test_the_text_of_a_range_is_no_policy():
    async with TestRuntime(THREE.build()) as env:
        with pytest.raises(InvalidArgument, match=r"Range\('\^1\.2'\)"):
            await env.client.set_version_policy("watch", "^1")


# --- the history ------------------------------------------------------------------------------


async def test_a_policy_has_an_author_a_reason_a_time_and_a_revision():
    async with TestRuntime(THREE.build(), start=MARCH) as env:
        client = env.client
        assert await client.get_version_policy("watch") == PolicyInfo(
            "watch", Latest(), 0, "", "", None
        )
        assert await client.list_version_policies("watch") == ()
        first = await client.set_version_policy(
            "watch", Exact("1.0.0"), reason="1.1.0 is slow", by="ann"
        )
        assert first == PolicyInfo("watch", Exact("1.0.0"), 1, "ann", "1.1.0 is slow", MARCH)
        await env.advance(timedelta(days=1))
        second = await client.set_version_policy("watch", Range("^1"))
        assert second == PolicyInfo("watch", Range("^1"), 2, "test", "", MARCH + timedelta(days=1))
        assert await client.get_version_policy("watch") == second
        assert await client.list_version_policies("watch") == (second, first)


async def test_a_policy_of_the_builder_is_the_first_of_the_history():
    registry = builder("1.0.0", "1.1.0").set_version_policy("watch", Range("^1")).build()
    async with TestRuntime(registry) as env:
        (info,) = await env.client.list_version_policies("watch")
        assert (info.policy, info.revision, info.reason) == (Range("^1"), 1, "registry")
        await env.crash()
        assert await env.client.list_version_policies("watch") == (info,)


async def test_of_two_operators_who_read_the_same_policy_the_second_is_told_of_the_first():
    async with TestRuntime(THREE.build()) as env:
        client = env.client
        read = await client.get_version_policy("watch")
        await client.set_version_policy(
            "watch", Exact("1.0.0"), by="ann", expected_revision=read.revision
        )
        with pytest.raises(
            PolicyChangedMeanwhile,
            match=r"'watch' is not at revision 0: revision 1, exact:1\.0\.0, was set by 'ann'",
        ) as refused:
            await client.set_version_policy(
                "watch", Range("^1"), by="bob", expected_revision=read.revision
            )
        assert (refused.value.name, refused.value.revision) == ("watch", 1)
        assert (await client.get_version_policy("watch")).policy == Exact("1.0.0")
        set_again = await client.set_version_policy("watch", Range("^1"), expected_revision=1)
        assert set_again.revision == 2


async def test_a_name_that_has_no_policy_has_no_revision_to_expect():
    async with TestRuntime(THREE.build()) as env:
        with pytest.raises(
            PolicyChangedMeanwhile, match="revision 4: none was ever set"
        ) as refused:
            await env.client.set_version_policy("watch", Latest(), expected_revision=4)
        assert refused.value.revision == 0


async def test_a_change_whose_reply_was_lost_is_made_once_if_its_caller_asks_again(monkeypatch):
    """Rule 28."""
    async with TestRuntime(THREE.build()) as env:
        admin = env.provider.admin
        make = admin.set_policy

        def loses_the_reply(*args, **kwargs):
            make(*args, **kwargs)
            monkeypatch.undo()
            raise OutcomeUnknown("the reply was lost")

        monkeypatch.setattr(admin, "set_policy", loses_the_reply)
        change = {"reason": "a bug", "by": "ann", "expected_revision": 0}
        with pytest.raises(OutcomeUnknown):
            await env.client.set_version_policy("watch", Exact("1.0.0"), **change)
        made = await env.client.set_version_policy("watch", Exact("1.0.0"), **change)
        assert (made.revision, made.by) == (1, "ann")
        assert await env.client.list_version_policies("watch") == (made,)


@pytest.mark.parametrize("revision", [-1, "1", 1.0, True, 2**80])
async def test_an_expected_revision_that_is_none_is_refused(revision):
    async with TestRuntime(THREE.build()) as env:
        with pytest.raises(InvalidArgument, match="get_version_policy returned"):
            await env.client.set_version_policy("watch", Latest(), expected_revision=revision)


async def test_an_author_is_text():
    async with TestRuntime(THREE.build()) as env:
        for by in (7, "x" * 2_000, "\ud800"):
            with pytest.raises(InvalidArgument, match="an author"):
                await env.client.set_version_policy("watch", Latest(), by=by)


async def test_an_execution_names_the_revision_of_the_policy_that_chose_its_version():
    async with TestRuntime(THREE.build()) as env:
        await env.client.set_version_policy("watch", Exact("1.0.0"))
        handle = await env.client.start("watch", Watch())
        await env.client.set_version_policy("watch", Range("^1"))
        await env.run_until(handle, execution=2)
        await env.client.pin(handle.instance_id, "1.0.0")
        await env.run_until(handle, execution=3)
        executions = await env.client.list_executions(handle.instance_id)
        assert [
            (execution.version, execution.resolved_by, execution.policy_revision)
            for execution in executions
        ] == [
            ("1.0.0", ResolvedBy.POLICY, 1),
            ("1.1.0", ResolvedBy.POLICY, 2),
            ("1.0.0", ResolvedBy.PIN, 2),
        ]
        (node,) = await env.client.list_nodes()
        assert [execution.resolved_at_node for execution in executions] == [
            "test",  # the client that started it
            node.node_id,
            node.node_id,
        ]


async def test_an_execution_that_has_not_begun_leaves_a_pin_that_expires():
    """Rule 28: as after an unpin, though no operator comes."""

    async def lap(ctx, number: int):
        await ctx.schedule_timer(timedelta(hours=1))
        ctx.continue_as_new(number + 1)

    one = OrchestrationRegistry.builder().register("lap", lap).build()
    async with TestRuntime(one) as env:
        handle = await env.client.start("lap", 1)
        await env.run_until_idle()
        until = env.now + timedelta(hours=3)
        await env.client.pin(handle.instance_id, "9.0.0", until, reason="it comes tomorrow")
        await env.advance(timedelta(hours=2))
        held = await handle.info()
        assert held.hold is not None
        assert (held.hold.kind, held.execution_id) == (HoldKind.VERSION_MISSING, 2)
        await env.advance(timedelta(hours=2))
        info = await handle.info()
        assert (info.hold, info.version) == (None, "1.0.0")
