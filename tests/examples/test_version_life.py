"""The life of three versions is lived on both stores, and each stage shows what an operator would
see.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestra import SqliteProvider
from orchestra.clock import new_id
from orchestra.providers.postgres import PostgresProvider
from orchestra.testing import check_store
from tests.support.example_modules import example

pytestmark = pytest.mark.slow  # a program of its own

PROGRAM = Path(__file__).resolve().parents[2] / "examples" / "version_life"


@dataclass
class Lived:
    """The program's stages, by their headlines, with all runs of blanks as one; and its store."""

    stages: dict[str, list[str]]
    store: Any


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def lived(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Lived:
    """One life on each store, which all tests look at."""
    arguments: list[str]
    variables: dict[str, str]
    if request.param == "sqlite":
        path = tmp_path_factory.mktemp("version_life") / "digests.db"
        arguments, variables = [str(path)], {}
        store: Any = SqliteProvider(path)
    else:
        dsn, schema = request.getfixturevalue("postgres").dsn, f"test_{new_id()}"
        arguments, variables = [], {"DSN": dsn, "SCHEMA": schema}
        store = PostgresProvider(dsn, schema)
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *arguments],
        env={**os.environ, "PYTHONUTF8": "1", **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    stages = {}
    for stage in done.stdout.split("\n== ")[1:]:
        headline, *lines = stage.splitlines()
        stages[headline] = [" ".join(line.split()) for line in lines if line]
    return Lived(stages, store)


def test_its_stages_are_in_order(lived: Lived) -> None:
    assert list(lived.stages) == [
        "200 loops are in production on 1.0.0",
        "2.0.0 is checked before it is deployed",
        "2.0.0 gets a migration, and is checked again",
        "2.0.0 is deployed under the policy ^1, and five loops are pinned to it",
        "the policy takes all loops to 2.0.0, and the five are unpinned",
        "3.0.0 is deployed although its check has failed",
        "the policy goes back to 2.0.0: what runs goes down, what had not begun follows",
        "what 3.0.0 has begun and holds is rewound to its boundary, under 2.0.0",
        "which versions may go?",
        "1.0.0 and 3.0.0 are removed",
        "what the operator did",
    ]


def test_the_check_refuses_a_field_that_nobody_fills_and_takes_the_migration(lived: Lived) -> None:
    (_, production), (_, bad), (_, mended), *_ = lived.stages.items()
    assert production == ["version held instances", "1.0.0 - 200"]
    assert bad[0] == "preflight of 2.0.0: 200 live instances: not fine"
    assert re.fullmatch(
        r"error: digest 2\.0\.0: .* at \.channel does not fit Digest2: Field required; "
        r"add migrate\('digest', '2\.0\.0', up\) \(digest-\d+, and 199 more\)",
        bad[1],
    )
    assert bad[2:] == ["digest: 200 would move from 1.0.0 to 2.0.0", "deploy: refused"]
    assert mended == [
        "preflight of 2.0.0: 200 live instances: fine",
        "digest: 200 would move from 1.0.0 to 2.0.0",
        "deploy: yes",
    ]


def test_pins_take_five_to_the_new_version_and_the_policy_takes_all(lived: Lived) -> None:
    *_, (_, five), (_, all_of_them) = list(lived.stages.items())[:5]
    assert five[:5] == [
        "version held instances",
        "1.0.0 - 195",
        "2.0.0 - 5",
        "digest-195:",
        "lap version chosen by state of migrations status sent",
    ]
    before, after = five[5].split(), five[6].split()
    assert before[1:6] == ["1.0.0", "policy", "1.0.0", "-", "continued_as_new"]
    assert after[1:6] == ["2.0.0", "pin", "1.0.0", "2.0.0", "continued_as_new"]
    assert [int(after[column]) - int(before[column]) for column in (0, 6)] == [1, 1]
    assert five[7:10] == [
        "version live held nodes target safe to retire",
        "1.0.0 195 0 1 yes no",
        "2.0.0 5 0 1 - no",
    ]
    assert any(line.startswith("1.0.0: 195 open instances need it") for line in five[10:])
    assert "2.0.0: 5 open instances are pinned to it; unpin them." in five[10:]
    assert all_of_them == ["version held instances", "2.0.0 - 200"]


def test_the_broken_version_holds_what_it_cannot_run_with_the_reason(lived: Lived) -> None:
    broken = lived.stages["3.0.0 is deployed although its check has failed"]
    assert broken[0] == "preflight of 3.0.0: 200 live instances: not fine"
    assert re.fullmatch(
        r"error: digest 3\.0\.0: the migration to 3\.0\.0 of 'digest' failed: ValueError: .* "
        r"\(digest-\d+, and 19 more\)",
        broken[1],
    )
    assert broken[2] == "digest: 200 would move from 2.0.0 to 3.0.0"
    assert broken[4:8] == ["held instances", "- 140", "error 40", "migration 20"]
    error, released, migration, mended = broken[8:]
    assert re.fullmatch(
        r"digest-001 on 3\.0\.0: error: ValueError: .* in digest_3, version 3\.0\.0\)", error
    )
    assert "client.rewind()" in released
    assert re.match(  # on 2.0.0 still, if the old node left its lap without a begin
        r"digest-000 on [23]\.0\.0: migration: the migration to 3\.0\.0 of 'digest' failed: "
        "ValueError: ",
        migration,
    )
    assert "whose migrations take the state" in mended


def test_policy_and_rewind_lead_back_and_lose_no_lap(lived: Lived) -> None:
    (_, policy), (_, rewound) = list(lived.stages.items())[6:8]
    assert policy[:4] == ["version held instances", "2.0.0 - 160", "3.0.0 error 40", "digest-003:"]
    two, three, down = (line.split() for line in policy[5:])
    assert two[1:6] == ["2.0.0", "policy", "2.0.0", "-", "continued_as_new"]
    assert three[1:6] == ["3.0.0", "policy", "2.0.0", "3.0.0", "continued_as_new"]
    assert down[1:5] == ["2.0.0", "policy", "3.0.0", "-3.0.0"]
    assert rewound[:3] == ["version held instances", "2.0.0 - 200", "digest-001:"]
    two, three, again = (line.split() for line in rewound[4:])
    assert two[1:6] == ["2.0.0", "policy", "2.0.0", "-", "continued_as_new"]
    assert three[1:6] == ["3.0.0", "policy", "2.0.0", "3.0.0", "rewound"]
    assert again[1:6] == ["2.0.0", "rewind", "2.0.0", "-", "continued_as_new"]
    assert again[6] == three[6], "the state of that boundary"


def test_versions_that_are_safe_to_retire_are_removed_and_nothing_is_held(lived: Lived) -> None:
    (_, report), (_, removed), (_, acts) = list(lived.stages.items())[8:]
    assert report[:4] == [
        "version live held nodes target safe to retire",
        "1.0.0 0 0 1 - yes",
        "2.0.0 200 0 1 yes no",
        "3.0.0 0 0 1 - yes",
    ]
    assert all(line.startswith("2.0.0: ") for line in report[4:])
    assert removed[:4] == [
        "version held instances",
        "2.0.0 - 200",
        "version live held nodes target safe to retire",
        "2.0.0 200 0 1 yes no",
    ]
    assert removed[-1] == "held: 0, laps lost: 0"
    assert acts == [
        "revision policy by reason",
        "1 range:^1 ada 2.0.0 goes to five first",
        "2 latest ada 2.0.0 has proved itself",
        "3 exact:2.0.0 ada 3.0.0 holds digests",
        "4 range:^2 ada 3.0.0 is gone; hot fixes of 2 are welcome",
        "pin: 5, rewind: 40, set policy: 4, unpin: 5",
    ]


def test_its_store_keeps_all_invariants(lived: Lived, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PROGRAM))
    digests = example("version_life/digests.py")
    check_store(lived.store, digests.BROKEN).raise_if_violated()
