"""The page about reliability says what is so."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ON_SQLITE = {*range(1, 10), *range(11, 49)}
"""The behaviours that SQLite must hold today, beside those that ``ops/reliability.toml`` says are still to come."""


@pytest.fixture(scope="module")
def reliability():
    spec = importlib.util.spec_from_file_location("reliability", ROOT / "ops" / "reliability.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("Scenario 3: so.", {3}),
        ("It does (scenario 43), and more.", {43}),
        ("(rule 24, scenarios 34 and 38)", {34, 38}),
        ("(scenarios 39 to 42)", {39, 40, 41, 42}),
        ("Scenarios 1, 2 and 5 to 7.", {1, 2, 5, 6, 7}),
        ("Rule 9, in 1.1.0; many scenarios, 3 of them", set()),
    ],
)
def test_numbers_are_read_as_people_write_them(reliability, text, numbers):
    assert reliability.cited(text) == numbers


def test_every_behaviour_is_cited_by_tests_or_still_to_come(reliability):
    pending = {int(number) for number in reliability.read_data()["pending"]}
    missing = ON_SQLITE - set(reliability.holders()) - pending
    assert not missing, f"no test cites scenarios {sorted(missing)}"


def test_behaviours_are_numbered_from_one_and_no_test_cites_another(reliability):
    numbers = [int(number) for number in reliability.read_data()["scenario"]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert set(reliability.holders()) <= set(numbers)


def test_every_fault_that_was_found_has_its_test(reliability):
    names = {name for name, _ in reliability.tests()}
    for bug in reliability.read_data()["bug"]:
        assert bug["test"] in names, f"{bug['what']} has no test {bug['test']}"


def test_the_committed_page_is_what_is_made_of_suite_and_results(reliability):
    assert reliability.REPORT.read_text() == reliability.report(), "run: python ops/reliability.py"


def test_results_are_whole_and_name_no_place_of_a_machine(reliability):
    results = reliability.read_results()
    assert results
    for result in results:
        assert {"campaign", "command", "started", "seeds", "counts", "failures", "python", "sqlite"} <= set(result)
    assert not re.search(r"(?:^|[\s`'(])/(?:home|root|tmp|work|usr|var|opt|Users)/", reliability.report())
