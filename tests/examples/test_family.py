"""The program about children runs, and says what became of each."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from orchestra import Client, SqliteProvider

pytestmark = pytest.mark.slow  # programs of their own

PROGRAM = Path(__file__).resolve().parents[2] / "examples" / "family.py"


def test_it_finds_the_best_price_and_says_what_became_of_each_child(tmp_path: Path) -> None:
    database = tmp_path / "family.db"
    environment = {**os.environ, "PYTHONUTF8": "1"}
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(database)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:4] == [
        "best: Price(shop='mall', cents=400)",
        "round-1/corner: completed after 2 laps",
        "round-1/mall: completed after 3 laps",
        "round-1/closed: failed after 1 laps",
    ]
    assert re.fullmatch(r"round-1/asleep: cancelled after \d+ laps", done.stdout.splitlines()[4])
    assert done.stdout.splitlines()[5:] == ["audited: 2"]
    assert "no answer shop=closed status=failed" in done.stderr
    assert "Traceback" not in done.stderr
    anyio.run(look, database)


async def look(database: Path) -> None:
    """The family can be seen from a process that runs nothing."""
    async with Client(SqliteProvider(database)) as client:
        children = (await client.list_instances(parent="round-1")).items
        assert sorted(child.instance_id for child in children) == [
            f"round-1/{shop}" for shop in ("asleep", "closed", "corner", "mall")
        ]
        assert (await client.get_instance_info("round-1/audit")).parent is None
