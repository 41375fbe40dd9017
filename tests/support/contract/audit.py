"""The audit: each act of an operator, from the transaction that did it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from orchestra.codec import UserText
from orchestra.store.audit import OperationQuery, Record
from orchestra.store.changes import Cancel, Release
from orchestra.store.kinds import Status
from orchestra.store.outcomes import Appended, Granted, Refused, Started, StartExists
from orchestra.store.port import Provider
from orchestra.testing import ManualClock
from tests.support.contract.base import ContractBase, Open
from tests.support.contract.shorthand import (
    a_hold,
    a_park,
    a_start,
    a_state,
    a_write,
    an_end,
    begin,
    expect,
    one,
    read,
)

TEXT = "naïve ☃ 'quoted\" \\ %_ \U0001f600 </script> ; DROP TABLE operation; --"


def acts(provider: Provider, **conditions: object) -> list[tuple[str, str, str]]:
    """Return who did what to which subject, the newest first."""
    query = replace(OperationQuery(), **conditions)  # pyright: ignore[reportArgumentType]
    return [(one.by, one.action, one.subject) for one in provider.directory.operations(query)]


class AuditTests(ContractBase):
    """What an operator's change leaves, and what it does not."""

    def test_a_granted_change_leaves_its_entry_and_a_refused_one_none(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        row = begin(provider)
        record = Record("me", "hold", "i", reason=TEXT)
        held = a_write(row, a_state(row, owner=None), hold=a_hold(), record=record)
        expect(one(provider, held), Granted)
        expect(one(provider, held), Refused)
        clock.advance(timedelta(seconds=1))
        stale = Release("i", "a", row.revision, replace(record, action="release"))
        expect(one(provider, stale), Refused)
        assert acts(provider) == [("me", "hold", "i")]
        expect(one(provider, replace(stale, revision=row.revision + 1)), Granted)
        assert acts(provider) == [("me", "release", "i"), ("me", "hold", "i")]
        (_, entry) = provider.directory.operations(OperationQuery())
        assert (entry.detail, entry.reason) == ({}, TEXT)

    def test_a_second_cancel_is_no_second_act(self, provider: Provider, clock: ManualClock) -> None:
        begin(provider)
        cancel = Cancel("i", UserText("enough"), "me", record=Record("me", "cancel", "i"))
        assert expect(one(provider, cancel), Appended).fresh
        assert not expect(one(provider, cancel), Appended).fresh
        one(provider, replace(cancel, instance_id="nobody"))
        assert acts(provider) == [("me", "cancel", "i")]
        clock.advance(timedelta(seconds=1))
        end = replace(cancel, terminate=True, record=Record("me", "terminate", "i"))
        assert expect(one(provider, end), Appended).fresh
        assert acts(provider) == [("me", "terminate", "i"), ("me", "cancel", "i")]

    def test_a_start_leaves_its_entry_once(self, provider: Provider) -> None:
        start = replace(a_start("new"), record=Record("me", "rerun", "old"))
        expect(one(provider, start), Started)
        assert expect(one(provider, start), StartExists).same
        assert acts(provider) == [("me", "rerun", "old")]

    def test_the_entries_of_a_group_keep_its_order(self, provider: Provider) -> None:
        starts = [a_start(f"i{number}") for number in range(12)]
        group = [
            replace(start, record=Record("me", "rerun", start.instance_id)) for start in starts
        ]
        provider.store.commit(group)
        assert [subject for _, _, subject in acts(provider)] == [
            start.instance_id for start in reversed(starts)
        ]

    def test_an_end_from_outside_leaves_its_entry(self, provider: Provider) -> None:
        row = begin(provider)
        expect(one(provider, a_park(row)), Granted)
        end = an_end(
            read(provider).row,
            Status.TERMINATED,
            owner=None,
            record=Record("me", "terminate", "i", reason="enough"),
        )
        expect(one(provider, end), Granted)
        assert acts(provider) == [("me", "terminate", "i")]

    def test_entries_are_found_by_condition_and_read_page_by_page(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        for number in range(7):
            record = Record(f"by{number % 2}", f"act{number % 3}", f"s{number % 2}{TEXT}")
            provider.store.commit([replace(a_start(f"i{number}"), record=record)])
            if number % 2:
                clock.advance(timedelta(seconds=1))
        assert len(acts(provider, by="by0")) == 4
        assert len(acts(provider, action="act0")) == 3
        assert acts(provider, subject=f"s1{TEXT}", action="act2") == [("by1", "act2", f"s1{TEXT}")]
        assert acts(provider, subject="' OR 1=1 --") == []
        whole = list(provider.directory.operations(OperationQuery()))
        assert sorted(whole, key=lambda entry: -entry.at) == whole
        seen = []
        query = OperationQuery(limit=2)
        while page := provider.directory.operations(query):
            seen += page
            query = replace(query, after=(page[-1].at, page[-1].number))
        assert seen == whole
        strange = replace(query, after=(whole[0].at, "no number \u2603"))
        assert len(provider.directory.operations(strange)) <= 2

    def test_entries_are_seen_by_every_connection(self, connect: Open, clock: ManualClock) -> None:
        first, second = connect(), connect()
        first.admin.set_policy("watch", "latest", by="ann", reason="so")
        clock.advance(timedelta(seconds=1))
        second.admin.set_policy("watch", "exact:1.0.0", by="bob", reason="so")
        expected = [("bob", "set policy", "watch"), ("ann", "set policy", "watch")]
        assert acts(first) == acts(second) == expected
