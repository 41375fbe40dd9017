"""The orchestrations that simulated worlds run. To add one, write it and put it into
:data:`PROGRAMS`.

Code is deployed in three stages. The last one can go on with all that the earlier ones have
written, so that everything can end once it is everywhere; the second one may be broken in ways that
a deploy mends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from random import Random
from typing import Any, Final

from orchestra.activities import Activity
from orchestra.children import ChildHandle
from orchestra.context import OrchestrationContext
from orchestra.errors import (
    ActivityFailed,
    Cancelled,
    ChildEndForgotten,
    ChildFailed,
    EventTimeout,
    Failure,
    InboxFull,
    InstanceError,
    SessionLost,
    SessionTimeout,
    StaleChildHandle,
)
from orchestra.futures import DurableFuture
from orchestra.registry import OrchestrationRegistry
from orchestra.retry import RetryPolicy
from orchestra.store.kinds import HoldKind, Status

__all__ = [
    "ACTIVITIES",
    "FAR",
    "FINAL_STAGE",
    "IN_CODE",
    "KILLER",
    "PROGRAMS",
    "TRANSFER",
    "UNDO",
    "Program",
    "draw_state",
    "registry_of",
]

FLAKY: Final[Activity[..., int]] = Activity.named(
    "flaky",
    retry=RetryPolicy(
        max_attempts=None, initial_interval=timedelta(seconds=2), max_interval=timedelta(seconds=8)
    ),
)
STRICT: Final[Activity[..., int]] = Activity.named(
    "strict", retry=RetryPolicy(max_attempts=3, initial_interval=timedelta(seconds=12))
)
KILLER: Final[Activity[..., int]] = Activity.named(
    "killer", retry=RetryPolicy(max_attempts=3, initial_interval=timedelta(seconds=1))
)
"""Most often it takes its node with it."""
_PATIENT: Final = RetryPolicy(
    max_attempts=None, initial_interval=timedelta(seconds=2), max_interval=timedelta(seconds=8)
)
TRANSFER: Final[Activity[..., int]] = Activity.named("transfer", retry=_PATIENT, on_cancel="wait")
UNDO: Final[Activity[..., int]] = Activity.named("undo", retry=_PATIENT)
"""It begins when no transfer of its execution runs any more."""

FAR: Final = "far"
"""A queue that not every node serves."""

ACTIVITIES: Final = ("flaky", "strict", "killer", "transfer", "undo")
FINAL_STAGE: Final = 2

IN_CODE: Final[ContextVar[Callable[[], None]]] = ContextVar("in_code")
"""What happens while orchestration code runs on a simulated node; nothing, where code is only
replayed.
"""

_ENDED: Final = frozenset({Status.COMPLETED, Status.CANCELLED, Status.TERMINATED})

Code = Callable[[OrchestrationContext, Any], Any]
Ways = tuple[Callable[[Any], Any], Callable[[Any], Any]]


@dataclass(frozen=True, slots=True)
class Program:
    """One orchestration, and what the simulation must know of it.

    Args:
        stages: for each stage of the deployment the code by version.
        state: draws what it is started with.
        hears: the events that clients send it.
        asks: the requests that clients send it.
        helped: what makes it end once the faults have stopped, where it does not by itself: an
            event's name, or ``cancel``.
        ends: how it may end.
        holds: what it may be held for.
        versioned: pins and policies are tried on it: each version can go on with each state.
        has_children: its state is drawn by :func:`draw_state`, and says which other programs it
            starts.
        talks: its state says to which ids it sends.
        migrations: for each stage the ways up to a version and down from it.
        right: whether the output may follow from (output, the payloads that were delivered to it in
            order).
    """

    stages: tuple[Mapping[str, Code], Mapping[str, Code], Mapping[str, Code]]
    state: Callable[[Random], Any] = lambda random: random.randint(0, 4)
    hears: tuple[str, ...] = ("poke",)
    asks: tuple[str, ...] = ()
    helped: str | None = None
    ends: frozenset[Status] = _ENDED
    holds: frozenset[HoldKind] = frozenset()
    versioned: bool = False
    has_children: bool = False
    talks: bool = False
    migrations: tuple[Mapping[str, Ways], Mapping[str, Ways], Mapping[str, Ways]] = ({}, {}, {})
    right: Callable[[Any, Sequence[Any]], bool] = lambda _output, _delivered: True


def _linger() -> None:
    """Let things happen while code runs. None of them is a decision: replays pass it as they
    like.
    """
    happen = IN_CODE.get(None)
    if happen is not None:
        happen()


async def _collect(ctx: OrchestrationContext, state: Any) -> Any:
    """Takes messages over boundaries, two a lap."""
    got = [*state["got"]]
    got += [await ctx.wait_for_event("item") for _ in range(min(2, state["wanted"] - len(got)))]
    _linger()
    if len(got) < state["wanted"]:
        ctx.continue_as_new({**state, "got": got})
    return got


async def _loop(ctx: OrchestrationContext, left: Any) -> Any:
    """The product's loop: check, wait, act, continue as new."""
    value = await ctx.schedule_activity(FLAKY, left)
    _linger()
    if value % 3 == 0:
        await ctx.schedule_timer(timedelta(seconds=value % 40))
    woken = await ctx.race(ctx.wait_for_event("poke"), ctx.schedule_timer(timedelta(seconds=30)))
    if woken.index == 0:
        await ctx.schedule_activity(FLAKY, -left)
    if left:
        ctx.continue_as_new(left - 1)
    return "looped"


