"""Scenario 60: clients in other event loops and threads than the one in which they were entered."""

import asyncio
import gc
import os
import threading
import traceback
from datetime import timedelta

import anyio
import pytest

from orchestra import (
    Client,
    Runtime,
    RuntimeClosed,
    WaitTimeout,
    WrongEventLoop,
    activity,
)
from orchestra.client.intake import Intake
from tests.support.kit import PATIENCE, Gate, alone, bounded, echo, idle, registry, runtime, until

pytestmark = pytest.mark.anyio

BACKENDS = ("asyncio", "trio")


@activity
async def probe(value: int) -> int:
    await anyio.sleep(0)
    return value + 1


async def probing(ctx, value: int) -> int:
    return await ctx.schedule_activity(probe, value)


@pytest.fixture(params=BACKENDS)
def other(request):
    """The backend of the other loop."""
    return request.param


class Elsewhere:
    """Runs an async function in an event loop of its own, in a thread of its own."""

    def __init__(self, backend, function, *, debug=False):
        self.result = self.error = None
        options = {"debug": debug} if backend == "asyncio" else {}

        async def main():
            with anyio.fail_after(PATIENCE):
                return await function()

        def run():
            try:
                self.result = anyio.run(main, backend=backend, backend_options=options)
            except BaseException as error:
                self.error = error

        self.thread = threading.Thread(target=run)
        self.thread.start()

    async def done(self):
        await until(lambda: not self.thread.is_alive())
        self.thread.join()
        if self.error is not None:
            raise self.error
        return self.result


# --- the client of a runtime ----------------------------------------------------------------------


@bounded
async def test_every_call_works_in_another_loop_and_the_runtime_is_unharmed(store, other):
    async def calls():
        client = node.client
        handle = await client.start("idle", instance_id="one")
        assert (await handle.info()).instance_id == "one"
        await handle.raise_event("go", "gone")
        assert await handle.result(str) == "gone"
        assert (await client.wait_for_completion("one")).status.is_final
        assert await (await client.start("probing", 1)).result(int) == 2, (
            "activities run in the loop of the runtime"
        )
        assert len((await client.list_instances()).items) == 2
        assert await client.get_history("one")
        assert [info.node_id for info in await client.list_nodes()] == [node.node_id]
        second = await client.start("idle", instance_id="two")
        await second.cancel()
        await client.wait_for_completion("two")
        await client.start("idle", instance_id="three")
        await client.terminate("three")
        await client.delete("three")
        await client.pin((await client.start("idle", instance_id="four")).instance_id, "1.0.0")

    async with Runtime(store(), registry(idle, probing), [probe]) as node:
        await Elsewhere(other, calls).done()
        assert await (await node.client.start("probing", 1)).result(int) == 2


@bounded
async def test_asyncios_debug_mode_finds_nothing_that_is_not_thread_safe(path):
    async def calls():
        await (await node.client.start("echo", 1)).result(int)

    async with runtime(path, echo) as node:
        await Elsewhere("asyncio", calls, debug=True).done()
    await Elsewhere("asyncio", lambda: whole_life(path, "debugged"), debug=True).done()


async def whole_life(path, instance_id):
    async with runtime(path, echo) as node:
        await (await node.client.start("echo", 1, instance_id=instance_id)).result(int)


@bounded
async def test_many_loops_at_once_each_get_their_own_answers(path):
    async def calls(number):
        for turn in range(20):
            handle = await node.client.start("echo", number * 1000 + turn)
            assert await handle.result(int) == number * 1000 + turn

    async with runtime(path, echo) as node:
        others = [
            Elsewhere(BACKENDS[number % 2], lambda number=number: calls(number))
            for number in range(6)
        ]
        await calls(99)
        for one in others:
            await one.done()
        assert node._intake.outstanding == (0, 0)
        assert not node._outside._calls
        assert not node._outside._watches


