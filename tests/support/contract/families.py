"""What the ended children of deleted laps leave goes with their laps, and with them their own."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from orchestra.store.changes import ChildStart, Write
from orchestra.store.executions import GOES_WITH_LAP, Closing, ExecutionDelta, Prune
from orchestra.store.instances import InstanceRow, ParentLink
from orchestra.store.kinds import ExecutionEnd
from orchestra.store.outcomes import Granted
from orchestra.store.port import Provider
from orchestra.store.queries import InstanceQuery
from orchestra.testing import ManualClock
from tests.support.contract.base import ContractBase
from tests.support.contract.shorthand import (
    a_start,
    a_state,
    a_write,
    an_end,
    an_execution,
    begin,
    claim,
    expect,
    one,
    read,
)


def _boundary(
    row: InstanceRow, children: tuple[str, ...] = (), prune: Prune | None = None
) -> Write:
    """A lap that starts children and ends."""
    number = row.execution
    starts = tuple(_child(row, child_id, event) for event, child_id in enumerate(children, start=2))
    deltas = (
        ExecutionDelta(
            number,
            closed=Closing(1, ExecutionEnd.CONTINUED_AS_NEW, None, None),
            children=bool(children),
        ),
        ExecutionDelta(number + 1, create=an_execution(number + 1)),
    )
    state = a_state(row, execution=number + 1, opened=False, history_events=0)
    return a_write(row, state, executions=deltas, starts=starts, prune=prune)


def _child(row: InstanceRow, child_id: str, event: int) -> ChildStart:
    link = ParentLink(row.instance_id, row.incarnation, row.execution, event)
    start = replace(a_start(child_id, f"life of {child_id}", str(link)), parent=link, root_id="i")
    return ChildStart(child_id, link, start, b"taken")


def _lap(
    provider: Provider, row: InstanceRow, children: tuple[str, ...] = (), prune: Prune | None = None
) -> InstanceRow:
    expect(one(provider, _boundary(row, children, prune)), Granted)
    return replace(
        row, revision=row.revision + 1, execution=row.execution + 1, opened=False, history_events=0
    )


def _end(provider: Provider, *child_ids: str) -> None:
    for snapshot in claim(provider, "n2", 100):
        if snapshot.row.instance_id in child_ids:
            expect(one(provider, an_end(snapshot.row)), Granted)


def _there(provider: Provider) -> list[str]:
    return sorted(record.row.instance_id for record in provider.directory.list(InstanceQuery()))


class FamilyTests(ContractBase):
    """Retention of families."""

    def test_ended_children_of_deleted_laps_go_and_others_stay(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        row = begin(provider)
        row = _lap(provider, row, ("a1", "a2"))
        row = _lap(provider, row, ("b1", "b2"))
        row = _lap(provider, row, ("c1",))
        _end(provider, "a1", "b1", "b2", "c1")
        clock.advance(timedelta(seconds=1))
        row = _lap(provider, row, prune=Prune(2, 2, children=10))
        assert _there(provider) == ["a1", "a2", "b1", "b2", "c1", "i"]
        assert [read(provider, key).expires_at for key in ("a1", "b1", "c1")] == [
            GOES_WITH_LAP,
            GOES_WITH_LAP,
            None,
        ]
        assert provider.store.expire() == 3
        assert _there(provider) == ["a2", "c1", "i"]
        assert provider.store.expire() == 0

    def test_a_child_that_ends_later_goes_with_a_later_write(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        row = _lap(provider, begin(provider), ("a1",))
        row = _lap(provider, row, prune=Prune(1, 1, children=10))
        _end(provider, "a1")
        clock.advance(timedelta(seconds=1))
        assert provider.store.expire() == 0
        row = _lap(provider, row, prune=Prune(children=10))
        assert provider.store.expire() == 1
        assert _there(provider) == ["i"]

    def test_a_write_marks_no_more_than_it_may_the_oldest_laps_first(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        row = begin(provider)
        for number in range(3):
            row = _lap(provider, row, (f"{number}x", f"{number}y"))
        _end(provider, *(f"{number}{letter}" for number in range(3) for letter in "xy"))
        clock.advance(timedelta(seconds=1))
        row = _lap(provider, row, prune=Prune(3, 3, children=3))
        assert provider.store.expire() == 3
        assert _there(provider) == ["1y", "2x", "2y", "i"]
        row = _lap(provider, row, prune=Prune(children=1, children_from=3))
        assert provider.store.expire() == 1
        assert _there(provider) == ["1y", "2y", "i"]
        row = _lap(provider, row, prune=Prune(children=9))
        assert provider.store.expire() == 2
        assert _there(provider) == ["i"]

    def test_without_that_wish_they_stay(self, provider: Provider, clock: ManualClock) -> None:
        row = _lap(provider, begin(provider), ("a1",))
        _end(provider, "a1")
        clock.advance(timedelta(seconds=1))
        _lap(provider, row, prune=Prune(1, 1))
        assert provider.store.expire() == 0
        assert _there(provider) == ["a1", "i"]

    def test_their_own_ended_children_go_with_them_and_open_ones_stay(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        row = _lap(provider, begin(provider), ("child",))
        (snapshot,) = (one for one in claim(provider, "n2") if one.row.instance_id == "child")
        child = _lap(provider, snapshot.row, ("grand", "open"))
        (grand, _) = claim(provider, "n2")
        later = _lap(provider, grand.row, ("great",))
        _end(provider, "great")
        expect(one(provider, an_end(later)), Granted)
        expect(one(provider, an_end(child)), Granted)
        clock.advance(timedelta(seconds=1))
        _lap(provider, row, prune=Prune(1, 1, children=10))
        assert [provider.store.expire() for _ in range(4)] == [1, 1, 1, 0]
        assert _there(provider) == ["i", "open"]

    def test_a_family_that_is_not_deleted_for_its_lap_leaves_its_children(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        """An expiry of its own, or an operator's deletion."""
        provider.admin.set_expiry({"watch": 1_000_000})
        row = _lap(provider, begin(provider), ("a1",))
        expect(one(provider, an_end(row)), Granted)
        provider.admin.set_expiry({"watch": None})
        _end(provider, "a1")
        clock.advance(timedelta(seconds=2))
        assert provider.store.expire() == 1
        assert _there(provider) == ["a1"]

    def test_children_of_an_earlier_life_are_left_alone(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        row = _lap(provider, begin(provider), ("a1",))
        _end(provider, "a1")
        expect(one(provider, an_end(row)), Granted)
        assert provider.admin.delete("i", row.incarnation, by="me", reason="")
        one(provider, a_start("i", incarnation="another life"))
        (snapshot,) = claim(provider)
        clock.advance(timedelta(seconds=1))
        again = _lap(provider, snapshot.row)
        _lap(provider, again, prune=Prune(2, 2, children=10))
        assert provider.store.expire() == 0
        assert _there(provider) == ["a1", "i"]
