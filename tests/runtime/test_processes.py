"""Several processes on one file: killed, restarted, talking to each other."""

import os
import random
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from orchestra.errors import RuntimeClosed
from orchestra.store.kinds import ResolvedBy
from tests.support import loops
from tests.support.kit import alone, bounded, echo, info_when, runtime

pytestmark = pytest.mark.anyio

PROGRAM = Path(loops.__file__)


@contextmanager
def program(mode, backend, path, *more):
    """Run the program; end it for certain."""
    command = [sys.executable, "-W", "error", PROGRAM, mode, backend, path, *map(str, more)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    guard = threading.Timer(30, process.kill)  # a program that hangs must not hang the tests
    guard.start()
    try:
        yield process
    finally:
        guard.cancel()
        process.kill()
        process.wait()
        process.stdout.close()


async def line(process):
    return (await anyio.to_thread.run_sync(process.stdout.readline)).split()


@pytest.mark.slow
@bounded
async def test_whatever_was_acknowledged_outlives_kills_at_random_moments(
    path, anyio_backend, seed
):
    chance = random.Random(seed)
    started, sent = set(), {}
    for generation in range(3):
        with program("work", anyio_backend, path, generation) as process:
            for _ in range(chance.randrange(4, 60)):
                match await line(process):
                    case ["started", name]:
                        started.add(name)
                    case ["sent", name, number]:
                        sent.setdefault(name, []).append(int(number))
                    case other:
                        raise AssertionError(f"the program said {other}")
            process.send_signal(signal.SIGKILL)
            process.wait()
            # What had been said and not been read yet was acknowledged as well; a torn last line
            # was not.
            for text in process.stdout.read().splitlines(keepends=True):
                match text.endswith("\n") and text.split():
                    case ["started", name]:
                        started.add(name)
                    case ["sent", name, number]:
                        sent.setdefault(name, []).append(int(number))
    assert len(started) >= 3

    async with alone(path) as client:
        found = {info.instance_id: info for info in (await client.list_instances(limit=1000)).items}
        assert started <= set(found)
        versions = {
            name: [one.version for one in await client.list_executions(name)] for name in found
        }

    # A lease is a minute here: who waited for one would be late.
    async with loops.runtime(path, 4) as node:
        for name, info in found.items():
            handle = node.client.handle(name)
            await info_when(
                handle, lambda now, before=info: now.execution_id > before.execution_id + 1
            )
        for name in found:
            await node.client.raise_event(name, "number", -1)
        for name in found:
            version, seen = await node.client.handle(name).result()
            acknowledged = sent.get(name, [])
            assert version == "1.3.0"
            # Each once and in order. The last number of a process may have been taken without its
            # having been told.
            assert [number for number in seen if number in set(acknowledged)] == acknowledged
            assert len(set(seen)) == len(seen)
            assert len(seen) - len(acknowledged) <= 3
            executions = await node.client.list_executions(name, limit=10_000)
            assert [one.execution_id for one in executions] == list(range(1, len(executions) + 1))
            # The version that an execution was given is the one that it has.
            assert [one.version for one in executions][: len(versions[name]) - 1] == versions[name][
                :-1
            ]
            assert {one.resolved_by for one in executions} == {ResolvedBy.POLICY}
            assert [one.status for one in executions] == ["continued_as_new"] * (
                len(executions) - 1
            ) + ["completed"]
            history = await node.client.get_history(name)
            assert [event.event_id for event in history] == list(range(1, len(history) + 1))


@pytest.mark.slow
@bounded
async def test_a_timer_that_a_killed_process_had_set_is_fired_by_another(path, anyio_backend):
    with program("park", anyio_backend, path, 50) as process:
        assert await line(process) == ["asleep"]
        process.send_signal(signal.SIGKILL)
        process.wait()
    async with loops.runtime(path) as node:
        assert await node.client.handle("nap").result() == "woken"


@pytest.mark.slow
@bounded
async def test_a_process_that_dies_beside_a_living_one_leaves_its_work_to_it(path, anyio_backend):
    async with loops.runtime(path) as node:
        with program("park", anyio_backend, path, 1500) as process:
            assert await line(process) == ["asleep"]
            process.send_signal(signal.SIGKILL)
            process.wait()
        # Its lease would be a minute; the lock that died with it tells at once.
        assert await node.client.handle("nap").result() == "woken"


@pytest.mark.slow
@bounded
async def test_another_process_starts_and_wakes_what_a_runtime_here_runs(path, anyio_backend):
    async with loops.runtime(path) as node:
        handle = await node.client.start("loop", loops.Loop(1), instance_id="from-inside")
        await info_when(handle, lambda info: info.execution_id > 1)
        with program("ask", anyio_backend, path) as process:
            assert await line(process) == ["result", "1.0.0", "[]"]
            assert await line(process) == ["result", "1.0.0", "[42]"]
            assert await anyio.to_thread.run_sync(process.wait) == 0


@bounded
async def test_in_a_forked_child_the_runtimes_client_refuses(path):
    async with runtime(path, echo, poll=timedelta(hours=1)) as node:
        handle = await node.client.start("echo", 1)
        assert await handle.result() == 1
        calls = (
            lambda: node.client.start("echo", 2),
            handle.info,
            lambda: handle.raise_event("go"),
            handle.result,
        )
        child = os.fork()
        if child == 0:  # pragma: no cover - another process
            refused = 0
            for call in calls:
                coroutine = call()
                try:
                    coroutine.send(None)
                except RuntimeClosed:
                    refused += 1
                except BaseException:
                    pass
                coroutine.close()
            os._exit(refused)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == len(calls)
        assert await (await node.client.start("echo", 3)).result() == 3
