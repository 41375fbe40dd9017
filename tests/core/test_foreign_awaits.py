"""Awaiting what is not durable is an error that names the line and the right call."""

import asyncio
import concurrent.futures
import importlib
import inspect

import anyio
import httpx
import pytest
import trio

from tests.support.driver import Drive

TIMER = "ctx.schedule_timer"
ACTIVITY = "ctx.schedule_activity"


async def asyncio_sleep_0(ctx, _):
    await asyncio.sleep(0)


async def asyncio_sleep(ctx, _):
    await asyncio.sleep(1)


async def anyio_sleep(ctx, _):
    await anyio.sleep(1)


async def trio_sleep(ctx, _):
    await trio.sleep(1)


async def asyncio_wait_for(ctx, _):
    await asyncio.wait_for(asyncio.sleep(1), 1)


async def anyio_event(ctx, _):
    await anyio.Event().wait()


async def in_a_branch(ctx, _):
    await ctx.gather(asyncio_sleep_0(ctx, None), ctx.schedule_activity("a"))


async def in_a_helper(ctx, _):
    await asyncio_sleep_0(ctx, None)


def outside_of_any_loop(subject):
    return Drive(subject)


def on_asyncio(subject):
    async def main():
        return Drive(subject)

    return asyncio.run(main())


def on_trio(subject):
    async def main():
        return Drive(subject)

    return trio.run(main)


CASES = {
    (asyncio_sleep_0, outside_of_any_loop): ("sleep()", TIMER),
    (asyncio_sleep_0, on_asyncio): ("sleep()", TIMER),
    (asyncio_sleep_0, on_trio): ("sleep()", TIMER),
    (asyncio_sleep, outside_of_any_loop): ("sleep()", TIMER),
    (asyncio_sleep, on_asyncio): ("sleep()", TIMER),
    (anyio_sleep, outside_of_any_loop): ("sleep()", TIMER),
    (anyio_sleep, on_asyncio): ("sleep()", TIMER),
    (anyio_sleep, on_trio): ("sleep()", TIMER),
    (trio_sleep, outside_of_any_loop): ("sleep()", TIMER),
    (trio_sleep, on_trio): ("sleep()", TIMER),
    (anyio_event, on_asyncio): ("Event.wait()", "ctx.condition"),
    (anyio_event, on_trio): ("Event.wait()", "ctx.condition"),
    (in_a_branch, on_asyncio): ("sleep()", TIMER),
    (in_a_helper, on_asyncio): ("sleep()", TIMER),
}


@pytest.mark.parametrize(("subject", "where"), CASES, ids=lambda value: value.__name__)
def test_a_foreign_await_names_the_line_and_the_right_call(subject, where):
    called, advice = CASES[subject, where]
    error = where(subject).error
    assert error.type == "orchestra.errors.ForeignAwait"
    blamed = asyncio_sleep_0 if subject in {in_a_branch, in_a_helper} else subject
    line = blamed.__code__.co_firstlineno + 1
    assert error.message.startswith(f"{__file__}:{line} in {blamed.__name__} awaits {called}: ")
    assert advice in error.message


def test_asyncio_gather_is_answered_with_the_gather_of_the_context():
    async def subject(ctx, future):
        await asyncio.gather(future)

    async def main():
        return Drive(partial_state(subject, asyncio.get_running_loop().create_future()))

    error = asyncio.run(main()).error
    assert "awaits gather(): use `await ctx.gather(...)`" in error.message


def test_a_plain_asyncio_future_is_answered_with_what_may_be_awaited():
    async def subject(ctx, future):
        await future

    async def main():
        return Drive(partial_state(subject, asyncio.get_running_loop().create_future()))

    error = asyncio.run(main()).error
    assert "something that is not durable (Future)" in error.message
    assert ACTIVITY in error.message


def partial_state(subject, value):
    """Return an orchestration that hands a live object to ``subject``."""

    async def with_value(ctx, _):
        await subject(ctx, value)

    return with_value


def test_code_may_catch_a_foreign_await_and_go_on():
    async def subject(ctx, _):
        try:
            await asyncio.sleep(0)
        except Exception as error:
            return await ctx.schedule_activity("a", type(error).__name__)

    drive = Drive(subject)
    drive.done("a", "went on")
    assert drive.output == "went on"


