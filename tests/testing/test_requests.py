"""Requests from client to code and back, over boundaries, crashes, rewinds, holds and ends
(rule 33, scenario 75).
"""

from dataclasses import dataclass
from datetime import timedelta

import anyio
import pytest

from orchestra import (
    Client,
    InboxFull,
    InstanceCompleted,
    InstanceNotFound,
    InvalidArgument,
    OrchestrationRegistry,
    RequestRejected,
    WaitTimeout,
)
from orchestra.clock import SystemClock
from orchestra.testing import NothingHappens, TestRuntime, check_store, crash_everywhere

pytestmark = pytest.mark.anyio

SECOND = timedelta(seconds=1)


@dataclass
class Item:
    name: str
    count: int = 1


@dataclass
class Cart:
    total: int = 0
    laps: int = 0


async def cart(ctx, state: Cart) -> int:
    """Answers one request a lap."""
    request = await ctx.wait_for_request("add_item", Item, returns=int)
    if request.value.name == "done":
        request.reply(state.total)
        return state.total
    if request.value.count < 0:
        request.reject("sold out")
    else:
        state.total += request.value.count
        request.reply(state.total)
    ctx.continue_as_new(Cart(state.total, state.laps + 1))


async def slow(ctx, state: Cart) -> int:
    """Receives a request, and answers it in its third lap, after a timer."""
    request = await ctx.wait_for_request("add_item", Item, returns=int)
    await ctx.schedule_timer(timedelta(minutes=1))
    if state.laps < 2:
        ctx.continue_as_new(Cart(0, state.laps + 1))
    request.reply(state.laps)
    await ctx.wait_for_event("end")
    return state.laps


async def counter(ctx, state: Cart) -> int:
    """Answers each request after a timer, one a lap."""
    request = await ctx.wait_for_request("add_item", int, returns=int)
    await ctx.schedule_timer(SECOND)
    request.reply(state.total + request.value)
    ctx.continue_as_new(Cart(state.total + request.value))


async def deaf(ctx, _: Cart) -> None:
    """Receives requests, answers none, and ends with an event."""
    await ctx.race(ctx.wait_for_event("end"), ctx.wait_for_request("add_item"))
    await ctx.wait_for_event("end")


REGISTRY = (
    OrchestrationRegistry.builder()
    .register("cart", cart)
    .register("slow", slow)
    .register("deaf", deaf)
    .register("counter", counter)
    .build()
)


async def begun(env: TestRuntime, name: str = "cart"):
    return await env.client.start(name, Cart(), instance_id="c")


async def test_code_answers_and_rejects_what_clients_ask():
    async with TestRuntime(REGISTRY) as env:
        handle = await begun(env)
        assert await handle.request("add_item", Item("x", 2), returns=int) == 2
        assert await env.client.request("c", "add_item", Item("y"), returns=int) == 3
        with pytest.raises(RequestRejected, match="sold out") as rejected:
            await handle.request("add_item", Item("z", -1), request_id="z")
        assert (rejected.value.reason, rejected.value.request_id, rejected.value.instance_id) == (
            "sold out",
            "z",
            "c",
        )
        assert await handle.request("add_item", Item("done"), returns=int) == 3
        assert await handle.result() == 3
        check_store(env.provider, quiescent=False).raise_if_violated()


async def test_the_same_request_id_gets_the_same_answer_also_after_the_end():
    async with TestRuntime(REGISTRY) as env:
        handle = await begun(env)
        for _ in range(3):
            assert await handle.request("add_item", Item("x", 2), request_id="r") == 2
        with pytest.raises(RequestRejected):
            await handle.request("add_item", Item("x", -2), request_id="s")
        with pytest.raises(RequestRejected):
            await handle.request("add_item", Item("x", 5), request_id="s")
        assert await handle.request("add_item", Item("done"), request_id="t") == 2
        assert await handle.request("add_item", Item("x"), request_id="r") == 2
        with pytest.raises(InstanceCompleted):
            await handle.request("add_item", Item("x"), request_id="u")


async def test_an_answer_is_kept_for_an_hour():
    async with TestRuntime(REGISTRY) as env:
        handle = await begun(env)
        assert await handle.request("add_item", Item("x", 2), request_id="r") == 2
        await env.advance(timedelta(minutes=59))
        assert await handle.request("add_item", Item("x", 2), request_id="r") == 2
        await env.advance(timedelta(minutes=2))
        assert await handle.request("add_item", Item("x", 2), request_id="r") == 4


