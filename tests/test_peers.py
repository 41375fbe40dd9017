"""The table and the picture of the bench beside other systems; no bench runs here."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import asdict

import pytest

from ops.bench.peers.catalogue import ENTRIES, FULL, WORKLOADS, why_not
from ops.bench.peers.picture import picture
from ops.bench.peers.results import Results, Try, number
from ops.bench.peers.run import chosen, plan
from ops.bench.peers.table import table

SVG = "{http://www.w3.org/2000/svg}"


def some_results() -> Results:
    tries = [
        Try(
            "orchestra-sqlite",
            "W1",
            round_,
            40.0,
            2000.0,
            0.2,
            0.1,
            {"one_ms": value, "at_once": 9},
        )
        for round_, value in ((1, 3.0), (2, 1.0), (3, 2.0))
    ]
    tries.append(
        Try("dbos-sqlite", "W1", 1, 40.0, 2000.0, 0.2, 0.1, {"one_ms": 20.0, "at_once": 4})
    )
    tries.append(Try("dbos-sqlite", "W1", 2, 40.0, 2000.0, 0.2, 0.1, error="<it> broke"))
    tries.append(
        Try("absurd-postgres", "W1", 1, 40.0, 2000.0, 0.2, 0.1, error="after 120 s: no & no")
    )
    machine = {"processors": "2 processors (X)", "python": "3.11", "date": "2026-01-01"}
    missing = {"restate-sdk": "npm is not on the path"}
    return Results(machine, {"dbos": "3.4.0"}, asdict(FULL), True, tuple(tries), missing)


def test_the_table_has_medians_with_their_spread_and_says_why_a_figure_is_missing():
    text = table(some_results())
    (row,) = [line for line in text.splitlines() if "one at a time" in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2:] == ["2.00 (1.00 to 3.00)", "20.0, 1 failed", "— [1]", "— [2]"]
    assert "1. after 120 s: no & no" in text
    assert "2. npm is not on the path" in text
    assert "1,000 at once, per second" in text  # the size of the run, not of the catalogue
    assert "DBOS, SQLite 3.4.0" in text


def test_the_picture_is_svg_with_a_bar_for_each_median_and_the_same_figures_in_words():
    root = ET.fromstring(picture(some_results()))
    bars = [one.get("class") for one in root.iter(f"{SVG}rect") if one.get("class") != "track"]
    assert bars == ["page", "own", "peer", "own", "peer"]
    assert len(root.findall(f"{SVG}path")) == 1  # only one figure differs between its rounds
    title, words = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    style = root.find(f"{SVG}style")
    assert title is not None
    assert words is not None
    assert style is not None
    assert (root.get("role"), root.get("aria-labelledby")) == ("img", "title words")
    assert "orchestra, SQLite 2.00, DBOS, SQLite 20.0, Absurd, PostgreSQL —" in (words.text or "")
    assert "prefers-color-scheme: dark" in (style.text or "")


def test_results_are_read_as_they_were_written():
    results = some_results()
    assert Results.from_json(json.loads(json.dumps(results.as_json()))) == results


def test_a_plan_alternates_the_contestants_and_leaves_out_what_they_cannot():
    entries, workloads = chosen(["w8", "w9", "orchestra", "absurd"])
    steps = [
        (round_, entry.key, workload.key) for round_, entry, workload in plan(entries, workloads, 2)
    ]
    alternating = ["orchestra-postgres", "absurd-postgres"]
    assert [one for one in steps if one[2] == "W8"] == [
        (round_, key, "W8") for round_ in (1, 2) for key in alternating
    ]
    assert [one[:2] for one in steps if one[2] == "W9"] == [
        (1, one.key) for one in ENTRIES if one.system[0] == "orchestra"
    ]
    with pytest.raises(SystemExit, match="w10 is none of"):
        chosen(["w10"])


def test_every_figure_has_a_name_of_its_own_and_every_gap_a_reason():
    figures = [figure.key for workload in WORKLOADS for figure in workload.figures]
    assert len(figures) == len(set(figures))
    for workload in WORKLOADS:
        assert any(not why_not(entry, workload) for entry in ENTRIES)
        if workload.only or len(workload.stores) < 3:
            assert workload.note


@pytest.mark.parametrize(("value", "text"), [(1234.5, "1,234"), (12.34, "12.3"), (0.567, "0.57")])
def test_a_number_has_three_figures(value: float, text: str):
    assert number(value) == text
