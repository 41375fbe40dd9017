"""duroxide: generators, driven by a runtime in Rust."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import threading
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import duroxide

from ops.bench.peers.interface import CHAIN, LEASE, STEP, TIMER, Contestant, Kind, Marks, Place

PATIENCE = 600_000
"""Milliseconds."""

POLL = 10
"""Milliseconds."""

Steps = Generator[Any, Any, Any]


def hello(ctx: Any, value: int) -> Steps:
    return (yield ctx.schedule_activity("echo", value))


def fan(ctx: Any, count: int) -> Steps:
    tasks = [ctx.schedule_activity("echo", number) for number in range(count)]
    return len((yield ctx.all(tasks)))


def loop(ctx: Any, state: list[int]) -> Steps:
    laps, number = state
    done = yield ctx.schedule_activity("echo", number + 1)
    if done == laps:
        return done
    return (yield ctx.continue_as_new([laps, done]))


def sequence(ctx: Any, steps: int) -> Steps:
    for step in range(steps):
        yield ctx.schedule_activity("echo", step)
    return steps


def timer(ctx: Any, _number: int) -> Steps:
    before = yield ctx.schedule_activity("stamp", None)
    yield ctx.schedule_timer(int(TIMER * 1000))
    after = yield ctx.schedule_activity("stamp", None)
    return [before, after]


def park(ctx: Any, _number: int) -> Steps:
    yield ctx.schedule_activity("arrive", None)
    yield ctx.wait_for_event("go")


def chain(ctx: Any, name: str) -> Steps:
    for _ in range(CHAIN):
        yield ctx.schedule_activity("note", name)


class Duroxide(Contestant):
    """A runtime in a thread, and the synchronous client."""

    def __init__(self, place: Place, marks: Marks) -> None:
        super().__init__(place, marks)
        self._ids = itertools.count()
        self._pool = ThreadPoolExecutor(16)
        self._runtime: Any = None
        self.client: Any = None

    async def open(self, *, work: bool = True) -> None:
        store = self.place.store
        provider = (
            duroxide.SqliteProvider.open(f"sqlite:{store}")
            if store.endswith(".db")
            else duroxide.PostgresProvider.connect(store)
        )
        self.client = duroxide.Client(provider)
        if not work:
            return
        options = duroxide.RuntimeOptions(
            log_level="error",
            orchestration_concurrency=4,
            worker_concurrency=self.place.chains or 8,
            dispatcher_poll_interval_ms=None if self.place.idle else POLL,
            worker_lock_timeout_ms=LEASE * 1000,
        )
        runtime = duroxide.Runtime(provider, options)

        def note(_ctx: Any, name: str) -> str:
            self.marks.note(name)
            time.sleep(STEP)
            return name

        runtime.register_activity("echo", lambda _ctx, value: value)
        runtime.register_activity("stamp", lambda _ctx, _value: time.time())
        runtime.register_activity("arrive", lambda _ctx, _value: self.marks.arrive())
        runtime.register_activity("note", note)
        for function in (hello, fan, loop, sequence, timer, park, chain):
            runtime.register_orchestration(function.__name__, function)
        self._runtime = runtime
        threading.Thread(target=runtime.start, daemon=True).start()

    async def close(self) -> None:
        if self._runtime is not None:
            await asyncio.to_thread(self._runtime.shutdown, 1000)

    def _start(self, kind: Kind, value: Any) -> str:
        name = f"{kind}-{os.getpid()}-{next(self._ids)}"
        self.client.start_orchestration(name, kind, [value, 0] if kind == "loop" else value)
        return name

    def _result(self, name: str) -> Any:
        ended = self.client.wait_for_orchestration(name, PATIENCE)
        if ended.status != "Completed":
            raise RuntimeError(f"{name}: {ended.status}: {json.dumps(ended.error)}")
        return ended.output

    async def call(self, kind: Kind, value: Any) -> Any:
        return self._result(self._start(kind, value))

    async def call_all(self, kind: Kind, values: Sequence[Any]) -> list[Any]:
        def both() -> list[Any]:
            names = list(self._pool.map(lambda value: self._start(kind, value), values))
            return list(self._pool.map(self._result, names))

        return await asyncio.to_thread(both)

    async def begin_all(self, kind: Kind, values: Sequence[Any]) -> None:
        def start() -> None:
            list(self._pool.map(lambda value: self._start(kind, value), values))

        await asyncio.to_thread(start)
