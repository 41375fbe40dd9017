"""What a runtime looks at before it joins: versions that would be missing, and changed code."""

import logging
import pickle

import pytest

from orchestra import CodeChanged, InvalidArgument, PreflightFindingKind, Runtime, StartRefused
from tests.support.kit import bounded, info_when, registry

pytestmark = pytest.mark.anyio


async def lap(ctx, number: int):
    await ctx.wait_for_event("go")
    ctx.continue_as_new(number + 1)


async def changed_lap(ctx, number: int):
    await ctx.wait_for_event("go")
    await ctx.wait_for_event("again")
    ctx.continue_as_new(number + 1)


ONE = ("lap", "1.0.0", lap)
CHANGED = ("lap", "1.0.0", changed_lap)
TWO = ("lap", "2.0.0", lap)
OTHER = ("other", "1.0.0", lap)


async def park(store, *entries, count=1, version=None):
    """Leave some instances that wait in a store."""
    async with Runtime(store(), registry(*entries)) as node:
        for _ in range(count):
            handle = await node.client.start(entries[0][0], 1, version=version)
            await info_when(handle, lambda info: info.waiting_on and info.owner is None)
    return handle.instance_id


def warnings(caplog):
    return [
        each.getMessage()
        for each in caplog.records
        if each.levelno == logging.WARNING and each.name == "orchestra.engine"
    ]


@bounded
async def test_a_node_without_a_version_that_open_instances_need_says_so_and_starts(store, caplog):
    await park(store, ONE, count=2)
    async with Runtime(store(), registry(TWO)):
        assert warnings(caplog) == [
            "error: lap 1.0.0: open instances need it, and neither a living node nor this one has "
            "it; they are held until one does (2 instances)"
        ]


@bounded
async def test_a_node_that_refuses_to_strand_instances_does_not_join_and_stores_nothing(store):
    await park(store, ONE)
    with pytest.raises(StartRefused, match=r"lap 1\.0\.0: open instances need it") as refused:
        async with Runtime(store(), registry(TWO), preflight="refuse"):
            pass
    (finding,) = refused.value.findings
    assert (finding.kind, finding.severity) == (PreflightFindingKind.MISSING_VERSION, "error")
    assert (finding.name, finding.version, finding.instances) == ("lap", "1.0.0", 1)
    assert pickle.loads(pickle.dumps(refused.value)).findings == (finding,)
    provider = store()
    provider.open()
    assert provider.directory.catalogue().nodes == ()
    provider.close()
    async with Runtime(store(), registry(ONE, TWO), preflight="refuse") as node:
        assert len(await node.client.list_nodes()) == 1


@bounded
async def test_a_version_that_another_living_node_has_is_not_missing(store):
    async with Runtime(store(), registry(ONE)) as first:
        handle = await first.client.start("lap", 1)
        await info_when(handle, lambda info: info.waiting_on and info.owner is None)
        async with Runtime(store(), registry(TWO), preflight="refuse"):
            pass


@bounded
async def test_what_another_service_needs_is_a_warning_and_never_refuses(store, caplog):
    await park(store, OTHER)
    async with Runtime(store(), registry(ONE), preflight="refuse"):
        (line,) = warnings(caplog)
        assert line.startswith("warning: other 1.0.0: open instances need it")


@bounded
async def test_changed_code_under_a_version_with_open_executions_is_named_with_the_remedy(
    store, caplog
):
    instance_id = await park(store, ONE)
    async with Runtime(store(), registry(CHANGED), preflight="refuse") as node:
        (line,) = warnings(caplog)
        (before, after) = (await node.client.version_report())[0].code
        assert line == (
            f"warning: lap 1.0.0: this node has code {after.fingerprint}, and open executions began "
            f"with code {before.fingerprint}; register changed code under a new version "
            "(1 instances)"
        )
        await node.client.terminate(instance_id)
    caplog.clear()
    async with Runtime(store(), registry(CHANGED), strict=True):
        assert warnings(caplog) == []


@bounded
async def test_a_strict_node_with_changed_code_does_not_start(store):
    await park(store, ONE)
    with pytest.raises(CodeChanged, match="register changed code under a new version") as refused:
        async with Runtime(store(), registry(CHANGED), strict=True, preflight="off"):
            pass
    assert (refused.value.name, refused.value.version) == ("lap", "1.0.0")
    assert pickle.loads(pickle.dumps(refused.value)).version == "1.0.0"
    async with Runtime(store(), registry(ONE), strict=True):
        pass


@bounded
async def test_a_strict_node_does_not_work_beside_a_living_one_with_other_code(store, caplog):
    async with Runtime(store(), registry(ONE)) as first:
        with pytest.raises(CodeChanged, match=f"node {first.node_id} has code") as refused:
            async with Runtime(store(), registry(CHANGED), strict=True):
                pass
        assert (refused.value.name, refused.value.version) == ("lap", "1.0.0")
        assert [each.node_id for each in await first.client.list_nodes()] == [first.node_id]
        caplog.clear()
        async with Runtime(store(), registry(CHANGED)) as second:
            (line,) = warnings(caplog)
            assert f"node {first.node_id} has code" in line
            (one,) = await second.client.version_report()
            assert one.fingerprint_changed
            assert set(one.nodes) == {first.node_id, second.node_id}


@bounded
async def test_a_node_that_asks_for_no_check_gets_none(store, caplog):
    await park(store, ONE)
    async with Runtime(store(), registry(CHANGED, OTHER), preflight="off"):
        assert warnings(caplog) == []


async def test_options_that_are_none_are_refused(store):
    with pytest.raises(InvalidArgument, match='preflight is one of "warn"'):
        Runtime(store(), registry(ONE), preflight="maybe")
    with pytest.raises(InvalidArgument, match="strict is true or false"):
        Runtime(store(), registry(ONE), strict="yes")
