"""No module imports itself by way of others, not even for type checkers alone."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def modules(root, package):
    """Return the source files of a package, by the names of their modules."""
    found = {}
    for path in (root / package).rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path, known):
    """Return the modules that a file names in its imports, wherever these stand: in functions, and
    under TYPE_CHECKING.

    That a package is imported before its modules is no import here: no line of the module asks for
    it.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if name in known or node.module in known:
                    yield name if name in known else node.module


def circle(root, package):
    """Return the modules of a circle in the order in which each imports the one before; nothing
    where there is no circle.
    """
    known = modules(root, package)
    assert known
    graph = {name: set(imports(path, known)) for name, path in known.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_modules_import_each_other_in_a_circle():
    assert circle(ROOT, "orchestra") == []


@pytest.mark.parametrize(
    "line",
    [
        "from package.one import One",
        "import package.one",
        "from package import one",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from package.one import One",
        "def late():\n    from package.one import One",
    ],
)
def test_a_circle_is_found_whichever_way_it_is_closed(tmp_path, line):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("from package.one import One")
    (package / "one.py").write_text("from package.two import two")
    (package / "two.py").write_text("")
    assert circle(tmp_path, "package") == []
    (package / "two.py").write_text(line)
    assert set(circle(tmp_path, "package")) == {"package.one", "package.two"}
