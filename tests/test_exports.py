"""Whoever is told of an error can name it: what public docstrings say is raised comes from the top
of the package.
"""

import inspect
import re

import pytest

import orchestra
from orchestra import errors
from orchestra.providers.postgres import PostgresProvider

INNER = {"Unwind", "ContinueAsNew", "Evicted"}
"""How code is left, and not what it is told."""


def public():
    """Yield everything that users call, with its docstring."""
    for owner in [PostgresProvider, *(getattr(orchestra, name) for name in orchestra.__all__)]:
        yield getattr(owner, "__qualname__", repr(owner)), inspect.getdoc(owner) or ""
        if inspect.isclass(owner):
            for name, member in inspect.getmembers(owner):
                if not name.startswith("_") or name == "__aenter__":
                    yield f"{owner.__qualname__}.{name}", inspect.getdoc(member) or ""


def raised(doc):
    """Return the names in the part of a docstring that says what is raised."""
    _, found, part = doc.partition("Raises:\n")
    lines = [line.strip() for line in part.splitlines()] if found else []
    return {
        name
        for line in lines
        for name in re.findall(r"\b[A-Z]\w+", line)
        if inspect.isclass(getattr(errors, name, None))
    }


NAMED = sorted({(where, name) for where, doc in public() for name in raised(doc)})


def test_docstrings_do_name_errors():
    assert ("Client.start", "InstanceExists") in NAMED
    assert ("OrchestrationContext.start_child", "ChildFailed") in NAMED
    assert len({name for _, name in NAMED}) > 20


@pytest.mark.parametrize(("where", "name"), NAMED)
def test_an_error_that_a_public_docstring_names_is_exported(where, name):
    assert name in orchestra.__all__, f"{where} raises it"


def test_every_error_but_the_inner_ones_is_exported():
    assert set(errors.__all__) - INNER <= set(orchestra.__all__)
    assert all(
        getattr(orchestra, name) is getattr(errors, name) for name in set(errors.__all__) - INNER
    )


def test_exports_are_sorted_as_the_linter_sorts_them_each_once():
    def order(name):
        return (not name.isupper(), not name[0].isupper(), name)

    assert sorted(set(orchestra.__all__), key=order) == orchestra.__all__


def test_the_tree_of_errors_shows_each_of_them():
    drawn = set(re.findall(r"[├└]── (\w+)", errors.__doc__))
    values = {"ErrorInfo", "Attempt", "OrchestraError"}
    assert set(errors.__all__) - values == drawn
