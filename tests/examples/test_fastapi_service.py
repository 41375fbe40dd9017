"""The FastAPI service over real HTTP: a real server process, stopped, killed, started again, and
upgraded.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import anyio
import httpx
import pytest

from orchestra import Client, InstanceInfo, InstanceStatus, SqliteProvider

pytestmark = pytest.mark.slow  # programs of their own

SERVICE = Path(__file__).resolve().parents[2] / "examples" / "fastapi_service"
API = "/api/orchestrations"
PATIENCE = 30.0
T = TypeVar("T")


def wait_until(look: Callable[[], T | None]) -> T:
    """Look again and again until there is something."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.02)
    raise AssertionError("what was waited for has not come")


class Target:
    """A server to be watched. It answers once ``gate`` is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.requests = 0
        target = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                target.requests += 1
                target.gate.wait(PATIENCE)
                try:
                    self.send_response(200)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                except OSError:
                    self.close_connection = True  # who asked was killed meanwhile

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}/"

    def close(self) -> None:
        self.gate.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


class Service:
    """The example as a process of its own, on a port that the system chooses."""

    program = SERVICE

    def __init__(self, database: Path, **environment: str) -> None:
        self._log = database.with_suffix(f".{time.monotonic_ns()}.log")
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(self.program)],
                env={
                    **os.environ,
                    "NO_PROXY": "*",
                    "DATABASE": str(database),
                    "PORT": "0",
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.http: httpx.Client

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait_until_ready(self) -> None:
        def address() -> str | None:
            assert self.process.poll() is None, self.log
            found = re.search(r"running on (http://[\d.:]+)", self.log)
            return found and found[1]

        self.http = httpx.Client(base_url=wait_until(address), timeout=PATIENCE, trust_env=False)
        assert self.http.get("/health").json() == {"status": "ok"}

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        if hasattr(self, "http"):
            self.http.close()

    # --- what its users do ---

    def start(self, instance_id: str, url: str, **more: Any) -> dict[str, Any]:
        answer = self.http.post(API, json={"instance_id": instance_id, "url": url, **more})
        assert answer.status_code == 201, answer.text
        assert answer.headers["location"] == f"{API}/{instance_id}"
        return answer.json()

    def info(self, instance_id: str) -> dict[str, Any]:
        answer = self.http.get(f"{API}/{instance_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def executions(self, instance_id: str, **query: int) -> list[dict[str, Any]]:
        answer = self.http.get(f"{API}/{instance_id}/executions", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def send(self, instance_id: str, name: str, **payload: Any) -> httpx.Response:
        return self.http.post(
            f"{API}/{instance_id}/events",
            json={"name": name, **({"payload": payload} if payload else {})},
        )

    def wait_for(
        self, instance_id: str, condition: Callable[[dict[str, Any]], bool]
    ) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            info = self.info(instance_id)
            return info if condition(info) else None

        return wait_until(look)

    def wait_for_pause(self, instance_id: str, lap: int = 1) -> dict[str, Any]:
        return self.wait_for(
            instance_id,
            lambda info: info["execution_id"] == lap and info["next_wake_at"] is not None,
        )


def serve(database: Path, **environment: str) -> Iterator[Callable[..., Service]]:
    services: list[Service] = []

    def start_service(**more: str) -> Service:
        services.append(Service(database, **environment, **more))
        services[-1].wait_until_ready()
        return services[-1]

    try:
        yield start_service
    finally:
        for service in services:
            service.close()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "watches.db"


@pytest.fixture
def start_service(database: Path) -> Iterator[Callable[..., Service]]:
    """Start the service on this test's database."""
    yield from serve(database)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all tests that do not stop it."""
    for start in serve(tmp_path_factory.mktemp("shared") / "watches.db", INBOX_LIMIT="3"):
        yield start()


@pytest.fixture
def target() -> Iterator[Target]:
    server = Target()
    yield server
    server.close()


def stored(database: Path, instance_id: str) -> InstanceInfo:
    """Look at the store from a process that runs nothing."""

    async def look() -> InstanceInfo:
        async with Client(SqliteProvider(database)) as client:
            return await client.get_instance_info(instance_id)

    return anyio.run(look)


# --- the API ---


def test_a_watch_is_started_seen_configured_and_stopped(service: Service, target: Target) -> None:
    started = service.start("story", target.url, pause_seconds=3600, labels={"team": "blue"})
    assert (started["version"], started["execution_id"], started["labels"]) == (
        "1.1.0",
        1,
        {"team": "blue"},
    )

    info = service.wait_for_pause("story")
    assert (info["version"], info["status"], info["held_reason"]) == ("1.1.0", "running", None)
    assert info["custom_status"] == {"http": 200, "checks": 1, "failures": 0}
    assert [wait["kind"] for wait in info["waiting_on"]] == ["event", "event", "timer"]

    assert service.send("story", "config", pause_seconds=1800).status_code == 202
    info = service.wait_for_pause("story", lap=2)
    assert info["input"] == {"url": target.url, "pause_seconds": 1800, "checks": 1, "failures": 0}

    assert service.send("story", "stop").content == b""
    ended = service.wait_for("story", lambda info: info["status"] != "running")
    assert (ended["status"], ended["output"], ended["error"]) == (
        "completed",
        "stopped after 2 checks",
        None,
    )
    assert [lap["status"] for lap in service.executions("story")] == [
        "continued_as_new",
        "completed",
    ]


def test_a_browser_follows_what_a_watch_publishes(service: Service, target: Target) -> None:
    """As server-sent events, over laps, and from the last event that it has seen."""
    service.start("followed", target.url, pause_seconds=0.01)
    path = f"{API}/followed/streams/answers"
    seen: list[str] = []
    with service.http.stream("GET", path) as got:
        assert got.headers["content-type"].startswith("text/event-stream")
        for line in got.iter_lines():
            seen += [line] if line else []
            if len(seen) == 6:
                break
    data = f'data: {{"url": "{target.url}", "http": 200}}'
    assert seen == ["id: 1", data, "id: 2", data, "id: 3", data]
    assert service.send("followed", "stop").status_code == 202
    service.wait_for("followed", lambda info: info["status"] == "completed")
    rest = service.http.get(path, headers={"Last-Event-ID": "3"})
    numbers = [line for line in rest.text.splitlines() if line.startswith("id: ")]
    assert numbers == [f"id: {number}" for number in range(4, 4 + len(numbers))]
    assert service.http.get(f"{API}/nobody/streams/answers").status_code == 404


def test_a_watch_outlives_what_it_watches(service: Service) -> None:
    target = Target()
    target.close()
    service.start("refused", target.url, pause_seconds=0.01)
    info = service.wait_for("refused", lambda info: info["execution_id"] > 2)
    assert info["status"] == "running"
    assert info["custom_status"]["http"] is None
    assert info["custom_status"]["failures"] >= 2
    assert service.send("refused", "stop").status_code == 202


def test_the_list_is_paged(service: Service, target: Target) -> None:
    for number in range(5):
        service.start(
            f"page-{number}",
            target.url,
            pause_seconds=3600,
            version="1.0.0" if number == 1 else "1.1.0",
        )

    def pages(**query: Any) -> list[list[str]]:
        found: list[list[str]] = []
        page: dict[str, str] = {}
        while True:
            answer = service.http.get(API, params={"prefix": "page-", **query, **page}).json()
            found.append([item["instance_id"] for item in answer["items"]])
            if answer["next_page"] is None:
                return found
            page = {"page": answer["next_page"]}

    assert pages(limit=2) == [["page-4", "page-3"], ["page-2", "page-1"], ["page-0"]]
    assert pages(version="1.0.0") == [["page-1"]]
    assert pages(status=["completed", "failed"]) == [[]]


def test_executions_are_listed_behind_a_number(service: Service, target: Target) -> None:
    service.start("laps", target.url, pause_seconds=0.01)
    service.wait_for("laps", lambda info: info["execution_id"] > 5)
    laps = service.executions("laps", after=2, limit=3)
    assert [(lap["execution_id"], lap["version"], lap["status"]) for lap in laps] == [
        (number, "1.1.0", "continued_as_new") for number in (3, 4, 5)
    ]
    assert service.send("laps", "stop").status_code == 202


def test_a_repeated_request_happens_once(service: Service, target: Target) -> None:
    target.gate.clear()
    body, key = {"url": target.url, "pause_seconds": 3600}, {"Idempotency-Key": "order-1"}
    first, again = (service.http.post(API, json=body, headers=key) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["instance_id"] == again.json()["instance_id"]
    for _ in range(2):
        place = f"{first.headers['location']}/events"
        assert (
            service.http.post(
                place, json={"name": "stop"}, headers={"Idempotency-Key": "stop-1"}
            ).status_code
            == 202
        )
    assert service.info(first.json()["instance_id"])["unread_messages"] == 1


def test_each_error_has_its_status(service: Service, target: Target) -> None:
    http = service.http

    def failure(answer: httpx.Response) -> tuple[int, str | None]:
        return answer.status_code, answer.json().get("error")

    for answer in (
        http.get(f"{API}/nobody"),
        http.get(f"{API}/nobody/executions"),
        http.post(f"{API}/nobody/cancel"),
        http.delete(f"{API}/nobody"),
        service.send("nobody", "stop"),
    ):
        assert failure(answer) == (404, "InstanceNotFound")
        assert "nobody" in answer.json()["detail"]

    target.gate.clear()
    service.start("errors", target.url, pause_seconds=3600)
    body = {"instance_id": "errors", "url": target.url}
    assert failure(http.post(API, json=body)) == (409, "InstanceExists")
    assert failure(http.delete(f"{API}/errors")) == (409, "InstanceStillOpen")
    assert failure(http.post(API, json={**body, "version": "9.9.9"})) == (422, "UnknownVersion")
    assert failure(http.post(API, json={**body, "version": "newest"})) == (422, "InvalidVersion")
    assert failure(http.get(API, params={"page": "three"})) == (422, "InvalidArgument")
    for wrong in ({"url": "ftp://x"}, {"pause_seconds": 0}, {"instance_id": "a/b"}, {"url": None}):
        assert failure(http.post(API, json={**body, **wrong})) == (422, None)
    assert failure(service.send("errors", "nonsense")) == (422, None)
    assert failure(service.send("errors", "config", pause_seconds="often")) == (422, None)
    assert failure(http.get(API, params={"limit": 0})) == (422, None)

    for _ in range(3):
        assert service.send("errors", "stop").status_code == 202
    full = service.send("errors", "stop")
    assert failure(full) == (429, "InboxFull")
    assert full.headers["retry-after"] == "1"

    target.gate.set()
    service.wait_for("errors", lambda info: info["status"] == "completed")
    assert failure(service.send("errors", "stop")) == (410, "InstanceCompleted")
    assert failure(http.post(f"{API}/errors/cancel")) == (409, "AlreadyCompleted")
    assert http.delete(f"{API}/errors").status_code == 204
    assert failure(http.get(f"{API}/errors")) == (404, "InstanceNotFound")


def test_a_cancelled_watch_has_ended(service: Service, target: Target) -> None:
    service.start("cancelled", target.url, pause_seconds=3600)
    service.wait_for_pause("cancelled")
    assert (
        service.http.post(f"{API}/cancelled/cancel", params={"reason": "moved"}).status_code == 202
    )
    service.wait_for("cancelled", lambda info: info["status"] == "cancelled")


@pytest.mark.skipif(
    not hasattr(resource, "prlimit"),
    reason="the disk of a running process can be closed on Linux only",
)
def test_while_the_store_takes_no_writes_callers_are_told_to_come_again(
    start_service: Callable[..., Service], target: Target
) -> None:
    service = start_service()
    service.start("loop", target.url, pause_seconds=0.05)
    service.wait_for("loop", lambda info: info["execution_id"] > 2)
    limits = resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE)
    body, key = (
        {"instance_id": "late", "url": target.url, "pause_seconds": 3600},
        {"Idempotency-Key": "late-1"},
    )

    resource.prlimit(
        service.process.pid, resource.RLIMIT_FSIZE, (0, limits[1])
    )  # every write to a file fails now
    refused = service.http.post(API, json=body, headers=key)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert "watches.db" not in refused.text
    lap = service.info("loop")["execution_id"]

    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, limits)

    def accepted() -> bool:
        answer = service.http.post(API, json=body, headers=key)
        assert answer.status_code in {201, 503}, answer.text
        return answer.status_code == 201

    wait_until(accepted)
    service.wait_for("loop", lambda info: info["execution_id"] > lap + 1)
    assert [item["instance_id"] for item in service.http.get(API).json()["items"]] == [
        "late",
        "loop",
    ]
    assert service.stop(signal.SIGINT) == 0, service.log


# --- the process ---


def test_sigterm_stops_in_order_and_releases_everything(
    start_service: Callable[..., Service], database: Path, target: Target
) -> None:
    target.gate.clear()
    service = start_service()
    service.start("busy", target.url, pause_seconds=3600)
    wait_until(lambda: target.requests)
    assert stored(database, "busy").owner is not None

    service.process.send_signal(signal.SIGTERM)  # in the middle of a probe
    target.gate.set()
    assert service.process.wait(PATIENCE) == 0, service.log

    info = stored(database, "busy")
    assert info.owner is None
    assert info.held_reason is not None
    assert info.held_reason.startswith(
        "no living node"
    )  # the node has left, and has not just fallen silent
    assert info.custom_status == {
        "http": 200,
        "checks": 1,
        "failures": 0,
    }  # the probe had its grace
    assert target.requests == 1
    assert "Traceback" not in service.log


def test_after_a_kill_the_next_start_goes_on(
    start_service: Callable[..., Service], database: Path, target: Target
) -> None:
    target.gate.clear()
    service = start_service()
    service.start("killed", target.url, pause_seconds=0.05)
    wait_until(lambda: target.requests)
    assert service.stop(signal.SIGKILL) == -signal.SIGKILL  # in the middle of a probe
    left = stored(database, "killed")
    assert (left.execution_id, left.status) == (1, InstanceStatus.RUNNING)
    assert left.owner is not None

    target.gate.set()
    service = start_service()
    info = service.wait_for("killed", lambda info: info["execution_id"] > 3)
    assert info["status"] == "running"
    laps = service.executions("killed")
    assert [lap["execution_id"] for lap in laps] == [*range(1, len(laps) + 1)]
    assert [lap["input"]["checks"] for lap in laps] == [*range(len(laps))]
    assert {lap["status"] for lap in laps[:-1]} == {"continued_as_new"}
    assert service.send("killed", "stop").status_code == 202
    service.wait_for("killed", lambda info: info["status"] == "completed")
    assert service.stop() == 0, service.log


def test_a_deploy_is_taken_at_the_boundary_and_its_loss_holds(
    start_service: Callable[..., Service], target: Target
) -> None:
    service = start_service(VERSIONS="1.0.0")
    assert service.start("moving", target.url, pause_seconds=3600)["version"] == "1.0.0"
    info = service.wait_for_pause("moving")
    assert (info["version"], info["target_version"]) == ("1.0.0", "1.0.0")
    assert info["custom_status"] == {"http": 200, "checks": 1}
    assert service.stop() == 0, service.log

    service = start_service(VERSIONS="1.0.0,1.1.0")
    info = service.wait_for_pause("moving")
    assert (info["version"], info["target_version"], info["status"]) == (
        "1.0.0",
        "1.1.0",
        "running",
    )
    assert service.send("moving", "config", pause_seconds=1800).status_code == 202
    info = service.wait_for_pause("moving", lap=2)
    assert (info["version"], info["custom_status"]) == (
        "1.1.0",
        {"http": 200, "checks": 2, "failures": 0},
    )
    laps = [(lap["version"], lap["status"]) for lap in service.executions("moving")]
    assert laps == [("1.0.0", "continued_as_new"), ("1.1.0", "running")]
    assert service.stop() == 0, service.log

    service = start_service(VERSIONS="1.0.0")
    info = service.info("moving")
    assert (info["version"], info["status"]) == ("1.1.0", "held")
    assert "1.1.0" in info["held_reason"]


def test_a_store_that_cannot_be_opened_ends_the_start(tmp_path: Path) -> None:
    database = tmp_path / "watches.db"
    database.mkdir()
    service = Service(database)
    try:
        assert service.process.wait(PATIENCE) not in {0, None}
    finally:
        service.close()
    assert "StoreUnavailable" in service.log
