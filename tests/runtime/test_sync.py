"""Programs without an event loop of their own: :mod:`orchestra.sync`."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

import orchestra
from orchestra import (
    Client,
    InboxFull,
    InstanceNotFound,
    InvalidArgument,
    Runtime,
    RuntimeClosed,
    SqliteProvider,
    StoreUnavailable,
    WaitTimeout,
    WrongEventLoop,
    activity,
)
from orchestra.sync import connect
from tests.support.kit import PATIENCE, alone, echo, idle, registry, runtime


@pytest.fixture(params=["asyncio", "trio"])
def backend(request):
    return request.param


@pytest.fixture
def sync(path, backend):
    """A runtime, for threads."""
    with connect(runtime(path, echo, idle), backend=backend) as connection:
        yield connection


def in_threads(count, function):
    results, errors = [], []

    def run(number):
        try:
            results.append(function(number))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert errors == []
    return results


def test_a_runtime_runs_and_is_called_without_an_event_loop_of_the_program(sync):
    handle = sync.call(sync.client.start, "echo", 3, instance_id="one")
    assert sync.call(handle.result, int) == 3
    assert sync.call(sync.client.get_instance_info, "one").instance_id == "one"
    assert sync.runtime.node_id == sync.call(sync.client.list_nodes)[0].node_id


def test_a_provider_is_enough_where_other_processes_run_the_code(store, backend):
    with (
        connect(Runtime(store(), registry(echo))) as worker,
        connect(store(), backend=backend) as sync,
    ):
        assert sync.runtime is None
        handle = sync.call(sync.client.start, "echo", 3)
        assert sync.call(handle.result, int, timeout=timedelta(seconds=PATIENCE)) == 3
        assert worker.call(worker.client.get_instance_info, handle.instance_id).status.is_final


def test_a_client_with_options_of_its_own_may_be_given(path):
    with connect(runtime(path, idle)), connect(Client(SqliteProvider(path), inbox_limit=1)) as sync:
        handle = sync.call(sync.client.start, "idle", instance_id="one")
        sync.call(handle.raise_event, "noise")
        with pytest.raises(InboxFull):
            sync.call(handle.raise_event, "noise")


def test_errors_come_out_as_they_are(sync):
    with pytest.raises(InstanceNotFound) as raised:
        sync.call(sync.client.get_instance_info, "nobody")
    assert raised.value.instance_id == "nobody"
    sync.call(sync.client.start, "idle", instance_id="one")
    with pytest.raises(WaitTimeout):
        sync.call(sync.client.handle("one").result, timeout=timedelta(milliseconds=10))
    with pytest.raises(TypeError):
        sync.call(sync.client.start)


def test_several_threads_use_it_at_once(sync):
    def work(number):
        handle = sync.call(sync.client.start, "echo", number)
        return sync.call(handle.result, int)

    assert sorted(in_threads(8, work)) == list(range(8))


def test_a_store_that_cannot_be_opened_says_so_and_leaves_no_thread(tmp_path, backend):
    connection = connect(SqliteProvider(tmp_path / "nowhere" / "store.db"), backend=backend)
    with pytest.raises(StoreUnavailable):
        connection.open()
    with pytest.raises(RuntimeClosed):
        connection.call(connection.client.list_nodes)
    assert [
        thread.name for thread in threading.enumerate() if thread.name == "orchestra-sync"
    ] == []


# --- closing --------------------------------------------------------------------------------------


def test_a_call_before_and_after_and_a_second_opening_are_refused(path):
    connection = connect(runtime(path, echo))
    with pytest.raises(RuntimeClosed, match="not open"):
        connection.call(connection.client.list_nodes)
    with connection:
        pass
    with pytest.raises(RuntimeClosed, match="closed"):
        connection.call(connection.client.list_nodes)
    with pytest.raises(RuntimeClosed, match="closed"):
        connection.iterate(counting, 3)
    with pytest.raises(RuntimeClosed, match="opened once"):
        connection.open()
    connection.close()


@pytest.mark.parametrize("standing", ["runtime", "client"])
def test_closing_ends_the_calls_of_other_threads(path, backend, standing):
    with connect(runtime(path, idle), backend=backend) as sync:
        sync.call(sync.client.start, "idle", instance_id="one")
        waiter = (
            sync if standing == "runtime" else connect(SqliteProvider(path), backend=backend).open()
        )
        began, told = threading.Event(), []

        def wait():
            began.set()
            try:
                waiter.call(waiter.client.handle("one").result)
            except RuntimeClosed as error:
                told.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        assert began.wait(PATIENCE)
        waiter.close()
        thread.join(PATIENCE)
        assert len(told) == 1


def test_a_runtime_that_fails_is_told_by_calls_and_by_the_end(path, monkeypatch):
    def broken(*_):
        raise ArithmeticError("broken")

    connection = connect(runtime(path, idle)).open()
    connection.call(connection.client.start, "idle", instance_id="one")
    monkeypatch.setattr("orchestra.engine.engine.Engine.step", broken)
    with pytest.raises(RuntimeClosed):
        connection.call(connection.client.start, "idle")
    with pytest.raises(ArithmeticError):
        connection.close()
    assert [
        thread.name for thread in threading.enumerate() if thread.name.startswith("orchestra")
    ] == []


def test_a_runtime_that_is_entered_already_is_used_and_left_alone(path):
    async def main():
        async with runtime(path, echo) as node:

            def view():
                with connect(node) as sync:
                    return sync.call(sync.call(sync.client.start, "echo", 5).result, int)

            assert await anyio.to_thread.run_sync(view) == 5
            with (
                connect(node) as sync,
                pytest.raises(WrongEventLoop, match="activities would wait"),
            ):
                sync.call(node.client.list_nodes)
            assert await (await node.client.start("echo", 6)).result(int) == 6

    asyncio.run(main())


# --- misuse ---------------------------------------------------------------------------------------


def test_a_call_inside_its_own_event_loop_is_refused_instead_of_waiting_for_itself(sync):
    async def inside():
        with pytest.raises(WrongEventLoop, match="await"):
            sync.call(sync.client.list_nodes)
        with pytest.raises(WrongEventLoop):
            sync.close()
        return "told"

    assert sync.call(inside) == "told"
    assert sync.call(sync.client.list_nodes)


def test_orchestration_code_is_refused_and_a_threaded_activity_is_not(path):
    told = []

    @activity
    def ask(number: int) -> int:
        return len(sync.call(sync.client.list_nodes)) + number

    async def asking(ctx, _) -> int:
        try:
            sync.call(sync.client.list_nodes)
        except WrongEventLoop as error:
            told.append(error)
        return await ctx.schedule_activity(ask, 1)

    with connect(runtime(path, asking, activities=[ask])) as sync:
        assert sync.call(sync.call(sync.client.start, "asking").result, int) == 2
    assert "in an activity" in str(told[0])


@pytest.mark.parametrize("target", ["app.db", None, 7])
def test_what_is_no_target_is_refused_where_it_is_given(target):
    with pytest.raises(InvalidArgument, match="neither a provider nor a runtime"):
        connect(target)


def test_an_unknown_backend_is_refused(path):
    with pytest.raises(InvalidArgument, match="backend"):
        connect(SqliteProvider(path), backend="curio")


def test_a_coroutine_in_place_of_a_function_is_named(sync):
    with pytest.raises(InvalidArgument, match=r"call\(list_nodes, \.\.\.\)"):
        sync.call(sync.client.list_nodes())
    with pytest.raises(InvalidArgument, match="no function"):
        sync.call("list_nodes")
    with pytest.raises(InvalidArgument, match="iterate"):
        sync.call(counting, 3)
    with pytest.raises(InvalidArgument, match="call"):
        list(sync.iterate(sync.client.list_nodes))


def test_in_a_forked_child_it_is_refused_at_once_and_the_parent_goes_on(path):
    with connect(runtime(path, echo)) as sync, connect(SqliteProvider(path)) as client:
        read, write = os.pipe()
        if (child := os.fork()) == 0:
            told = []
            for connection in (sync, client):
                try:
                    connection.call(connection.client.list_nodes)
                except BaseException as error:
                    told.append(type(error).__name__)
                connection.close()
            with connect(SqliteProvider(path)) as own:
                told.append(str(len(own.call(own.client.list_nodes))))
            os.write(write, " ".join(told).encode())
            os._exit(0)
        os.close(write)
        assert os.read(read, 100).decode() == "RuntimeClosed RuntimeClosed 1"
        os.close(read)
        os.waitpid(child, 0)
        assert sync.call(sync.call(sync.client.start, "echo", 1).result, int) == 1


# --- iterating ------------------------------------------------------------------------------------


async def counting(number, log=None, *, fail_at=None):
    """Yield numbers, from within a scope that belongs to its task."""
    try:
        with anyio.CancelScope():
            for item in range(number):
                await anyio.sleep(0)
                if item == fail_at:
                    raise ArithmeticError("as asked")
                yield item
    finally:
        await anyio.sleep(0)
        if log is not None:
            log.append("tidied up")


def test_what_is_iterated_comes_one_by_one_and_tidies_up(sync):
    log = []
    assert list(sync.iterate(counting, 5, log)) == [0, 1, 2, 3, 4]
    assert log == ["tidied up"]
    items = sync.iterate(counting, 5, log)
    assert next(items) == 0
    items.close()
    assert log == ["tidied up"] * 2
    items = sync.iterate(counting, 5, log)
    next(items)
    del items
    assert log == ["tidied up"] * 3


def test_an_error_of_an_iteration_comes_out(sync):
    items = sync.iterate(counting, 5, fail_at=2)
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(ArithmeticError, match="as asked"):
        next(items)
    assert list(items) == []


def test_an_iteration_that_waits_ends_with_the_connection(path, backend):
    async def never():
        yield 1
        await anyio.sleep_forever()

    connection = connect(runtime(path), backend=backend).open()
    began, told = threading.Event(), []

    def iterate():
        try:
            for _ in connection.iterate(never):
                began.set()
        except RuntimeClosed as error:
            told.append(error)

    thread = threading.Thread(target=iterate)
    thread.start()
    assert began.wait(PATIENCE)
    connection.close()
    thread.join(PATIENCE)
    assert len(told) == 1


# --- the end of the process -----------------------------------------------------------------------

PROGRAM = """
import os, signal, sys, threading, time
import orchestra
from orchestra import OrchestrationRegistry, Runtime, SqliteProvider