def test_a_future_of_another_execution_is_foreign():
    kept = []

    async def keeps(ctx, _):
        future = ctx.schedule_activity("a")
        kept.append(future)
        await future

    alive = Drive(keeps)

    async def subject(ctx, _):
        await kept[0]

    assert Drive(subject).error.type == "orchestra.errors.ForeignAwait"
    alive.done("a")
    assert alive.output is None


def test_an_error_of_the_code_itself_is_left_as_it_is():
    async def subject(ctx, _):
        raise RuntimeError("mine")

    assert Drive(subject).error.type == "RuntimeError"


# --- every awaitable that users may try -----------------------------------------------------------

TABLE = {}


def advised(*words, on=("thread", "asyncio", "trio")):
    """Note a program that is to be answered with these words, wherever it runs. The line is the one
    that is marked.
    """

    def note(program):
        TABLE.update({(program, where): words for where in on})
        return program

    return note


async def nothing():
    pass


@advised(TIMER, on=("thread", "asyncio"))
async def asyncio_sleep_until_later(ctx, _):
    await asyncio.sleep(5)  # <-


@advised(TIMER, on=("thread", "trio"))
async def trio_sleep_for_ever(ctx, _):
    await trio.sleep_forever()  # <-


@advised(TIMER)
async def anyio_sleep_until(ctx, _):
    await anyio.sleep_until(10)  # <-


@advised("ctx.race", "timeout=", on=("thread", "asyncio"))
async def asyncio_wait_for_an_event(ctx, _):
    await asyncio.wait_for(asyncio.Event().wait(), 1)  # <-


@advised("ctx.race", "timeout=", on=("thread",))
async def asyncio_timeout(ctx, _):
    async with asyncio.timeout(1):  # <-
        pass


@advised("ctx.race", "timeout=", on=("thread",))
async def anyio_fail_after(ctx, _):
    with anyio.fail_after(1):  # <-
        await ctx.schedule_activity("a")


@advised("ctx.race", "timeout=", on=("thread",))
async def anyio_move_on_after(ctx, _):
    with anyio.move_on_after(1):  # <-
        await ctx.schedule_activity("a")


@advised("ctx.race", "timeout=", on=("thread",))
async def anyio_cancel_scope(ctx, _):
    with anyio.CancelScope():  # <-
        await ctx.schedule_activity("a")


@advised("ctx.race", "timeout=", on=("thread",))
async def trio_move_on_after(ctx, _):
    with trio.move_on_after(1):  # <-
        await ctx.schedule_activity("a")


@advised("ctx.race", "timeout=", on=("thread",))
async def trio_fail_after(ctx, _):
    with trio.fail_after(1):  # <-
        await ctx.schedule_activity("a")


@advised("ctx.condition", "ctx.wait_for_event", on=("thread", "asyncio"))
async def asyncio_event(ctx, _):
    await asyncio.Event().wait()  # <-


@advised("ctx.condition", "ctx.wait_for_event")
async def anyio_event_of_the_host(ctx, _):
    await anyio.Event().wait()  # <-


@advised("ctx.condition", "ctx.wait_for_event", on=("thread", "trio"))
async def trio_event(ctx, _):
    await trio.Event().wait()  # <-


@advised("ctx.lock", on=("thread", "asyncio"))
async def asyncio_lock(ctx, _):
    lock = asyncio.Lock()
    async with lock:
        await lock.acquire()  # <-


@advised("ctx.lock", on=("thread", "asyncio"))
async def asyncio_lock_as_a_context(ctx, _):
    lock = asyncio.Lock()
    await lock.acquire()
    async with lock:  # <-
        pass


@advised("ctx.lock")
async def anyio_lock(ctx, _):
    async with anyio.Lock():  # <-
        pass


@advised("ctx.lock", on=("thread", "trio"))
async def trio_lock(ctx, _):
    async with trio.Lock():  # <-
        pass


@advised("ctx.semaphore", on=("thread", "asyncio"))
async def asyncio_semaphore(ctx, _):
    async with asyncio.Semaphore(0):  # <-
        pass


