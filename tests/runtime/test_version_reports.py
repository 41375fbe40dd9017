"""The version report: who needs a version, who has it, and whether it may be retired."""

import json
import threading
from datetime import timedelta

import pytest

from orchestra import Exact, Failure, InvalidArgument, Latest, OrchestrationRegistry, Runtime
from orchestra.cli import main
from tests.support.kit import alone, bounded, info_when, runtime, virtual

pytestmark = pytest.mark.anyio

DAY = timedelta(days=1)


async def lap(ctx, number: int):
    await ctx.wait_for_event("go")
    ctx.continue_as_new(number + 1)


async def other_lap(ctx, number: int):
    await ctx.wait_for_event("go")
    await ctx.wait_for_event("again")
    ctx.continue_as_new(number + 1)


async def patched_lap(ctx, number: int):
    await ctx.wait_for_event("go")
    ctx.patched("one")
    await ctx.wait_for_event("again")
    ctx.continue_as_new(number + 1)


async def fails(ctx, number: int):
    raise Failure("no")


ONE = ("lap", "1.0.0", lap)
TWO = ("lap", "2.0.0", lap)


async def report(client, name=None):
    return {(each.name, each.version): each for each in await client.version_report(name)}


@bounded
async def test_live_waiting_held_and_failed_instances_are_counted_by_version(database):
    async with virtual(database, ONE, TWO, ("fails", "1.0.0", fails)) as node:
        client = node.client
        for number in range(3):
            await client.start("lap", 1, instance_id=f"l{number}", version="1.0.0")
        await client.start("lap", 1)
        await client.start("fails", 1)
        await node.run_until_idle()
        found = await report(client)
        one, two, failing = found["lap", "1.0.0"], found["lap", "2.0.0"], found["fails", "1.0.0"]
        assert (one.live, one.waiting, one.held) == (3, 3, 0)
        assert (two.live, two.waiting, two.held) == (1, 1, 0)
        assert (failing.live, failing.failed_recently) == (0, 1)
        assert (one.is_target, two.is_target) == (False, True)
        assert one.nodes == two.nodes == tuple(each.node_id for each in await client.list_nodes())
        assert one.oldest_execution_at is not None
        assert one.fingerprint is not None
        await node.advance(2 * DAY)
        assert (await report(client))["fails", "1.0.0"].failed_recently == 0
        assert set(await report(client, "lap")) == {("lap", "1.0.0"), ("lap", "2.0.0")}


@bounded
async def test_a_version_is_safe_to_retire_once_the_last_instance_has_left_it(database):
    async with virtual(database, ONE) as node:
        handle = await node.client.start("lap", 1, instance_id="l")
        await node.run_until_idle()
        (only,) = await node.client.version_report()
        assert not only.safe_to_retire
        assert only.blockers[0] == "Starts and boundaries of 'lap' take it, under latest."
    async with virtual(database, ONE, TWO) as node:
        (one, two) = await node.client.version_report()
        assert not one.safe_to_retire
        assert [each.partition(";")[0] for each in one.blockers] == ["1 open instance needs it"]
        await node.client.raise_event("l", "go")
        await node.run_until_idle()
        (one, two) = await node.client.version_report()
        assert (one.safe_to_retire, one.blockers, one.live) == (True, (), 0)
        assert (two.live, two.is_target, two.safe_to_retire) == (1, True, False)
    async with virtual(database, TWO) as node:
        (two,) = await node.client.version_report()  # what is gone and not needed is not listed
        assert two.version == "2.0.0"
        assert (await node.client.get_instance_info(handle.instance_id)).status == "running"


@bounded
async def test_pins_an_exact_policy_and_versions_asked_for_by_name_are_blockers(database):
    async with virtual(database, ONE, TWO) as node:
        client = node.client
        await client.start("lap", 1, instance_id="two")
        await client.start("lap", 1, instance_id="named", version="1.0.0")
        await node.run_until_idle()
        await client.pin("two", "1.0.0")
        await client.set_version_policy("lap", Exact("1.0.0"), by="me")
        one = (await report(client))["lap", "1.0.0"]
        assert [each.split(" ")[0:3] for each in one.blockers] == [
            ["The", "version", "policy"],
            ["1", "open", "instance"],
            ["1", "open", "instance"],
            ["Open", "executions", "on"],
        ]
        assert "exact:1.0.0 (revision 1, set by 'me')" in one.blockers[0]
        assert "pinned to it" in one.blockers[2]
        await client.unpin("two")
        await client.set_version_policy("lap", Latest())
        await client.raise_event("named", "go")
        await node.run_until_idle()
        one = (await report(client))["lap", "1.0.0"]
        assert one.safe_to_retire, one.blockers


