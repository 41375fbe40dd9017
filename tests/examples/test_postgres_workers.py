"""Workers and a web process as real processes, over real HTTP, against one PostgreSQL."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from orchestra.clock import new_id
from orchestra.providers.postgres import PostgresProvider
from orchestra.testing import check_store

pytestmark = pytest.mark.slow  # programs of their own

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "postgres_workers"
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
        target = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
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


class Cluster:
    """The example's processes on a schema of their own."""

    def __init__(self, dsn: str, directory: Path) -> None:
        self.store = PostgresProvider(dsn, f"test_{new_id()}")
        self._environment = {
            **os.environ,
            "NO_PROXY": "*",
            "PYTHONUTF8": "1",
            "DSN": dsn,
            "SCHEMA": self.store._settings.schema,
            "PORT": "0",
        }
        self._directory = directory
        self.processes: list[subprocess.Popen[bytes]] = []
        self.http: httpx.Client

    def start(self, program: str, ready: str) -> tuple[subprocess.Popen[bytes], str]:
        """Start one of the programs; return it, and what its log says once it is ready."""
        log = self._directory / f"{program}.{len(self.processes)}.log"
        with log.open("w") as out:
            process = subprocess.Popen(
                [sys.executable, str(EXAMPLE / program)],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        self.processes.append(process)

        def found() -> str | None:
            match = re.search(ready, log.read_text())
            assert match or process.poll() is None, log.read_text()
            return match and match[1]

        return process, wait_until(found)

    def start_web(self) -> None:
        _, address = self.start("web.py", r"running on (http://[\d.:]+)")
        self.http = httpx.Client(base_url=address, timeout=PATIENCE, trust_env=False)

    def start_worker(self) -> tuple[subprocess.Popen[bytes], str]:
        """Start a worker; return it and its node's id."""
        return self.start("worker.py", r"running as (\w+)")

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait(PATIENCE)
        if hasattr(self, "http"):
            self.http.close()

    def get(self, path: str) -> Any:
        answer = self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def wait_for(
        self, instance_id: str, condition: Callable[[dict[str, Any]], bool]
    ) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            info = self.get(f"/watches/{instance_id}")
            return info if condition(info) else None

        return wait_until(look)

    def send(self, instance_id: str, name: str) -> None:
        assert self.http.post(f"/watches/{instance_id}/events/{name}").status_code == 202


@pytest.fixture
def cluster(dsn: str, tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(dsn, tmp_path)
    try:
        yield cluster
    finally:
        cluster.close()
    check_store(cluster.store).raise_if_violated()


@pytest.fixture
def target() -> Iterator[Target]:
    server = Target()
    yield server
    server.close()


def test_three_workers_run_what_the_web_process_starts_and_go_on_without_the_one_that_is_killed(
    cluster: Cluster, target: Target
) -> None:
    cluster.start_web()
    body = {"url": target.url, "pause_seconds": 3600}
    early = cluster.http.post("/watches/early", json=body)
    assert (early.status_code, early.json()["error"], early.headers["retry-after"]) == (
        503,
        "UnknownOrchestration",
        "1",
    )

    workers = {node_id: process for process, node_id in (cluster.start_worker() for _ in range(3))}
    nodes = cluster.get("/nodes")
    assert {node["node_id"]: node["pid"] for node in nodes} == {
        node_id: worker.pid for node_id, worker in workers.items()
    }
    assert all(node["alive"] and node["orchestrations"] == {"watch": ["1.0.0"]} for node in nodes)
    assert all(node["activities"] == ["probe"] and node["owned"] == 0 for node in nodes)

    names = [f"watch-{number}" for number in range(6)]
    for name in names:
        started = cluster.http.post(f"/watches/{name}", json=body)
        assert (started.status_code, started.json()["version"]) == (201, "1.0.0")
    probing = [
        cluster.wait_for(name, lambda info: info["owner"] is not None) for name in names
    ]  # the target answers nobody yet
    assert {info["owner"] for info in probing} <= set(workers)
    nodes = cluster.get("/nodes")
    assert sum(node["owned"] for node in nodes) == len(names)

    killed = max(nodes, key=lambda node: node["owned"])["node_id"]
    theirs = {info["instance_id"] for info in probing if info["owner"] == killed}
    assert theirs
    workers[killed].send_signal(signal.SIGKILL)
    workers[killed].wait(PATIENCE)
    for name in theirs:
        info = cluster.wait_for(name, lambda info: info["owner"] not in (None, killed))
        assert info["execution_id"] == 1
    assert killed not in [node["node_id"] for node in cluster.get("/nodes")], "it was buried"

    target.gate.set()
    living = {worker.pid for node_id, worker in workers.items() if node_id != killed}
    for name in names:
        info = cluster.wait_for(name, lambda info: info["next_wake_at"] is not None)
        assert info["custom_status"]["probed_by"] in living
        assert (info["custom_status"]["http"], info["custom_status"]["checks"]) == (200, 1)
        cluster.send(name, "check")
    for name in names:
        cluster.wait_for(
            name, lambda info: info["execution_id"] == 2 and info["next_wake_at"] is not None
        )
        cluster.send(name, "stop")
        ended = cluster.wait_for(name, lambda info: info["status"] == "completed")
        assert (ended["output"], ended["owner"], ended["version"]) == (
            "stopped after 2 checks",
            None,
            "1.0.0",
        )

    for process in cluster.processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0


def test_the_web_process_answers_failures_with_their_status(
    cluster: Cluster, target: Target
) -> None:
    target.gate.set()
    cluster.start_web()
    cluster.start_worker()
    body = {"url": target.url, "pause_seconds": 3600}

    def failure(answer: httpx.Response) -> tuple[int, str | None]:
        return answer.status_code, answer.json().get("error")

    assert cluster.http.post("/watches/one", json=body).status_code == 201
    assert failure(cluster.http.post("/watches/one", json=body)) == (409, "InstanceExists")
    assert failure(cluster.http.get("/watches/nobody")) == (404, "InstanceNotFound")
    assert failure(cluster.http.post("/watches/nobody/events/stop")) == (404, "InstanceNotFound")
    assert failure(cluster.http.post("/watches/one/events/explode")) == (422, None)
    assert failure(cluster.http.post("/watches/two", json={"url": "ftp://x"})) == (422, None)
    cluster.send("one", "stop")
    cluster.wait_for("one", lambda info: info["status"] == "completed")
    assert failure(cluster.http.post("/watches/one/events/stop")) == (410, "InstanceCompleted")
