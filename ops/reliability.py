"""Makes ``ops/RELIABILITY.md``: what ran, how often, with which seeds, what was found, and which tests hold which behaviour.

    python ops/reliability.py            # writes it
    python ops/reliability.py --check    # says whether it is as it must be

It is made of three things: the results that campaigns have left in ``ops/results`` (``ops/crash/run.py --json ops/results``),
the test suite, whose names and docstrings cite the numbers of behaviours, and ``ops/reliability.toml``, which says what the
behaviours are, and which faults were found on the way.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DATA = ROOT / "ops" / "reliability.toml"
RESULTS = ROOT / "ops" / "results"
PLANTED = "planted-bugs"
REPORT = ROOT / "ops" / "RELIABILITY.md"
SUITES = ("tests", "orchestra/testing/contract")

_CITED = re.compile(r"\bscenarios?\s+(\d+(?:(?:\s*,\s*|\s+and\s+|\s+to\s+|,\s+and\s+)\d+)*)", re.IGNORECASE)
_NAMED = re.compile(r"^test_(\d\d)[a-z]?_(?:and_(\d\d)_)?")
_SHOWN_SEEDS = 6


# --- tests and what they cite -----------------------------------------------------------------


def cited(text: str) -> set[int]:
    """Return the numbers that a text cites: "scenario 3", "scenarios 3, 5 and 9", "scenarios 39 to 42"."""
    numbers: set[int] = set()
    for found in _CITED.finditer(text):
        previous, ranging = 0, False
        for part in re.findall(r"\d+|to", found[1]):
            if part == "to":
                ranging = True
                continue
            number = int(part)
            numbers.update(range(previous, number + 1) if ranging else (number,))
            previous, ranging = number, False
    return numbers


def tests() -> Iterator[tuple[str, set[int]]]:
    """Yield every test, and each class and module of tests, with the numbers that it cites itself."""
    for suite in SUITES:
        for path in sorted((ROOT / suite).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            yield from _tests_in(tree, path.relative_to(ROOT).as_posix())


def _tests_in(tree: ast.Module | ast.ClassDef, place: str) -> Iterator[tuple[str, set[int]]]:
    yield place, cited(ast.get_docstring(tree) or "")
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield from _tests_in(node, f"{place}::{node.name}")
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
            numbers = cited(ast.get_docstring(node) or "")
            named = _NAMED.match(node.name)
            if named is not None:
                numbers.update(int(number) for number in named.groups() if number)
            yield f"{place}::{node.name}", numbers


def holders() -> dict[int, list[str]]:
    """Return the tests of each behaviour. A whole module or class stands for the tests in it."""
    found: dict[int, list[str]] = defaultdict(list)
    for name, numbers in tests():
        for number in numbers:
            found[number].append(name)
    return found


# --- the report -------------------------------------------------------------------------------


def read_data() -> dict[str, Any]:
    return tomllib.loads(DATA.read_text(encoding="utf-8"))


def read_results() -> list[dict[str, Any]]:
    """Return all results, by campaign and then by time."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    return sorted(results, key=lambda result: (result["campaign"], result["started"], result["command"]))


def report() -> str:
    """Return the whole page."""
    data, results = read_data(), read_results()
    planted = [result for result in results if result["campaign"] == PLANTED]
    lines = [
        "# Reliability",
        "",
        "Made by `python ops/reliability.py`; not to be edited by hand. What the campaigns do and what they hold is told in",
        "[`crash/README.md`](crash/README.md).",
        "",
        "## What ran",
        "",
        *_campaigns([result for result in results if result["campaign"] != PLANTED]),
        "## What the suites notice",
        "",
        "Bugs that are planted, one at a time, into a copy of the package: each opens a hole that a rule of the commit",
        "protocol closes ([`planted_bugs/README.md`](planted_bugs/README.md)). Without any bug all of these suites pass.",
        "",
        *_planted(planted[-1:]),
        "## What was found",
        "",
        "Every fault has a test by name, which keeps it from coming back.",
        "",
        *_bugs(data["bug"]),
        "## Which tests hold what",
        "",
        "A module or class stands for all the tests in it. The contract tests run against every provider.",
        "",
        *_scenarios(data["scenario"], holders()),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _campaigns(results: list[dict[str, Any]]) -> Iterator[str]:
    if not results:
        yield "Nothing yet."
        yield ""
        return
    yield "| campaign | what | started | cycles | seconds | on | violations |"
    yield "|---|---|---|---|---|---|---|"
    for result in results:
        cells = (
            result["campaign"],
            result.get("what", ""),
            result["started"][:16].replace("T", " "),
            _number(result.get("cycles", "")),
            _number(result.get("seconds", "")),
            f"Python {result['python']}, {_database(result)}",
            _number(len(result["failures"])),
        )
        yield _row(cells)
    yield ""
    for result in results:
        yield f"### {result['campaign']}: {result.get('what') or result['command']}"
        yield ""
        yield f"    {result['command']}"
        yield ""
        yield f"Seeds: {_seeds(result['seeds'])}. Counted: {_counts(result['counts'])}."
        yield ""
        if result.get("measures"):
            yield from (f"- {_plain(name)}: {text}" for name, text in result["measures"].items())
            yield ""
        for failure in result["failures"]:
            yield f"- {_plain(failure)}"
        if result["failures"]:
            yield ""
            if result.get("remark"):
                yield result["remark"]
                yield ""


def _planted(results: list[dict[str, Any]]) -> Iterator[str]:
    for result in results:
        yield f"    {result['command']}"
        yield ""
        when, on = result["started"][:16].replace("T", " "), f"Python {result['python']}, {_database(result)}"
        yield f"{when}, {on}: {_counts(result['counts'])}."
        yield ""
        yield "| bug | rule | suite | noticed by |"
        yield "|---|---|---|---|"
        yield from (_row((one["bug"], one["rule"], one["suite"], one["by"] or "nobody")) for one in result["noticed"])
        yield ""


def _bugs(bugs: list[dict[str, str]]) -> Iterator[str]:
    yield "| fault | found by | test |"
    yield "|---|---|---|"
    for bug in bugs:
        yield _row((bug["what"], bug["found_by"], f"`{bug['test']}`"))
    yield ""


def _scenarios(scenarios: dict[str, str], held: dict[int, list[str]]) -> Iterator[str]:
    for number, text in scenarios.items():
        yield f"{number}. {text}"
        yield ""
        names = held.get(int(number), [])
        yield from (f"    - `{name}`" for name in names)
        if not names:
            yield "    - no test yet"
        yield ""


def _database(result: dict[str, Any]) -> str:
    return f"PostgreSQL {result['postgresql']}" if "postgresql" in result else f"SQLite {result['sqlite']}"


def _row(cells: tuple[Any, ...]) -> str:
    return f"| {' | '.join(_plain(str(cell)) for cell in cells)} |"


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, (int, float)) else str(value)


def _seeds(seeds: list[Any]) -> str:
    shown = ", ".join(map(str, seeds[:_SHOWN_SEEDS]))
    return shown if len(seeds) <= _SHOWN_SEEDS else f"{shown} and {len(seeds) - _SHOWN_SEEDS:,} more, made from the first"


def _counts(counts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_number(value)}" for name, value in counts.items()) or "nothing"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the committed page is another")
    options = parser.parse_args()
    text = report()
    if not options.check:
        REPORT.write_text(text, encoding="utf-8")
    elif not REPORT.exists() or REPORT.read_text(encoding="utf-8") != text:
        print("ops/RELIABILITY.md is not what it must be; run: python ops/reliability.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
