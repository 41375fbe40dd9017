"""DBOS Transact for Python."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import dbos
from dbos import DBOS, DBOSClient

from ops.bench.peers.interface import CHAIN, STEP, TIMER, Contestant, Kind, Marks, Place

QUEUE = "bench"
POLL = 0.05
"""Seconds between two looks at a queue, and at a result in another process."""
DEFAULT_POLL = 1.0
LONG = 10**6

_marks: Marks


@DBOS.step()
async def echo(value: int) -> int:
    return value


@DBOS.step()
async def stamp() -> float:
    return time.time()


@DBOS.step()
async def arrive() -> int:
    return _marks.arrive()


@DBOS.step()
async def note(name: str) -> str:
    _marks.note(name)
    await asyncio.sleep(STEP)
    return name


@DBOS.step()
def echo_in_thread(value: int) -> int:
    return value


@DBOS.workflow()
def hello(value: int) -> int:
    return echo_in_thread(value)


@DBOS.workflow()
async def fan(count: int) -> int:
    return len(await asyncio.gather(*(echo(number) for number in range(count))))


@DBOS.workflow()
def loop(laps: int, number: int) -> int:
    done = echo_in_thread(number + 1)
    if done < laps:
        DBOS.start_workflow(loop, laps, done)
    else:
        _marks.arrive()
    return done


@DBOS.workflow()
async def sequence(steps: int) -> int:
    for step in range(steps):
        await echo(step)
    return steps


@DBOS.workflow()
async def timer(_number: int) -> list[float]:
    before = await stamp()
    await DBOS.sleep_async(TIMER)
    return [before, await stamp()]


@DBOS.workflow()
async def park(_number: int) -> None:
    await arrive()
    await DBOS.recv_async("go", timeout_seconds=LONG)


@DBOS.workflow()
async def chain(name: str) -> None:
    for _ in range(CHAIN):
        await note(name)


WORKFLOWS: dict[str, Any] = {
    "hello": hello,
    "fan": fan,
    "sequence": sequence,
    "timer": timer,
    "park": park,
    "chain": chain,
}


def _hellos(values: Sequence[Any]) -> list[Any]:
    handles = [DBOS.start_workflow(hello, value) for value in values]
    return [handle.get_result() for handle in handles]


class Dbos(Contestant):
    """The library in this process; or a client that puts work into a queue."""

    def __init__(self, place: Place, marks: Marks) -> None:
        super().__init__(place, marks)
        self._client: DBOSClient | None = None
        self._loops = 0

    async def open(self, *, work: bool = True) -> None:
        global _marks  # noqa: PLW0603 - steps are functions of the module, as DBOS has them
        _marks = self.marks
        store = self.place.store
        url = f"sqlite:///{store}" if store.endswith(".db") else store
        if not work:
            self._client = DBOSClient(system_database_url=url)
            return
        poll = DEFAULT_POLL if self.place.idle else POLL
        config: dbos.DBOSConfig = {
            "name": "bench",
            "system_database_url": url,
            "application_version": "1",
            "executor_id": f"node-{self.place.node}",
            "log_level": "ERROR",
            "enable_otlp": False,
            "notification_listener_polling_interval_sec": poll,
        }
        DBOS(config=config)
        DBOS.launch()
        await DBOS.register_queue_async(QUEUE, polling_interval_sec=poll)

    async def close(self) -> None:
        if self._client is None:
            await asyncio.to_thread(DBOS.destroy)

    async def call(self, kind: Kind, value: Any) -> Any:
        if kind == "loop":
            raise NotImplementedError("laps of a loop are started together")
        if self._client is not None:
            remote = await self._client.enqueue_async(
                {"workflow_name": kind, "queue_name": QUEUE, "app_version": "1"}, value
            )
            return await remote.get_result(polling_interval_sec=POLL)
        if kind == "hello":
            return await asyncio.to_thread(lambda: DBOS.start_workflow(hello, value).get_result())
        handle = await DBOS.start_workflow_async(WORKFLOWS[kind], value)
        return await handle.get_result()

    async def call_all(self, kind: Kind, values: Sequence[Any]) -> list[Any]:
        if kind == "loop":
            self._loops += len(values)
            await asyncio.to_thread(lambda: [DBOS.start_workflow(loop, laps, 0) for laps in values])
            await self.marks.until(self._loops)
            return list(values)
        if kind == "hello" and self._client is None:
            return await asyncio.to_thread(_hellos, values)
        return await super().call_all(kind, values)

    async def begin_all(self, kind: Kind, values: Sequence[Any]) -> None:
        for value in values:
            await DBOS.start_workflow_async(WORKFLOWS[kind], value)
