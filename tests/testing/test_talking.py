"""Instances that talk to each other, in virtual time: killed at each commit, faked, rewound."""

from datetime import timedelta

import pytest

from orchestra import InstanceCompleted, InstanceNotFound, InstanceStatus, OrchestrationRegistry
from orchestra.testing import TestRuntime, crash_everywhere

pytestmark = pytest.mark.anyio


async def asks(ctx, other):
    """Asks the other one three times, a lap for each question, and then stops it."""
    answers = []
    for number in range(3):
        ctx.raise_event(other, "question", [ctx.instance_id, number])
        answers.append(await ctx.wait_for_event("answer"))
    await ctx.cancel(other, "no more questions")
    try:
        await ctx.raise_event(other, "question", None)
    except InstanceCompleted:
        return answers


async def answers(ctx, given):
    who, number = await ctx.wait_for_event("question")
    await ctx.raise_event(who, "answer", number * 10)
    ctx.continue_as_new(given + 1)


async def tells(ctx, lap):
    ctx.raise_event("ear", "news", lap)
    await ctx.schedule_timer(timedelta(hours=1))
    ctx.continue_as_new(lap + 1)


async def hears(ctx, _):
    return [await ctx.wait_for_event("news") for _ in range(4)]


async def misdirected(ctx, _):
    try:
        await ctx.raise_event("nobody", "news")
    except InstanceNotFound as error:
        return error.instance_id


REGISTRY = (
    OrchestrationRegistry.builder()
    .register("asks", asks)
    .register("answers", answers)
    .register("tells", tells)
    .register("hears", hears)
    .register("misdirected", misdirected)
    .build()
)


async def test_killed_at_each_commit_each_question_is_answered_once():
    async def scenario(env):
        await env.client.start("answers", 0, instance_id="oracle", if_ended="return")
        handle = await env.client.start("asks", "oracle", instance_id="pupil", if_running="return")
        assert await handle.result() == [0, 10, 20]
        info = await env.client.get_instance_info("oracle")
        assert info.status is InstanceStatus.CANCELLED
        assert info.execution_id == 4
        assert info.unread_messages == 0

    report = await crash_everywhere(scenario, REGISTRY)
    assert report.commits > 8


async def test_a_refusal_survives_a_crash_at_each_commit():
    async def scenario(env):
        handle = await env.client.start("misdirected", instance_id="one", if_ended="return")
        assert await handle.result() == "nobody"

    await crash_everywhere(scenario, REGISTRY)


async def test_a_rewound_lap_sends_again():
    async with TestRuntime(REGISTRY) as env:
        ear = await env.client.start("hears", instance_id="ear")
        mouth = await env.client.start("tells", 0, instance_id="mouth")
        await env.advance(timedelta(hours=1))
        await env.client.rewind("mouth", 1, reason="once more")
        await env.advance(timedelta(minutes=1))
        await env.advance(timedelta(hours=2))
        assert (await ear.result())[:3] == [0, 1, 0]
        await mouth.terminate()


async def test_history_shows_what_was_sent_and_what_became_of_it():
    async with TestRuntime(REGISTRY) as env:
        handle = await env.client.start("misdirected")
        assert await handle.result() == "nobody"
        events = await env.client.get_history(handle.instance_id)
        assert [(event.kind, event.details) for event in events[1:3]] == [
            ("event_sent", {"instance_id": "nobody", "name": "news", "payload": None}),
            ("send_refused", {"source": 2, "reason": "not found"}),
        ]
