"""Counts the cost of one operation in Python: calls of functions, processor time, and objects that
the collector visits.

    python ops/bench/calls.py [--instructions] [--top N] [--save FILE] [--against FILE] [--repeat N]

An operation is an instance of W1 (start, one activity, end), or a lap of W3 (one activity,
``continue_as_new``); see ``bench.py``. Calls are counted in all threads while the workload runs, on
a store with full durability. Unlike seconds they are the same on a quick machine and on a slow or
busy one, to about one call in a hundred. Calls of functions in C are not counted.

Calls differ in length: with ``--instructions`` the instructions of bytecode are counted that each
function carries out itself.

``--save`` writes the calls of each function to a file, and ``--against`` shows the differences from
such a file. To compare with another checkout, run this script there, or here with ``PYTHONPATH``
set to it.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

import anyio
from bench import Sqlite, measured, w1, w3

from orchestra import OrchestrationContext, OrchestrationRegistry, Runtime, activity

INSTANCES: Final = 1_000
LOOPS, LAPS = 50, 40
WAITING: Final = 500

Workload = Callable[[Runtime], Awaitable[None]]

WORKLOADS: Final[dict[str, tuple[Workload, int]]] = {
    "W1, an instance": (lambda runtime: w1(runtime, INSTANCES), INSTANCES),
    "W3, a lap": (lambda runtime: w3(runtime, LOOPS, LAPS), LOOPS * LAPS),
}


class CallCounter:
    """Counts calls of Python functions, in each thread apart, so that no count is lost between two
    threads.
    """

    def __init__(self) -> None:
        self._counts: list[dict[CodeType, int]] = []

    def install(self) -> None:
        """Count in this thread, and in those that are started from now on."""
        threading.setprofile(self._begin_thread)
        sys.setprofile(self._of_a_thread())

    def remove(self) -> None:
        """Stop counting."""
        threading.setprofile(None)  # pyright: ignore[reportArgumentType] - typeshed leaves out that None ends it
        sys.setprofile(None)

    def begin_anew(self) -> None:
        """Forget what was counted so far."""
        for counts in self._counts:
            counts.clear()

    def take(self) -> Counter[CodeType]:
        """Return the calls of each function since the last reset."""
        total: Counter[CodeType] = Counter()
        for counts in self._counts:
            total.update(dict(counts))
        return total

    def _begin_thread(self, frame: FrameType, event: str, argument: object) -> None:
        count = self._of_a_thread()
        sys.setprofile(count)
        count(frame, event, argument)

    def _of_a_thread(self) -> Callable[[FrameType, str, object], None]:
        counts: dict[CodeType, int] = {}
        self._counts.append(counts)

        def count(frame: FrameType, event: str, _argument: object) -> None:
            if event == "call":
                counts[frame.f_code] = counts.get(frame.f_code, 0) + 1

        return count


class InstructionCounter(CallCounter):
    """Counts the instructions of bytecode that are carried out, likewise."""

    def install(self) -> None:
        threading.settrace(self._begin_thread)
        sys.settrace(self._of_a_thread())

    def remove(self) -> None:
        threading.settrace(None)  # pyright: ignore[reportArgumentType] - typeshed leaves out that None ends it
        sys.settrace(None)

    def _begin_thread(self, frame: FrameType, event: str, argument: object) -> Any:
        count = self._of_a_thread()
        sys.settrace(count)
        return count(frame, event, argument)

    def _of_a_thread(self) -> Callable[[FrameType, str, object], Any]:
        counts: dict[CodeType, int] = {}
        self._counts.append(counts)

        def count(frame: FrameType, event: str, _argument: object) -> Any:
            if event == "call":
                frame.f_trace_opcodes, frame.f_trace_lines = True, False
            elif event == "opcode":
                counts[frame.f_code] = counts.get(frame.f_code, 0) + 1
            return count

        return count


def calls_of(
    side: Sqlite, workload: Workload, operations: int, counter: CallCounter
) -> dict[str, float]:
    """Return the calls (or instructions) of each function for one operation."""
    counted = Counter[CodeType]()

    async def work(runtime: Runtime) -> None:
        counter.begin_anew()
        await workload(runtime)
        counted.update(counter.take())

    counter.install()
    try:
        anyio.run(measured, side, work)
    finally:
        counter.remove()
    named: Counter[str] = Counter()
    for code, calls in counted.items():
        named[name_of(code)] += calls
    return {name: calls / operations for name, calls in named.items()}


def name_of(code: CodeType) -> str:
    """Return the file, from its package on, and the function. What a dataclass has written is told
    by its first parameters.
    """
    if code.co_filename == "<string>":
        return f"{code.co_name}({', '.join(code.co_varnames[1:4])})"
    parts = Path(code.co_filename).parts
    packages = [
        number for number, part in enumerate(parts) if part in ("orchestra", "site-packages")
    ]
    short = (
        parts[packages[-1] + (parts[packages[-1]] == "site-packages") :] if packages else parts[-2:]
    )
    return f"{'/'.join(short)}:{code.co_qualname}"


def seconds_of(side: Sqlite, workload: Workload, operations: int) -> float:
    """Return the seconds of processor time of one operation, of all threads."""
    seconds: list[float] = []

    async def work(runtime: Runtime) -> None:
        begun = time.process_time()
        await workload(runtime)
        seconds.append(time.process_time() - begun)

    anyio.run(measured, side, work)
    return seconds[0] / operations


def objects_of(side: Sqlite) -> float:
    """Return how many objects the cycle collector visits for one instance whose activity waits."""
    begun: list[None] = []
    gate: anyio.Event
    all_wait: anyio.Event

    @activity
    async def wait() -> None:
        begun.append(None)
        if len(begun) % WAITING == 0:
            all_wait.set()
        await gate.wait()

    async def one(ctx: OrchestrationContext, _: None) -> None:
        await ctx.schedule_activity(wait)

    async def begin_more(runtime: Runtime) -> int:
        nonlocal all_wait
        all_wait = anyio.Event()
        for _ in range(WAITING):
            await runtime.client.start("one")
        await all_wait.wait()
        await anyio.sleep(0.2)  # what only passes is gone by then
        gc.collect()
        return len(gc.get_objects())

    async def main() -> float:
        nonlocal gate
        gate = anyio.Event()
        registry = OrchestrationRegistry.builder().register("one", one).build()
        with side.store() as provider:
            async with Runtime(
                provider, registry, [wait], max_concurrent_activities=2 * WAITING
            ) as runtime:
                before = await begin_more(runtime)
                after = await begin_more(runtime)
                gate.set()
        return (after - before) / WAITING

    return anyio.run(main)


def table(title: str, calls: dict[str, float], before: dict[str, float], most: int) -> str:
    """Return the functions with the most calls or, against earlier counts, with the greatest
    differences.
    """
    names = sorted(
        calls.keys() | before.keys(),
        key=lambda name: -abs(calls.get(name, 0.0) - before.get(name, 0.0)),
    )[:most]
    rows = [
        f"{calls.get(name, 0):8.2f} {calls.get(name, 0) - before.get(name, 0):+8.2f}  {name}"
        for name in names
    ]
    return "\n".join([f"\n{title}", *rows])


def main() -> None:
    """Count, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path(tempfile.gettempdir()),
        help="where the databases are made",
    )
    parser.add_argument(
        "--top", type=int, default=0, help="show so many functions of each workload"
    )
    parser.add_argument("--save", type=Path, help="write the calls of each function to this file")
    parser.add_argument(
        "--instructions",
        action="store_true",
        help="count instructions of bytecode, not calls: ten times slower",
    )
    parser.add_argument(
        "--against", type=Path, help="show differences from what was saved in this file"
    )
    parser.add_argument(
        "--repeat",
        type=int,
        default=3,
        help="rounds of processor time; medians are shown; 0 for none",
    )
    options = parser.parse_args()
    side = Sqlite(options.directory)
    make_counter = InstructionCounter if options.instructions else CallCounter
    calls = {
        title: calls_of(side, *workload, make_counter()) for title, workload in WORKLOADS.items()
    }
    before: dict[str, dict[str, float]] = (
        json.loads(options.against.read_text()) if options.against else {}
    )
    for title, workload in WORKLOADS.items():
        seconds = [seconds_of(side, *workload) for _ in range(options.repeat)]
        shown = (
            f" {statistics.median(seconds) * 1e6:5,.0f} us of processor time |" if seconds else ""
        )
        what = "instructions" if options.instructions else "calls"
        print(f"| {title:<20} | {sum(calls[title].values()):5,.0f} {what} |{shown}")
    print(
        f"| {'a waiting activity':<20} | {objects_of(side):5,.0f} objects that the collector "
        "walks through |"
    )
    for title in calls if options.top else ():
        print(table(title, calls[title], before.get(title, {}), options.top))
    if options.save:
        options.save.write_text(json.dumps(calls))


if __name__ == "__main__":
    main()
