"""Scenario 60: a runtime is entered in one task and left in another, in another loop, or not at
all.
"""

import asyncio
import contextvars
import gc
import logging
import os
import subprocess
import sys
import textwrap
import threading
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from orchestra import Runtime, RuntimeClosed, activity
from tests.support.kit import PATIENCE, alone, bounded, echo, idle, registry, runtime, until

pytestmark = pytest.mark.anyio

begun = threading.Event()
COLOUR = contextvars.ContextVar("colour", default="none")


@activity
async def slow(seconds: float) -> str:
    begun.set()
    await anyio.sleep(seconds)
    return COLOUR.get()


async def slowly(ctx, seconds: float) -> str:
    return await ctx.schedule_activity(slow, seconds)


async def in_a_task(function):
    """Run a function in a task of its own, which ends with it."""
    results = []

    async def run():
        results.append(await function())

    async with anyio.create_task_group() as group:
        group.start_soon(run)
    return results[0]


async def leave(node):
    await node.__aexit__(None, None, None)


async def alive(path):
    async with alone(path) as client:
        return [info for info in await client.list_nodes() if info.alive]


def broken(*_):
    raise ArithmeticError("broken")


# --- two tasks of one loop ------------------------------------------------------------------------


@bounded
async def test_a_runtime_that_was_entered_in_a_task_that_has_ended_is_left_in_order(store):
    node = Runtime(store(), registry(echo))
    assert await in_a_task(node.__aenter__) is node
    assert await in_a_task(lambda: started(node)) == 3
    await in_a_task(lambda: leave(node))
    async with Runtime(store(), registry(echo)) as other:
        assert [info.node_id for info in await other.client.list_nodes()] == [other.node_id]


async def started(node, value=3):
    return await (await node.client.start("echo", value)).result(int)


@bounded
async def test_running_activities_get_their_grace_also_when_another_task_leaves(path):
    begun.clear()
    COLOUR.set("of the task that enters")
    node = await in_a_task(runtime(path, slowly, activities=[slow]).__aenter__)
    COLOUR.set("later")
    handle = await node.client.start("slowly", 0.2)
    await until(begun.is_set)
    await in_a_task(lambda: leave(node))
    async with runtime(path, slowly, activities=[slow]) as other:
        assert (
            await other.client.handle(handle.instance_id).result(str) == "of the task that enters"
        )


async def fixture(path, log):
    async with runtime(path, echo) as node:
        try:
            yield node
        finally:
            log.append("torn down")


@bounded
async def test_an_asynchronous_generator_may_be_advanced_in_different_tasks(path):
    log = []
    made = fixture(path, log)
    node = await in_a_task(made.__anext__)
    assert await in_a_task(lambda: started(node)) == 3
    with pytest.raises(StopAsyncIteration):
        await made.__anext__()
    assert log == ["torn down"]
    assert await alive(path) == []


def test_a_generator_that_the_collector_finds_leaves_the_runtime_in_order(path):
    async def main():
        log = []
        made = fixture(path, log)
        node = await made.__anext__()
        assert await started(node) == 3
        del made
        gc.collect()
        await until(lambda: log)
        await until(lambda: node._is_released)
        assert await alive(path) == []

    asyncio.run(main())


@bounded
async def test_a_body_that_was_cancelled_in_the_entering_task_does_not_hurt_the_runtime(path):
    node = runtime(path, echo)
    with anyio.CancelScope() as scope:
        await node.__aenter__()
        scope.cancel()
        await anyio.sleep_forever()
    assert await started(node) == 3
    await leave(node)


@bounded
async def test_leaving_twice_one_after_the_other_or_at_once_is_harmless_and_without_entering_is_an_error(
    path,
):
    node = runtime(path, echo)
    with pytest.raises(RuntimeClosed, match="has not been entered"):
        await leave(node)
    async with node:
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(leave, node)
        with pytest.raises(RuntimeClosed):
            await node.client.start("echo", 1)
    await leave(node)


