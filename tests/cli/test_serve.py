"""``orchestra serve``: the HTTP API as a process of its own."""

import os
import re
import subprocess
import sys
import time

import httpx
import pytest

from orchestra.cli import main

pytestmark = pytest.mark.slow


def wait_for_address(process, log):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = re.search(r"running on (http://[\d.:]+)", log.read_text())
        if found:
            return found[1]
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    raise AssertionError(log.read_text())


@pytest.mark.parametrize("token", [None, "secret"])
def test_a_store_is_served_and_the_server_stops_at_a_signal(path, provider, tmp_path, token):
    log = tmp_path / "log"
    environment = {**os.environ, **({} if token is None else {"ORCHESTRA_TOKEN": token})}
    command = [sys.executable, "-m", "orchestra.cli", "serve", "--store", str(path), "--port", "0"]
    with log.open("w") as written:
        process = subprocess.Popen(command, stdout=written, stderr=written, env=environment)
    try:
        address = wait_for_address(process, log)
        with httpx.Client(base_url=address, trust_env=False, timeout=30) as http:
            assert http.get("/ready").json() == {"status": "ready", "nodes": 0}
            asked = http.post("/api/v1/instances/count", json={})
            assert asked.status_code == (200 if token is None else 401)
            headers = {"Authorization": f"Bearer {token}"}
            asked = http.post("/api/v1/instances/count", json={}, headers=headers)
            assert asked.json()["total"] == 0
        process.terminate()
        process.wait(30)
    finally:
        process.kill()
        process.wait()


def test_without_a_token_it_is_not_served_to_other_machines(path, provider, capsys):
    assert main(["serve", "--store", str(path), "--host", "0.0.0.0"]) == 3
    assert "--token" in capsys.readouterr().err
