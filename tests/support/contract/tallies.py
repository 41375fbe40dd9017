"""How many instances there are of each kind, status and hold."""

from __future__ import annotations

from collections import Counter

import pytest

from orchestra.errors import StoreError
from orchestra.store.changes import Release
from orchestra.store.executions import ExecutionDelta
from orchestra.store.kinds import Status
from orchestra.store.outcomes import Granted, Refused, Started
from orchestra.store.port import Provider
from orchestra.store.queries import InstanceQuery
from orchestra.store.tallies import TallyRow
from tests.support.contract.base import ContractBase
from tests.support.contract.shorthand import (
    FOREIGN_KIND,
    KIND,
    OTHER_KIND,
    a_hold,
    a_node,
    a_start,
    a_state,
    a_write,
    an_end,
    an_event,
    begin,
    expect,
    one,
    read,
)


def counted(provider: Provider) -> list[TallyRow]:
    """Return what the rows themselves say."""
    numbers = Counter(
        (record.row.kind, record.status, record.held)
        for record in provider.directory.list(InstanceQuery(limit=10_000))
    )
    rows = [TallyRow(*key, number) for key, number in numbers.items()]
    return sorted(rows, key=lambda row: (row.kind, str(row.status.value), row.held))


class TallyTests(ContractBase):
    """A count is what the rows are, after each change."""

    def test_an_empty_store_has_no_count(self, provider: Provider) -> None:
        assert provider.directory.tally() == []

    def test_starts_of_one_group_are_counted_by_their_kinds(self, provider: Provider) -> None:
        provider.store.commit(
            [a_start(f"i{number}", kind=KIND if number % 3 else OTHER_KIND) for number in range(9)]
        )
        assert provider.directory.tally() == sorted(
            [
                TallyRow(KIND, Status.OPEN, held=False, number=6),
                TallyRow(OTHER_KIND, Status.OPEN, held=False, number=3),
            ],
            key=lambda row: row.kind,
        )

    def test_an_id_that_is_taken_is_counted_once(self, provider: Provider) -> None:
        provider.store.commit([a_start("i"), a_start("i"), a_start("i", "another", "r2")])
        provider.store.commit([a_start("i", "a third", "r3", OTHER_KIND)])
        assert provider.directory.tally() == [TallyRow(KIND, Status.OPEN, held=False, number=1)]

    def test_another_kind_a_hold_its_release_and_the_end_move_an_instance(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        provider.store.commit([a_start("other", kind=FOREIGN_KIND)])
        other = TallyRow(FOREIGN_KIND, Status.OPEN, held=False, number=1)

        def others(expected: TallyRow) -> None:
            assert provider.directory.tally() == counted(provider)
            assert [each for each in provider.directory.tally() if each != other] == [expected]

        others(TallyRow(KIND, Status.OPEN, held=False, number=1))
        held = a_write(row, a_state(row, kind=OTHER_KIND, owner=None), hold=a_hold(("f",)))
        expect(one(provider, held), Granted)
        others(TallyRow(OTHER_KIND, Status.OPEN, held=True, number=1))
        row = read(provider, "i").row
        expect(one(provider, Release("i", row.incarnation, row.revision)), Granted)
        others(TallyRow(OTHER_KIND, Status.OPEN, held=False, number=1))
        expect(one(provider, an_end(read(provider, "i").row)), Granted)
        others(TallyRow(OTHER_KIND, Status.COMPLETED, held=False, number=1))
        assert provider.admin.delete("i", row.incarnation, by="me", reason="")
        assert provider.directory.tally() == [other]

    def test_a_refused_write_is_not_counted(self, provider: Provider) -> None:
        row = begin(provider)
        expect(one(provider, an_end(row)), Granted)
        expect(one(provider, an_end(row)), Refused)
        assert provider.directory.tally() == [
            TallyRow(KIND, Status.COMPLETED, held=False, number=1)
        ]

    def test_a_group_that_fails_is_not_counted(self, provider: Provider) -> None:
        row = begin(provider)
        twice = ExecutionDelta(1, events=(an_event(1), an_event(1)))
        with pytest.raises(StoreError):
            provider.store.commit([a_start("new"), a_write(row, executions=(twice,))])
        assert provider.directory.tally() == [TallyRow(KIND, Status.OPEN, held=False, number=1)]
        expect(one(provider, a_start("new")), Started)
        assert provider.directory.tally() == [TallyRow(KIND, Status.OPEN, held=False, number=2)]

    def test_sweeps_change_no_count(self, provider: Provider) -> None:
        provider.store.join(a_node("n2"))
        for number in range(40):
            provider.store.commit([a_start(f"i{number}", kind=KIND if number % 2 else OTHER_KIND)])
            if number % 7 == 0:
                provider.store.sweep()
                assert provider.directory.tally() == counted(provider)
        provider.store.sweep()
        assert provider.directory.tally() == counted(provider)
