"""What no statement for PostgreSQL may do, whatever plan the server makes of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from orchestra.providers.postgres import statements

_ONCE = ("MATERIALIZED", "ARRAY")
"""What stands before the parenthesis of a query that a statement computes once."""


def _statements() -> dict[str, str]:
    return {
        name: text
        for name, text in vars(statements).items()
        if name.isupper() and isinstance(text, str) and "SKIP LOCKED" in text
    }


def _around(text: str, place: int) -> Iterator[str]:
    """Yield the word before each parenthesis that is open at a place."""
    open_words: list[str] = []
    for found in re.finditer(r"(\w*)\s*\(|\)", text[:place]):
        if found.group() == ")":
            open_words.pop()
        else:
            open_words.append(found[1])
    yield from open_words


def chooses_once(text: str) -> bool:
    """Return whether a statement computes each of its choices of rows under locks only once."""
    return all(
        any(word in _ONCE for word in _around(text, found.start()))
        for found in re.finditer("SKIP LOCKED", text)
    )


@pytest.mark.parametrize("name", sorted(_statements()))
def test_rows_are_chosen_under_locks_once(name: str) -> None:
    """A join may compute its inner side once for each row of the outer side. A choice under locks
    then takes other rows each time, past those that the statement has written: more than its limit.
    """
    assert chooses_once(_statements()[name])


def test_a_choice_in_a_join_is_found() -> None:
    assert not chooses_once(
        "DELETE FROM t USING (SELECT id FROM t WHERE f(1) LIMIT 1 FOR UPDATE SKIP LOCKED) AS o"
    )
    assert chooses_once(
        "WITH o AS MATERIALIZED (SELECT id FROM (SELECT id FROM t FOR UPDATE SKIP LOCKED) x) "
        "DELETE FROM t USING o"
    )