@bounded
async def test_a_version_that_no_node_has_shows_its_instances_as_held_and_asks_for_a_deploy(
    database,
):
    async with virtual(database, ONE, TWO) as node:
        await node.client.start("lap", 1, version="1.0.0")
        await node.run_until_idle()
    async with virtual(database, TWO) as node:
        one = (await report(node.client))["lap", "1.0.0"]
        assert (one.live, one.waiting, one.held, one.nodes) == (1, 0, 1, ())
        assert "No living node has it: deploy it again, so that they go on." in one.blockers
        assert one.fingerprint is not None, "it was seen before"


@bounded
async def test_changed_code_under_a_version_is_shown_until_no_execution_began_with_the_other(
    database,
):
    async with virtual(database, ("lap", "1.0.0", other_lap)) as node:
        await node.client.start("lap", 1, instance_id="old")
        await node.run_until_idle()
        (one,) = await node.client.version_report()
        assert not one.fingerprint_changed
        before = one.fingerprint
    async with virtual(database, ("lap", "1.0.0", patched_lap)) as node:
        (one,) = await node.client.version_report()
        assert one.fingerprint_changed
        assert one.fingerprint != before
        assert [seen.fingerprint for seen in one.code] == [before, one.fingerprint]
        assert one.code[0].last_seen_at <= one.code[1].first_seen_at
        await node.client.terminate("old")
        (one,) = await node.client.version_report()
        assert not one.fingerprint_changed
        assert [seen.fingerprint for seen in one.code] == [before, one.fingerprint]


@bounded
async def test_a_patch_is_unneeded_once_each_open_execution_has_its_mark(database):
    async with virtual(database, ("lap", "1.0.0", patched_lap)) as node:
        client = node.client
        await client.start("lap", 1, instance_id="a")
        await client.start("lap", 1, instance_id="b")
        await node.run_until_idle()
        await client.raise_event("a", "go")
        await node.run_until_idle()
        (one,) = await client.version_report()
        assert one.unneeded_patches == ()
        await client.raise_event("b", "go")
        await node.run_until_idle()
        (one,) = await client.version_report()
        assert one.unneeded_patches == ("one",)


@bounded
async def test_instances_that_a_node_works_on_or_an_error_holds_do_not_wait(store):
    def oops(ctx, number):
        raise KeyError("oops")

    async def stumbles(ctx, number: int):
        oops(ctx, number)

    known = OrchestrationRegistry.builder().register("s", stumbles).register("lap", lap).build()
    async with Runtime(store(), known) as node:
        handle = await node.client.start("s", 1)
        await info_when(handle, lambda info: info.status == "held")
        parked = await node.client.start("lap", 1)
        await info_when(parked, lambda info: info.waiting_on and info.owner is None)
        found = await report(node.client)
        assert (found["s", "1.0.0"].live, found["s", "1.0.0"].held) == (1, 1)
        assert found["s", "1.0.0"].waiting == 0
        assert (found["lap", "1.0.0"].waiting, found["lap", "1.0.0"].held) == (1, 0)


@bounded
async def test_the_command_line_reports_versions_as_text_and_as_json(path, capsys):
    async with runtime(path, ONE, TWO) as node:
        await info_when(
            await node.client.start("lap", 1, version="1.0.0"), lambda info: info.waiting_on
        )
    async with alone(path) as client:
        (one,) = await client.version_report()
        assert one.held == 1

    def run(*arguments):
        codes = []
        thread = threading.Thread(target=lambda: codes.append(main(["versions", *arguments])))
        thread.start()
        thread.join()
        return codes[0], capsys.readouterr().out

    code, text = run("--store", str(path))
    assert code == 0
    assert text.startswith("lap 1.0.0: live 1 (waiting 0, held 1); failed within a day 0;")
    assert "  - No living node has it: deploy it again, so that they go on." in text
    code, text = run("--store", str(path), "--json", "--name", "lap")
    (found,) = json.loads(text)["versions"]
    assert (found["name"], found["version"], found["live"]) == ("lap", "1.0.0", 1)
    assert found["safe_to_retire"] is False
    code, text = run("--store", str(path.parent / "nowhere.db"))
    assert code == 3


@bounded
async def test_a_name_that_cannot_be_one_is_refused(database):
    async with virtual(database, ONE) as node:
        with pytest.raises(InvalidArgument):
            await node.client.version_report(7)
        assert await node.client.version_report("nobody") == ()
