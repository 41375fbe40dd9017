"""Sessions over real nodes: killed, deployed, stopped."""

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

from orchestra import (
    OrchestrationRegistry,
    Runtime,
    SessionLost,
    activity,
)
from orchestra.providers.postgres import PostgresProvider
from orchestra.sessions import ENTER
from orchestra.testing import NEVER
from orchestra.testing.waiting import NothingHappens
from tests.support import session_worker
from tests.support.kit import bounded, info_when, registry, until, virtual

pytestmark = pytest.mark.anyio

LEASE = timedelta(minutes=1)
QUICKLY = timedelta(milliseconds=50)


async def job(ctx, url: str) -> list[str]:
    """Fetch and build on one node, once more where that was lost."""
    lost: list[str] = []
    while True:
        try:
            async with ctx.session("fetch", "build") as session:
                path = await session.schedule_activity("fetch", url)
                return [*lost, session.node_id, await session.schedule_activity("build", path)]
        except SessionLost as error:
            lost.append(error.node_id)
            await ctx.wait_for_event("again")


class Bench:
    """Activities that wait for the test."""

    def __init__(self):
        self.calls = []
        self.gate = anyio.Event()

        @activity
        async def fetch(url: str) -> str:
            self.calls.append("fetch")
            return f"file of {url}"

        @activity
        async def build(path: str) -> str:
            self.calls.append("build")
            await self.gate.wait()
            return f"built {path}"

        self.activities = [fetch, build]


def node(provider, activities=(), *entries, **options):
    known = registry(*entries) if entries else OrchestrationRegistry.builder().build()
    # A node that would wait for its grace exceeds what a test may take.
    timing = {"lease": LEASE, "poll": QUICKLY, "grace": LEASE, **options}
    return Runtime(provider, known, activities, **timing)


def where(provider):
    """Return what a worker's command line says of a store."""
    if isinstance(provider, PostgresProvider):
        return "postgres", provider._settings.dsn, provider._settings.schema
    return "sqlite", str(provider._settings.path)


@contextmanager
def worker(provider):
    """Run a node with the activities in a process of its own; end it for certain."""
    command = [sys.executable, "-W", "error", Path(session_worker.__file__), *where(provider)]
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
    return (await anyio.to_thread.run_sync(process.stdout.readline)).strip()


@pytest.mark.slow
@bounded
async def test_a_killed_node_loses_its_session_and_nothing_of_it_runs_elsewhere(store):
    bench = Bench()
    bench.gate.set()
    async with node(store(), (), job) as owner:
        with worker(store()) as process:
            node_id = await line(process)
            handle = await owner.client.start("job", "x", instance_id="job")
            assert [await line(process), await line(process)] == ["fetch", "build"]
            async with node(store(), bench.activities) as other:
                process.send_signal(signal.SIGKILL)
                process.wait()
                info = await info_when(
                    handle, lambda now: [one.name for one in now.waiting_on] == ["again"]
                )
                assert info.pending_activities == ()
                assert bench.calls == []
                await handle.raise_event("again")
                assert await handle.result() == [node_id, other.node_id, "built file of x"]
                assert bench.calls == ["fetch", "build"]