async def _loop_1_1_0(ctx: OrchestrationContext, left: Any) -> Any:
    _linger()
    await ctx.gather(ctx.schedule_timer(timedelta(seconds=3)), ctx.schedule_activity(FLAKY, left))
    if left:
        ctx.continue_as_new(left - 1)
    return "looped in 1.1.0"


async def _loop_1_2_0(ctx: OrchestrationContext, left: Any) -> Any:
    ctx.set_custom_status({"left": left})
    await ctx.schedule_activity(FLAKY, left)
    if left:
        ctx.continue_as_new(left - 1)
    return "looped in 1.2.0"


async def _fan(ctx: OrchestrationContext, width: Any) -> Any:
    """Many at once, in branches that wait several times; a failure is an answer too."""

    async def branch(number: int) -> Any:
        try:
            first: Any = await ctx.schedule_activity(STRICT, number)
        except ActivityFailed as error:
            first = error.attempts
        _linger()
        return [first is not None, await ctx.schedule_activity(FLAKY, number)]

    return await ctx.gather(*(branch(number) for number in range(width)))


async def _group(ctx: OrchestrationContext, width: Any) -> Any:
    """The same in a task group, whose branches are cancelled when one of them fails."""

    async def branch(number: int) -> int:
        await ctx.schedule_timer(timedelta(seconds=number))
        _linger()
        return await ctx.schedule_activity(STRICT, number)

    async with ctx.task_group() as group:
        tasks = [group.create_task(branch(number)) for number in range(width)]
    return len(tasks)


async def _guarded(ctx: OrchestrationContext, _: Any) -> Any:
    """Compensates when it is cancelled."""
    try:
        await ctx.schedule_activity(FLAKY, 1)
        await ctx.wait_for_event("never")
    except Cancelled:
        await ctx.schedule_activity(FLAKY, 2)
        _linger()
        raise


async def _stubborn(ctx: OrchestrationContext, left: Any) -> Any:
    """Answers a cancel with a boundary: the mark must cross it, and be told again (rule 18)."""
    try:
        await ctx.wait_for_event("never")
    except Cancelled:
        _linger()
        if left:
            ctx.continue_as_new(left - 1)
        raise