@advised("ctx.semaphore", on=("thread", "asyncio"))
async def asyncio_bounded_semaphore(ctx, _):
    await asyncio.BoundedSemaphore(0).acquire()  # <-


@advised("ctx.semaphore")
async def anyio_semaphore(ctx, _):
    async with anyio.Semaphore(1):  # <-
        pass


@advised("ctx.semaphore")
async def anyio_capacity_limiter(ctx, _):
    async with anyio.CapacityLimiter(1):  # <-
        pass


@advised("ctx.semaphore", on=("thread", "trio"))
async def trio_semaphore(ctx, _):
    async with trio.Semaphore(1):  # <-
        pass


@advised("ctx.condition", on=("thread", "asyncio"))
async def asyncio_condition(ctx, _):
    condition = asyncio.Condition()
    async with condition:
        await condition.wait()  # <-


@advised("ctx.condition")
async def anyio_condition(ctx, _):
    async with anyio.Condition():  # <-
        pass


@advised("ctx.condition", on=("thread", "asyncio"))
async def asyncio_barrier(ctx, _):
    await asyncio.Barrier(2).wait()  # <-


@advised("ctx.wait_for_event", "ctx.condition", on=("thread", "asyncio"))
async def asyncio_queue_get(ctx, _):
    await asyncio.Queue().get()  # <-


@advised("ctx.wait_for_event", "ctx.condition", on=("thread", "asyncio"))
async def asyncio_queue_put(ctx, _):
    queue = asyncio.LifoQueue(1)
    await queue.put(1)
    await queue.put(2)  # <-


@advised("ctx.wait_for_event", "ctx.condition")
async def anyio_memory_stream(ctx, _):
    send, receive = anyio.create_memory_object_stream(1)
    with send, receive:
        await receive.receive()  # <-


@advised("ctx.wait_for_event", "ctx.condition", on=("thread",))
async def trio_memory_channel(ctx, _):
    send, receive = trio.open_memory_channel(1)
    with send, receive:
        await receive.receive()  # <-


@advised("ctx.gather", on=("thread",))
async def asyncio_gather(ctx, _):
    waiting = nothing()
    try:
        await asyncio.gather(waiting)  # <-
    finally:
        waiting.close()


@advised("ctx.task_group", on=("thread",))
async def asyncio_create_task(ctx, _):
    work = nothing()
    try:
        await asyncio.create_task(work)  # <-
    finally:
        work.close()


@advised("ctx.task_group", on=("asyncio",))
async def asyncio_task_of_the_host(ctx, _):
    await asyncio.create_task(nothing())  # <-


@advised("ctx.task_group", on=("thread",))
async def asyncio_ensure_future(ctx, _):
    work = nothing()
    try:
        await asyncio.ensure_future(work)  # <-
    finally:
        work.close()


@advised("ctx.task_group", on=("thread",))
async def asyncio_task_group(ctx, _):
    async with asyncio.TaskGroup():  # <-
        pass


@advised("ctx.task_group", on=("thread",))
async def anyio_task_group(ctx, _):
    async with anyio.create_task_group():  # <-
        pass


@advised("ctx.task_group", on=("thread",))
async def trio_nursery(ctx, _):
    async with trio.open_nursery():  # <-
        pass


@advised("`def` activity", on=("thread", "asyncio"))
async def asyncio_to_thread(ctx, _):
    await asyncio.to_thread(print)  # <-


@advised("`def` activity")
async def anyio_to_thread(ctx, _):
    await anyio.to_thread.run_sync(int)  # <-


@advised("`def` activity", on=("thread", "trio"))
async def trio_to_thread(ctx, _):
    await trio.to_thread.run_sync(int)  # <-


@advised("`def` activity", on=("thread",))
async def a_future_of_a_thread_pool(ctx, _):
    await asyncio.wrap_future(concurrent.futures.Future())  # <-


@advised(ACTIVITY, on=("thread",))
async def the_running_loop(ctx, _):
    asyncio.get_running_loop()  # <-


@advised("I/O in an activity", on=("thread", "asyncio"))
async def asyncio_open_connection(ctx, _):
    await asyncio.open_connection("127.0.0.1", 1)  # <-


