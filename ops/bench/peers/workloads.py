"""The workloads, the same for every system: each returns its figures."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

from ops.bench.peers.catalogue import Sizes
from ops.bench.peers.interface import TIMER, Contestant, Kind
from ops.bench.peers.machine import processor

Figures = dict[str, float]


async def hello(system: Contestant, sizes: Sizes, names: tuple[str, str]) -> Figures:
    """Measure calls one at a time, and at once."""
    await warm(system, sizes)
    seconds: list[float] = []
    for number in range(sizes.one):
        begun = time.perf_counter()
        answer = await system.call("hello", number)
        seconds.append(time.perf_counter() - begun)
        check(answer, number)
    rate = await at_once(system, "hello", list(range(sizes.many)), sizes.many)
    return {names[0]: statistics.median(seconds) * 1000, names[1]: rate}


async def at_once(system: Contestant, kind: Kind, values: list[int], work: int) -> float:
    """Return how much work a second gets done. ``work`` is the number of its activities."""
    begun = time.perf_counter()
    answers = await system.call_all(kind, values)
    seconds = time.perf_counter() - begun
    check(answers, values)
    return work / seconds


async def warm(system: Contestant, sizes: Sizes) -> None:
    """Let a system make its connections and plans."""
    await system.call_all("hello", range(sizes.warm))
    await system.call("hello", 0)


def check(answer: object, expected: object) -> None:
    """Refuse figures of work that was not done."""
    if answer != expected:
        raise RuntimeError(f"the answer is {str(answer)[:200]}, not {str(expected)[:200]}")


async def w1(system: Contestant, sizes: Sizes) -> Figures:
    return await hello(system, sizes, ("one_ms", "at_once"))


async def w2(system: Contestant, sizes: Sizes) -> Figures:
    await warm(system, sizes)
    work = sizes.fans * sizes.width
    return {"fan": await at_once(system, "fan", [sizes.width] * sizes.fans, work)}


async def w3(system: Contestant, sizes: Sizes) -> Figures:
    await warm(system, sizes)
    work = sizes.loops * sizes.laps
    return {"laps": await at_once(system, "loop", [sizes.laps] * sizes.loops, work)}


async def w4(system: Contestant, sizes: Sizes) -> Figures:
    await warm(system, sizes)
    figures: Figures = {}
    for name, steps in (("step_short", sizes.short), ("step_long", sizes.long)):
        begun = time.perf_counter()
        check(await system.call("sequence", steps), steps)
        figures[name] = (time.perf_counter() - begun) * 1000 / steps
    return figures


async def w5(system: Contestant, sizes: Sizes) -> Figures:
    await warm(system, sizes)
    times = await system.call_all("timer", range(sizes.timers))
    late = sorted((after - before - TIMER) * 1000 for before, after in times)
    return {
        "late_p50": statistics.median(late),
        "late_p99": late[min(len(late) - 1, len(late) * 99 // 100)],
    }


async def w6(system: Contestant, sizes: Sizes, roots: list[int]) -> Figures:
    await warm(system, sizes)
    await asyncio.sleep(sizes.settle)
    empty = await idle(sizes.idle, roots)
    await system.begin_all("park", range(sizes.parked))
    await system.marks.until(sizes.parked)
    await asyncio.sleep(sizes.settle)
    return {"idle": empty, "idle_parked": await idle(sizes.idle, roots)}


async def idle(seconds: float, roots: list[int]) -> float:
    """Return the processor time of process trees, milliseconds a second, while nothing happens."""
    before = sum(map(processor, roots))
    await asyncio.sleep(seconds)
    return (sum(map(processor, roots)) - before) * 1000 / seconds


async def w8(system: Contestant, sizes: Sizes, workers: int) -> Figures:
    await warm(system, sizes)
    rate = await at_once(system, "hello", list(range(sizes.many)), sizes.many)
    return {f"workers_{workers}": rate}


async def w9(system: Contestant, sizes: Sizes) -> Figures:
    await system.multiply(sizes.million)
    return await hello(system, sizes, ("million_ms", "million_at_once"))


PLAIN: dict[str, Callable[[Contestant, Sizes], Awaitable[Figures]]] = {
    "W1": w1,
    "W2": w2,
    "W3": w3,
    "W4": w4,
    "W5": w5,
    "W9": w9,
}