async def test_what_does_not_fit_is_rejected_and_the_instance_goes_on():
    async with TestRuntime(REGISTRY) as env:
        handle = await begun(env)
        with pytest.raises(RequestRejected, match=r"at .count does not fit Item"):
            await handle.request("add_item", {"name": "x", "count": "many"})
        info = await handle.info()
        assert (info.execution_id, info.held_reason) == (1, None)
        assert await handle.request("add_item", {"name": "x", "count": 2}) == 2


async def test_a_timeout_cancels_nothing_and_the_same_id_asks_again():
    async with TestRuntime(REGISTRY) as env:
        handle = await begun(env, "slow")
        with pytest.raises(WaitTimeout, match="request_id=") as late:
            await handle.request("add_item", Item("x"), timeout=SECOND)
        request_id = late.value.request_id
        assert request_id is not None
        check_store(env.provider, quiescent=False).raise_if_violated()
        (open_one,) = await env.client.list_messages("c")
        assert (open_one.kind, open_one.message_id) == ("request", request_id)
        with pytest.raises(WaitTimeout):
            await handle.request("add_item", Item("x"), timeout=timedelta(0), request_id=request_id)
        assert await handle.request("add_item", Item("x"), request_id=request_id) == 2
        assert (await handle.info()).execution_id == 3
        assert await env.client.list_messages("c") == ()


async def test_a_request_without_an_answer_is_received_again_in_each_lap_cold_and_after_a_crash():
    for cold in (False, True):
        async with TestRuntime(REGISTRY, cold=cold) as env:
            handle = await begun(env, "slow")
            with pytest.raises(WaitTimeout):
                await handle.request("add_item", Item("x"), timeout=SECOND, request_id="r")
            await env.crash()
            await env.advance(timedelta(minutes=1))
            await env.crash()
            assert await handle.request("add_item", Item("x"), request_id="r") == 2
            received = [
                event.details["request_id"]
                for lap in (1, 2, 3)
                for event in await handle.history(lap)
                if event.kind == "request_received"
            ]
            assert received == ["r", "r", "r"]


@pytest.mark.parametrize("cold", [False, True], ids=["warm", "cold"])
async def test_a_lap_that_answers_leaves_nothing_of_the_request_to_the_next_one(cold):
    """Also where the node has loaded the lap from its history, with the message in its inbox."""
    async with TestRuntime(REGISTRY, cold=cold) as env:
        handle = await begun(env, "counter")
        for number in (1, 2, 3):
            with pytest.raises(WaitTimeout):
                await handle.request(
                    "add_item", number, timeout=timedelta(0), request_id=f"r{number}"
                )
        for number, total in ((1, 1), (2, 3), (3, 6)):
            assert await handle.request("add_item", number, request_id=f"r{number}") == total
        assert (await handle.info()).execution_id == 4
        check_store(env.provider, quiescent=False).raise_if_violated()


async def test_it_is_received_again_after_a_rewind_of_the_lap_that_had_it_in_hand():
    async with TestRuntime(REGISTRY) as env:
        handle = await begun(env, "slow")
        with pytest.raises(WaitTimeout):
            await handle.request("add_item", Item("x"), timeout=SECOND, request_id="r")
        await env.client.rewind("c", 1, reason="once more")
        assert (await handle.info()).execution_id == 2
        (received,) = [e for e in await handle.history() if e.kind == "request_received"]
        assert received.details["request_id"] == "r"
        assert await handle.request("add_item", Item("x"), request_id="r") == 2


async def test_what_was_answered_is_not_received_again_after_a_rewind():
    async with TestRuntime(REGISTRY) as env:
        handle = await begun(env)
        assert await handle.request("add_item", Item("x", 2), request_id="r") == 2
        await env.client.rewind("c", 1, reason="once more")
        assert [e.kind for e in await handle.history()][-1] == "request_awaited"
        assert await handle.request("add_item", Item("x", 3), request_id="r") == 2
        assert await handle.request("add_item", Item("x", 3)) == 3


