"""The owner of a start knows the row that the store makes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestra.frozen import frozen, replaced
from orchestra.store.changes import Start
from orchestra.store.hot_row import HotRow, started_snapshot
from orchestra.store.instances import ParentLink, Pin
from tests.support.contract.shorthand import a_start

_STARTS = (
    a_start("i"),
    replace(a_start("i"), owner="n1", not_before=7, wake_at=7),
    replace(
        a_start("i"),
        owner="n1",
        parent=ParentLink("p", "life", 2, 3),
        root_id="root",
        pin=Pin("1.0.0", 1, "me", ""),
        traceparent="00-1-2-01",
    ),
)


@pytest.mark.parametrize("start", _STARTS)
def test_an_owner_has_the_row_that_the_store_makes(start: Start) -> None:
    row = started_snapshot(start).row
    cold = {name: getattr(row, name) for name in ("pin", "traceparent", "parent", "root_id")}
    assert cold == {name: getattr(start, name) for name in cold}
    assert row == replace(HotRow.started(start, kind=0, now=0).instance(start.kind), **cold)


@frozen
class Point:
    x: int
    y: int = 0


def test_a_copy_has_what_was_changed_and_all_else() -> None:
    point = Point(1, 2)
    assert replaced(point, y=3) == Point(1, 3)
    assert point == Point(1, 2)


def test_a_copy_has_no_field_that_its_class_has_not() -> None:
    with pytest.raises(AttributeError):
        replaced(Point(1, 2), z=3)