async def _sleeper(ctx: OrchestrationContext, longest: Any) -> Any:
    """Timers at once and after each other, short ones and long ones; none may be early."""

    async def nap(seconds: float) -> None:
        due = ctx.now() + timedelta(seconds=seconds)
        await ctx.schedule_timer(due)
        if ctx.now() < due:
            raise AssertionError("woken early")

    await ctx.gather(*(nap(ctx.random() * longest) for _ in range(3)))
    await nap(longest)
    return "slept"


async def _racer(ctx: OrchestrationContext, rounds: Any) -> Any:
    """Races whose losers must leave nothing behind."""
    won: list[int] = []
    for number in range(rounds):
        first = await ctx.race(
            ctx.schedule_activity(FLAKY, number),
            ctx.schedule_timer(timedelta(seconds=4)),
            ctx.wait_for_event("poke"),
        )
        won.append(first.index)
        _linger()
    return won


async def _spinner(ctx: OrchestrationContext, left: Any) -> Any:
    """Laps that never wait, more than one write may hold."""
    ctx.trace_info("lap", left=left, mark=ctx.uuid4().hex)
    _linger()
    if left:
        ctx.continue_as_new(left - 1)
    return "spun"


async def _climber(ctx: OrchestrationContext, left: Any) -> Any:
    """Names the version of its next lap itself, up and down, also where nobody has it yet."""
    await ctx.schedule_activity(FLAKY, left)
    if left:
        _linger()
        versions: tuple[str, ...] = ("1.0.0", "2.0.0", "1.1.0")
        ctx.continue_as_new(left - 1, version=versions[int(left) % 3])
    return ctx.version


async def _branching(ctx: OrchestrationContext, left: Any) -> Any:
    """Continues as new in a branch, while another one has something to tidy up (rule 17)."""

    async def leave() -> None:
        await ctx.schedule_timer(timedelta(seconds=2))
        if left:
            ctx.continue_as_new(left - 1)

    async def tidy() -> None:
        try:
            await ctx.wait_for_event("never")
        finally:
            await ctx.schedule_activity(FLAKY, left)

    await ctx.race(leave(), tidy())
    return "left"


async def _failing(ctx: OrchestrationContext, left: Any) -> Any:
    """Fails by itself, which is nobody else's affair (I12)."""
    await ctx.schedule_activity(FLAKY, left)
    if left == 0:
        raise Failure("enough")
    ctx.continue_as_new(left - 1)


async def _deadly(ctx: OrchestrationContext, left: Any) -> Any:
    """Its activity kills nodes. Crashes are attempts, so it comes to an end (rule 14)."""
    try:
        await ctx.schedule_activity(KILLER, left)
        _linger()
    except ActivityFailed:
        return "given up"
    return "survived"


async def _errand(ctx: OrchestrationContext, left: Any) -> Any:
    """Has others do its work, in a queue of theirs, and does not always wait for it."""
    first = await ctx.race(
        ctx.schedule_activity(FLAKY.options(queue=FAR), left),
        ctx.wait_for_event("poke"),
        ctx.schedule_timer(timedelta(seconds=40)),
    )
    try:
        await ctx.gather(
            ctx.schedule_activity(STRICT.options(queue=FAR), left),
            ctx.schedule_activity(FLAKY, first.index),
        )
        _linger()
        if left % 2:
            await ctx.schedule_activity(KILLER.options(queue=FAR), left)
    except ActivityFailed:
        _linger()
    ctx.schedule_activity(
        FLAKY.options(queue=FAR), -left
    )  # given up at the boundary, or at the end
    if left:
        ctx.continue_as_new(left - 1)
    return "ran"


