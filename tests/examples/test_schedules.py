"""The program about schedules runs, and says what became of each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # a program of its own

PROGRAM = Path(__file__).resolve().parents[2] / "examples" / "schedules.py"


def test_its_schedules_follow_the_clocks_catch_up_once_and_pause() -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "digest: healthy, 14 runs, at [7, 8] o'clock UTC",
        "sweeper: lap 57, 56 ticks",
        "hourly, after a day away: 3 runs, 23 missed",
        "  missed_window: only the newest missed slot is caught up",
        "hourly: paused by ada: bob is on holiday",
        "hourly, by hand: fired",
        "sent: 20",
    ]
