"""Each planted bug still finds its place; whether the suites notice them is told by
``ops/planted_bugs/run.py``.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _load():
    specification = importlib.util.spec_from_file_location(
        "planted_bugs", ROOT / "ops" / "planted_bugs" / "bugs.py"
    )
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


bugs = _load()


@pytest.fixture
def copy(tmp_path):
    def make(bug):
        for edit in bug.edits:
            target = tmp_path / edit.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / edit.path, target)
        return tmp_path

    return make


@pytest.mark.parametrize("bug", bugs.BUGS, ids=lambda bug: bug.name)
def test_a_bug_can_be_planted_and_is_valid_python(bug, copy):
    root = copy(bug)
    bugs.plant(bug, root)
    for edit in bug.edits:
        text = (root / edit.path).read_text()
        assert text != (ROOT / edit.path).read_text()
        compile(text, edit.path, "exec")


def test_a_bug_whose_place_has_moved_is_refused(copy):
    bug = bugs.BUGS[0]
    root = copy(bug)
    path = root / bug.edits[0].path
    path.write_text(path.read_text().replace("revision", "version"))
    with pytest.raises(bugs.Moved, match="0 times"):
        bugs.plant(bug, root)


def test_every_bug_names_its_rule_and_more_than_one_suite():
    for bug in bugs.BUGS:
        assert bug.rule
        assert len(set(bug.suites)) > 1