async def _saga(ctx: OrchestrationContext, left: Any) -> Any:
    """Undoes what it has begun once that has ended, wherever it runs (scenario 59): at a cancel,
    and after a lost race.

    It continues as new beside a transfer, which ends first.
    """
    transfer = TRANSFER.options(queue=FAR) if left % 2 else TRANSFER
    try:
        first = await ctx.race(ctx.schedule_activity(transfer, left), ctx.wait_for_event("poke"))
        if first.index == 1:
            await ctx.schedule_activity(UNDO, left)
        await ctx.gather(
            ctx.schedule_activity(transfer.options(on_cancel=None), left),
            ctx.schedule_activity(TRANSFER, -left),
        )
        _linger()
    except Cancelled:
        await ctx.schedule_activity(UNDO, -left)
        raise

    async def leave() -> None:
        await ctx.schedule_timer(timedelta(seconds=1))
        if left:
            ctx.continue_as_new(left - 1)

    async def works() -> None:
        await ctx.schedule_activity(transfer, left)

    await ctx.race(leave(), works())
    if left:
        ctx.continue_as_new(left - 1)
    return "settled"


async def _tied(ctx: OrchestrationContext, left: Any) -> Any:
    """Has one node do several things, in sessions that are lost with it. It gives up one that no
    node takes for long.
    """
    queue = FAR if left % 2 else None
    lost = 0
    try:
        async with ctx.session(
            FLAKY, STRICT, KILLER, queue=queue, timeout=timedelta(seconds=60)
        ) as session:
            try:
                await session.schedule_activity(FLAKY, left)
                _linger()
                await ctx.race(
                    session.schedule_activity(STRICT, left),
                    ctx.schedule_timer(timedelta(seconds=9)),
                )
                await ctx.gather(*(session.schedule_activity(FLAKY, n) for n in range(2)))
                if left % 3 == 2:
                    await session.schedule_activity(KILLER, left)
                if left > 2:
                    ctx.continue_as_new(left - 1)
            except SessionLost:
                try:
                    session.schedule_activity(FLAKY, left)
                except SessionLost:
                    lost += 1
                _linger()
                if not lost:
                    raise AssertionError("a lost session takes an activity") from None
    except (ActivityFailed, SessionTimeout):
        _linger()
    if left:
        ctx.continue_as_new(left - 1)
    return "tied"


async def _drifting(ctx: OrchestrationContext, left: Any) -> Any:
    """What the nondeterministic code of the second stage was before, and will be again."""
    await ctx.schedule_activity(FLAKY, left)
    _linger()
    await ctx.race(ctx.wait_for_event("poke"), ctx.schedule_timer(timedelta(seconds=20)))
    if left:
        ctx.continue_as_new(left - 1)
    return "arrived"


async def _drifting_broken(ctx: OrchestrationContext, left: Any) -> Any:
    if ctx.is_replaying:
        await ctx.schedule_timer(timedelta(seconds=1))
    await _drifting(ctx, left)
    return "arrived"


async def _picky(ctx: OrchestrationContext, left: Any) -> Any:
    """Its second stage cannot read the state, and holds it; the third one can."""
    await ctx.schedule_activity(FLAKY, left)
    if left:
        ctx.continue_as_new(left - 1)
    return "read"


async def _picky_1_1_0(ctx: OrchestrationContext, left: dict[str, int]) -> Any:
    return await _picky(ctx, left["left"])


async def _patient(ctx: OrchestrationContext, left: Any) -> Any:
    """Sleeps until it is asked to reach its boundary, for a long time if nobody asks."""
    asked = await ctx.race(
        ctx.schedule_timer(timedelta(seconds=90)), ctx.wait_for_boundary_request()
    )
    if asked.index == 1 and not ctx.boundary_requested:
        raise AssertionError("it was asked, and is not")
    await ctx.schedule_activity(FLAKY, left)
    _linger()
    if left:
        ctx.continue_as_new(left - 1)
    return "woken"