@bounded
async def test_two_runtimes_of_one_loop_are_left_in_any_order(path, tmp_path):
    one, two = runtime(path, echo), runtime(tmp_path / "second.db", echo)
    await in_a_task(one.__aenter__)
    await in_a_task(two.__aenter__)
    await in_a_task(lambda: leave(one))
    assert await started(two) == 3
    await leave(two)


# --- a runtime that fails -------------------------------------------------------------------------


@bounded
async def test_a_fault_interrupts_the_task_that_is_inside_once_and_it_can_go_on_afterwards(
    path, monkeypatch, anyio_backend
):
    interrupted = []

    async def inside():
        async with runtime(path, echo) as node:
            monkeypatch.setattr("orchestra.engine.engine.Engine.step", broken)
            node._thread.look()
            try:
                await anyio.sleep_forever()
            except BaseException as error:
                interrupted.append(type(error).__name__)
                await anyio.sleep(0)  # once: it can tidy up
                raise

    with pytest.raises(ArithmeticError):
        await inside()
    assert interrupted == ["CancelledError" if anyio_backend == "asyncio" else "Interrupted"]
    if anyio_backend == "asyncio":
        assert asyncio.current_task().cancelling() == 0, "whoever counts cancellations finds none"
    with anyio.fail_after(1):
        await anyio.sleep(0.001)


@bounded
async def test_a_fault_ends_a_body_that_waits_in_tasks_of_its_own(path, monkeypatch):
    async def inside():
        async with runtime(path, echo) as node, anyio.create_task_group() as group:
            monkeypatch.setattr("orchestra.engine.engine.Engine.step", broken)
            node._thread.look()
            for _ in range(3):
                group.start_soon(anyio.sleep_forever)

    with pytest.raises(ArithmeticError):
        await inside()


@bounded
async def test_a_fault_after_the_entering_task_has_ended_is_raised_where_the_runtime_is_left(
    path, monkeypatch, caplog
):
    node = await in_a_task(runtime(path, echo).__aenter__)
    monkeypatch.setattr("orchestra.engine.engine.Engine.step", broken)
    node._thread.look()
    await until(lambda: node._owner.failure is not None)
    with pytest.raises(RuntimeClosed, match=r"failed.*broken"):
        await node.client.start("echo", 1)
    await in_a_task(lambda: leave_with_a_failure(node))
    assert "the runtime has failed" in caplog.text


async def leave_with_a_failure(node):
    with pytest.raises(ArithmeticError):
        await leave(node)


@bounded
async def test_a_fault_of_the_shell_itself_is_told_as_well(path, monkeypatch):
    async def inside():
        async with runtime(path, echo) as node:
            monkeypatch.setattr(node._ends, "note_end", broken)
            await node.client.start("echo", 1)
            await anyio.sleep_forever()

    with pytest.raises(ArithmeticError):
        await inside()


# --- two loops ------------------------------------------------------------------------------------


def run(loop, coroutine):
    return loop.run_until_complete(asyncio.wait_for(coroutine, PATIENCE))


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    if not loop.is_closed():
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("home", ["asyncio", "trio"])
def test_a_runtime_is_left_from_another_loop_while_its_own_runs_in_another_thread(
    path, home, backend
):
    box, entered, left = {}, threading.Event(), threading.Event()

    async def host():
        box["node"] = await runtime(path, echo).__aenter__()
        entered.set()
        await until(left.is_set)

    thread = threading.Thread(target=lambda: anyio.run(host, backend=home))
    thread.start()
    assert entered.wait(PATIENCE)
    anyio.run(leave, box["node"], backend=backend)
    assert box["node"]._owner._has_ended
    left.set()
    thread.join(PATIENCE)
    assert anyio.run(alive, path) == []


