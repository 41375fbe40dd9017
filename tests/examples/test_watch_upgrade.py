"""The demo does what it says, without a terminal, and says so if it did not."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest

from orchestra import Client, InstanceStatus, SqliteProvider

pytestmark = pytest.mark.slow  # programs of their own

DEMO = Path(__file__).resolve().parents[2] / "examples" / "watch_upgrade"
INSTANCES = ["watch-1", "watch-2", "watch-3", "watch-4"]
MODULES = ("report", "stage", "story", "view", "watches")


def run_demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(DEMO), *arguments],
        env={**os.environ, "PYTHONUTF8": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=90,
        check=False,
    )


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("watch_upgrade") / "watch.db"


@pytest.fixture(scope="module")
def finished(database: Path) -> subprocess.CompletedProcess[str]:
    """One run of the demo, which all tests look at."""
    return run_demo("--fast", "--database", str(database))


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The demo's modules, which stand beside each other and not in a package."""
    monkeypatch.syspath_prepend(str(DEMO))
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
    for name in MODULES:
        sys.modules.pop(name, None)


def test_it_succeeds_and_complains_about_nothing(
    finished: subprocess.CompletedProcess[str],
) -> None:
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert finished.stderr == ""


def test_plain_lines_tell_the_story_in_order(finished: subprocess.CompletedProcess[str]) -> None:
    headlines = re.findall(r"^ *[\d.]+ s == (.*)$", finished.stdout, re.MULTILINE)
    expected = [
        r"worker 1 \(1\.0\.0\) starts",
        r"worker 1 \(1\.0\.0\) runs",
        r"killed -9 in the middle of lap \d+ of watch-3",
        r"worker 2 \(1\.0\.0 and 1\.1\.0\) starts",
        r"each instance ends its lap on 1\.0\.0 and goes on with 1\.1\.0",
        r"the server of watch-4 answers 503 now",
        r"the server of watch-4 answers 200 again",
        r"all go on with 1\.1\.0",
        r'every instance gets the event "stop"',
        r"all instances have ended",
    ]
    assert len(headlines) == len(expected)
    assert all(
        re.match(pattern, headline) for pattern, headline in zip(expected, headlines, strict=True)
    ), headlines
    assert "\x1b" not in finished.stdout


def test_plain_lines_show_laps_versions_retries_and_response_times(
    finished: subprocess.CompletedProcess[str],
) -> None:
    assert re.search(
        r"watch-1  lap 1   1\.0\.0 \(next 1\.0\.0\)  running +timer .* HTTP 200$",
        finished.stdout,
        re.MULTILINE,
    )
    assert re.search(
        r"watch-3  lap \d+ +1\.0\.0 \(next 1\.1\.0\)  running +probe +try 2", finished.stdout
    )
    assert re.search(
        r"watch-4  lap \d+ +1\.1\.0 .* try 3  HTTP 503$", finished.stdout, re.MULTILINE
    )
    assert re.search(
        r"watch-1 .* 1\.1\.0 .* HTTP 200 in \d+ ms, average \d+ ms$", finished.stdout, re.MULTILINE
    )


def test_no_instance_is_shown_as_held(finished: subprocess.CompletedProcess[str]) -> None:
    without_paths = re.sub(r"\S*/\S*", "", finished.stdout)
    assert "held" not in without_paths


def test_the_end_names_the_versions_of_each_instance_and_where_the_database_is(
    finished: subprocess.CompletedProcess[str], database: Path
) -> None:
    found = re.findall(r"^(watch-\d)  1\.0\.0 ×\d+ → 1\.1\.0 ×\d+ ", finished.stdout, re.MULTILINE)  # noqa: RUF001
    assert found == INSTANCES
    assert re.search(r"First commit: [\d.]+ s after the kill", finished.stdout)
    assert f"The database stays: {database}" in finished.stdout


def test_the_database_holds_every_lap_on_the_right_version(
    finished: subprocess.CompletedProcess[str], database: Path
) -> None:
    killed = {
        instance: int(lap)
        for instance, block in re.findall(
            r"^(watch-\d): completed(.*?)\n\n", finished.stdout, re.MULTILINE | re.DOTALL
        )
        for lap in re.findall(r"^ *(\d+) .*← kill$", block, re.MULTILINE)
    }
    assert sorted(killed) == INSTANCES

    async def look() -> None:
        async with Client(SqliteProvider(database)) as client:
            for instance in INSTANCES:
                info = await client.get_instance_info(instance)
                executions = await client.list_executions(instance)
                count = len(executions)
                assert info.status is InstanceStatus.COMPLETED
                assert info.output == f"stopped after {count} checks"
                assert [execution.execution_id for execution in executions] == [
                    *range(1, count + 1)
                ]
                assert [execution.status for execution in executions] == ["continued_as_new"] * (
                    count - 1
                ) + ["completed"]
                old = list(takewhile(lambda execution: execution.version == "1.0.0", executions))
                assert len(old) == killed[instance]
                assert {execution.version for execution in executions[len(old) :]} == {"1.1.0"}

    anyio.run(look)


def test_the_database_can_be_shown_again(
    finished: subprocess.CompletedProcess[str], database: Path
) -> None:
    shown = run_demo("--show", str(database))
    assert shown.returncode == 0, shown.stderr
    assert all(f"{instance}: completed" in shown.stdout for instance in INSTANCES)


def test_a_second_run_does_not_write_over_a_database(
    finished: subprocess.CompletedProcess[str], database: Path
) -> None:
    before = database.stat().st_size
    second = run_demo("--fast", "--database", str(database))
    assert second.returncode == 1
    assert "exists" in second.stderr
    assert database.stat().st_size == before


@pytest.mark.usefixtures("finished")
def test_the_check_at_the_end_notices_what_is_wrong(demo: SimpleNamespace, database: Path) -> None:
    async def read() -> list:
        async with Client(SqliteProvider(database)) as client:
            return await demo.report.read_records(client, INSTANCES)

    records = anyio.run(read)
    cut = {
        record.info.instance_id: sum(
            execution.version == "1.0.0" for execution in record.executions
        )
        for record in records
    }
    failing = records[3]
    lap = max(failing.histories, key=failing.tries)
    outage = demo.story.Outage("watch-4", lap, 3)
    assert demo.report.complaints(records, cut, outage) == []

    def complaints(first: object, *, cut: dict[str, int] = cut, outage: object = outage) -> str:
        return "\n".join(demo.report.complaints([first, *records[1:]], cut, outage))

    record = records[0]
    executions = record.executions
    last = executions[-1]
    assert "without a gap" in complaints(replace(record, executions=executions[1:]))
    assert "instead of 1.1.0" in complaints(
        replace(record, executions=[*executions[:-1], replace(last, version="1.0.0")])
    )
    assert "instead of 1.0.0" in complaints(record, cut={**cut, "watch-1": cut["watch-1"] + 1})
    assert "no lap on 1.1.0" in complaints(record, cut={**cut, "watch-1": len(executions)})
    assert "is failed instead" in complaints(
        replace(record, executions=[*executions[:-1], replace(last, status="failed")])
    )
    assert "ended as failed" in complaints(
        replace(record, info=replace(record.info, status=InstanceStatus.FAILED))
    )
    assert "0 results" in complaints(replace(record, histories={**record.histories, 1: ()}))
    assert "fewer than 99 tries" in complaints(record, outage=replace(outage, tries=99))
