"""What a test draws can be drawn again."""

from __future__ import annotations

import os
from pathlib import Path

TESTS = Path(__file__).parent


def test_a_test_that_draws_shows_the_one_command_that_repeats_it(capsys, monkeypatch, request):
    monkeypatch.setenv("ORCHESTRA_SEED", "749624")
    assert request.getfixturevalue("seed") == 749624
    name = "tests/test_repeating.py::test_a_test_that_draws_shows_the_one_command_that_repeats_it"
    assert capsys.readouterr().out == (
        f"repeat: PYTHONHASHSEED={os.environ['PYTHONHASHSEED']} ORCHESTRA_SEED=749624 "
        f"python -m pytest {name}\n"
    )


def test_nothing_but_the_fixture_draws_a_seed():
    """Scenarios and campaigns take theirs from it, or from the name of the test."""
    draw = "System" + "Random"
    drawing = [path for path in TESTS.rglob("*.py") if draw in path.read_text(encoding="utf-8")]
    assert drawing == [TESTS / "conftest.py"]