def test_a_runtime_is_left_while_its_loop_stands_still_and_that_loop_goes_on_unharmed(
    path, loop, caplog
):
    begun.clear()
    node = runtime(path, slowly, activities=[slow])
    run(loop, node.__aenter__())
    run(loop, node.client.start("slowly", 3600))
    run(loop, until(begun.is_set))
    asyncio.run(leave(node))
    assert "activities are cut off" in caplog.text
    assert asyncio.run(alive(path)) == []
    run(loop, until(lambda: node._owner._has_ended))
    assert asyncio.all_tasks(loop) == set()
    run(loop, leave(node))


def test_a_runtime_whose_loop_was_closed_gives_everything_back_by_itself(path, loop, caplog):
    node = runtime(path, idle)
    run(loop, node.__aenter__())
    run(loop, node.client.start("idle", instance_id="one"))
    loop.set_exception_handler(lambda *_: None)  # asyncio tells of tasks that it has lost
    loop.close()
    asyncio.run(asyncio.wait_for(until(lambda: node._is_released), PATIENCE))
    assert "loop in which the runtime was entered is closed" in caplog.text
    assert asyncio.run(alive(path)) == []
    with pytest.raises(RuntimeClosed):
        asyncio.run(node.client.start("idle"))
    asyncio.run(leave(node))
    asyncio.run(takes_over(path))
    forget(node)


async def takes_over(path):
    async with runtime(path, idle) as other:
        await other.client.raise_event("one", "go", 1)
        assert await other.client.handle("one").result(int) == 1


def forget(node):
    """Destroy the tasks of a closed loop here, and not in another test: asyncio tells of them on
    its logger.
    """
    logging.getLogger("asyncio").disabled = True
    try:
        node._owner = node._group = node._runner = None
        gc.collect()
    finally:
        logging.getLogger("asyncio").disabled = False


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_program_that_ends_its_loop_without_leaving_has_left(path, backend):
    async def main():
        node = await runtime(path, echo).__aenter__()
        await started(node)
        return node

    node = anyio.run(main, backend=backend)
    assert node._is_released
    with pytest.raises(RuntimeClosed):
        asyncio.run(node.client.start("echo"))
    assert asyncio.run(alive(path)) == []


def test_a_key_press_that_leaves_the_loop_standing_does_not_keep_it_from_being_left(path, loop):
    async def interrupted():
        raise KeyboardInterrupt

    node = runtime(path, echo)
    run(loop, node.__aenter__())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(interrupted())
    assert run(loop, started(node)) == 3
    run(loop, leave(node))
    assert asyncio.run(alive(path)) == []


def test_a_forked_child_that_leaves_the_block_leaves_the_parents_runtime_alone(path):
    async def main():
        async with runtime(path, echo) as node:
            child = os.fork()
            if child == 0:
                try:
                    node.__aexit__(None, None, None).send(None)
                except StopIteration:
                    os._exit(7)
                finally:
                    os._exit(1)
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == 7
            assert await started(node) == 3
            assert [info.alive for info in await node.client.list_nodes()] == [True]

    asyncio.run(main())


# --- what hosts do with it ------------------------------------------------------------------------

HOST = """
import asyncio, signal, sys
import anyio
from orchestra import OrchestrationRegistry, Runtime, SqliteProvider

async def echo(ctx, value: int) -> int:
    return value

REGISTRY = OrchestrationRegistry.builder().register("echo", echo).build()
"""