@bounded
async def test_a_wait_in_another_loop_hears_of_the_end_and_of_the_time(path, other):
    waits = threading.Event()

    async def wait():
        handle = node.client.handle("one")
        with pytest.raises(WaitTimeout):
            await handle.result(timeout=timedelta(milliseconds=50))
        waits.set()
        return await handle.result(str)

    async with runtime(path, idle) as node:
        await node.client.start("idle", instance_id="one")
        elsewhere = Elsewhere(other, wait)
        await until(waits.is_set)
        await node.client.raise_event("one", "go", "x")
        assert await elsewhere.done() == "x"


@bounded
async def test_a_cancelled_call_of_another_loop_leaves_no_room_taken(path, other):
    gate = Gate()

    async def give_up():
        with anyio.move_on_after(0.2):
            await node.client.raise_event("one", "go")

    async with runtime(path, idle) as node:
        await node.client.start("idle", instance_id="one")
        commit = node._provider.store.commit
        node._provider.store.commit = lambda changes: (gate(), commit(changes))[1]
        elsewhere = Elsewhere(other, give_up)
        await until(gate.entered.is_set)
        await elsewhere.done()
        gate.open()
        await until(lambda: node._intake.outstanding == (0, 0))


@bounded
async def test_who_waits_for_room_in_another_loop_gets_it(path, other):
    async def send():
        for number in range(10):
            await node.client.raise_event("one", "noise", number)

    async with runtime(path, idle) as node:
        await node.client.start("idle", instance_id="one")
        node._intake = Intake(1, 10**6)
        senders = [Elsewhere(other, send) for _ in range(3)]
        await send()
        for one in senders:
            await one.done()
        assert node._intake.outstanding == (0, 0)
        assert node._intake.waiting == 0


@bounded
async def test_the_end_of_the_runtime_answers_calls_and_waits_of_other_loops(path, other):
    waits = threading.Event()

    async def wait():
        waits.set()
        with pytest.raises(RuntimeClosed):
            await node.client.handle("one").result()
        with pytest.raises(RuntimeClosed):
            await node.client.start("idle")
        with pytest.raises(RuntimeClosed):
            await node.client.list_nodes()

    node = runtime(path, idle)
    with pytest.raises(RuntimeClosed, match="new"):
        await Elsewhere(other, lambda: node.client.start("idle")).done()
    async with node:
        await node.client.start("idle", instance_id="one")
        elsewhere = Elsewhere(other, wait)
        await until(waits.is_set)
    await elsewhere.done()


@bounded
async def test_calls_of_other_loops_that_race_with_the_end_are_answered_or_refused(path):
    async def call():
        for number in range(10_000):
            try:
                await node.client.raise_event("one", "noise", number)
                await node.client.get_instance_info("one")
            except RuntimeClosed:
                return "refused"

    async with runtime(path, idle, inbox_limit=1_000_000) as node:
        await node.client.start("idle", instance_id="one")
        others = [Elsewhere(backend, call) for backend in BACKENDS * 2]
        await anyio.sleep(0.2)
    for one in others:
        assert await one.done() == "refused"


@bounded
async def test_a_fault_of_the_engine_is_told_in_other_loops(path, monkeypatch):
    waits = threading.Event()

    async def wait():
        waits.set()
        with pytest.raises(RuntimeClosed):
            await node.client.handle("one").result()
        await until(lambda: node._owner.failure is not None)
        with pytest.raises(RuntimeClosed, match="broken") as raised:
            await node.client.start("idle")
        assert isinstance(raised.value.__cause__, ArithmeticError)

    def broken(*_):
        raise ArithmeticError("broken")

    async def life():
        async with node:
            await node.client.start("idle", instance_id="one")
            others.append(Elsewhere("asyncio", wait))
            await until(waits.is_set)
            monkeypatch.setattr("orchestra.engine.engine.Engine.step", broken)
            await anyio.sleep_forever()

    node, others = runtime(path, idle), []
    with pytest.raises(ArithmeticError):
        await life()
    await others[0].done()


