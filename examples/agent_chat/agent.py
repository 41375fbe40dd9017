"""The agent: a loop whose lap is one turn of a conversation. Nothing of it is lost, and no model
call that has ended is paid again.

Version 2.0.0 keeps the conversation in another form. It takes over between two turns, and a
migration brings the history along.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import anyio
from model import Line, read, stream

from orchestra import (
    OrchestrationContext,
    OrchestrationRegistry,
    Request,
    RetryPolicy,
    activity,
    activity_context,
)

NAME = "agent"
TOKENS = "tokens"
INTERRUPTED = "(interrupted)"
NEEDS_APPROVAL = frozenset({"refund"})
MODERATION_PAUSE = float(os.environ.get("MODERATION_PAUSE", "0"))
"""Seconds that the second model takes."""
MOST_CALLS = 8
"""Model calls in one turn."""


@dataclass(frozen=True)
class Chat:
    """The state of 1.0.0: what each has said."""

    user: str
    lines: list[Line] = field(default_factory=list[Line])


@dataclass(frozen=True)
class Said:
    """A line of 2.0.0: it knows by which version it was said."""

    role: str
    text: str
    version: str


@dataclass(frozen=True)
class Chat2:
    """The state of 2.0.0."""

    user: str
    said: list[Said] = field(default_factory=list[Said])


@dataclass(frozen=True)
class Approval:
    """A person's answer to an agent that wants to use a tool."""

    granted: bool
    by: str


# --- activities -------------------------------------------------------------------------------


@activity(journal=True, retry=RetryPolicy(max_attempts=10), timeout=timedelta(minutes=5))
async def think(lines: list[Line], style: str) -> str:
    """Ask the model, and stream its words to who reads along.

    The answer is a step of the journal: once it is stored, a node that goes on after a crash does
    not ask again.
    """

    async def ask() -> str:
        words: list[str] = []
        async for word in stream(lines, style):
            await activity_context().publish(TOKENS, word)
            words.append(word)
        return " ".join(words)

    answer = await activity_context().step("model", ask)
    await activity_context().step("moderate", lambda: moderate(answer))
    return answer


async def moderate(_answer: str) -> bool:
    """Look at an answer before the user gets it: a second call, of another model."""
    await anyio.sleep(MODERATION_PAUSE)
    return True


@activity(retry=RetryPolicy(max_attempts=10))
async def use_tool(tool: str, argument: str) -> str:
    """Use a tool."""
    return f"it rains in {argument}" if tool == "weather" else f"{tool} {argument} is done"


# --- the loop ---------------------------------------------------------------------------------


async def agent(ctx: OrchestrationContext, chat: Chat) -> None:
    """Answer one line of the user, and begin the next turn."""
    asked = await ctx.wait_for_request("say", str, returns=str)
    lines = await answered(ctx, [*chat.lines, Line("user", asked.value)], "Well,", asked)
    ctx.continue_as_new(replace(chat, lines=lines))


async def agent_2(ctx: OrchestrationContext, chat: Chat2) -> None:
    """Answer one line of the user, and begin the next turn."""
    asked = await ctx.wait_for_request("say", str, returns=str)
    known = [Line(one.role, one.text) for one in chat.said]
    lines = await answered(ctx, [*known, Line("user", asked.value)], "Indeed,", asked)
    new = [Said(line.role, line.text, ctx.version) for line in lines[len(known) :]]
    ctx.continue_as_new(replace(chat, said=[*chat.said, *new]))


def with_versions(state: Chat) -> Chat2:
    """Bring a conversation of 1.x to the form of 2.0.0."""
    return Chat2(state.user, [Said(line.role, line.text, "1.0.0") for line in state.lines])


async def answered(
    ctx: OrchestrationContext, lines: list[Line], style: str, asked: Request[str, str]
) -> list[Line]:
    """Ask the model, and use the tools that it wants, until it has words. The user may interrupt
    it.
    """
    for _ in range(MOST_CALLS):
        first = await ctx.race(
            ctx.schedule_activity(think, lines, style), ctx.wait_for_event("interrupt")
        )
        if first.index == 1:
            ctx.publish(TOKENS, INTERRUPTED)
            asked.reply(INTERRUPTED)
            return [*lines, Line("agent", INTERRUPTED)]
        answer = read(str(first.value))
        if answer.tool is None:
            asked.reply(answer.text)
            return [*lines, Line("agent", answer.text)]
        lines = [*lines, Line("tool", await used(ctx, answer.tool, answer.argument))]
    asked.reject(f"the model wants more than {MOST_CALLS} tools in a turn")
    return lines


async def used(ctx: OrchestrationContext, tool: str, argument: str) -> str:
    """Use a tool, once a person has approved it if it needs that. That may take days."""
    if tool in NEEDS_APPROVAL:
        ctx.set_custom_status(f"waits for approval: {tool} {argument}")
        approval = await ctx.wait_for_request("approve", Approval, returns=str)
        ctx.set_custom_status(None)
        approval.reply("thank you")
        if not approval.value.granted:
            return f"{approval.value.by} has refused {tool} {argument}"
    return await ctx.schedule_activity(use_tool, tool, argument)


def build_registry(versions: Sequence[str]) -> OrchestrationRegistry:
    """Return the registry of a deploy that has these versions."""
    builder = OrchestrationRegistry.builder().register(NAME, agent)
    if "2.0.0" in versions:
        builder.register(NAME, agent_2, version="2.0.0")
        builder.migrate(NAME, "2.0.0", with_versions)
    return builder.build()