@pytest.mark.slow
@bounded
async def test_a_kill_of_the_node_that_owns_its_instance_too_is_the_same(store):
    """The session's node runs the instance as well: what it began has no row."""
    bench = Bench()
    bench.gate.set()
    program = f"""
import anyio
from orchestra import Runtime
from tests.runtime.test_sessions import LEASE, job, registry, where
from tests.support.session_worker import build, fetch
from orchestra import SqliteProvider
from orchestra.providers.postgres import PostgresProvider

async def main():
    kind, *place = {where(store())!r}
    provider = PostgresProvider(*place) if kind == "postgres" else SqliteProvider(*place)
    async with Runtime(provider, registry(job), [fetch, build], lease=LEASE) as runtime:
        print(runtime.node_id, flush=True)
        await runtime.client.start("job", "x", instance_id="job")
        await anyio.sleep_forever()

anyio.run(main)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        node_id = await line(process)
        assert [await line(process), await line(process)] == ["fetch", "build"]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    async with node(store(), bench.activities, job) as heir:
        handle = heir.client.handle("job")
        await info_when(handle, lambda now: [one.name for one in now.waiting_on] == ["again"])
        assert bench.calls == []
        await handle.raise_event("again")
        assert await handle.result() == [node_id, heir.node_id, "built file of x"]


@bounded
async def test_a_session_may_end_within_the_grace_of_its_stopping_node(store):
    """A rolling deploy: the node with the session is told to stop while it fetches."""
    bench, begun = Bench(), anyio.Event()
    _first, build = bench.activities

    @activity(name="fetch")
    async def slow(url: str) -> str:
        begun.set()
        await bench.gate.wait()
        return f"file of {url}"

    async with node(store(), (), job) as owner:
        old = node(store(), [slow, build])
        handle = None
        async with anyio.create_task_group() as group, old:
            handle = await owner.client.start("job", "x", instance_id="job")
            await begun.wait()
            group.start_soon(open_soon, old, bench.gate)
        result = await handle.result()
        assert result == [old.node_id, "built file of x"]
        assert bench.calls == ["build"]


async def open_soon(runtime, gate):
    await until(lambda: runtime._state == "stopping")
    gate.set()


@bounded
async def test_what_does_not_end_within_the_grace_is_lost_and_the_new_node_begins_anew(store):
    bench, later = Bench(), Bench()
    later.gate.set()
    async with (
        node(store(), (), job) as owner,
        node(store(), bench.activities, grace=QUICKLY) as old,
    ):
        handle = await owner.client.start("job", "x", instance_id="job")
        await until(lambda: bench.calls == ["fetch", "build"])
        async with node(store(), later.activities) as new:
            await old.__aexit__(None, None, None)
            await info_when(handle, lambda now: [one.name for one in now.waiting_on] == ["again"])
            assert later.calls == []
            await handle.raise_event("again")
            assert await handle.result() == [old.node_id, new.node_id, "built file of x"]


@bounded
async def test_a_node_that_lacks_an_activity_gets_no_session_in_a_rolling_deploy(store):
    bench, early = Bench(), Bench()
    bench.gate.set()
    async with (
        node(store(), early.activities[:1], job) as old,
        node(store(), (), job),
    ):
        handle = await old.client.start("job", "x", instance_id="job")
        info = await info_when(handle, lambda now: now.held_reason)
        assert "no living node has all activities of a session ('build', 'fetch')" in (
            info.held_reason
        )
        assert [one.name for one in info.waiting_on] == [ENTER]
        async with node(store(), bench.activities) as new:
            assert await handle.result() == [new.node_id, "built file of x"]
        assert early.calls == []
        history = await handle.history()
        scheduled = [one for one in history if one.kind == "activity_scheduled"]
        assert [one.details.get("node") for one in scheduled] == [None, *[new.node_id] * 3]
        assert {one.details["queue"] for one in scheduled} == {None}


# --- in virtual time --------------------------------------------------------------------------


@activity
async def fetch(url: str) -> str:
    return f"file of {url}"


@bounded
async def test_in_a_test_runtime_it_is_always_there_and_a_crash_loses_it(database):
    async with virtual(database, job, activities=[fetch]) as env:
        built = env.fake("build", lambda path: NEVER if len(built.calls) == 1 else f"built {path}")
        handle = await env.client.start("job", "x", instance_id="job")
        await env.run_until_idle()
        assert len(built.calls) == 1
        await env.crash()
        assert [one.name for one in (await handle.info()).waiting_on] == ["again"]
        assert len(built.calls) == 1, "it is not tried again"
        await handle.raise_event("again")
        lost, node_id, value = await handle.result()
        assert (lost != node_id, value, len(built.calls)) == (True, "built file of x", 2)


@bounded
async def test_a_test_runtime_says_why_a_session_waits(database):
    async with virtual(database, job, activities=[fetch]) as env:
        handle = await env.client.start("job", "x", instance_id="job")
        with pytest.raises(NothingHappens, match="all activities of a session"):
            await handle.result()


async def parked(ctx, _: None) -> str:
    async with ctx.session("fetch") as session:
        await session.schedule_activity("fetch", "x")
        await ctx.schedule_timer(timedelta(hours=1))
        try:
            await session.schedule_activity("fetch", "y")
        except SessionLost:
            return "lost"
        return "kept"


@bounded
@pytest.mark.parametrize("way", ["nothing", "crash", "upgrade"])
async def test_a_crash_and_a_deploy_lose_what_a_timer_outlasts(database, way):
    async with virtual(database, parked, activities=[fetch]) as env:
        handle = await env.client.start("parked", instance_id="p")
        await env.advance(timedelta(minutes=30))
        info = await handle.info()
        assert [one.kind for one in info.waiting_on] == ["timer"], "not for its session"
        assert info.waiting_counts == {"timer": 1}
        if way == "crash":
            await env.crash()
        elif way == "upgrade":
            await env.upgrade(registry(parked))
        assert await handle.result() == ("kept" if way == "nothing" else "lost")
