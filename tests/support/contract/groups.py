"""A group of changes: all or nothing, in phases, at one instant (rules 7 and 8, scenario 33)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestra.errors import StoreError
from orchestra.store.changes import Claim
from orchestra.store.executions import Closing, ExecutionDelta
from orchestra.store.kinds import ExecutionEnd, Status
from orchestra.store.outcomes import (
    Appended,
    AppendRefused,
    Claimed,
    Granted,
    Refusal,
    Refused,
    Started,
    StartExists,
)
from orchestra.store.port import Provider
from orchestra.store.tasks import ActivityRow
from orchestra.testing import ManualClock
from tests.support.contract.base import ContractBase, Open
from tests.support.contract.shorthand import (
    KIND,
    SECOND,
    a_park,
    a_start,
    a_state,
    a_write,
    an_append,
    an_end,
    an_event,
    begin,
    claim,
    expect,
    ids,
    one,
    read,
)


class GroupTests(ContractBase):
    """One commit, and what it does with the changes that are given to it."""

    def test_a_refused_change_does_not_hinder_the_others_of_its_group(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        stale = replace(a_write(row), revision=row.revision - 1)
        group = (
            stale,
            a_start("j"),
            an_append("nobody"),
            an_append("i"),
            a_start("j", request_id="another"),
        )
        refused, started, unknown, appended, exists = provider.store.commit(group).outcomes
        assert (refused, started, exists) == (Refused(), Started(), StartExists(same=False))
        assert unknown == AppendRefused(Refusal.NOT_FOUND)
        assert expect(appended, Appended).fresh
        assert read(provider, "j").status is Status.OPEN

    def test_a_failing_write_takes_its_whole_group_back(self, provider: Provider) -> None:
        row = begin(provider)
        granted = expect(
            one(provider, a_write(row, executions=(ExecutionDelta(1, events=(an_event(1),)),))),
            Granted,
        )
        assert granted.inbox_seq == 0
        row = read(provider).row
        poison = a_write(row, executions=(ExecutionDelta(1, events=(an_event(2), an_event(1))),))
        unknown_kind = KIND._replace(version="9.9.9")
        before = read(provider)
        with pytest.raises(StoreError) as raised:
            provider.store.commit([a_start("j", kind=unknown_kind), poison, an_append("i")])
        assert not raised.value.retryable
        assert read(provider) == before
        assert provider.directory.get("j") is None
        assert provider.store.history("i", 1) == [an_event(1)]

    def test_a_kind_of_a_group_that_was_taken_back_is_not_remembered(self, connect: Open) -> None:
        first, second = connect(), connect()
        row = begin(first)
        lost, kept = KIND._replace(version="8.0.0"), KIND._replace(version="9.0.0")
        poison = a_write(
            row,
            a_state(row, kind=lost),
            executions=(ExecutionDelta(5, closed=Closing(1, ExecutionEnd.FAILED, None, b"e")),),
        )
        with pytest.raises(StoreError):
            first.store.commit([poison])
        expect(one(second, a_start("j", kind=kept)), Started)
        expect(one(first, a_start("k", kind=lost)), Started)
        assert ids(claim(first, kinds=(lost,))) == ["k"]
        assert ids(claim(second, kinds=(kept,))) == ["j"]

    def test_a_write_and_a_message_of_one_group_both_count(self, provider: Provider) -> None:
        row = begin(provider)
        appended, granted = provider.store.commit(
            [an_append("i"), a_write(row, a_state(row, history_events=7))]
        ).outcomes
        assert granted == Granted(inbox_seq=0), (
            "owners' writes come first, whatever the order of the group"
        )
        assert expect(appended, Appended).sequence == 1
        record = read(provider)
        assert (record.row.history_events, record.row.inbox_seq, record.unread_messages) == (
            7,
            1,
            1,
        )

    def test_two_writes_of_one_instance_apply_in_order(self, provider: Provider) -> None:
        row = begin(provider)
        activity = ActivityRow(1, 2, 1, None, 5, b"[]")
        first = a_write(
            row, activities=(activity,), executions=(ExecutionDelta(1, events=(an_event(1),)),)
        )
        second = an_end(replace(row, revision=row.revision + 1))
        assert provider.store.commit([first, second]).outcomes == (Granted(0), Granted(0))
        assert read(provider).activities == ()
        assert provider.store.history("i", 1) == [an_event(1)]

    def test_a_claim_sees_what_its_own_group_has_made_ready(self, provider: Provider) -> None:
        row = begin(provider, "a")
        group = (Claim("n2", (KIND,), 10), a_start("b"), a_park(row, wake_at=0))
        claimed = expect(provider.store.commit(group).outcomes[0], Claimed)
        assert sorted(ids(claimed.snapshots)) == ["a", "b"]
        assert not claimed.more

    def test_an_empty_group_tells_the_time(self, provider: Provider, clock: ManualClock) -> None:
        assert provider.store.commit([]).now == clock.now()

    def test_the_time_of_a_store_follows_a_clock_that_is_put_right(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        """Rule 25. Where the clock goes back by a little, time stands still."""
        before = provider.store.commit([]).now
        clock.advance(timedelta(milliseconds=-50))
        assert provider.store.commit([]).now == before
        clock.advance(timedelta(hours=-1))
        assert provider.store.commit([]).now == clock.now()
        assert provider.store.catalogue().now == clock.now()
        clock.advance(timedelta(days=1))
        assert provider.store.commit([]).now == clock.now()

    def test_what_was_parked_while_the_clock_was_ahead_is_made_ready_once(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        later = clock.now() + 7_200 * SECOND
        for instance_id in ("before", "named", "ahead", "forever"):
            begin(provider, instance_id)
        for instance_id in ("before", "named"):
            expect(one(provider, a_park(read(provider, instance_id).row, wake_at=later)), Granted)
        clock.advance(timedelta(hours=1))
        expect(one(provider, a_park(read(provider, "ahead").row, wake_at=later)), Granted)
        expect(one(provider, a_park(read(provider, "forever").row)), Granted)
        assert provider.store.rouse(0, 0) == 0, "the clock was not put back"
        clock.advance(timedelta(hours=-1))
        assert claim(provider) == ()
        assert provider.store.rouse(0, 0, ["named", "forever", "nobody"]) == 2
        assert provider.store.rouse(0, 0) == 0
        assert sorted(ids(claim(provider))) == ["ahead", "named"]
        assert read(provider, "before").row.wake_at == later
        clock.advance(timedelta(seconds=1))
        assert provider.store.rouse(clock.now() - 2 * SECOND, clock.now()) == 1, (
            "it was written in between"
        )
        assert ids(claim(provider)) == ["before"]
