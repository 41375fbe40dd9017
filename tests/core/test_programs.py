"""Random little orchestrations under random inputs: warm, cold and replayed runs must agree at
every step (I10).
"""

import contextlib
from dataclasses import dataclass
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.driver import Drive, prefixes, replay
from tests.support.examples import examples

NAMES = st.sampled_from("abc")


@dataclass(frozen=True)
class Act:
    name: str


@dataclass(frozen=True)
class Sleep:
    seconds: int


@dataclass(frozen=True)
class Wait:
    name: str


@dataclass(frozen=True)
class Draw:
    """Schedule something that depends on chance and on the clock of the execution."""


@dataclass(frozen=True)
class Forget:
    """Schedule something that nobody awaits."""

    name: str


@dataclass(frozen=True)
class Shared:
    """Do something with a future that all branches share."""

    name: str
    what: str  # ask, join or cancel


@dataclass(frozen=True)
class Block:
    kind: str  # gather, race, group, or a group whose block awaits its first branch
    branches: tuple


@dataclass(frozen=True)
class Protect:
    kind: str  # finally, except, suppress
    body: tuple
    cleanup: tuple


@dataclass(frozen=True)
class Boundary:
    pass


@dataclass(frozen=True)
class Fail:
    pass


def programs(steps):
    return st.lists(steps, min_size=1, max_size=3).map(tuple)


LEAVES = st.one_of(
    st.builds(Act, NAMES),
    st.builds(Sleep, st.integers(0, 3)),
    st.builds(Wait, NAMES),
    st.builds(Forget, NAMES),
    st.just(Draw()),
    st.builds(Shared, NAMES, st.sampled_from(["ask", "join", "cancel"])),
    st.sampled_from([Boundary(), Fail()]),
)
STEPS = st.recursive(
    LEAVES,
    lambda steps: st.one_of(
        st.builds(
            Block,
            st.sampled_from(["gather", "race", "group", "joined group"]),
            st.lists(programs(steps), min_size=1, max_size=3).map(tuple),
        ),
        st.builds(
            Protect,
            st.sampled_from(["finally", "except", "suppress"]),
            programs(steps),
            programs(steps),
        ),
    ),
    max_leaves=10,
)
INPUTS = st.one_of(
    st.tuples(st.just("done"), st.integers(0, 5)),
    st.tuples(st.just("died"), st.integers(0, 5)),
    st.tuples(st.just("send"), NAMES),
    st.tuples(st.just("advance"), st.integers(0, 4)),
    st.tuples(st.just("cancel"), st.just(0)),
)


async def run(ctx, program, shared):
    for step in program:
        await run_step(ctx, step, shared)


async def run_step(ctx, step, shared):
    match step:
        case Act(name):
            ctx.trace_info("result", value=await ctx.schedule_activity(name))
        case Sleep(seconds):
            await ctx.schedule_timer(timedelta(seconds=seconds))
        case Wait(name):
            await ctx.wait_for_event(name)
        case Draw():
            await ctx.schedule_activity("drawn", ctx.random(), str(ctx.uuid4()), ctx.now())
        case Forget(name):
            ctx.schedule_activity(name, "forgotten")
        case Block("gather", branches):
            await ctx.gather(*(run(ctx, branch, shared) for branch in branches))
        case Block("race", branches):
            won = await ctx.race(*(run(ctx, branch, shared) for branch in branches))
            ctx.set_custom_status(won.index)
        case Block(kind, branches):
            async with ctx.task_group() as group:
                tasks = [group.create_task(run(ctx, branch, shared)) for branch in branches]
                if kind == "joined group":
                    await tasks[0]
                await ctx.schedule_activity("body")
        case Shared(name, "ask"):
            shared[name] = ctx.schedule_activity(name, "shared")
        case Shared(name, "join") if name in shared:
            await shared[name]
        case Shared(name, "cancel") if name in shared:
            shared[name].cancel()
        case Protect(kind, body, cleanup):
            await protect(kind, run(ctx, body, shared), run(ctx, cleanup, shared))
        case Boundary():
            ctx.continue_as_new("next")
        case Fail():
            raise ValueError("planned")


async def protect(kind, body, cleanup):
    try:
        match kind:
            case "finally":
                try:
                    await body
                finally:
                    await cleanup
            case "except":
                try:
                    await body
                except Exception:
                    await cleanup
            case "suppress":
                with contextlib.suppress(BaseException):
                    await body
                await cleanup
    finally:
        cleanup.close()  # where it was not needed


def feed(drive, inputs):
    """Give a drive its inputs, until it ends or there are none left."""
    for kind, value in inputs:
        if drive.ending is not None:
            return
        pending = [event.name for event in drive.execution.activities.values()]
        match kind:
            case "done" | "died" if pending:
                getattr(drive, kind)(pending[value % len(pending)])
            case "send" | "advance":
                getattr(drive, kind)(value)
            case "cancel":
                drive.cancel()
            case _:
                pass


@settings(max_examples=examples(250), deadline=None)
@given(programs(STEPS), st.lists(INPUTS, max_size=20))
def test_warm_cold_and_replayed_runs_of_any_program_agree(program, inputs):
    async def subject(ctx, _):
        await run(ctx, program, {})
        return "end"

    warm, cold = Drive(subject), Drive(subject, cold=True)
    feed(warm, inputs)
    feed(cold, inputs)
    assert warm.history == cold.history
    assert [turn.extras.logs for turn in warm.turns] == [turn.extras.logs for turn in cold.turns]
    assert warm.turns == cold.turns
    for history in prefixes(warm.history):
        execution = replay(subject, history)
        execution.evict()
        assert execution.journal.take_fresh() == ()
    warm.execution.evict()
    cold.execution.evict()