async def _talker(ctx: OrchestrationContext, state: Any) -> Any:
    """Sends to others, to itself and to nobody, and learns what became of some of it."""
    left, target = state["left"], state["targets"][int(state["left"]) % len(state["targets"])]
    ctx.raise_event(target, "poke", [ctx.instance_id, ctx.execution_id])
    _linger()
    if left % 3 == 2:
        ctx.continue_as_new({**state, "left": left - 1})
    index = None
    try:
        sent = ctx.raise_event(target, "item", ctx.uuid4().hex)
        index = (await ctx.race(sent, ctx.schedule_activity(FLAKY, left))).index
    except InstanceError:
        _linger()
    try:
        await ctx.raise_event(ctx.instance_id, "echo", [left, index])
        heard = await ctx.wait_for_event("echo")
    except InboxFull:
        heard = None
    if left == 1 and state["cancels"]:
        try:
            await ctx.cancel(target, "talked out of it")
        except InstanceError:
            _linger()
    if left:
        ctx.continue_as_new({**state, "left": left - 1})
    return heard


def _draw_talk(random: Random, names: Sequence[str], slots: int, living: Sequence[str]) -> Any:
    """Draw to whom it sends: mostly instances that live, ids that clients start, or nobody."""
    hearing = [one for one in living if one.startswith("collect-")] or living
    targets = [
        f"{_NOBODY if random.random() < 0.1 else random.choice(names)}-{random.randrange(slots)}"
        for _ in range(3)
    ]
    for place in range(3):
        if living and random.random() < 0.8:
            targets[place] = random.choice(random.choice((living, hearing)))
    return {
        "left": random.randint(0, 5),
        "targets": targets,
        "cancels": random.random() < 0.3,
    }


@dataclass(frozen=True)
class Coins:
    """The state of the first version."""

    left: int
    coins: int = 0


@dataclass(frozen=True)
class Purse:
    """The state since 1.1.0: each lap adds a coin, and each migration says that it was there. Both
    versions can be started with the number of laps alone.
    """

    left: int
    purse: list[int] = field(default_factory=list[int])
    crossed: list[str] = field(default_factory=list[str])


async def _mover(ctx: OrchestrationContext, state: Coins) -> Any:
    await ctx.schedule_activity(FLAKY, state.left)
    _linger()
    if state.left:
        ctx.continue_as_new(Coins(state.left - 1, state.coins + 1))
    return state.coins


async def _mover_1_1_0(ctx: OrchestrationContext, state: Purse) -> Any:
    if len(state.crossed) > 1:
        raise AssertionError(f"it was migrated twice: {state}")
    await ctx.schedule_activity(FLAKY, state.left)
    if state.left:
        ctx.continue_as_new(Purse(state.left - 1, [*state.purse, 1], state.crossed))
    return len(state.purse)


def _up(state: Coins) -> Purse:
    return Purse(state.left, [1] * state.coins, ["1.1.0"])


def _up_broken(state: Coins) -> Purse:
    if state.left % 2:
        raise ValueError("it takes even numbers only")
    return _up(state)


def _down(state: Purse) -> Coins:
    return Coins(state.left, len(state.purse))


async def _family(ctx: OrchestrationContext, state: Any) -> Any:
    """Starts instances as its state says, and deals with each of them in its own way; the same
    again in each lap.
    """
    _linger()
    for kid in state["kids"]:
        if kid["how"] == "detach":
            ctx.start_detached(
                kid["name"], kid["state"], instance_id=kid["id"], version=kid["version"]
            )
        elif kid["how"] == "leave":
            _start_kid(ctx, kid)
    met = await ctx.gather(
        *(_meet(ctx, kid) for kid in state["kids"] if kid["how"] not in ("detach", "leave"))
    )
    if state["laps"]:
        ctx.continue_as_new({**state, "laps": state["laps"] - 1})
    return met


async def _family_1_1_0(ctx: OrchestrationContext, state: Any) -> Any:
    """One after the other."""
    met = [await _meet(ctx, kid) for kid in state["kids"] if kid["how"] in ("await", "race")]
    if state["laps"]:
        ctx.continue_as_new({**state, "laps": state["laps"] - 1})
    return met


