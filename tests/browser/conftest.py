"""A browser for each worker, the demo store, and a service that runs loops: all on this machine."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import socket
from contextlib import asynccontextmanager, contextmanager

import anyio
import anyio.from_thread
import pytest
import uvicorn
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from ops.look.demo import build
from orchestra import Client, Runtime, SqliteProvider
from orchestra.web import create_app
from tests.browser.screen import Screen

INSTALL = "apt-get install -y --no-install-recommends chromium chromium-driver"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """A browser needs seconds to start. Its tests share one a worker."""
    for item in items:
        if "browser" in item.path.parts:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(300))


def programs():
    """Return where the browser and its driver are.

    Without them the tests are skipped, but on CI they fail.
    """
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if browser and driver:
        return browser, driver
    missing = f"these tests need Debian's chromium and chromedriver: {INSTALL}"
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(missing)
    return pytest.skip(missing)


@pytest.fixture(scope="session")
def chrome(tmp_path_factory):
    browser, driver = programs()
    options = ChromeOptions()
    options.binary_location = browser
    for argument in (
        "--headless=new",
        "--no-sandbox",  # root has no sandbox; the pages are our own
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        "--no-proxy-server",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = Chrome(options, ChromeService(driver))
    chrome.set_page_load_timeout(60)
    chrome.set_script_timeout(60)
    yield chrome
    chrome.quit()


@pytest.fixture
def screen(chrome):
    """The browser, with nothing of an earlier test in it."""
    screen = Screen(chrome)
    screen.forget()
    yield screen
    screen.forget()


@asynccontextmanager
async def serving(client, **options):
    """Serve the dashboard of a client; yield its address."""
    app = create_app(client, **options)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        async with anyio.create_task_group() as group:
            group.start_soon(server.serve, [listening])  # who connects meanwhile waits
            yield "http://{}:{}".format(*listening.getsockname())
            server.should_exit = True


@pytest.fixture(scope="session")
def demo_store(tmp_path_factory):
    """The demo store, built by the first worker that asks for it."""
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


@pytest.fixture(scope="session")
def demo(demo_store):
    """The address of a dashboard of the demo store."""

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