async def test_the_end_answers_what_is_open():
    async with TestRuntime(REGISTRY) as env:
        handle = await begun(env, "deaf")
        ended = []
        for request_id in ("in hand", "unread"):
            with pytest.raises(WaitTimeout):
                await handle.request("add_item", Item("x"), timeout=SECOND, request_id=request_id)

        async def ask(request_id):
            with pytest.raises(InstanceCompleted) as error:
                await handle.request("add_item", Item("x"), request_id=request_id)
            ended.append(error.value.instance_id)

        async with anyio.create_task_group() as group:
            group.start_soon(ask, "in hand")
            group.start_soon(ask, "unread")
            await handle.raise_event("end")
        assert ended == ["c", "c"]
        with pytest.raises(InstanceCompleted):
            await handle.request("add_item", Item("x"), request_id="unread")


async def test_a_new_life_answers_nothing_of_the_former_one():
    async with TestRuntime(REGISTRY) as env:
        handle = await begun(env, "deaf")
        with pytest.raises(WaitTimeout):
            await handle.request("add_item", Item("x"), timeout=SECOND, request_id="r")
        await handle.terminate()
        handle = await env.client.start("deaf", Cart(), instance_id="c", if_ended="restart")
        with pytest.raises(InstanceCompleted):
            await handle.request("add_item", Item("x"), request_id="r")
        with pytest.raises(WaitTimeout):
            await handle.request("add_item", Item("x"), timeout=SECOND, request_id="s")


async def test_a_deleted_instance_is_not_found_by_who_asks_again():
    async with TestRuntime(REGISTRY) as env:
        handle = await begun(env)
        assert await handle.request("add_item", Item("done"), request_id="r") == 0
        await handle.delete()
        with pytest.raises(InstanceNotFound):
            await handle.request("add_item", Item("done"), request_id="r")
        check_store(env.provider, quiescent=False).raise_if_violated()


async def test_an_operator_who_drops_a_request_rejects_it_also_one_in_hand():
    async with TestRuntime(REGISTRY) as env:
        handle = await begun(env, "slow")
        for request_id in ("in hand", "unread"):
            with pytest.raises(WaitTimeout):
                await handle.request("add_item", Item("x"), timeout=SECOND, request_id=request_id)
        assert await env.client.drop_messages("c", "add_item", reason="a mistake", by="ops") == 2
        for request_id in ("in hand", "unread"):
            with pytest.raises(RequestRejected, match="dropped by ops: a mistake"):
                await handle.request("add_item", Item("x"), request_id=request_id)
        await env.advance(timedelta(hours=2))
        info = await handle.info()
        assert (info.execution_id, info.waiting_on[0].name) == (2, "add_item"), (
            "the lap that had it in hand goes on, and the next one waits for another"
        )


async def test_the_late_answer_of_code_whose_request_was_dropped_changes_nothing():
    async def answers_late(ctx, _: Cart) -> None:
        request = await ctx.wait_for_request("add_item")
        await ctx.schedule_timer(timedelta(minutes=1))
        request.reply("late")
        await ctx.wait_for_event("end")

    registry = OrchestrationRegistry.builder().register("late", answers_late).build()
    async with TestRuntime(registry) as env:
        handle = await env.client.start("late", Cart(), instance_id="c")
        with pytest.raises(WaitTimeout):
            await handle.request("add_item", timeout=SECOND, request_id="r")
        await env.client.drop_messages("c", message_ids=["r"])
        await env.advance(timedelta(minutes=2))
        with pytest.raises(RequestRejected, match="dropped by test"):
            await handle.request("add_item", request_id="r")
        info = await handle.info()
        assert (info.waiting_on[0].kind, info.held_reason) == ("event", None)


async def test_a_held_instance_is_named_by_the_timeout():
    async def faulty(ctx, _: Cart) -> None:
        request = await ctx.wait_for_request("add_item")
        request.reply("never stored")
        raise KeyError("bug")

    registry = OrchestrationRegistry.builder().register("faulty", faulty).build()
    async with TestRuntime(registry) as env:
        handle = await env.client.start("faulty", Cart(), instance_id="c")
        with pytest.raises(WaitTimeout, match=r"it is held .*bug") as late:
            await handle.request("add_item", timeout=SECOND, request_id="r")
        assert late.value.request_id == "r"

        async def repaired(ctx, _: Cart) -> None:
            (await ctx.wait_for_request("add_item")).reply("repaired")

        await env.upgrade(OrchestrationRegistry.builder().register("faulty", repaired).build())
        assert await handle.request("add_item", request_id="r") == "repaired"


