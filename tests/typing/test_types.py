"""What type checkers infer, in strict mode: pyright and mypy, on the programs beside this file.

A line with ``# type: ignore[code]`` must be an error for both: each is told to report ignores that
hide nothing.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PROGRAMS = sorted((HERE / "programs").glob("*.py"))
STRICT = [
    "--strict",
    "--config-file=",
    "--python-executable",
    sys.executable,
    "--no-error-summary",
    "--hide-error-context",
]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def ran(module, *arguments):
    """Run a checker on this checkout, whatever is installed."""
    # pyright looks for packages where the first Python of the path has them.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MYPYPATH": "", "PATH": path}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT
    )


def pyright(project):
    """Return what pyright says of a folder, as ``(file, line, rule)``."""
    report = json.loads(
        ran("pyright", "-p", project, "--pythonpath", sys.executable, "--outputjson").stdout
    )
    assert report["summary"]["filesAnalyzed"] > 0
    return [
        (
            Path(entry["file"]).name,
            entry["range"]["start"]["line"] + 1,
            entry.get("rule"),
            entry["message"],
        )
        for entry in report["generalDiagnostics"]
    ]


def mypy(*files, cache):
    """Return what mypy says of files, line by line."""
    return ran(
        "mypy", *STRICT, "--follow-imports=silent", "--cache-dir", cache, *files
    ).stdout.splitlines()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("mypy")


def test_pyright_infers_what_the_programs_assert():
    assert pyright(HERE) == []


def test_mypy_infers_what_the_programs_assert(cache):
    assert mypy(*PROGRAMS, cache=cache) == []


WRONG = """
from typing_extensions import assert_type
from orchestra import OrchestrationContext, activity

@activity
async def probe(url: str) -> int:
    return len(url)

async def watch(ctx: OrchestrationContext, url: str) -> None:
    assert_type(await ctx.schedule_activity(probe, url), str)
    ctx.schedule_activity(probe, url)  # type: ignore[call-overload]
"""


def test_both_checkers_would_notice_a_wrong_assertion_and_an_ignore_that_hides_nothing(
    tmp_path, cache
):
    source = tmp_path / "programs" / "wrong.py"
    source.parent.mkdir()
    source.write_text(WRONG)
    (tmp_path / "pyrightconfig.json").write_text((HERE / "pyrightconfig.json").read_text())
    found = pyright(tmp_path)
    assert [(line, rule) for _, line, rule, _ in found] == [
        (10, "reportAssertTypeFailure"),
        (11, "reportUnnecessaryTypeIgnoreComment"),
    ]
    said = mypy(source, cache=cache)
    assert [line.rpartition("[")[2] for line in said if ": error:" in line] == [
        "assert-type]",
        "unused-ignore]",
    ]


def test_every_public_type_is_known():
    said = ran("pyright", "--verifytypes", "orchestra", "--ignoreexternal").stdout
    unknown = [line for line in said.splitlines() if " - error: " in line]
    assert unknown == []
    assert "Type completeness score: 100%" in said