@bounded
async def test_orchestration_code_that_calls_its_own_client_in_a_loop_of_its_own_is_refused_at_once(
    path, monkeypatch
):
    seen = []

    async def inside(ctx, value):
        loop = asyncio.new_event_loop()
        thread_local = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        try:
            loop.run_until_complete(node.client.get_instance_info("x"))
        except WrongEventLoop as error:
            seen.append(error)
        finally:
            asyncio._set_running_loop(thread_local)
            loop.close()

    async with runtime(path, inside) as node:
        await (await node.client.start("inside")).result()
    assert "would wait for itself" in str(seen[0])


# --- while the loop of the runtime stands still ---------------------------------------------------


def run(loop, coroutine):
    return loop.run_until_complete(asyncio.wait_for(coroutine, PATIENCE))


@pytest.fixture
def loops():
    """Two event loops that never run at the same time."""
    made = asyncio.new_event_loop(), asyncio.new_event_loop()
    yield made
    for loop in made:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def test_calls_work_in_a_second_loop_of_the_same_thread_while_the_first_pauses(path, loops):
    home, away = loops
    node = runtime(path, echo, probing, activities=[probe])
    run(home, node.__aenter__())
    handle = run(away, node.client.start("echo", 7))
    assert run(away, handle.result(int)) == 7
    assert run(away, node.client.list_nodes())
    run(home, node.__aexit__(None, None, None))


def test_a_wait_that_needs_the_pausing_loop_is_an_error_and_not_a_hang(path, loops):
    home, away = loops
    node = runtime(path, probing, activities=[probe])
    run(home, node.__aenter__())
    handle = run(away, node.client.start("probing", 7))
    with pytest.raises(WrongEventLoop, match=r"activity 'probe'.*loop_scope"):
        run(away, handle.result(int))
    assert run(home, handle.result(int)) == 8
    assert run(away, handle.result(int)) == 8
    run(home, node.__aexit__(None, None, None))


def test_calls_from_a_thread_work_while_the_loop_of_the_runtime_pauses(path, loops, other):
    home, _ = loops
    node = runtime(path, echo)
    run(home, node.__aenter__())

    async def call():
        return await (await node.client.start("echo", 7)).result(int)

    elsewhere = Elsewhere(other, call)
    elsewhere.thread.join(PATIENCE)
    assert (elsewhere.result, elsewhere.error) == (7, None)
    run(home, node.__aexit__(None, None, None))


def test_a_loop_that_goes_on_in_another_thread_is_still_the_loop_of_the_runtime(path):
    home = asyncio.new_event_loop()
    node = runtime(path, probing, activities=[probe])
    run(home, node.__aenter__())
    thread = threading.Thread(target=home.run_forever)
    thread.start()

    async def use():
        assert node._loop.is_current
        assert await (await node.client.start("probing", 1)).result(int) == 2

    asyncio.run_coroutine_threadsafe(use(), home).result(PATIENCE)

    async def elsewhere():
        assert await (await node.client.start("probing", 2)).result(int) == 3

    asyncio.run(elsewhere())
    asyncio.run_coroutine_threadsafe(node.__aexit__(None, None, None), home).result(PATIENCE)
    home.call_soon_threadsafe(home.stop)
    thread.join(PATIENCE)
    home.close()


def test_a_runtime_that_fails_while_its_loop_pauses_answers_other_loops_without_asking_the_store(
    path, loops, monkeypatch
):
    home, away = loops
    node = runtime(path, idle)
    run(home, node.__aenter__())
    run(home, node.client.start("idle", instance_id="one"))
    reads = []
    monkeypatch.setattr(
        node._readers, "call", lambda *_: reads.append(1) or pytest.fail("it asked")
    )
    monkeypatch.setattr("orchestra.engine.engine.Engine.step", broken)
    node._thread.look()
    run(away, until(lambda: node._outside._closed))
    for call in (
        lambda: node.client.handle("one").result(),
        node.client.list_nodes,
        lambda: node.client.start("idle"),
    ):
        with pytest.raises(RuntimeClosed):
            run(away, call())
    assert reads == []
    with pytest.raises(ArithmeticError):
        run(home, node.__aexit__(None, None, None))


def broken(*_):
    raise ArithmeticError("broken")


# --- a client that stands alone -------------------------------------------------------------------


