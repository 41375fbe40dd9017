"""The long-lived scripts, as processes: they run, stop in order at a signal, and go on at the next
start.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from orchestra import Client, ExecutionInfo, InstanceInfo, SqliteProvider

pytestmark = pytest.mark.slow  # programs of their own

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PATIENCE = 30.0


@dataclass
class Script:
    """One of the scripts, with its arguments behind the database."""

    file: str
    instance_id: str
    arguments: list[str]


@pytest.fixture(params=["long_lived_script.py", "on_trio.py"])
def script(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Script]:
    if request.param == "long_lived_script.py":
        yield Script(request.param, "disk", [str(tmp_path)])
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            yield Script(request.param, "port", ["127.0.0.1", str(listener.getsockname()[1])])


@pytest.fixture
def start(script: Script, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Start the script, and return once it runs."""
    processes: list[subprocess.Popen[str]] = []

    def start_script() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [
                sys.executable,
                str(EXAMPLES / script.file),
                str(tmp_path / "script.db"),
                *script.arguments,
            ],
            env={**os.environ, "PYTHONUTF8": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("running"), process.communicate(
            timeout=PATIENCE
        )[1]
        return process

    try:
        yield start_script
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=PATIENCE)


async def look(
    database: Path, instance_id: str, checks: int
) -> tuple[InstanceInfo, tuple[ExecutionInfo, ...]]:
    """Look at the store from a process that runs nothing; wait until there have been so many
    checks.
    """
    async with Client(SqliteProvider(database)) as client:
        with anyio.fail_after(PATIENCE):
            while True:
                info = await client.get_instance_info(instance_id)
                if info.custom_status is not None and info.custom_status["checks"] >= checks:
                    return info, await client.list_executions(instance_id)
                await anyio.sleep(0.05)


def test_it_stops_in_order_at_a_signal_and_goes_on_at_the_next_start_also_after_a_kill(
    script: Script, start: Callable[[], subprocess.Popen[str]], tmp_path: Path
) -> None:
    database = tmp_path / "script.db"
    checks = 0
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
        process = start()
        info, _ = anyio.run(look, database, script.instance_id, checks + 1)
        checks = info.custom_status["checks"]
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
        if number is not signal.SIGKILL:
            assert f"[{script.instance_id} #{checks}]" in err
            assert (process.returncode, out) == (0, "stopped\n"), err
            assert "Traceback" not in err
            info, _ = anyio.run(look, database, script.instance_id, checks)
            assert info.owner is None
            assert info.held_reason is not None
            assert info.held_reason.startswith(
                "no living node"
            )  # the node has left, and has not just fallen silent
    _, laps = anyio.run(look, database, script.instance_id, checks)
    assert len(laps) >= 3
    assert [lap.execution_id for lap in laps] == [*range(1, len(laps) + 1)]
    assert [lap.input["checks"] for lap in laps] == [*range(len(laps))]


def test_the_trio_script_tells_an_open_port_from_a_closed_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trio = pytest.importorskip("trio")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    answers = importlib.import_module("on_trio").answers
    sys.modules.pop("on_trio")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert trio.run(answers, "127.0.0.1", port) is True
    assert trio.run(answers, "127.0.0.1", port) is False