async def test_requests_wait_in_the_summary_and_in_the_inbox():
    async with TestRuntime(REGISTRY) as env:
        handle = await begun(env)
        info = await handle.info()
        assert [(one.kind, one.name) for one in info.waiting_on] == [("request", "add_item")]
        assert info.waiting_counts == {"request": 1}
        with pytest.raises(WaitTimeout):
            await handle.request("other", 7, timeout=SECOND, request_id="o")
        (one,) = await env.client.list_messages("c")
        assert (one.name, one.payload, one.kind, one.sender) == ("other", 7, "request", "test")
        assert (await handle.info()).unread_messages == 1


async def test_a_check_of_the_store_finds_a_request_that_no_lap_will_receive():
    async with TestRuntime(REGISTRY) as env:
        handle = await begun(env, "slow")
        with pytest.raises(WaitTimeout):
            await handle.request("add_item", Item("x"), timeout=SECOND, request_id="r")
        report = check_store(env.provider, quiescent=False)
        assert report.violations == ()
        with env.database.transaction(None, SystemClock()):
            (message,) = env.database.messages.remove_all("c")
        (violation,) = check_store(env.provider, quiescent=False).violations
        assert str(violation).startswith(
            "I1: instance 'c', execution 1, event 3: request 'r' is open"
        )
        with env.database.transaction(None, SystemClock()):
            env.database.messages.put(message)
            env.database.requests.remove_all("c")
        (violation,) = check_store(env.provider, quiescent=False).violations
        assert str(violation) == "I1: instance 'c': request 'r' waits, and is not known"


async def test_a_full_inbox_refuses_requests():
    async with TestRuntime(REGISTRY) as env:
        await begun(env)
        async with Client(env.provider, inbox_limit=1) as client:
            for request_id in ("first", "first"):
                with pytest.raises(WaitTimeout):
                    await client.request("c", "other", timeout=timedelta(0), request_id=request_id)
            with pytest.raises(InboxFull, match=r"request 'other' for instance 'c' was not stored"):
                await client.request("c", "other")


@pytest.mark.parametrize(
    "bad",
    [
        {"instance_id": ""},
        {"name": ""},
        {"request_id": ""},
        {"timeout": 5},
    ],
)
async def test_what_cannot_be_asked_is_refused(bad):
    async with TestRuntime(REGISTRY) as env:
        await begun(env)
        asked = {"instance_id": "c", "name": "add_item", **bad}
        with pytest.raises(InvalidArgument):
            await env.client.request(asked.pop("instance_id"), asked.pop("name"), **asked)


async def test_a_wait_for_what_never_comes_fails_the_test_at_once():
    async with TestRuntime(REGISTRY) as env:
        handle = await begun(env)
        with pytest.raises(NothingHappens, match="does not answer request"):
            await handle.request("other", 7)


async def test_every_crash_leaves_one_answer_for_each_request():
    async def scenario():
        async with TestRuntime(REGISTRY) as env:
            handle = await env.client.start("cart", Cart(), instance_id="c", request_id="start")
            for number in (1, 2, 3):
                asked = {"request_id": f"r{number}", "returns": int}
                assert await handle.request("add_item", Item("x"), **asked) == number
                assert await handle.request("add_item", Item("x"), **asked) == number
            with pytest.raises(RequestRejected):
                await handle.request("add_item", Item("x", -1), request_id="bad")
            assert await handle.request("add_item", Item("done"), request_id="end") == 3
            assert await handle.result() == 3
            check_store(env.provider, quiescent=False).raise_if_violated()

    await crash_everywhere(scenario)


async def test_every_crash_lets_a_request_without_an_answer_come_back():
    async def scenario():
        async with TestRuntime(REGISTRY) as env:
            handle = await env.client.start("slow", Cart(), instance_id="c", request_id="start")
            assert await handle.request("add_item", Item("x"), request_id="r") == 2
            await handle.raise_event("end", message_id="end")
            assert await handle.result() == 2
            check_store(env.provider, quiescent=False).raise_if_violated()

    await crash_everywhere(scenario)
