"""Makes pictures of the dashboard, on the demo store:

    python -m ops.look.screens                    # those that README and the guide show
    python -m ops.look.screens --all /tmp/looks   # each page, light and dark, wide and narrow

Needs Debian's ``chromium`` and ``chromium-driver``. ``--store`` takes a store that was built by
``ops.look.demo``; without it one is built.
"""

from __future__ import annotations

import argparse
import base64
import logging
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.from_thread
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from ops.look import shop
from ops.look.browser import chrome, prefer, serving, size
from ops.look.demo import build
from orchestra import Client, SqliteProvider

PICTURES: Final = Path(__file__).parent / "pictures"
WIDE: Final = 1280
NARROW: Final = 400

SHOWN: Final = {
    "overview": ("/", "light", WIDE, 900),
    "overview-dark": ("/", "dark", WIDE, 900),
    "instance": ("/instances/supplier-busy", "light", WIDE, 1_100),
    "instance-narrow": ("/instances/supplier-busy", "dark", NARROW, 900),
    "held": ("/held", "light", WIDE, 900),
    "versions": ("/versions", "light", WIDE, 900),
    "schedule": ("/schedules/inventory", "light", WIDE, 900),
}
"""What README and the guide show: the page, how, and how large."""

DETAILS: Final = (
    "/instances/supplier-busy", "/instances/supplier-006", "/instances/supplier-005",
    "/instances/order-a-00", "/instances/talk-01", "/instances/audit-trail",
    "/instances/film-sofa", "/instances/supplier-slow", "/instances/order-christmas",
    "/instances/coupon-01", "/instances/refund-0", "/instances/newsletter-0",
    "/instances/subscription%2Fcustomer-004", "/instances?held=any", "/instances/nobody",
    "/schedules/inventory", "/schedules/hourly-report", "/schedules/daily-report",
)  # fmt: skip


def picture(browser: Chrome, address: str, path: Path, *, whole: bool) -> None:
    """Write a picture of a page, as WebP."""
    browser.get(address)
    options: dict[str, Any] = {"format": "webp", "quality": 80}
    if whole:
        height = browser.execute_script("return document.documentElement.scrollHeight")
        width = browser.execute_script("return innerWidth")
        options |= {
            "captureBeyondViewport": True,
            "clip": {"x": 0, "y": 0, "width": width, "height": min(height, 4_000), "scale": 1},
        }
    data = browser.execute_cdp_cmd("Page.captureScreenshot", options)["data"]
    path.write_bytes(base64.b64decode(data))
    print(path, f"{path.stat().st_size:,} bytes")


def shown(browser: Chrome, address: str, folder: Path) -> None:
    """Make the pictures that are shown."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (page, scheme, width, height) in SHOWN.items():
        size(browser, width, height)
        prefer(browser, scheme)
        picture(browser, address + page, folder / f"{name}.webp", whole=False)


def everything(browser: Chrome, address: str, folder: Path) -> None:
    """Make a picture of each page, in each form."""
    folder.mkdir(parents=True, exist_ok=True)
    browser.get(address)
    links = browser.find_elements(By.CSS_SELECTOR, "nav a")
    pages = [str(link.get_attribute("href")).removeprefix(address) for link in links]
    for page in dict.fromkeys((*pages, *DETAILS)):
        for width in (WIDE, NARROW):
            for scheme in ("light", "dark"):
                size(browser, width)
                prefer(browser, scheme)
                name = "".join(c if c.isalnum() or c == "-" else "_" for c in page.strip("/"))
                file = folder / f"{name or 'overview'}-{width}-{scheme}.webp"
                picture(browser, address + page, file, whole=True)


def main() -> None:
    """Build a store if there is none, and make the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, help="a demo store; by default a new one")
    parser.add_argument("--all", type=Path, metavar="FOLDER", help="each page, to look at")
    options = parser.parse_args()
    logging.getLogger("orchestra").setLevel(logging.CRITICAL)

    @asynccontextmanager
    async def opened(path: Path):
        async with (
            Client(SqliteProvider(path)) as client,
            serving(client, registry=shop.THIRD) as address,
        ):
            yield address

    with tempfile.TemporaryDirectory() as folder:
        store = options.store
        if store is None:
            store = Path(folder) / "demo.db"
            anyio.run(build, store)
        with (
            anyio.from_thread.start_blocking_portal() as portal,
            portal.wrap_async_context_manager(opened(store)) as address,
            chrome(Path(folder) / "profile") as browser,
        ):
            if options.all is None:
                shown(browser, address, PICTURES)
            else:
                everything(browser, address, options.all)


if __name__ == "__main__":
    main()