def _start_kid(ctx: OrchestrationContext, kid: Any) -> DurableFuture[Any]:
    return ctx.start_child(
        kid["name"],
        kid["state"],
        instance_id=kid["id"],
        version=kid["version"],
        on_parent_close=kid["close"],
    )


async def _meet(ctx: OrchestrationContext, kid: Any) -> str:
    """Wait for a child to end, for a while, or only for as long as it takes to change one's
    mind.
    """

    async def at_once() -> None:
        pass

    child = _start_kid(ctx, kid)
    try:
        if kid["how"] == "vain":
            await ctx.race(child, at_once())
            return "given up"
        if (
            kid["how"] == "race"
            and (await ctx.race(child, ctx.schedule_timer(timedelta(seconds=20)))).index
        ):
            return "given up"
        await child
    except ChildFailed as error:
        _linger()
        return error.status
    return "completed"


@dataclass(frozen=True)
class Keeping:
    """What :func:`_keeper` has started, and still awaits."""

    laps: int
    kids: list[Any]
    open: list[ChildHandle[Any]] = field(default_factory=list[ChildHandle[Any]])


async def _keeper(ctx: OrchestrationContext, state: Keeping) -> Any:
    """Starts a background child in each lap, and reads what has ended of those of former laps."""
    kid = state.kids[state.laps % len(state.kids)]
    waiting = [*state.open]
    waiting.append(
        ctx.start_background_child(
            kid["name"], kid["state"], instance_id=kid["id"], version=kid["version"]
        )
    )
    _linger()
    if state.laps % 3 == 2:
        ctx.continue_as_new(Keeping(state.laps - 1, state.kids, waiting))
    first = waiting[0]
    try:
        came = await ctx.race(
            ctx.wait_for_child(first),
            ctx.schedule_timer(timedelta(seconds=15)),
            ctx.wait_for_event("poke"),
        )
        if came.index == 0:
            await ctx.wait_for_child(waiting.pop(0))
            if int(ctx.random() * 2):
                waiting.append(first)  # a later lap awaits it again
    except (ChildFailed, ChildEndForgotten, StaleChildHandle):
        waiting.remove(first)
    _linger()
    if state.laps:
        ctx.continue_as_new(Keeping(state.laps - 1, state.kids, waiting))
    return await ctx.gather(*(_known_end(ctx, handle) for handle in waiting))


async def _known_end(ctx: OrchestrationContext, handle: ChildHandle[Any]) -> str:
    """Return how a background child has ended, or that it still runs."""
    try:
        await ctx.wait_for_child(handle, timeout=timedelta(seconds=60))
    except ChildFailed as error:
        return error.status
    except (ChildEndForgotten, StaleChildHandle):
        return "lost"
    except EventTimeout:
        return "late"
    return "completed"


async def _answering(ctx: OrchestrationContext, left: Any) -> Any:
    """Answers requests at once, or late, or in the next lap."""
    first = ctx.wait_for_request("ask", str)
    woken = await ctx.race(first, ctx.wait_for_event("poke"))
    _linger()
    if woken.index == 0:
        request = woken.value
        answer = f"{request.request_id} in lap {ctx.execution_id}"
        match int(ctx.random() * 5):
            case 0:
                request.reject("not now")
            case 1:
                await ctx.schedule_activity(FLAKY, left)
                request.reply(answer)
                request.reject("too late")
            case 2:
                second = await ctx.race(
                    ctx.wait_for_request("ask", str), ctx.schedule_timer(timedelta(seconds=5))
                )
                if second.index == 0:
                    second.value.reply(f"{second.value.request_id} before the first")
                request.reply(answer)
            case 3:
                await ctx.schedule_timer(timedelta(seconds=3))  # the next lap receives it again
            case _:
                request.reply(answer)
    if left:
        ctx.continue_as_new(left - 1)
    return "done"