@advised("I/O in an activity", on=("thread",))
async def asyncio_start_server(ctx, _):
    await asyncio.start_server(print, "127.0.0.1", 0)  # <-


@advised("I/O in an activity", on=("thread",))
async def asyncio_subprocess(ctx, _):
    await asyncio.create_subprocess_exec("true")  # <-


@advised("I/O in an activity", on=("thread",))
async def asyncio_shell(ctx, _):
    await asyncio.create_subprocess_shell("true")  # <-


@advised("I/O in an activity", on=("thread", "asyncio"))
async def asyncio_stream(ctx, _):
    loop = asyncio.new_event_loop()
    try:
        await asyncio.StreamReader(loop=loop).read()  # <-
    finally:
        loop.close()


@advised("I/O in an activity", on=("thread", "asyncio"))
async def anyio_connect_tcp(ctx, _):
    await anyio.connect_tcp("127.0.0.1", 1)  # <-


@advised("I/O in an activity", on=("thread",))
async def anyio_run_process(ctx, _):
    await anyio.run_process("true")  # <-


@advised("I/O in an activity")
async def anyio_open_file(ctx, _):
    await anyio.open_file(__file__)  # <-


@advised("I/O in an activity")
async def anyio_path(ctx, _):
    await anyio.Path(__file__).read_text()  # <-


@advised("I/O in an activity", on=("thread", "trio"))
async def trio_open_tcp_stream(ctx, _):
    await trio.open_tcp_stream("127.0.0.1", 1)  # <-


@advised("I/O in an activity", on=("thread",))
async def trio_run_process(ctx, _):
    await trio.run_process(["true"])  # <-


@advised("I/O in an activity", "of httpx", on=("thread", "asyncio", "trio"))
async def a_library_that_does_io(ctx, _):
    transport = httpx.AsyncHTTPTransport()
    await httpx.AsyncClient(transport=transport, trust_env=False).get("http://127.0.0.1:1/")  # <-


@advised(TIMER, on=("thread", "asyncio", "trio"))
async def in_an_async_generator(ctx, _):
    async def ticks():
        while True:
            await anyio.sleep(1)  # <-
            yield 1

    async for _tick in ticks():
        pass


@pytest.fixture(scope="module")
def elsewhere():
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        yield threads


@pytest.mark.filterwarnings(
    "ignore:coroutine .* was never awaited", "ignore::pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize(
    ("program", "where"), TABLE, ids=lambda value: getattr(value, "__name__", value)
)
def test_whatever_is_awaited_that_is_not_durable_is_named_with_the_line_and_what_to_use_instead(
    program, where, elsewhere
):
    if where == "thread":  # as the engine does
        drive = elsewhere.submit(Drive, program).result()
    else:
        drive = {"asyncio": on_asyncio, "trio": on_trio}[where](program)
    error = drive.error
    assert error.type == "orchestra.errors.ForeignAwait", error
    source, first = inspect.getsourcelines(program)
    line = first + next(at for at, text in enumerate(source) if "# <-" in text)
    assert error.message.startswith(f"{__file__}:{line} in "), error.message
    for word in TABLE[program, where]:
        assert word in error.message, error.message


def test_a_package_that_the_user_calls_is_not_blamed_for_the_line(tmp_path, monkeypatch):
    """Its frames are those of an installed package, wherever the user's own code is."""
    package = tmp_path / "site-packages" / "fetching"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "import anyio\n\nasync def fetch():\n    await anyio.sleep(1)\n"
    )
    monkeypatch.syspath_prepend(str(package.parent))
    fetching = importlib.import_module("fetching")

    async def subject(ctx, _):
        await fetching.fetch()

    error = Drive(subject).error
    line = subject.__code__.co_firstlineno + 1
    assert error.message.startswith(f"{__file__}:{line} in ")
    assert "awaits fetch() of fetching, which is not durable" in error.message


def test_errors_that_users_expect_of_asyncio_are_left_as_they_are():
    async def subject(ctx, _):
        asyncio.Queue().get_nowait()

    assert Drive(subject).error.type == "asyncio.queues.QueueEmpty"
