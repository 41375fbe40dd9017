"""The guides list exactly the findings that the doctor reports."""

import re
from pathlib import Path

import pytest

from orchestra.cli.doctor import examine
from orchestra.cli.server_doctor import examine_server
from orchestra.clock import SystemClock, new_id
from orchestra.providers.postgres import PostgresProvider

PAGES = Path(__file__).parents[2] / "ops" / "guide" / "pages" / "how-to"


def findings_in(page):
    """Return the names in the first column of the page's table of findings."""
    text = (PAGES / page).read_text(encoding="utf-8")
    (table,) = re.findall(r"^\| finding \| .*\n\|---\|---\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [
        name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])
    ]


def names_of(report):
    return [check.name for check in report.checks]


def test_the_operating_guide_lists_the_findings_about_a_file(path, provider):
    report = examine(path, SystemClock(), quick=True)
    assert sorted(findings_in("operating.md")) == sorted(names_of(report))


@pytest.fixture
def schema_name(dsn):
    name = f"test_{new_id()}"
    provider = PostgresProvider(dsn, name)
    provider.open()
    provider.close()
    return name


def test_the_guide_to_postgresql_lists_the_findings_about_a_server(dsn, schema_name):
    report = examine_server(dsn, schema_name, SystemClock())
    assert findings_in("postgres.md") == names_of(report)