async def _speaking(ctx: OrchestrationContext, left: Any) -> Any:
    """Publishes in each turn, over laps; each value once."""
    for turn in range(3):
        ctx.publish("said", f"{ctx.execution_id}/{turn}")
        _linger()
        if int(ctx.random() * 2):
            await ctx.schedule_activity(FLAKY, left)
        else:
            await ctx.race(ctx.wait_for_event("poke"), ctx.schedule_timer(timedelta(seconds=3)))
    ctx.publish("said", f"{ctx.execution_id}/last")
    if left:
        ctx.continue_as_new(left - 1)
    return "done"


def _everywhere(code: Code) -> tuple[Mapping[str, Code], Mapping[str, Code], Mapping[str, Code]]:
    return {"1.0.0": code}, {"1.0.0": code}, {"1.0.0": code}


PROGRAMS: Final[Mapping[str, Program]] = {
    "collect": Program(
        _everywhere(_collect),
        state=lambda random: {"got": [], "wanted": random.randint(1, 7)},
        hears=("item", "item", "item", "poke"),
        helped="item",
        right=lambda output, delivered: output == list(delivered),
    ),
    "loop": Program(
        (
            {"1.0.0": _loop},
            {"1.0.0": _loop, "1.1.0": _loop_1_1_0},
            {"1.0.0": _loop, "1.1.0": _loop_1_1_0, "1.2.0": _loop_1_2_0},
        ),
        versioned=True,
    ),
    "fan": Program(_everywhere(_fan), right=lambda output, _: all(one[0] for one in output)),
    "group": Program(_everywhere(_group), ends=_ENDED | {Status.FAILED}),
    "guarded": Program(_everywhere(_guarded), helped="cancel"),
    "stubborn": Program(_everywhere(_stubborn), helped="cancel"),
    "sleeper": Program(_everywhere(_sleeper), state=lambda random: random.choice((1, 5, 12, 60))),
    "racer": Program(_everywhere(_racer)),
    "spinner": Program(_everywhere(_spinner), state=lambda random: random.choice((0, 3, 9, 20))),
    "climber": Program(
        (
            {"1.0.0": _climber},
            {"1.0.0": _climber, "1.1.0": _climber},
            {"1.0.0": _climber, "1.1.0": _climber, "2.0.0": _climber},
        ),
        versioned=True,
    ),
    "branching": Program(_everywhere(_branching), state=lambda random: random.randint(0, 2)),
    "failing": Program(_everywhere(_failing), ends=_ENDED - {Status.COMPLETED} | {Status.FAILED}),
    "deadly": Program(_everywhere(_deadly)),
    "errand": Program(_everywhere(_errand), state=lambda random: random.randint(0, 3)),
    "tied": Program(_everywhere(_tied), state=lambda random: random.randint(0, 4)),
    "saga": Program(_everywhere(_saga), state=lambda random: random.randint(0, 3)),
    "drifting": Program(
        ({"1.0.0": _drifting}, {"1.0.0": _drifting_broken}, {"1.0.0": _drifting}),
        holds=frozenset({HoldKind.NONDETERMINISM}),
    ),
    "picky": Program(
        (
            {"1.0.0": _picky},
            {"1.0.0": _picky, "1.1.0": _picky_1_1_0},
            {"1.0.0": _picky, "1.1.0": _picky_1_1_0, "1.2.0": _picky},
        ),
        holds=frozenset({HoldKind.STATE, HoldKind.MIGRATION}),
    ),
    "patient": Program(_everywhere(_patient), state=lambda random: random.randint(0, 3)),
    "mover": Program(
        (
            {"1.0.0": _mover},
            {"1.0.0": _mover, "1.1.0": _mover_1_1_0},
            {"1.0.0": _mover, "1.1.0": _mover_1_1_0},
        ),
        state=lambda random: {"left": random.randint(0, 4)},
        holds=frozenset({HoldKind.MIGRATION}),
        migrations=({}, {"1.1.0": (_up_broken, _down)}, {"1.1.0": (_up, _down)}),
        versioned=True,
    ),
    "talker": Program(_everywhere(_talker), talks=True),
    "keeper": Program(
        _everywhere(_keeper),
        has_children=True,
        right=lambda output, _: (
            set(output) <= {"completed", "failed", "cancelled", "terminated", "lost", "late"}
        ),
    ),
    "speaking": Program(_everywhere(_speaking)),
    "answering": Program(
        _everywhere(_answering),
        state=lambda random: random.randint(0, 6),
        asks=("ask", "ask", "ask", "else"),
        helped="poke",
    ),
    "family": Program(
        (
            {"1.0.0": _family},
            {"1.0.0": _family, "1.1.0": _family_1_1_0},
            {"1.0.0": _family, "1.1.0": _family_1_1_0, "1.2.0": _family},
        ),
        versioned=True,
        has_children=True,
        right=lambda output, _: (
            set(output) <= {"completed", "failed", "cancelled", "terminated", "given up"}
        ),
    ),
}

