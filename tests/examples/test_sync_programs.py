"""The programs without an event loop of their own, as processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

pytestmark = pytest.mark.slow  # programs of their own

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PATIENCE = 30.0


class Service:
    """The running service."""

    def __init__(self, database: Path) -> None:
        self.database = database
        self.process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / "wsgi_service.py"), str(database), "0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("serving on "), self.process.communicate(timeout=PATIENCE)[1]
        self.url = line.removeprefix("serving on ").strip()

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        try:
            with urlopen(
                Request(self.url + path, data, method=method), timeout=PATIENCE
            ) as response:
                return response.status, json.load(response)
        except HTTPError as error:
            with error:
                return error.code, json.load(error)

    def stop(self) -> tuple[str, str]:
        self.process.send_signal(signal.SIGINT)
        return self.process.communicate(timeout=PATIENCE)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path / "orders.db")
    yield service
    if service.process.poll() is None:
        service.process.kill()
        service.process.communicate()


def script(*arguments: object) -> list[str]:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "sync_script.py"), *map(str, arguments)],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return done.stdout.splitlines()


def until_ended(service: Service, order: str) -> Any:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        _, answer = service.ask("GET", f"/orders/{order}")
        if answer["status"] == "completed":
            return answer
        time.sleep(0.02)
    raise AssertionError(answer)


def test_views_in_threads_start_tell_and_show(service: Service) -> None:
    with ThreadPoolExecutor(8) as pool:
        orders = [f"o-{number}" for number in range(8)]
        started = list(
            pool.map(lambda order: service.ask("POST", f"/orders/{order}", {"items": 2}), orders)
        )
        assert {status for status, _ in started} == {201}
        assert service.ask("POST", "/orders/o-1", {"items": 2})[0] == 201, (
            "the same request again is the same order"
        )
        paid = list(pool.map(lambda order: service.ask("POST", f"/orders/{order}/paid"), orders))
        assert {status for status, _ in paid} == {202}
        assert {until_ended(service, order)["output"] for order in orders} == {
            "2 items are on their way"
        }
    assert service.ask("POST", "/orders/o-1/paid")[0] == 202, "the same message again has no effect"
    assert service.ask("GET", "/orders/nobody")[0] == 404
    assert service.ask("POST", "/orders/o-9", {"item": 2})[0] == 400
    output, errors = service.stop()
    assert (output, errors, service.process.returncode) == ("stopping\n", "", 0)


def test_a_script_sees_the_service_and_tells_an_instance_something(service: Service) -> None:
    service.ask("POST", "/orders/o-1", {"items": 3})
    assert script(service.database) == ["o-1  order 1.0.0  running"]
    assert script(service.database, "o-1", "paid")[0].startswith("o-1  ")
    assert until_ended(service, "o-1")["output"] == "3 items are on their way"
    assert script(service.database) == []


def test_an_order_waits_over_a_restart(service: Service) -> None:
    service.ask("POST", "/orders/o-1", {"items": 1})
    service.stop()
    again = Service(service.database)
    try:
        again.ask("POST", "/orders/o-1/paid")
        assert until_ended(again, "o-1")["output"] == "1 items are on their way"
    finally:
        again.stop()
