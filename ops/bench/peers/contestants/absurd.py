"""Absurd: tasks in PostgreSQL."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import absurdctl
import psycopg
from absurd_sdk import Absurd, AsyncAbsurd

from ops.bench.peers.interface import CHAIN, LEASE, STEP, TIMER, Contestant, Kind, Marks, Place

QUEUE = "bench"
POLL = 0.01
"""Seconds."""
DEFAULT_POLL = 0.25


class AbsurdSystem(Contestant):
    """A worker with a connection of its own, and a client with another."""

    def __init__(self, place: Place, marks: Marks) -> None:
        super().__init__(place, marks)
        self._worker: AsyncAbsurd | None = None
        self._client: AsyncAbsurd
        self._task: asyncio.Task[None] | None = None
        self._loops = 0

    async def open(self, *, work: bool = True) -> None:
        with psycopg.connect(self.place.store, autocommit=True) as connection:
            connection.execute("SELECT pg_advisory_lock(1)")
            found = connection.execute("SELECT to_regnamespace('absurd')").fetchone()
            if found == (None,):
                connection.execute(absurdctl.BUNDLED_SCHEMA_SQL)
        self._client = AsyncAbsurd(self.place.store, queue_name=QUEUE)
        if QUEUE not in await self._client.list_queues():
            await self._client.create_queue(QUEUE)
        if not work:
            return
        if self.place.chains:
            self._work_in_threads()
            return
        self._worker = AsyncAbsurd(self.place.store, queue_name=QUEUE)
        self._register(self._worker)
        self._task = asyncio.create_task(
            self._worker.start_worker(
                worker_id=f"node-{self.place.node}",
                concurrency=100,
                poll_interval=DEFAULT_POLL if self.place.idle else POLL,
                claim_timeout=LEASE,
            )
        )

    def _work_in_threads(self) -> None:
        """Run chains with the synchronous worker, which claims while tasks run: the asynchronous one
        claims its next batch when all tasks of the last have ended, and chains do not end.
        """
        app = Absurd(self.place.store, queue_name=QUEUE)
        marks = self.marks

        @app.register_task(name="chain")
        def chain(name: Any, ctx: Any) -> Any:
            def note() -> str:
                marks.note(name)
                time.sleep(STEP)
                return str(name)

            for _ in range(CHAIN):
                ctx.step("note", note)

        _ = chain
        options = {
            "concurrency": self.place.chains,
            "poll_interval": POLL,
            "claim_timeout": LEASE,
        }
        threading.Thread(target=app.start_worker, kwargs=options, daemon=True).start()

    def _register(self, app: AsyncAbsurd) -> None:
        marks = self.marks

        def returning(value: Any) -> Callable[[], Awaitable[Any]]:
            async def echo() -> Any:
                return value

            return echo

        async def stamp() -> float:
            return time.time()

        async def arrive() -> int:
            return marks.arrive()

        @app.register_task(name="hello")
        async def hello(value: Any, ctx: Any) -> Any:
            return await ctx.step("echo", returning(value))

        @app.register_task(name="fan")
        async def fan(count: Any, ctx: Any) -> Any:
            steps = (ctx.step(f"echo-{number}", returning(number)) for number in range(count))
            return len(await asyncio.gather(*steps))

        @app.register_task(name="loop")
        async def loop(state: Any, ctx: Any) -> Any:
            laps, number = state
            done = await ctx.step("echo", returning(number + 1))
            if done == laps:
                return await arrive()

            async def spawn() -> str:
                return str((await app.spawn("loop", [laps, done]))["task_id"])

            return await ctx.step("next", spawn)

        @app.register_task(name="sequence")
        async def sequence(steps: Any, ctx: Any) -> Any:
            for step in range(steps):
                await ctx.step("echo", returning(step))
            return steps

        @app.register_task(name="timer")
        async def timer(_number: Any, ctx: Any) -> Any:
            before = await ctx.step("before", stamp)
            await ctx.sleep_for("sleep", TIMER)
            return [before, await ctx.step("after", stamp)]

        @app.register_task(name="park")
        async def park(_number: Any, ctx: Any) -> Any:
            await ctx.step("arrive", arrive)
            await ctx.await_event("go")

        _ = hello, fan, loop, sequence, timer, park

    async def close(self) -> None:
        if self._worker is not None and self._task is not None:
            self._worker.stop_worker()
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self._worker.close()
        await self._client.close()

    async def call(self, kind: Kind, value: Any) -> Any:
        begun = await self._client.spawn(kind, value, queue=QUEUE)
        ended = await self._client.await_task_result(begun["task_id"])
        if ended.state != "completed":
            raise RuntimeError(f"{kind}: {ended.state}: {ended.failure}")
        return ended.result

    async def call_all(self, kind: Kind, values: Sequence[Any]) -> list[Any]:
        if kind != "loop":
            return await super().call_all(kind, values)
        self._loops += len(values)
        await self.begin_all("loop", [[laps, 0] for laps in values])
        await self.marks.until(self._loops)
        return list(values)

    async def begin_all(self, kind: Kind, values: Sequence[Any]) -> None:
        for value in values:
            await self._client.spawn(kind, value, queue=QUEUE)
