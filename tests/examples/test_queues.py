"""The program about queues runs: what is rendered and where."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # programs of their own

PROGRAM = Path(__file__).resolve().parents[2] / "examples" / "queues.py"


def test_frames_are_rendered_where_the_renderer_is(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONUTF8": "1"}
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path / "film.db")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "published 6 frames",
        "queues default: publish, 256 at once",
        "queues gpu: render, 2 at once",
    ]
    assert "rendered frames=6" in done.stderr
    assert "Traceback" not in done.stderr
