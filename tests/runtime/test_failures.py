"""Declared failures with details, and what users see of instances that are held for an error."""

import sys
from dataclasses import dataclass
from datetime import timedelta

import anyio
import pytest

from orchestra import (
    NO_RETRY,
    ActivityFailed,
    ChildFailed,
    Failure,
    InstanceFailed,
    InstanceHeld,
    InstanceStatus,
    RegistrationError,
    WaitTimeout,
    activity,
)
from orchestra.client import waiting
from tests.support.kit import alone, bounded, info_when, registry, runtime, virtual

pytestmark = pytest.mark.anyio


class PaymentRefused(Failure):
    pass


@dataclass
class Refusal:
    code: int
    retry: bool


async def pays(ctx, _):
    raise PaymentRefused("no funds", details={"code": 402, "why": ["funds"]})


@bounded
async def test_the_details_of_a_failure_are_seen_by_client_and_parent(database):
    async def parent(ctx, _):
        try:
            await ctx.start_child("pays")
        except ChildFailed as failed:
            return failed.cause.details

    async with virtual(database, pays, parent) as node:
        with pytest.raises(InstanceFailed, match="no funds") as failed:
            await (await node.client.start("pays", instance_id="one")).result()
        assert failed.value.error.details == {"code": 402, "why": ["funds"]}
        assert failed.value.error.type.endswith("PaymentRefused")
        assert (await node.client.get_instance_info("one")).error.details == {
            "code": 402,
            "why": ["funds"],
        }
        assert await (await node.client.start("parent")).result() == {"code": 402, "why": ["funds"]}


@bounded
async def test_the_details_of_an_activity_are_seen_by_the_code_that_asked_for_it(database):
    @activity(retry=NO_RETRY)
    async def charge() -> None:
        raise PaymentRefused("no", details=Refusal(402, retry=False))

    async def job(ctx, _):
        try:
            await ctx.schedule_activity(charge)
        except ActivityFailed as failed:
            return failed.cause.details

    async with virtual(database, job, activities=[charge]) as node:
        assert await (await node.client.start("job")).result() == {"code": 402, "retry": False}


@bounded
async def test_details_without_a_json_form_hold_the_instance_and_say_so(database):
    async def job(ctx, _):
        raise Failure("no", details=object())

    async with virtual(database, job) as node:
        info = await info_when(await node.client.start("job"), lambda info: info.held_reason)
        assert info.held_reason.startswith(
            "error: orchestra.errors.EncodeError: details of Failure"
        )


@bounded
async def test_a_parent_sees_why_its_child_is_held(database):
    async def kid(ctx, _):
        return {}["price"]

    async def parent(ctx, _):
        return await ctx.start_child("kid", instance_id="kid")

    async with virtual(database, kid, parent) as node:
        handle = await node.client.start("parent")

        def tells(info):
            return info.children and info.children[0].held_reason

        (child,) = (await info_when(handle, tells)).children
        assert child.status is InstanceStatus.HELD
        assert child.held_reason.startswith("error: KeyError: 'price' (at ")
        assert "in " in child.held_reason
        assert child.held_reason.endswith("version 1.0.0)")
        await node.client.terminate("kid")
        with pytest.raises(InstanceFailed, match="terminated"):
            await handle.result()


@bounded
async def test_a_message_that_does_not_decode_is_set_aside_and_names_the_event_and_the_field(
    database,
):
    async def job(ctx, _):
        return await ctx.wait_for_event("refuse", Refusal)

    async with virtual(database, job) as node:
        handle = await node.client.start("job", instance_id="one")
        await handle.raise_event("refuse", {"code": "four", "retry": True})
        info = await info_when(handle, lambda info: info.set_aside_messages)
        assert (info.held_reason, info.unread_messages) == (None, 0)
        (message,) = await node.client.list_messages("one")
        assert "event 'refuse'" in message.set_aside
        assert "code" in message.set_aside


async def test_failures_that_are_no_exceptions_are_refused_at_registration():
    with pytest.raises(RegistrationError, match="give classes of exceptions"):
        registry(pays, failures=("ValueError",))


KILLED = """
import os, signal, sys
import anyio
from orchestra import OrchestrationRegistry, Runtime, SqliteProvider, activity

@activity
{style} charge() -> str:
    with open(sys.argv[2], "a") as ledger:
        ledger.write("charged\\n")
    return "receipt"

async def shop(ctx, _):
    return {{}}[await ctx.schedule_activity(charge)]

async def main():
    registry = OrchestrationRegistry.builder().register("shop", shop).build()
    async with Runtime(SqliteProvider(sys.argv[1]), registry, [charge]) as node:
        await node.client.start("shop", instance_id="one")
        while (await node.client.get_instance_info("one")).held_reason is None:
            await anyio.sleep(0.005)
        os.kill(os.getpid(), signal.SIGKILL)

anyio.run(main)
"""


@pytest.mark.slow
@bounded
@pytest.mark.parametrize("style", ["def", "async def"])
async def test_a_charge_before_a_bug_is_not_made_again_after_a_kill(path, tmp_path, style):
    """Rule 39."""
    ledger = tmp_path / "ledger"
    command = [sys.executable, "-c", KILLED.format(style=style), str(path), str(ledger)]
    killed = await anyio.run_process(command, check=False)
    assert killed.returncode == -9, killed.stderr.decode()

    @activity
    async def charge() -> str:
        ledger.write_text("charged again")
        return "another receipt"

    async def shop(ctx, _):
        return await ctx.schedule_activity(charge)

    async with runtime(path, shop, activities=[charge]) as node:
        assert await node.client.handle("one").result() == "receipt"
    assert ledger.read_text() == "charged\n"


async def breaks(ctx, _):
    raise KeyError("plan")


@bounded
async def test_a_wait_for_what_an_error_holds_says_so_at_its_timeout(database):
    async with virtual(database, breaks) as node:
        handle = await node.client.start("breaks", instance_id="one")
        await info_when(handle, lambda info: info.status is InstanceStatus.HELD)
        with pytest.raises(InstanceHeld, match=r"it is held .*KeyError: 'plan'") as held:
            await handle.result(timeout=timedelta(0))
        assert isinstance(held.value, WaitTimeout)
        assert isinstance(held.value, InstanceFailed)
        assert held.value.instance_id == "one"
        assert held.value.error.type == "KeyError"
        assert "in breaks" in held.value.error.traceback
        assert (await handle.info()).error == held.value.error


@pytest.mark.slow
@bounded
async def test_a_wait_without_a_timeout_ends_once_one_error_has_held_the_instance_for_a_while(
    path, monkeypatch
):
    monkeypatch.setattr(waiting, "_SECONDS", 0.2)
    async with runtime(path, breaks) as node, alone(path) as client:
        handle = await node.client.start("breaks", instance_id="one")
        with pytest.raises(InstanceHeld):
            await handle.result()
        with pytest.raises(InstanceHeld):
            await client.wait_for_completion("one")


@bounded
async def test_a_wait_outlasts_a_hold_that_mended_code_ends(database):
    async def mended(ctx, _):
        return "mended"

    async with virtual(database, breaks) as node:
        handle = await node.client.start("breaks", instance_id="one")
        await info_when(handle, lambda info: info.status is InstanceStatus.HELD)
    async with virtual(database, ("breaks", "1.0.0", mended)) as node:
        assert await node.client.handle("one").result() == "mended"