_NOBODY: Final = "nobody"
"""A name that no node ever has. A child of it fails; a detached start would wait for ever."""


def draw_state(
    name: str,
    random: Random,
    names: Sequence[str],
    slots: int,
    generations: int = 2,
    living: Sequence[str] = (),
) -> Any:
    """Draw what a program is started with. Its children are of ``names``, and often of the ids that
    clients use, too. What it sends goes to the ``living``.
    """
    program = PROGRAMS[name]
    if program.talks:
        return _draw_talk(random, names, slots, living)
    if not program.has_children:
        return program.state(random)
    others = [other for other in names if generations or not PROGRAMS[other].has_children] or [
        _NOBODY
    ]
    kids = [
        _draw_kid(random, random.choice(others), names, slots, generations)
        for _ in range(random.choice((1, 1, 2, 3)))
    ]
    return {"laps": random.choice((0, 0, 1, 2)), "kids": kids}


def _draw_kid(random: Random, name: str, names: Sequence[str], slots: int, generations: int) -> Any:
    how = random.choice(("await", "await", "race", "leave", "detach", "vain"))
    if name == _NOBODY or (how in ("await", "leave") and random.random() < 0.05):
        how = "await" if how == "detach" else how
        return {
            "name": _NOBODY,
            "state": None,
            "id": None,
            "version": None,
            "how": how,
            "close": "abandon",
        }
    versions = [*PROGRAMS[name].stages[FINAL_STAGE]]
    return {
        "name": name,
        "state": draw_state(name, random, names, slots, generations - 1),
        "id": f"{name}-{random.randrange(slots)}" if random.random() < 0.3 else None,
        "version": random.choice(versions)
        if PROGRAMS[name].versioned and random.random() < 0.2
        else None,
        "how": how,
        "close": random.choice(("abandon", "cancel", "terminate")),
    }


@cache
def _all_of(stage: int) -> OrchestrationRegistry:
    builder = OrchestrationRegistry.builder()
    for name, program in PROGRAMS.items():
        for version, code in program.stages[stage].items():
            builder.register(name, code, version=version)
        for version, (up, down) in program.migrations[stage].items():
            builder.migrate(name, version, up, down)
    return builder.build()


def registry_of(stage: int, names: Iterable[str] = PROGRAMS) -> OrchestrationRegistry:
    """Return what a node of that stage has registered."""
    everything = _all_of(stage)
    chosen = {
        name: {version: everything.get(name, version) for version in everything.versions(name)}
        for name in names
    }
    migrations = {name: everything._migrations_of(name) for name in chosen}
    return OrchestrationRegistry(chosen, {}, {}, migrations)
