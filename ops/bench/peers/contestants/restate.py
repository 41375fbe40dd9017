"""Restate: a server that calls services over HTTP; the service and the client are in this process."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import httpx
import hypercorn
import hypercorn.asyncio
import restate

from ops.bench.peers.interface import CHAIN, STEP, TIMER, Contestant, Kind, Marks, Place

IN_FLIGHT = 64
"""Requests of the client under way; httpx slows down with many more. Timers have no such limit."""
SUSPEND = timedelta(seconds=1)
"""After so long without progress a waiting invocation leaves the service."""


class Restate(Contestant):
    """A service under hypercorn, and the SDK's client."""

    def __init__(self, place: Place, marks: Marks) -> None:
        super().__init__(place, marks)
        self._ports: dict[str, int] = json.loads(place.store)
        self._stack = AsyncExitStack()
        self._stop = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None
        self._http: httpx.AsyncClient
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._loops = 0

    async def open(self, *, work: bool = True) -> None:
        if work:
            await self._serve()
        self._http = await self._stack.enter_async_context(
            httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{self._ports['ingress']}",
                timeout=600,
                limits=httpx.Limits(max_connections=None),
            )
        )

    async def _serve(self) -> None:
        config = hypercorn.Config()
        config.bind = [f"127.0.0.1:{self._ports['service']}"]
        config.h2_max_concurrent_streams = 10_000
        config.loglevel = "ERROR"
        self._serving = asyncio.create_task(
            hypercorn.asyncio.serve(
                restate.app([self._service()]), config, shutdown_trigger=self._stop.wait
            )
        )
        uri = f"http://127.0.0.1:{self._ports['service']}"
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self._ports['admin']}") as admin:
            for _ in range(100):
                try:
                    answer = await admin.post("/deployments", json={"uri": uri}, timeout=30)
                except httpx.HTTPError:
                    await asyncio.sleep(0.05)
                    continue
                if answer.is_success:
                    return
                await asyncio.sleep(0.05)
            raise RuntimeError(f"the service cannot be registered: {answer.text}")

    def _service(self) -> restate.Service:
        marks = self.marks
        service = restate.Service("bench", inactivity_timeout=SUSPEND)

        async def echo(value: int) -> int:
            return value

        async def stamp() -> float:
            return time.time()

        async def arrive() -> int:
            return marks.arrive()

        async def note(name: str) -> str:
            marks.note(name)
            await asyncio.sleep(STEP)
            return name

        nothing: restate.RunOptions[Any] = restate.RunOptions()

        @service.handler()
        async def hello(ctx: restate.Context, value: int) -> int:
            return await ctx.run_typed("echo", echo, nothing, value)

        @service.handler()
        async def fan(ctx: restate.Context, count: int) -> int:
            steps = [ctx.run_typed("echo", echo, nothing, number) for number in range(count)]
            return len(await restate.gather(*steps))

        @service.handler()
        async def loop(ctx: restate.Context, state: list[int]) -> int:
            laps, number = state
            done = await ctx.run_typed("echo", echo, nothing, number + 1)
            if done < laps:
                ctx.service_send(loop, [laps, done])
            else:
                await ctx.run_typed("arrive", arrive)
            return done

        @service.handler()
        async def sequence(ctx: restate.Context, steps: int) -> int:
            for step in range(steps):
                await ctx.run_typed("echo", echo, nothing, step)
            return steps

        @service.handler()
        async def timer(ctx: restate.Context, _number: int) -> list[float]:
            before = await ctx.run_typed("before", stamp)
            await ctx.sleep(timedelta(seconds=TIMER))
            return [before, await ctx.run_typed("after", stamp)]

        @service.handler()
        async def park(ctx: restate.Context, _number: int) -> None:
            await ctx.run_typed("arrive", arrive)
            _name, promise = ctx.awakeable()
            await promise

        @service.handler()
        async def chain(ctx: restate.Context, name: str) -> None:
            for _ in range(CHAIN):
                await ctx.run_typed("note", note, nothing, name)

        _ = hello, fan, sequence, timer, park, chain
        return service

    async def close(self) -> None:
        self._stop.set()
        await self._stack.aclose()
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.gather(self._serving, return_exceptions=True)

    async def call(self, kind: Kind, value: Any) -> Any:
        if kind == "timer":
            return (await self._post("/bench/timer", value)).json()
        async with self._slots:
            return (await self._post(f"/bench/{kind}", value)).json()

    async def _post(self, path: str, value: Any) -> httpx.Response:
        answer = await self._http.post(path, json=value)
        answer.raise_for_status()
        return answer

    async def call_all(self, kind: Kind, values: Sequence[Any]) -> list[Any]:
        if kind != "loop":
            return await super().call_all(kind, values)
        self._loops += len(values)
        await self.begin_all("loop", [[laps, 0] for laps in values])
        await self.marks.until(self._loops)
        return list(values)

    async def begin_all(self, kind: Kind, values: Sequence[Any]) -> None:
        async def send(value: Any) -> None:
            async with self._slots:
                await self._post(f"/bench/{kind}/send", value)

        await asyncio.gather(*(send(value) for value in values))
