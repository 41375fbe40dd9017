"""The runtime on PostgreSQL: the ordinary loop, and nodes that share a database."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from datetime import timedelta

import anyio
import anyio.to_thread
import pytest

from orchestra import Client, InstanceStatus, Runtime, activity
from orchestra.clock import SystemClock, new_id
from orchestra.providers.postgres import PostgresProvider
from orchestra.testing import check_store
from tests.support.kit import bounded, echo, idle, info_when, registry, until

pytestmark = pytest.mark.anyio

LEASE = timedelta(seconds=60)


@pytest.fixture
def store(dsn):
    """Return a function that makes one more provider of this test's store, which must be in order
    afterwards.
    """
    schema = f"test_{new_id()}"
    made = []

    def make(**options):
        made.append(PostgresProvider(dsn, schema, **options))
        return made[-1]

    yield make
    assert made
    check_store(PostgresProvider(dsn, schema)).raise_if_violated()


@dataclass
class Laps:
    number: int = 0
    seen: tuple[int, ...] = ()


@activity
async def increment(value: int) -> int:
    return value + 1


@activity
def increment_in_thread(value: int) -> int:
    return value + 1


async def loop(ctx, state: Laps):
    """Counts laps, collects the numbers that it is sent, and ends at -1."""
    number = await ctx.schedule_activity(
        increment if state.number % 2 else increment_in_thread, state.number
    )
    await ctx.schedule_timer(timedelta(milliseconds=1))
    won = await ctx.race(
        ctx.wait_for_event("number", int), ctx.schedule_timer(timedelta(milliseconds=5))
    )
    if won.value == -1:
        return [ctx.version, number, list(state.seen)]
    ctx.continue_as_new(Laps(number, state.seen if won.value is None else (*state.seen, won.value)))


def node(provider, *versions, activities=(increment, increment_in_thread), **options):
    """Return a runtime that has some versions of the loop, and the orchestrations of the kit."""
    entries = [("loop", version, loop) for version in versions or ("1.0.0",)]
    return Runtime(provider, registry(*entries, echo, idle), activities, lease=LEASE, **options)


@bounded
async def test_the_ordinary_loop_runs_laps_takes_events_and_ends(store):
    async with node(store()) as runtime:
        handle = await runtime.client.start("loop", Laps(), instance_id="loop")
        for number in (1, 2, 3):
            await handle.raise_event("number", number)
        await info_when(handle, lambda info: info.execution_id > 6)
        await handle.raise_event("number", -1)
        version, laps, seen = await handle.result()
        assert (version, seen) == ("1.0.0", [1, 2, 3])
        executions = await runtime.client.list_executions("loop")
        assert [one.execution_id for one in executions] == list(range(1, laps + 1))


@bounded
async def test_a_restart_with_new_code_moves_the_loop_at_its_boundary(store):
    async with node(store()) as runtime:
        handle = await runtime.client.start("loop", Laps(), instance_id="loop")
        await info_when(handle, lambda info: info.execution_id > 2)
    async with node(store(), "1.0.0", "1.1.0") as runtime:
        handle = runtime.client.handle("loop")
        await info_when(handle, lambda info: info.version == "1.1.0")
        await handle.raise_event("number", -1)
        assert (await handle.result())[0] == "1.1.0"


@bounded
async def test_two_nodes_share_a_database_and_either_goes_on_without_the_other(store):
    async with node(store()) as staying:
        async with node(store()) as leaving:
            handles = [
                await leaving.client.start("loop", Laps(), instance_id=f"loop-{number}")
                for number in range(6)
            ]
            for handle in handles:
                await info_when(handle, lambda info: info.execution_id > 1)
        for number in range(6):
            handle = staying.client.handle(f"loop-{number}")
            before = (await handle.info()).execution_id
            await info_when(handle, lambda info, before=before: info.execution_id > before + 1)
            await handle.raise_event("number", number)
            await handle.raise_event("number", -1)
            assert (await handle.result())[2] == [number]


@pytest.mark.parametrize(
    "options", [{}, {"notify": False}, {"pooled": True}], ids=["notified", "polled", "pooled"]
)
@bounded
async def test_a_client_elsewhere_starts_and_wakes_what_a_node_runs(store, options):
    async with (
        node(store(**options), poll=timedelta(milliseconds=100)) as runtime,
        Client(store(**options)) as client,
    ):
        handle = await client.start("idle", None, instance_id="idle")
        await info_when(handle, lambda info: info.waiting_on)
        await handle.raise_event("go", 42)
        assert await handle.result() == 42
        assert await (await runtime.client.start("echo", 1)).result() == 1


@bounded
async def test_work_elsewhere_is_noticed_without_waiting_for_the_poll(store):
    # The poll would come after an hour: what the test waits for is the notification.
    async with node(store(), poll=timedelta(hours=1)), Client(store()) as client:
        assert await (await client.start("echo", 7)).result() == 7


PROGRAM = """
    import sys
    from datetime import timedelta
    import anyio
    from orchestra import OrchestrationRegistry, Runtime
    from orchestra.providers.postgres import PostgresProvider

    async def nap(ctx, milliseconds: int) -> str:
        await ctx.schedule_timer(timedelta(milliseconds=milliseconds))
        return "woken"

    async def main():
        registry = OrchestrationRegistry.builder().register("nap", nap).build()
        async with Runtime(PostgresProvider(sys.argv[1], sys.argv[2]), registry, lease=timedelta(seconds=60)) as runtime:
            handle = await runtime.client.start("nap", 1500, instance_id="nap")
            while not (await handle.info()).waiting_on:
                await anyio.sleep(0.002)
            print("asleep", flush=True)
            await anyio.sleep_forever()

    anyio.run(main, backend=sys.argv[3])
