"""The guide says what the code does, and the script that shows it runs."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from orchestra.telemetry import attributes
from orchestra.telemetry.instruments import INSTRUMENTS

pytestmark = pytest.mark.slow  # programs of their own

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "ops" / "guide" / "pages" / "how-to" / "telemetry.md").read_text(encoding="utf-8")
PATIENCE = 60


def table(first):
    """Return the rows of the table whose first column is headed so."""
    lines = GUIDE.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_the_table_of_metrics_is_the_codes():
    told = [[cell.strip("`") for cell in row[:5]] for row in table("metric")]
    made = [
        [
            spec.name,
            spec.kind,
            spec.unit,
            ", ".join(label.rpartition(".")[2] for label in labels(spec)),
            spec.description,
        ]
        for spec in INSTRUMENTS
    ]
    assert told == made
    assert all(row[5] for row in table("metric"))


def labels(spec):
    """Return labels such that the last part of each tells it apart from the others of its
    metric.
    """
    return [
        label.removesuffix(".name") if label in (attributes.ACTIVITY, attributes.REQUEST) else label
        for label in spec.labels
    ]


def test_the_table_of_attributes_is_the_codes():
    told = [row[0].strip("`") for row in table("attribute")]
    assert sorted(told) == sorted(getattr(attributes, name) for name in attributes.__all__)


def test_the_spans_that_the_guide_names_are_the_ones_that_there_are():
    source = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "orchestra" / "telemetry").glob("*.py")
    )
    written = re.findall(r'f"(start|event|orchestration|turn|activity) \{', source)
    written += re.findall(r'"(schedule (?:tick|run))"', source)
    told = [row[0].strip("`").removesuffix(" NAME") for row in table("span")]
    assert sorted(told) == sorted(written)


@pytest.fixture
def look():
    """Start the script; what is left of it at the end is killed."""
    started = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "ops" / "look" / "look.py"), *arguments],
            env={**os.environ, "PYTHONUTF8": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=PATIENCE)


def test_the_console_shows_spans_and_metrics(look):
    out, err = look("console", "--seconds", "3").communicate(timeout=PATIENCE)
    assert [
        line for line in err.splitlines() if "activity 'measure', attempt" not in line
    ] == []  # it fails now and then
    lines = out.splitlines()
    assert lines[-1] == "stopped"
    spans = [line for line in lines if line.startswith("SPAN")]
    for name in (
        "start loop",
        "orchestration loop",
        "turn loop",
        "activity measure",
        "event nudge",
    ):
        assert any(f" {name} " in line for line in spans), name
    shown = {line.split()[1] for line in lines if line.startswith("METRIC")}
    assert (
        {"orchestra.laps", "orchestra.turn.duration", "orchestra.commit.writes"}
        <= shown
        <= {s.name for s in INSTRUMENTS}
    )


def test_prometheus_finds_the_metrics_under_the_names_of_the_guide(look):
    pytest.importorskip("opentelemetry.exporter.prometheus", reason="needs the extra `prometheus`")
    process = look("prometheus", "--port", "0")
    address = process.stdout.readline().split()[-1]
    assert process.stdout.readline().startswith("running")
    page = ""
    while not re.search(r"^orchestra_laps_total\{.*\} [1-9]", page, re.MULTILINE):
        assert process.poll() is None
        page = urllib.request.urlopen(address, timeout=PATIENCE).read().decode()
    assert "orchestra_turn_duration_seconds_bucket{" in page
    assert "orchestra_starts_total{" in page
    assert "loop-0" not in page
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE)
    told = [
        line for line in err.splitlines() if not re.search(r"attempt \d+ failed", line)
    ]  # its activity fails now and then
    assert (process.returncode, out, told) == (0, "stopped\n", [])