async def idle(ctx, _) -> str:
    return await ctx.wait_for_event("go", str)

REGISTRY = OrchestrationRegistry.builder().register("idle", idle).build()
"""


def run_program(script, cwd):
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(orchestra.__file__).parents[1]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM + textwrap.dedent(script)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


async def alive(path):
    async with alone(path) as client:
        return [info for info in await client.list_nodes() if info.alive]


@pytest.mark.slow
def test_a_program_that_never_closes_ends_and_has_left(tmp_path, backend):
    done = run_program(
        f"""
        sync = orchestra.sync.connect(Runtime(SqliteProvider("store.db"), REGISTRY), backend={backend!r}).open()
        handle = sync.call(sync.client.start, "idle", instance_id="one")
        def wait():
            try:
                sync.call(handle.result)
            except orchestra.RuntimeClosed:
                pass
        threading.Thread(target=wait, daemon=True).start()
        print("done")
        """,
        tmp_path,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)
    assert asyncio.run(alive(tmp_path / "store.db")) == []


@pytest.mark.slow
def test_ctrl_c_cancels_the_call_that_waits_and_closes_in_order(tmp_path, backend):
    done = run_program(
        f"""
        def press():
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGINT)
        try:
            with orchestra.sync.connect(Runtime(SqliteProvider("store.db"), REGISTRY), backend={backend!r}) as sync:
                handle = sync.call(sync.client.start, "idle", instance_id="one")
                threading.Thread(target=press).start()
                try:
                    sync.call(handle.result)
                except KeyboardInterrupt:
                    assert sync.call(handle.info).instance_id == "one", "the connection goes on"
                    raise
        except KeyboardInterrupt:
            print("interrupted")
        """,
        tmp_path,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("interrupted\n", "", 0)
    assert asyncio.run(alive(tmp_path / "store.db")) == []


def test_an_interrupted_call_is_cancelled_in_the_loop(sync):
    cancelled = threading.Event()
    began = threading.Event()

    async def forever():
        began.set()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    def press():
        assert began.wait(PATIENCE)
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    with pytest.raises(KeyboardInterrupt):
        sync.call(forever)
    presser.join()
    assert cancelled.wait(PATIENCE)