"""


async def nap(ctx, milliseconds: int) -> str:
    await ctx.schedule_timer(timedelta(milliseconds=milliseconds))
    return "woken"


@bounded
async def test_a_process_that_is_killed_leaves_its_work_to_another_long_before_its_lease_ends(
    store, anyio_backend
):
    provider = store()
    async with Runtime(provider, registry(nap), lease=LEASE) as runtime:
        command = [
            sys.executable,
            "-c",
            textwrap.dedent(PROGRAM),
            provider._settings.dsn,
            provider._settings.schema,
            anyio_backend,
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert await anyio.to_thread.run_sync(process.stdout.readline) == "asleep\n"
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
        assert await runtime.client.handle("nap").result() == "woken"


@bounded
async def test_a_restart_of_the_server_stops_nothing_for_good(postgres, store):
    if not postgres.is_own:
        pytest.skip("somebody else's server is not restarted")
    async with node(store()) as runtime:
        handle = await runtime.client.start("loop", Laps(), instance_id="loop")
        await info_when(handle, lambda info: info.execution_id > 1)
        await anyio.to_thread.run_sync(lambda: postgres.restart(crash=True))

        async def asked():
            try:
                return await handle.info()
            except Exception:  # it may not be there yet
                return None

        before = (await until(asked)).execution_id
        await info_when(handle, lambda info: info.execution_id > before + 1)
        await handle.raise_event("number", -1)
        assert (await handle.result())[0] == "1.0.0"
        assert (await handle.info()).status is InstanceStatus.COMPLETED


@bounded
async def test_a_node_whose_clock_is_an_hour_off_does_no_harm(store, monkeypatch):
    wall = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: wall() + 3600 * 10**9)
    assert SystemClock().now() > wall() // 1000 + 3000 * 10**6
    async with node(store()) as runtime:
        handle = await runtime.client.start("loop", Laps(), instance_id="loop")
        info = await info_when(handle, lambda info: info.execution_id > 2)
        assert abs(info.created_at.timestamp() - wall() / 1e9) < 600
        await handle.raise_event("number", -1)
        await handle.result()
