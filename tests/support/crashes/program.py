"""The orchestrations that the workers run. Whatever is lost or done twice shows in their states."""

from __future__ import annotations

import os
import time
import zlib
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import anyio

from orchestra import (
    Activity,
    ActivityFailed,
    ChildFailed,
    OrchestrationContext,
    OrchestrationRegistry,
    Retention,
    RetryPolicy,
    activity,
    activity_context,
)

ENDURING = RetryPolicy(
    max_attempts=None,
    initial_interval=timedelta(milliseconds=5),
    max_interval=timedelta(milliseconds=50),
)
"""Every kill counts as an attempt, and there are many kills."""

WRONG_KEPT = 5


class Ledger:
    """What activities have really done, a line each, written before they return. Lines survive the
    writer's death.
    """

    def __init__(self) -> None:
        self._file = -1
        self._numbers = count(1)

    def open(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    def token(self) -> str:
        """Return a token that no other run of an activity has."""
        return f"{os.getpid()}-{next(self._numbers)}"

    def enter(self, token: str = "") -> str:
        """Note that the activity that runs here is done. Return the token of this run."""
        token = token or self.token()
        self.note(token)
        return token

    def note(self, *words: object) -> None:
        """Note something of the attempt that runs here."""
        context = activity_context()
        line = " ".join(map(str, (context.idempotency_key, context.attempt, *words)))
        os.write(self._file, f"{line}\n".encode())


LEDGER = Ledger()

STEPS = Ledger()
"""What the steps of journals have done: ``ran``, or ``kept`` once their result is stored; the step
and its result, which begins with the token of the run that made it.
"""


@dataclass(frozen=True)
class Done:
    """What an activity returns: what it was asked, which run of it this is, and the results of its
    steps.
    """

    value: int
    token: str
    steps: tuple[str, ...] = ()


class Flaky(Exception):
    """Fails some first tries."""


def _moment() -> float:
    return Random().random() * 0.004


@activity(retry=ENDURING)
def step_in_thread(value: int) -> Done:
    time.sleep(_moment())
    if value % 5 == 3 and activity_context().attempt == 1:
        raise Flaky(f"step {value}")
    return Done(value, LEDGER.enter())


@activity(retry=ENDURING)
async def step(value: int) -> Done:
    await anyio.sleep(_moment())
    return Done(value, LEDGER.enter())


@activity(retry=ENDURING)
async def slow_step(value: int) -> Done:
    await anyio.sleep(_moment() * 10)
    return Done(value, LEDGER.enter())


@activity(retry=ENDURING)
async def new_step(value: int) -> Done:
    return Done(value, LEDGER.enter())


@activity(retry=RetryPolicy(max_attempts=1))
async def hopeless(value: int) -> Done:
    raise Flaky(f"never {value}")


def digest(before: int, *parts: object) -> int:
    return zlib.crc32(repr(parts).encode(), before)


# --- laps -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Laps:
    """A loop of ``total`` laps. ``digest`` is made of every lap's results, in order."""

    total: int
    done: int = 0
    digest: int = 0
    wrong: tuple[str, ...] = ()


def digest_of_laps(total: int) -> int:
    """Return what the digest must be in the end."""
    value = 0
    for lap in range(total):
        value = digest(value, lap, lap, lap)
    return value


async def laps(ctx: OrchestrationContext, state: Laps) -> Laps:
    wrong = state.wrong
    if ctx.execution_id != state.done + 1:
        wrong = (*wrong, f"lap {state.done} runs as execution {ctx.execution_id}")[:WRONG_KEPT]
    first, second = await ctx.gather(
        ctx.schedule_activity(step_in_thread, state.done), ctx.schedule_activity(step, state.done)
    )
    await ctx.schedule_timer(timedelta(milliseconds=10 * ctx.random()))
    state = replace(
        state,
        done=state.done + 1,
        digest=digest(state.digest, state.done, first.value, second.value),
        wrong=wrong,
    )
    if state.done >= state.total:
        return state
    ctx.continue_as_new(state)


# --- listening --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Heard:
    """How many events of each name have come; each carries its number. ``expected`` is how many
    there will be.
    """

    timer_ms: int | None
    heard: dict[str, int]
    laps: int = 0
    expected: dict[str, int] | None = None
    wrong: tuple[str, ...] = ()


NAMES = ("a", "b")
EVENTS_PER_LAP = 4


async def listen(ctx: OrchestrationContext, state: Heard) -> Heard:
    for _ in range(EVENTS_PER_LAP):
        if _has_all(state):
            return state
        waits: list[Any] = [ctx.wait_for_event(name, int) for name in NAMES]
        waits.append(ctx.wait_for_event("end", dict[str, int]))
        if state.timer_ms is not None:
            waits.append(ctx.schedule_timer(timedelta(milliseconds=state.timer_ms)))
        index, value = (winner := await ctx.race(*waits)).index, winner.value
        if index < len(NAMES):
            name = NAMES[index]
            wrong = state.wrong
            if value != state.heard[name]:
                wrong = (*wrong, f"{name} {value} came, {state.heard[name]} was next")[:WRONG_KEPT]
            state = replace(state, heard={**state.heard, name: state.heard[name] + 1}, wrong=wrong)
        elif index == len(NAMES):
            state = replace(state, expected=value)
    if _has_all(state):
        return state
    ctx.continue_as_new(replace(state, laps=state.laps + 1))


def _has_all(state: Heard | Station) -> bool:
    return state.expected is not None and all(
        state.heard[name] >= state.expected[name] for name in NAMES
    )


# --- asked ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tally:
    """How many requests were answered; each carries its number. ``left`` says that the last lap has
    received one and not answered it.
    """

    answered: int = 0
    laps: int = 0
    left: bool = False
    wrong: tuple[str, ...] = ()


async def tally(ctx: OrchestrationContext, state: Tally) -> Tally:
    """Answers each request with its place. Of every fifth, one lap does not answer and the next one
    receives it again; others are answered after an activity, or before it.
    """
    request = await ctx.wait_for_request("ask", int, returns=int)
    state = replace(state, laps=state.laps + 1)
    if request.value < 0:
        request.reply(state.answered)
        return state
    wrong = state.wrong
    if request.value != state.answered:
        wrong = (*wrong, f"{request.value} came, {state.answered} was next")[:WRONG_KEPT]
    if state.answered % 5 == 4 and not state.left:
        await ctx.schedule_activity(step, request.value)
        ctx.continue_as_new(replace(state, left=True, wrong=wrong))
    if state.answered % 2:
        await ctx.schedule_activity(step, request.value)
        request.reply(state.answered + 1)
    else:
        request.reply(state.answered + 1)
        await ctx.schedule_activity(step, request.value)
    ctx.continue_as_new(replace(state, answered=state.answered + 1, left=False, wrong=wrong))


# --- published --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Radio:
    """A loop of ``total`` laps, each of which publishes from its turns and from an activity, and
    runs the steps of a journal.
    """

    total: int
    done: int = 0


TURNS, WORDS = "turns", "words"
TURNS_PER_LAP = 3
WORDS_PER_LAP = 20
STEPS_PER_LAP = 4


async def radio(ctx: OrchestrationContext, state: Radio) -> Radio:
    ctx.publish(TURNS, state.done * TURNS_PER_LAP)
    speak, steps = (
        (speak_in_thread, steps_in_thread) if state.done % 2 else (speak_in_task, steps_in_task)
    )
    spoken = ctx.schedule_activity(speak, state.done)
    stepped = ctx.schedule_activity(steps, state.done)
    await (stepped if state.done % 3 else spoken)
    ctx.publish(TURNS, state.done * TURNS_PER_LAP + 1)
    await ctx.gather(spoken, stepped)
    ctx.publish(TURNS, state.done * TURNS_PER_LAP + 2)
    state = replace(state, done=state.done + 1)
    if state.done >= state.total:
        return state
    ctx.continue_as_new(state)


@activity(retry=ENDURING)
async def speak_in_task(value: int) -> Done:
    token = LEDGER.token()
    for number in range(WORDS_PER_LAP):
        await activity_context().publish(WORDS, [token, number])
        await anyio.sleep(_moment() if number % 4 == 0 else 0)
    return Done(value, LEDGER.enter(token))


@activity(retry=ENDURING)
def speak_in_thread(value: int) -> Done:
    token = LEDGER.token()
    for number in range(WORDS_PER_LAP):
        activity_context().publish(WORDS, [token, number])
        time.sleep(_moment() if number % 4 == 0 else 0)
    return Done(value, LEDGER.enter(token))


@activity(retry=ENDURING, journal=True)
async def steps_in_task(value: int) -> Done:
    token, results = LEDGER.token(), list[str]()
    for number in range(STEPS_PER_LAP):

        async def run(number: int = number) -> str:
            await anyio.sleep(_moment())
            return _ran(token, number)

        results.append(_kept(number, await activity_context().step(str(number), run)))
    return Done(value, LEDGER.enter(token), tuple(results))


@activity(retry=ENDURING, journal=True)
def steps_in_thread(value: int) -> Done:
    token, results = LEDGER.token(), list[str]()
    for number in range(STEPS_PER_LAP):

        def run(number: int = number) -> str:
            time.sleep(_moment())
            return _ran(token, number)

        results.append(_kept(number, activity_context().step(str(number), run)))
    return Done(value, LEDGER.enter(token), tuple(results))


def _ran(token: str, number: int) -> str:
    result = f"{token}/{number}"
    STEPS.note("ran", number, result)
    return result


def _kept(number: int, result: str) -> str:
    STEPS.note("kept", number, result)
    return result


# --- under operators --------------------------------------------------------------------------


@dataclass(frozen=True)
class Station:
    """How many events of each name an operator's instance has heard; each carries its number.
    ``expected`` is how many there will be.
    """

    heard: dict[str, int]
    laps: int = 0
    expected: dict[str, int] | None = None
    wrong: tuple[str, ...] = ()


async def station(ctx: OrchestrationContext, state: Station) -> Station:
    return await _serve(ctx, state)


async def station_1_1_0(ctx: OrchestrationContext, state: Station) -> Station:
    await ctx.schedule_activity(new_step, state.laps)
    return await _serve(ctx, state)


async def _serve(ctx: OrchestrationContext, state: Station) -> Station:
    """Hear events, each followed by an activity; a child now and then; a boundary when a nudge asks
    for it.
    """
    wrong = state.wrong
    if state.laps % 4 == 1:
        child = await ctx.start_child(laps, Laps(2))
        if child.wrong or child.done != 2 or child.digest != digest_of_laps(2):
            wrong = (*wrong, f"a child of 2 laps came back as {child}")
    for _ in range(EVENTS_PER_LAP):
        if _has_all(state):
            return state
        waits: list[Any] = [ctx.wait_for_event(name, int) for name in NAMES]
        waits.append(ctx.wait_for_event("end", dict[str, int]))
        waits.append(ctx.schedule_timer(timedelta(milliseconds=30 + 40 * ctx.random())))
        waits.append(ctx.wait_for_boundary_request())
        index, value = (winner := await ctx.race(*waits)).index, winner.value
        if index < len(NAMES):
            name = NAMES[index]
            if value != state.heard[name]:
                wrong = (*wrong, f"{name} {value} came, {state.heard[name]} was next")
            done = await ctx.schedule_activity(step, value)
            if done.value != value:
                wrong = (*wrong, f"a step of {value} came back as {done}")
            state = replace(state, heard={**state.heard, name: state.heard[name] + 1})
        elif index == len(NAMES):
            state = replace(state, expected=value)
        elif index == len(waits) - 1:
            break
        state = replace(state, wrong=wrong[:WRONG_KEPT])
    if _has_all(state):
        return state
    ctx.continue_as_new(replace(state, laps=state.laps + 1, wrong=wrong[:WRONG_KEPT]))


# --- several at once --------------------------------------------------------------------------


@dataclass(frozen=True)
class Fan:
    rounds: int
    done: int = 0
    wrong: tuple[str, ...] = ()


async def fan(ctx: OrchestrationContext, state: Fan) -> Fan:
    wrong = state.wrong
    results = await ctx.gather(*(ctx.schedule_activity(step, number) for number in range(4)))
    if [result.value for result in results] != [0, 1, 2, 3]:
        wrong = (*wrong, f"gathered {results}")
    winner = await ctx.race(
        ctx.schedule_activity(slow_step, 7), ctx.schedule_timer(timedelta(milliseconds=8))
    )
    if winner.index == 0 and winner.value.value != 7:
        wrong = (*wrong, f"raced {winner}")
    async with ctx.task_group() as group:
        branches = [group.create_task(_two_steps(ctx, number)) for number in (10, 20)]
    if [await branch for branch in branches] != [21, 41]:
        wrong = (*wrong, "the branches went wrong")
    try:
        await ctx.schedule_activity(hopeless, 1)
        wrong = (*wrong, "the hopeless came back")
    except ActivityFailed:
        pass
    state = replace(state, done=state.done + 1, wrong=wrong[:WRONG_KEPT])
    if state.done >= state.rounds:
        return state
    ctx.continue_as_new(state)


async def _two_steps(ctx: OrchestrationContext, number: int) -> int:
    first = await ctx.schedule_activity(step, number)
    second = await ctx.schedule_activity(step_in_thread, first.value + 1)
    return first.value + second.value


# --- children ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parent:
    rounds: int
    done: int = 0
    wrong: tuple[str, ...] = ()


async def parent(ctx: OrchestrationContext, state: Parent) -> Parent:
    """A loop of children that lap, of one that is given up, and of one that goes when the lap
    does.
    """
    wrong = state.wrong
    ctx.start_child(hang, 0, on_parent_close="terminate" if state.done % 2 else "cancel")
    total = 1 + state.done % 3
    first, second = await ctx.gather(
        ctx.start_child(laps, Laps(total)), ctx.start_child(laps, Laps(2))
    )
    for expected, child in ((total, first), (2, second)):
        if child.wrong or child.done != expected or child.digest != digest_of_laps(expected):
            wrong = (*wrong, f"a child of {expected} laps came back as {child}")
    await ctx.race(ctx.start_child(laps, Laps(3)), ctx.schedule_timer(timedelta(milliseconds=20)))
    try:
        await ctx.start_child("laps", Laps(1), instance_id=ctx.instance_id)
        wrong = (*wrong, "a child has taken its parent's id")
    except ChildFailed:
        pass
    state = replace(state, done=state.done + 1, wrong=wrong[:WRONG_KEPT])
    if state.done >= state.rounds:
        return state
    ctx.continue_as_new(state)


# --- ended from outside, or at one word -------------------------------------------------------


async def hang(ctx: OrchestrationContext, ticks: int) -> None:
    try:
        while True:
            await ctx.race(
                ctx.wait_for_event("never"), ctx.schedule_timer(timedelta(milliseconds=25))
            )
            ticks += 1
            if ticks % 3 == 0:
                ctx.continue_as_new(ticks)
    finally:
        await ctx.schedule_activity(step, ticks)


async def once(ctx: OrchestrationContext, value: int) -> int:
    word = await ctx.wait_for_event("go", int)
    return (await ctx.schedule_activity(step, value + word)).value


# --- versions ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Climb:
    """A loop that remembers which version ran each of its laps. ``word`` is what it names at its
    boundaries.
    """

    total: int
    word: str | None = None
    versions: tuple[str, ...] = ()


async def climb(ctx: OrchestrationContext, state: Climb) -> Climb:
    return await _climb(ctx, state)


async def climb_1_1_0(ctx: OrchestrationContext, state: Climb) -> Climb:
    await ctx.schedule_timer(timedelta(milliseconds=1))
    await ctx.schedule_activity(new_step, 0)
    return await _climb(ctx, state)


async def _climb(ctx: OrchestrationContext, state: Climb) -> Climb:
    await ctx.schedule_activity(step, len(state.versions))
    state = replace(state, versions=(*state.versions, ctx.version))
    if len(state.versions) >= state.total:
        return state
    ctx.continue_as_new(state, version=state.word)


def registry(code: str) -> OrchestrationRegistry:
    """Return what a worker with this code has: ``old`` knows ``climb`` 1.0.0 only."""
    builder = OrchestrationRegistry.builder()
    for function in (laps, listen, fan, parent, hang, once, climb, station, tally, radio):
        builder.register(function.__name__, function)
    # A rewind brings back what was read since then as far as the histories are kept.
    builder.set_retention("station", Retention(histories=None, executions=None))
    builder.set_retention("once", Retention(histories=None, executions=None))
    # Its items are held against the attempts that its histories name.
    builder.set_retention("radio", Retention(histories=None, executions=None))
    if code == "new":
        builder.register("climb", climb_1_1_0, version="1.1.0")
        builder.register("station", station_1_1_0, version="1.1.0")
    return builder.build()


def activities(code: str) -> list[Activity[..., Any]]:
    """Return the activities that a worker with this code has."""
    talking = (speak_in_task, speak_in_thread, steps_in_task, steps_in_thread)
    known = [step, step_in_thread, slow_step, hopeless, *talking]
    return [*known, new_step] if code == "new" else known
