"""A workload that has a planted text pass every place where a store keeps a value of users."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

import anyio

from orchestra import (
    Bulk,
    Event,
    Every,
    Failure,
    InstanceCancelled,
    InstanceFailed,
    InstanceTerminated,
    OrchestrationRegistry,
    RequestRejected,
    RetryPolicy,
    Schedule,
    Selection,
    Start,
    activity,
    activity_context,
)
from orchestra.errors import ActivityFailed, ChildFailed

SECRET = "swordfish-4711"

HOUR = timedelta(hours=1)


@dataclass
class State:
    text: str
    lap: int = 0


@activity(retry=RetryPolicy(max_attempts=2, initial_interval=timedelta(0)), journal=True)
async def work(text):
    context = activity_context()
    told = context.last_heartbeat
    stored = await context.step("first", lambda: _given(f"step {text}"))
    await context.publish("words", f"item of {text}")
    context.heartbeat(f"beat {text}")
    if context.attempt == 1:
        raise ValueError(f"first attempt of {text}")
    return [told, stored, f"result {text}"]


async def _given(value):
    return value


@activity(retry=RetryPolicy(max_attempts=1))
async def refuse(text):
    raise ValueError(f"refused {text}")


async def child(ctx, text):
    if text.startswith("fail"):
        raise Failure(f"the child has failed with {text}", details={"text": text})
    return f"child {text}"


async def ear(ctx, _):
    """Hears what another instance says, crosses a boundary with it, and says it back."""
    who, text = await ctx.wait_for_event("said")
    await ctx.raise_event(who, "echo", text)
    request = await ctx.wait_for_request("ask", str, returns=str)
    request.reply(f"reply {request.value}")
    request = await ctx.wait_for_request("ask", str, returns=str)
    request.reject(f"rejected {request.value}")
    await ctx.wait_for_event("never")


async def loop(ctx, state: State):
    """Two laps of everything."""
    text = state.text
    ctx.set_custom_status({"status": text})
    ctx.publish("words", f"lap of {text}")
    done = await ctx.schedule_activity(work, text)
    assert done[1:] == [f"step {text}", f"result {text}"], done
    try:
        await ctx.schedule_activity(refuse, text)
    except ActivityFailed as error:
        assert text in str(error.cause)  # noqa: PT017
    assert await ctx.start_child("child", text) == f"child {text}"
    try:
        await ctx.start_child("child", f"fail {text}")
    except ChildFailed as error:
        assert text in str(error.cause)  # noqa: PT017
    kept = ctx.start_background_child("child", f"kept {text}")
    assert await ctx.wait_for_child(kept) == f"child kept {text}"
    ctx.start_detached("child", f"detached {text}")
    told = await ctx.wait_for_event("tell", str)
    if state.lap == 0:
        await ctx.raise_event("ear", "said", [ctx.instance_id, text])
        assert await ctx.wait_for_event("echo", str) == text
        ctx.continue_as_new(State(told, 1))
    raise Failure(f"failed with {told}")


async def old(ctx, state: str):
    ctx.continue_as_new(state)


async def new(ctx, state: State):
    await ctx.wait_for_event("never")


async def broken(ctx, text):
    raise KeyError(f"broken by {text}")


async def patient(ctx, text):
    await ctx.wait_for_event("never", int)


async def typed(ctx, _: None):
    await ctx.wait_for_event("number", int)
    await ctx.wait_for_event("never")


def migrate(text: str) -> State:
    return State(text)


REGISTRY = (
    OrchestrationRegistry.builder()
    .register("loop", loop)
    .register("child", child)
    .register("ear", ear)
    .register("broken", broken)
    .register("patient", patient)
    .register("typed", typed)
    .register("moved", old)
    .register("moved", new, version="2.0.0")
    .migrate("moved", "2.0.0", migrate)
    .build()
)
ACTIVITIES = [work, refuse]

SCHEDULE = Schedule("s", Every(HOUR), Start("patient", f"tick {SECRET}"))
EVENTS = Schedule("e", Every(HOUR), Event("typed", "never", f"tick {SECRET}"))


async def soon(look):
    with anyio.fail_after(20):
        while not (found := await look()):
            await anyio.sleep(0.005)
    return found


async def live(client):
    """Have the planted text pass every place; return when all of it is stored."""
    text = SECRET
    await client.start("ear", None, instance_id="ear")
    alive = await client.start("loop", State(text), instance_id="loop")
    await client.raise_event("loop", "tell", f"again {text}")
    await client.raise_event("loop", "tell", f"last {text}")
    with suppress(InstanceFailed):
        await alive.result()
    assert (await alive.info()).error.message == f"failed with last {text}"
    assert await client.request("ear", "ask", text, returns=str) == f"reply {text}"
    try:
        await client.request("ear", "ask", text, returns=str)
    except RequestRejected as error:
        assert error.reason == f"rejected {text}"  # noqa: PT017
    words = [item.value async for item in client.read_stream("loop", "words", follow=False)]
    assert f"item of {text}" in words
    assert f"lap of {text}" in words

    await client.start("moved", f"raw {text}", version="1.0.0", instance_id="moved")
    moved = await soon(lambda: _when(client, "moved", lambda info: info.version == "2.0.0"))
    assert moved.input == f"raw {text}"

    await client.start("broken", text, instance_id="broken")
    await soon(lambda: _when(client, "broken", lambda info: info.hold is not None))
    for number, act in enumerate((client.cancel, client.terminate)):
        handle = await client.start("patient", text, instance_id=f"patient-{number}")
        await act(handle.instance_id, f"because of {text}")
        with suppress(InstanceCancelled, InstanceTerminated):
            await handle.result()
    await client.start("patient", text, instance_id="kept")
    await soon(lambda: _when(client, "kept", lambda info: info.waiting_on))
    await client.raise_event("kept", "later", f"unread {text}")
    await client.nudge("kept", reason=f"nudged for {text}")
    await client.pin("kept", "1.0.0", reason=f"pinned for {text}")
    await client.set_labels("kept", {"plan": "pro"}, reason=f"labelled for {text}")
    await client.hold("kept", reason=f"held for {text}")
    await client.start("typed", None, instance_id="typed")
    await client.raise_event("typed", "number", f"no number {text}")
    await soon(lambda: _when(client, "typed", lambda info: info.set_aside_messages))
    await client.schedules.create(SCHEDULE, reason=f"created for {text}")
    await client.schedules.create(EVENTS)
    await client.schedules.trigger("s", reason=f"triggered for {text}")
    await client.schedules.trigger("e")
    again = await client.rerun("patient-0", reason=f"rerun for {text}")
    await client.rewind("loop", 1, reason=f"rewound for {text}")
    await soon(lambda: _when(client, "loop", lambda info: info.execution_id > 2))
    await client.bulk(
        Bulk.CANCEL,
        Selection(id_prefix=again.instance_id),
        dry_run=False,
        reason=f"many for {text}",
    )
    await client.delete("patient-1", reason=f"deleted for {text}")

    async def is_quiet():  # the rewound loop has read its events again, and has failed again
        for instance_id in ("loop", again.instance_id):
            if (await client.get_instance_info(instance_id)).completed_at is None:
                return False
        going = await client.count_instances(name="child", status=["pending", "running"])
        return going.total == 0

    await soon(is_quiet)


async def _when(client, instance_id, condition):
    info = await client.get_instance_info(instance_id)
    return info if condition(info) else None
