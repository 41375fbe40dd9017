"""Version policies that operators set: what is refused, and what becomes of instances after a
policy that was a mistake.
"""

from datetime import timedelta

import pytest

from orchestra import Exact, Latest, Range
from orchestra.errors import UnknownVersion
from tests.support.kit import alone, bounded, idle, info_when, runtime, virtual

pytestmark = pytest.mark.anyio


async def lap(ctx, number: int):
    await ctx.wait_for_event("go")
    ctx.continue_as_new(number + 1)


LAPS = [("lap", version, lap) for version in ("1.0.0", "1.1.0")]


async def waiting_by_mistake(client, count):
    """Return instances whose second lap waits for 9.0.0, which nobody has, because the policy says
    so.
    """
    handles = [await client.start("lap", 1, instance_id=f"lap-{number}") for number in range(count)]
    for handle in handles:
        await info_when(handle, lambda info: info.waiting_on)
    assert (await client.set_version_policy("lap", Exact("9.0.0"), allow_missing=True)).moved == 0
    for handle in handles:
        await handle.raise_event("go")
    for handle in handles:
        info = await info_when(handle, lambda info: info.execution_id == 2)
        assert (info.status, info.held_reason) == (
            "held",
            "no living node has registered 'lap' 9.0.0",
        )
    return handles


@bounded
async def test_a_version_that_nobody_has_is_refused_with_those_that_there_are_and_changes_nothing(
    database,
):
    async with virtual(database, *LAPS) as node:
        client = node.client
        with pytest.raises(
            UnknownVersion,
            match=r"'lap' 9\.0\.0 \(registered: 1\.0\.0, 1\.1\.0\); pass allow_missing=True",
        ) as refused:
            await client.set_version_policy("lap", Exact("9.0.0"))
        assert (refused.value.name, refused.value.version) == ("lap", "9.0.0")
        assert (await client.get_version_policy("lap")).policy == Latest()
        assert (await client.set_version_policy("lap", Exact("1.0.0"))).moved == 0
        assert (
            await client.set_version_policy("lap", Exact("9.0.0"), allow_missing=True)
        ).moved == 0
        assert (await client.get_version_policy("lap")).policy == Exact("9.0.0")


@bounded
async def test_a_policy_that_is_set_ahead_of_a_deploy_counts_once_its_version_is_there(path):
    async with alone(path) as client:
        await client.set_version_policy("lap", Exact("1.0.0"))  # nobody can tell yet
    async with runtime(path, *LAPS) as node:
        assert (await (await node.client.start("lap", 1)).info()).version == "1.0.0"


@bounded
async def test_a_start_that_the_policy_makes_impossible_names_the_policy_and_the_call_that_changes_it(
    database,
):
    async with virtual(database, *LAPS) as node:
        client = node.client
        await client.set_version_policy("lap", Exact("9.0.0"), allow_missing=True)
        with pytest.raises(UnknownVersion) as refused:
            await client.start("lap", 1)
        assert str(refused.value) == (
            "no living node has registered 'lap' 9.0.0 (registered: 1.0.0, 1.1.0); that is "
            "what the version policy of 'lap' says, Exact(version='9.0.0'): change it with "
            "client.set_version_policy('lap', ...), or start a runtime that has the version"
        )
        with pytest.raises(UnknownVersion) as refused:
            await client.start("lap", 1, version="8.0.0")
        assert "policy" not in str(refused.value)


@bounded
@pytest.mark.parametrize(
    ("mended", "version"),
    [
        (Latest(), "1.1.0"),
        (Exact("1.1.0"), "1.1.0"),
        (Exact("1.0.0"), "1.0.0"),
        (Range("^1"), "1.1.0"),
    ],
)
async def test_a_mended_policy_lets_go_on_what_a_mistake_has_stopped_and_tells_how_many(
    database, mended, version, monkeypatch
):
    monkeypatch.setattr("orchestra.operations.retarget._PAGE", 2)
    async with virtual(database, *LAPS) as node:
        handles = await waiting_by_mistake(node.client, 5)
        pinned = handles.pop()
        await node.client.pin(pinned.instance_id, "7.0.0")
        assert (await node.client.set_version_policy("lap", mended, reason="a typo")).moved == 4
        for handle in handles:
            info = await info_when(handle, lambda info: info.waiting_on)
            assert (info.execution_id, info.version, info.held_reason) == (2, version, None)
        assert (await pinned.info()).held_reason == "no living node has registered 'lap' 7.0.0"
        assert (await node.client.set_version_policy("lap", mended)).moved == 0