def run_script(script, *arguments, cwd):
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.run(
        [sys.executable, *arguments, "-c", HOST + textwrap.dedent(script)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_ctrl_c_leaves_a_runtime_in_order(tmp_path, backend):
    done = run_script(
        f"""
        async def main():
            async with Runtime(SqliteProvider("store.db"), REGISTRY) as node:
                await (await node.client.start("echo", 1)).result(int)
                signal.raise_signal(signal.SIGINT)
                await anyio.sleep(30)
        try:
            anyio.run(main, backend={backend!r})
        except KeyboardInterrupt:
            print("interrupted")
        """,
        cwd=tmp_path,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("interrupted\n", "", 0)
    assert asyncio.run(alive(tmp_path / "store.db")) == []


def test_the_process_ends_though_a_closed_loop_had_a_runtime_in_it(tmp_path):
    done = run_script(
        """
        loop = asyncio.new_event_loop()
        node = Runtime(SqliteProvider("store.db"), REGISTRY)
        loop.run_until_complete(node.__aenter__())
        loop.close()
        """,
        cwd=tmp_path,
    )
    assert done.returncode == 0


PLUGIN = """
import pytest, pytest_asyncio
from orchestra import OrchestrationRegistry, Runtime, SqliteProvider, activity

@activity
async def probe(value: int) -> int:
    return value + 1

async def probing(ctx, value: int) -> int:
    return await ctx.schedule_activity(probe, value)

REGISTRY = OrchestrationRegistry.builder().register("probing", probing).build()
"""


def run_pytest(tmp_path, tests):
    (tmp_path / "test_host.py").write_text(PLUGIN + textwrap.dedent(tests))
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = "
        "function\nfilterwarnings = error\n"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    environment.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:anyio",
            "--timeout",
            "40",
        ],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.slow
def test_pytest_asyncio_in_auto_mode_enters_and_leaves_a_runtime_of_a_fixture(tmp_path):
    output = run_pytest(
        tmp_path,
        """
        @pytest.fixture
        async def node(tmp_path):
            async with Runtime(SqliteProvider(tmp_path / "store.db"), REGISTRY, [probe]) as node:
                yield node

        async def test_one(node):
            assert await (await node.client.start("probing", 1)).result(int) == 2

        async def test_two(node):
            assert await (await node.client.start("probing", 2)).result(int) == 3

        async def test_three(node):
            pass

        @pytest.mark.xfail(raises=ZeroDivisionError, strict=True)
        async def test_four(node):
            1 / 0
        """,
    )
    assert "3 passed, 1 xfailed" in output, output


@pytest.mark.slow
def test_pytest_asyncio_shares_a_runtime_in_a_module_and_names_a_scope_that_does_not_fit(tmp_path):
    output = run_pytest(
        tmp_path,
        """
        from orchestra import WrongEventLoop

        @pytest_asyncio.fixture(scope="module", loop_scope="module")
        async def node(tmp_path_factory):
            async with Runtime(SqliteProvider(tmp_path_factory.mktemp("m") / "store.db"), REGISTRY, [probe]) as node:
                yield node

        @pytest.mark.asyncio(loop_scope="module")
        async def test_one(node):
            assert await (await node.client.start("probing", 1)).result(int) == 2

        async def test_in_a_loop_of_its_own(node):
            handle = await node.client.start("probing", 1)
            with pytest.raises(WrongEventLoop, match="loop_scope"):
                await handle.result(int)

        @pytest.mark.asyncio(loop_scope="module")
        async def test_three(node):
            assert await (await node.client.start("probing", 3)).result(int) == 4
        """,
    )
    assert "3 passed" in output, output


@bounded
async def test_an_asgi_lifespan_enters_and_leaves_a_runtime(path):
    @asynccontextmanager
    async def lifespan(_):
        async with runtime(path, echo) as node:
            yield {"node": node}

    async def page(request):
        return JSONResponse(await started(request.state.node, 7))

    app = Starlette(routes=[Route("/", page)], lifespan=lifespan)
    state = {}
    to_app, receive = anyio.create_memory_object_stream(10)
    send, from_app = anyio.create_memory_object_stream(10)
    async with to_app, receive, send, from_app, anyio.create_task_group() as server:
        server.start_soon(app, {"type": "lifespan", "state": state}, receive.receive, send.send)
        await to_app.send({"type": "lifespan.startup"})
        assert (await from_app.receive())["type"] == "lifespan.startup.complete"
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/",
            "headers": [],
            "query_string": b"",
            "state": state,
        }
        server.start_soon(app, scope, None, send.send)
        assert (await from_app.receive())["status"] == 200
        assert (await from_app.receive())["body"] == b"7"
        await to_app.send({"type": "lifespan.shutdown"})
        assert (await from_app.receive())["type"] == "lifespan.shutdown.complete"
    assert await alive(path) == []
