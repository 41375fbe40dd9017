"""A browser for each worker, the demo store, and a service that runs loops: all on this machine.

What drives the browser is imported as a fixture needs it: collecting the tests of a whole tree must
not pay for it.
"""

from __future__ import annotations

import fcntl
import logging
import os
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import anyio.from_thread
import pytest

from orchestra import Client, Runtime, SqliteProvider

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """A browser needs seconds to start. Its tests share one a worker."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="package")
def chrome(tmp_path_factory):
    """The worker's browser, until its last test here: an open one costs the other tests time. Without
    one the tests are skipped, but on CI they fail.
    """
    from ops.look import browser

    running = browser.chrome(tmp_path_factory.mktemp("profile"))
    try:
        chrome = running.__enter__()
    except browser.NoBrowser as missing:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            raise
        pytest.skip(str(missing))
    yield chrome
    running.__exit__(None, None, None)


@pytest.fixture
def screen(chrome):
    """The browser, with nothing of an earlier test in it."""
    from tests.browser.screen import Screen

    screen = Screen(chrome)
    screen.forget()
    yield screen
    screen.forget()


@pytest.fixture(scope="session")
def demo_store(tmp_path_factory):
    """The demo store, built by the first worker that asks for it."""
    from ops.look.demo import build

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    path, done = folder / "demo.db", folder / "demo.done"
    with (folder / "demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            before = logging.root.manager.disable
            logging.disable(logging.CRITICAL)  # its faults are meant
            anyio.run(lambda: build(path, instances=30, days=14))
            logging.disable(before)
            done.touch()
    return path


@pytest.fixture(scope="package")
def demo(demo_store):
    """The address of a dashboard of the demo store."""
    from ops.look.browser import serving

    @asynccontextmanager
    async def opened():
        async with Client(SqliteProvider(demo_store)) as client, serving(client) as address:
            yield address

    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(opened()) as address,
    ):
        yield address


class Service:
    """A runtime that works, with its dashboard; its client can be called from the test."""

    def __init__(self, portal, runtime, address):
        self._portal, self._runtime, self.address = portal, runtime, address
        self.client = runtime.client

    def call(self, function, *arguments, **options):
        async def called():
            return await function(*arguments, **options)

        return self._portal.call(called)


@pytest.fixture
def service(tmp_path):
    """Return a context manager that runs a registry, and serves its dashboard."""
    from ops.look.browser import serving

    @contextmanager
    def run(registry, **options):
        @asynccontextmanager
        async def opened():
            provider = SqliteProvider(tmp_path / "store.db", durability="relaxed")
            async with (
                Runtime(provider, registry, **options) as runtime,
                serving(runtime.client, registry=registry) as address,
            ):
                yield runtime, address

        with anyio.from_thread.start_blocking_portal() as portal:
            opening = portal.wrap_async_context_manager(opened())
            runtime, address = opening.__enter__()
            try:
                yield Service(portal, runtime, address)
            finally:  # in order, also where a test fails
                opening.__exit__(None, None, None)

    return run
