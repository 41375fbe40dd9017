"""Workers that publish and keep journals are killed at work: offsets have no gap and no double, what
turns publish stands once, items of an attempt come only while it is current, and no step runs again
once its result is stored.

Which moments are hit differs from run to run. ``ops/crash/run.py --talking`` does the same for hours.
"""

import json
from pathlib import Path

import pytest

from tests.support.crashes.campaigns import conduct
from tests.support.crashes.program import WORDS_PER_LAP
from tests.support.crashes.talking import served_talking_campaign, talking_campaign
from tests.support.crashes.verdict import attempt_problems, step_problems

SHORT, LONG = 6, 18


def kills(outcome):
    assert not outcome.problems, str(outcome)
    return sum(number for name, number in outcome.counts.items() if name.startswith("kills"))


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_streams_and_journals_outlive_some_kills(tmp_path, seed):
    assert kills(conduct(talking_campaign, tmp_path, seed, SHORT)) == SHORT


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_streams_and_journals_on_a_server_outlive_some_kills(tmp_path, seed, postgres):
    assert kills(conduct(served_talking_campaign, tmp_path, seed, SHORT, postgres)) == SHORT


@pytest.mark.campaign
def test_streams_and_journals_outlive_many_kills(tmp_path, seed):
    assert kills(conduct(talking_campaign, tmp_path, seed, LONG)) == LONG


@pytest.mark.campaign
def test_streams_and_journals_on_a_server_outlive_many_kills(tmp_path, seed, postgres):
    assert kills(conduct(served_talking_campaign, tmp_path, seed, LONG, postgres)) == LONG


# --- the verdict can fail -----------------------------------------------------------------------


def said(*runs):
    return [(attempt, token, number) for attempt, token, count in runs for number in range(count)]


def problems(items, attempt=2, token="b"):
    return [*attempt_problems(items, attempt, token)]


def test_the_items_of_attempts_one_after_the_other_are_sound():
    assert problems(said((1, "a", 3), (2, "b", WORDS_PER_LAP))) == []
    # An attempt that a node hands back runs again under its number.
    assert problems(said((2, "a", 3), (2, "b", WORDS_PER_LAP))) == []


@pytest.mark.parametrize(
    "items",
    [
        said((2, "b", WORDS_PER_LAP), (1, "a", 1)),
        said((2, "b", WORDS_PER_LAP - 1)),
        said((1, "a", 2), (2, "b", WORDS_PER_LAP), (3, "c", 1)),
        [*said((1, "a", 1)), *said((2, "b", WORDS_PER_LAP)), (1, "a", 1)],
        [*said((2, "b", WORDS_PER_LAP)), (2, "b", WORDS_PER_LAP - 1)],
        said((1, "a", WORDS_PER_LAP)),
        [],
    ],
    ids=["late", "incomplete", "later", "between", "double", "another", "nothing"],
)
def test_items_that_no_current_attempt_published_or_that_are_missing_are_found(items):
    assert problems(items) != []


def steps(path: Path, *lines: str) -> list[str]:
    path.write_text("".join(f"i/x/1/2 {line}\n" for line in lines))
    return [*step_problems(path)]


def test_a_step_that_ran_again_before_its_result_was_stored_is_sound(tmp_path):
    lines = ["1 ran 0 a/0", "2 ran 0 b/0", "2 kept 0 b/0", "3 kept 0 b/0", "1 ran 0 a/0"]
    assert steps(tmp_path / "steps", *lines) == []


@pytest.mark.parametrize(
    "lines",
    [
        ("1 ran 0 a/0", "1 kept 0 a/0", "2 ran 0 b/0"),
        ("1 ran 0 a/0", "2 ran 0 b/0", "1 kept 0 a/0"),
        ("1 ran 0 a/0", "1 kept 0 a/0", "1 ran 0 b/0"),
        ("1 ran 0 a/0", "1 kept 0 a/0", "2 kept 0 b/0"),
        ("1 kept 0 a/0",),
    ],
    ids=json.dumps,
)
def test_a_step_that_ran_after_its_result_was_stored_is_found(tmp_path, lines):
    assert steps(tmp_path / "steps", *lines) != []