@bounded
async def test_a_client_alone_may_be_used_in_many_loops_and_threads_at_once(store):
    async def calls(number):
        for turn in range(10):
            handle = await client.start("echo", number * 100 + turn)
            assert await handle.result(int) == number * 100 + turn
            assert await client.list_nodes()

    async with Runtime(store(), registry(echo)), Client(store()) as client:
        others = [
            Elsewhere(BACKENDS[number % 2], lambda number=number: calls(number))
            for number in range(4)
        ]
        await calls(9)
        for one in others:
            await one.done()
        assert client._access.own._intake.outstanding == (0, 0)


async def send_for_ever(client):
    while True:
        await client.raise_event("one", "noise")


@bounded
async def test_a_client_that_is_left_in_another_loop_answers_all_loops(path, other):
    gate, waits = Gate(), threading.Event()

    async def send():
        waits.set()
        with pytest.raises(RuntimeClosed):
            await send_for_ever(client)

    async with runtime(path, idle) as node:
        await node.client.start("idle", instance_id="one")
        client = await alone(path).__aenter__()
        client._access.own._intake = Intake(1, 10**6)
        senders = [Elsewhere(backend, send) for backend in BACKENDS * 2]
        await until(waits.is_set)
        await Elsewhere(other, lambda: client.__aexit__(None, None, None)).done()
        for one in senders:
            await one.done()
        gate.open()


@bounded
async def test_entering_a_client_twice_at_once_is_refused_and_leaves_nothing_open(path):
    client = alone(path)
    outcomes = []

    async def enter():
        try:
            await client.__aenter__()
            outcomes.append("entered")
        except RuntimeClosed:
            outcomes.append("refused")

    async with runtime(path), anyio.create_task_group() as group:
        group.start_soon(enter)
        group.start_soon(enter)
    assert sorted(outcomes) == ["entered", "refused"]
    await client.__aexit__(None, None, None)


@bounded
async def test_loops_that_are_gone_are_not_remembered(path):
    async with runtime(path, echo), alone(path) as client:
        for _ in range(5):
            await Elsewhere("asyncio", lambda: client.start("echo", 1)).done()
        gc.collect()
        assert len(client._access.own._lanes) <= 1


def test_in_a_forked_child_client_and_runtime_are_refused_at_once_and_leave_the_parents_alone(path):
    async def main():
        async with runtime(path, echo) as node, alone(path) as client:
            await client.start("echo", 1)
            read, write = os.pipe()
            if (child := os.fork()) == 0:
                told = []
                try:
                    for attempt in (
                        lambda: client.start("echo"),
                        client.list_nodes,
                        lambda: node.client.start("echo"),
                        node.client.list_nodes,
                    ):
                        try:
                            asyncio.run(asyncio.wait_for(attempt(), PATIENCE))
                            told.append("worked")
                        except BaseException as error:
                            told.append(type(error).__name__)
                    os.write(write, " ".join(told).encode())
                finally:
                    os._exit(0)
            os.close(write)
            told = await anyio.to_thread.run_sync(os.read, read, 1000)
            os.close(read)
            os.waitpid(child, 0)
            assert await (await node.client.start("echo", 2)).result(int) == 2
            assert await (await client.start("echo", 3)).result(int) == 3
        return told.decode().split()

    told = asyncio.run(main())
    assert told == ["StoreForked", "StoreForked", "RuntimeClosed", "RuntimeClosed"]


def test_what_was_made_before_a_fork_and_is_entered_after_it_works_in_each_child(store):
    """As with servers that load the program once, and fork their workers then."""
    made = [Runtime(store(), registry(echo)) for _ in range(2)]
    client = Client(store())

    async def work(node):
        async with node, client:
            assert (
                await (await client.start("echo", 3)).result(
                    int, timeout=timedelta(seconds=PATIENCE)
                )
                == 3
            )
            assert node.client is not None

    children = []
    for node in made:
        if (child := os.fork()) == 0:
            try:
                asyncio.run(work(node))
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    asyncio.run(work(Runtime(store(), registry(echo))))
