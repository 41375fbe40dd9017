"""The page about reliability says what its results say, and tests cite every behaviour that must
hold.
"""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "ops" / "RELIABILITY.md").read_text(encoding="utf-8")
SCENARIOS = tomllib.loads((ROOT / "ops" / "scenarios.toml").read_text(encoding="utf-8"))
RESULTS = sorted((ROOT / "ops" / "results").glob("*.json"))
SUITES = ("tests",)

CITED = re.compile(
    r"\bscenarios?\s+(\d+(?:(?:\s*,\s*|\s+and\s+|\s+to\s+|,\s+and\s+)\d+)*)", re.IGNORECASE
)
NAMED = re.compile(r"^test_(\d\d)[a-z]?_(?:and_(\d\d)_)?")


def cited(text: str) -> set[int]:
    """Return the numbers that a text cites: "scenario 3", "scenarios 3, 5 and 9", "scenarios 39 to
    42".
    """
    numbers: set[int] = set()
    for found in CITED.finditer(text):
        previous, ranging = 0, False
        for part in re.findall(r"\d+|to", found[1]):
            if part == "to":
                ranging = True
                continue
            number = int(part)
            numbers.update(range(previous, number + 1) if ranging else (number,))
            previous, ranging = number, False
    return numbers


def all_cases() -> Iterator[tuple[str, set[int]]]:
    """Yield every test, and each class and module of tests, with the numbers that it cites
    itself.
    """
    for suite in SUITES:
        for path in sorted((ROOT / suite).rglob("*.py")):
            yield from cases_in(
                ast.parse(path.read_text(encoding="utf-8")), path.relative_to(ROOT).as_posix()
            )


def cases_in(tree: ast.Module | ast.ClassDef, place: str) -> Iterator[tuple[str, set[int]]]:
    yield place, cited(ast.get_docstring(tree) or "")
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield from cases_in(node, f"{place}::{node.name}")
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith(
            "test_"
        ):
            numbers = cited(ast.get_docstring(node) or "")
            named = NAMED.match(node.name)
            if named is not None:
                numbers.update(int(number) for number in named.groups() if number)
            yield f"{place}::{node.name}", numbers


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
def test_numbers_are_read_as_people_write_them(text, numbers):
    assert cited(text) == numbers


def test_every_behaviour_is_cited_by_tests_or_still_to_come():
    known = {int(number) for number in SCENARIOS["scenario"]}
    pending = {int(number) for number in SCENARIOS["pending"]}
    held = set().union(*(numbers for _, numbers in all_cases()))
    assert held <= known, f"tests cite behaviours that do not exist: {sorted(held - known)}"
    assert not known - held - pending, f"no test cites scenarios {sorted(known - held - pending)}"


def test_every_fault_that_was_found_has_its_test():
    names = {name for name, _ in all_cases()}
    rows = re.findall(r"^\| .* \| `([^`]+::test_\w+)` \|$", PAGE, re.MULTILINE)
    assert len(rows) > 20
    assert [name for name in rows if name not in names] == []


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_result_is_whole_names_no_place_of_a_machine_and_has_no_violation(path):
    text = path.read_text(encoding="utf-8")
    result = json.loads(text)
    assert {
        "campaign",
        "command",
        "started",
        "seeds",
        "counts",
        "failures",
        "python",
        "sqlite",
    } <= set(result)
    assert result["failures"] == []
    assert not re.search(r"(?:^|[\s`'(\"])/(?:home|root|tmp|work|usr|var|opt|Users)/", text)


def test_each_result_has_one_row_with_its_figures_and_the_command_that_repeats_it():
    rows = re.findall(
        r"^\| .+ \| ([\d,]+) \| (\d+) \| `([\w-]+)` \| `((?:crash|simulation)/run\.py .+)` \|$",
        PAGE,
        re.MULTILINE,
    )
    kept = [path for path in RESULTS if path.stem != "planted-bugs"]
    assert sorted(name for _, _, name, _ in rows) == [path.stem for path in kept]
    shown = {name: (times, violations) for times, violations, name, _ in rows}
    results = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in kept}
    assert shown == {
        name: (f"{result['cycles']:,}", str(len(result["failures"])))
        for name, result in results.items()
    }
    for _, _, name, command in rows:
        option = name.removeprefix("postgres-")
        script = "simulation/run.py" if option == "simulation" else f"crash/run.py.* --{option} "
        assert re.match(script, command), name
        assert ("--postgres" in command) is name.startswith("postgres-")


def test_the_times_of_recovery_are_those_of_the_results():
    rows = re.findall(r"^\| .+ \| (median .+, largest .+) \| `([\w-]+)` \|$", PAGE, re.MULTILINE)
    assert rows
    for times, name in rows:
        result = json.loads((ROOT / "ops" / "results" / f"{name}.json").read_text())
        assert times in result["measures"].values()


def test_the_page_says_when_and_on_what_the_results_were_made():
    results = [json.loads(path.read_text(encoding="utf-8")) for path in RESULTS]
    days = {datetime.fromisoformat(result["started"]).date() for result in results}
    text = " ".join(PAGE.split())
    assert [f"{day.day} {day:%B} {day.year}" in text for day in days] == [True] * len(days)
    for name, shown in (("python", "Python"), ("sqlite", "SQLite"), ("postgresql", "PostgreSQL")):
        for version in {result[name] for result in results if name in result}:
            assert f"{shown} {version}" in text


def test_the_page_counts_the_planted_bugs_and_all_of_them_were_noticed():
    result = json.loads((ROOT / "ops" / "results" / "planted-bugs.json").read_text())
    counts = result["counts"]
    assert counts["caught by every suite"] == counts["bugs"]
    assert f"{counts['bugs']} bugs are planted" in PAGE
    assert f"{counts['suites']} suites in all" in PAGE
    assert "planted_bugs/run.py" in PAGE


def test_the_page_is_short_enough_to_be_read():
    assert len(PAGE.splitlines()) <= 150
