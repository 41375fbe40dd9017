"""What the tests of the runtime share."""

import functools
import inspect
import threading
from datetime import UTC, datetime, timedelta

import anyio

from orchestra import OrchestrationRegistry, RetryPolicy, Runtime, SqliteProvider
from orchestra.client import Client
from orchestra.providers.memory import MemoryProvider
from orchestra.testing import TestRuntime

PATIENCE = 60
"""Seconds after which a wait is taken for a hang."""

QUICK = RetryPolicy(initial_interval=timedelta(0))


def registry(*entries, policies=None, failures=()):
    """Return a registry of functions, or of ``(name, version, function)``. ``failures``: what of
    their errors fails them.
    """
    builder = OrchestrationRegistry.builder()
    for entry in entries:
        if callable(entry):
            builder.register(entry.__name__, entry, failures=failures)
        else:
            name, version, function = entry
            builder.register(name, function, version=version, failures=failures)
    for name, policy in (policies or {}).items():
        builder.set_version_policy(name, policy)
    return builder.build()


def runtime(path, *entries, activities=(), policies=None, failures=(), **options):
    """Return a runtime over a provider of its own. Power cuts are no matter here, so it need not
    wait for the disk.
    """
    known = registry(*entries, policies=policies, failures=failures)
    return Runtime(SqliteProvider(path, durability="relaxed"), known, activities, **options)


def virtual(database, *entries, activities=(), policies=None, failures=(), **options):
    """Return a test runtime over a store in memory, for tests of what orchestrations do. Another
    one over the same database is the next start of the process, an hour later.
    """
    database.starts = getattr(database, "starts", 0) + 1
    return TestRuntime(
        registry(*entries, policies=policies, failures=failures),
        activities,
        start=datetime(2026, 3, 1, database.starts, tzinfo=UTC),
        provider=lambda clock: MemoryProvider(database, clock=clock),
        **options,
    )


def alone(path, **options):
    """Return a client without a runtime, over a provider of its own."""
    return Client(SqliteProvider(path, durability="relaxed"), **options)


def bounded(test):
    """Fail a test that hangs."""

    @functools.wraps(test)
    async def run(*args, **kwargs):
        with anyio.fail_after(PATIENCE):
            await test(*args, **kwargs)

    return run


async def until(look):
    """Call a function, ``async`` or not, again and again until what comes is true; return it."""
    while True:
        found = look()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        await anyio.sleep(0.005)


async def info_when(handle, condition):
    """Return the first info of an instance that fulfils a condition."""

    async def look():
        info = await handle.info()
        return info if condition(info) else None

    return await until(look)


async def when_set(event):
    """Wait for a ``threading.Event`` without stopping the event loop."""
    await until(event.is_set)


async def idle(ctx, value):
    """An orchestration that waits for "go", as often as it takes, and returns its payload."""
    return await ctx.wait_for_event("go")


async def echo(ctx, value):
    """An orchestration that returns its input."""
    return value


class Gate:
    """Holds threads until it is opened; counts who came."""

    def __init__(self):
        self.entered = threading.Event()
        self._open = threading.Event()
        self.count = 0

    def open(self):
        self._open.set()

    def __call__(self):
        self.count += 1
        self.entered.set()
        assert self._open.wait(PATIENCE)