@pytest.mark.slow
@bounded
async def test_a_client_without_a_runtime_mends_a_policy_as_well(path):
    async with runtime(path, *LAPS) as node, alone(path) as client:
        (handle,) = await waiting_by_mistake(node.client, 1)
        await client.set_version_policy("lap", Latest())
        info = await info_when(handle, lambda info: info.waiting_on)
        assert (info.execution_id, info.version) == (2, "1.1.0")


@bounded
async def test_a_lap_that_ended_by_the_old_policy_after_it_was_mended_follows_once_its_node_has_learnt_of_it(
    path,
):
    async with alone(path) as operator:
        await operator.set_version_policy("lap", Exact("9.0.0"), allow_missing=True)
        async with runtime(path, *LAPS, poll=timedelta(hours=1)) as node:
            handle = await node.client.start("lap", 1, version="1.0.0")
            await info_when(handle, lambda info: info.waiting_on)
            assert (await operator.set_version_policy("lap", Latest())).moved == 0, (
                "nothing is held yet"
            )
            await handle.raise_event("go")
            info = await info_when(handle, lambda info: info.execution_id == 2)
            assert info.held_reason == "no living node has registered 'lap' 9.0.0", (
                "or this test says nothing"
            )
            node.written_past()  # as if an hour had passed
            info = await info_when(handle, lambda info: info.waiting_on)
            assert (info.execution_id, info.version) == (2, "1.1.0")


@bounded
async def test_no_policy_is_followed_by_what_waits_in_order(database):
    async with virtual(database, *LAPS, ("idle", "1.0.0", idle)) as node:
        handle = await node.client.start("lap", 1)
        await info_when(handle, lambda info: info.waiting_on)
        assert (await node.client.set_version_policy("lap", Exact("1.0.0"))).moved == 0
        info = await handle.info()
        assert (info.version, info.target_version) == ("1.1.0", "1.0.0")


async def broken_lap(ctx, number: int):
    raise LookupError("this version is broken")


async def broken_later(ctx, number: int):
    await ctx.wait_for_event("go")
    raise LookupError("this version is broken")


@bounded
@pytest.mark.parametrize("mended", [Exact("1.1.0"), Range("^1")])
async def test_what_a_broken_version_holds_in_its_first_turn_follows_the_policy_back_and_what_it_has_begun_stays(
    database, mended
):
    broken = [
        *LAPS,
        ("lap", "2.0.0", broken_lap),
        ("late", "1.1.0", lap),
        ("late", "2.0.0", broken_later),
    ]
    async with virtual(database, *LAPS, ("late", "1.1.0", lap)) as node:
        for name in ("lap", "late"):
            handle = await node.client.start(name, 1, instance_id=name)
            await info_when(handle, lambda info: info.waiting_on)
    async with virtual(database, *broken) as node:
        handles = [node.client.handle(name) for name in ("lap", "late")]
        await handles[0].raise_event("go")
        await handles[1].raise_event("go")
        await handles[1].raise_event("go")
        for handle in handles:
            info = await info_when(handle, lambda info: info.hold)
            assert (info.version, info.execution_id, info.hold.kind) == ("2.0.0", 2, "error")
        assert (await node.client.set_version_policy("lap", mended)).moved == 1
        assert (await node.client.set_version_policy("late", mended)).moved == 0
        info = await info_when(handles[0], lambda info: info.waiting_on)
        assert (info.version, info.execution_id, info.hold) == ("1.1.0", 2, None)
        info = await handles[1].info()
        assert (info.version, info.execution_id, info.hold.kind) == ("2.0.0", 2, "error")
        await node.client.rewind("late", 2, "1.1.0", pin=False)
        await handles[1].raise_event("go")
        info = await info_when(handles[1], lambda info: info.execution_id >= 4)
        assert (info.version, info.hold) == ("1.1.0", None)
