"""Debian's browser without a screen, and the dashboard for it to show: for the tests in a browser
and for the pictures.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Literal

import anyio
import uvicorn
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from orchestra import Client
from orchestra.web import create_app

__all__ = ["NoBrowser", "chrome", "prefer", "serving", "size"]

INSTALL = "apt-get install -y --no-install-recommends chromium chromium-driver"


class NoBrowser(Exception):
    """This machine has no browser, or no driver for it."""


def _programs() -> tuple[str, str]:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        raise NoBrowser(f"there is no chromium, or no chromedriver, on this machine: {INSTALL}")
    return browser, driver


@contextmanager
def chrome(profile: Path) -> Iterator[Chrome]:
    """Run a browser without a screen, with its profile in a new folder.

    Raises:
        NoBrowser: this machine has none.
    """
    browser, driver = _programs()
    options = ChromeOptions()
    options.binary_location = browser
    for argument in (
        "--headless=new",
        "--no-sandbox",  # root has no sandbox; the pages are our own
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--hide-scrollbars",
        "--no-first-run",
        "--no-proxy-server",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    running = Chrome(options, ChromeService(driver))
    try:
        running.set_page_load_timeout(60)
        running.set_script_timeout(60)
        yield running
    finally:
        running.quit()


def size(browser: Chrome, width: int, height: int = 900, *, scale: float = 1) -> None:
    """Give the page so much room, in CSS pixels."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False},
    )


def prefer(browser: Chrome, scheme: Literal["light", "dark"]) -> None:
    """Let the reader's system be light or dark."""
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )


@asynccontextmanager
async def serving(client: Client, **options: Any) -> AsyncIterator[str]:
    """Serve the dashboard of a client; yield its address."""
    app = create_app(client, **options)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
        )
        async with anyio.create_task_group() as group:
            group.start_soon(server.serve, [listening])  # who connects meanwhile waits
            yield "http://{}:{}".format(*listening.getsockname())
            server.should_exit = True
