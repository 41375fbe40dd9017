"""Starts that wait for their time."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from orchestra.codec import Payload
from orchestra.store.changes import Cancel, IfEnded, Start
from orchestra.store.executions import ExecutionDelta, Opening
from orchestra.store.hot_row import started_snapshot
from orchestra.store.instances import InstanceRow
from orchestra.store.kinds import Status
from orchestra.store.outcomes import Appended, Granted, Refused, Started, StartExists
from orchestra.store.port import Provider
from orchestra.testing import ManualClock
from tests.support.contract.base import ContractBase
from tests.support.contract.shorthand import (
    SECOND,
    a_hold,
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


def _delayed(clock: ManualClock) -> int:
    return clock.now() + 3600 * SECOND


def _owned(instance_id: str = "i", incarnation: str = "a", request_id: str = "r") -> Start:
    return replace(a_start(instance_id, incarnation, request_id), owner="n1")


def _row_of(start: Start) -> InstanceRow:
    return started_snapshot(start).row


class FirstTurnTests(ContractBase):
    """A start for an owner, who writes the first turn in the same group (rule 15)."""

    def test_a_start_and_its_first_turn_are_one_group(self, provider: Provider) -> None:
        start = _owned()
        row = _row_of(start)
        opened = Opening(5, "1.0.0", "f1", 1, start.execution.resolution)
        delta = ExecutionDelta(1, opened=opened, events=(an_event(1),), event_count=1, byte_count=9)
        turn = a_write(
            row,
            executions=(delta,),
            custom_status=Payload(b'"begun"'),
            labels=(("team", "blue"),),
        )
        outcomes = provider.store.commit([start, turn]).outcomes
        assert outcomes == (Started(), Granted(0))
        record = read(provider)
        assert (record.row.owner, record.row.revision, record.row.opened) == ("n1", 2, True)
        assert record.execution.opened_at == 5
        assert record.custom_status == Payload(b'"begun"')
        assert record.labels == {"team": "blue"}
        assert [event.id for event in provider.store.history("i", 1)] == [1]
        # The next write goes on from there.
        expect(one(provider, an_end(replace(row, revision=2))), Granted)

    def test_the_order_in_the_group_does_not_matter(self, provider: Provider) -> None:
        start = _owned()
        turn = a_write(_row_of(start))
        assert provider.store.commit([turn, start]).outcomes == (Granted(0), Started())

    def test_a_first_turn_may_end_or_hold_its_instance(self, provider: Provider) -> None:
        provider.admin.set_expiry({"watch": 60 * SECOND})
        ends, holds = _owned("ends"), _owned("holds")
        held = a_write(_row_of(holds), a_state(_row_of(holds), owner=None), hold=a_hold())
        outcomes = provider.store.commit([ends, holds, an_end(_row_of(ends)), held]).outcomes
        assert outcomes == (Started(), Started(), Granted(0), Granted(0))
        record = read(provider, "ends")
        assert record.status is Status.COMPLETED
        assert record.expires_at is not None
        assert read(provider, "holds").held
        assert claim(provider) == ()

    def test_what_the_group_sends_to_it_wakes_it(self, provider: Provider) -> None:
        start = _owned()
        row = _row_of(start)
        released = a_write(row, a_state(row, owner=None))
        outcomes = provider.store.commit([an_append("i", "m"), released, start]).outcomes
        assert isinstance(outcomes[0], Appended)
        (snapshot,) = claim(provider)
        assert [message.message_id for message in snapshot.messages] == ["m"]

    def test_without_a_turn_it_is_its_owners(self, provider: Provider) -> None:
        start = _owned()
        expect(one(provider, start), Started)
        assert claim(provider) == ()
        assert list(provider.store.owned("n1")) == ["i"]
        expect(one(provider, a_write(_row_of(start))), Granted)

    def test_its_owner_has_in_memory_what_a_claim_would_read(self, provider: Provider) -> None:
        start = replace(
            a_start("i"), traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01", created_by="me"
        )
        expect(one(provider, start), Started)
        (claimed,) = claim(provider)
        held = started_snapshot(replace(start, owner="n1"))
        assert replace(claimed, row=replace(claimed.row, revision=1)) == held

    def test_what_a_dead_node_has_started_is_released(self, provider: Provider) -> None:
        """A stopped node's commit may come after its burial (rule 12)."""
        start = replace(_owned(), owner="a node that is gone")
        expect(one(provider, start), Started)
        assert claim(provider) == ()
        assert provider.store.sweep() == 1
        assert ids(claim(provider)) == ["i"]

    def test_the_turn_of_a_refused_start_is_refused(self, provider: Provider) -> None:
        expect(one(provider, _owned()), Started)  # at the revision that the turn would name
        other = _owned(incarnation="b", request_id="another")
        outcomes = provider.store.commit([other, a_write(_row_of(other))]).outcomes
        assert outcomes == (StartExists(same=False), Refused())
        assert (read(provider).row.incarnation, read(provider).row.revision) == ("a", 1)

    def test_one_of_two_starts_in_a_group_is_made(self, provider: Provider) -> None:
        first, second = _owned(), _owned(incarnation="b", request_id="another")
        turns = [a_write(_row_of(first)), a_write(_row_of(second))]
        outcomes = provider.store.commit([first, second, *turns]).outcomes
        assert outcomes == (Started(), StartExists(same=False), Granted(0), Refused())

    def test_an_instance_that_begins_again_has_no_owner(self, provider: Provider) -> None:
        row = begin(provider)
        expect(one(provider, an_end(row)), Granted)
        again = replace(
            _owned(incarnation="b", request_id="another"), if_ended=IfEnded.RESTART, looks=True
        )
        outcomes = provider.store.commit([again, a_write(_row_of(again))]).outcomes
        assert outcomes == (Started(restarted=True), Refused())
        assert ids(claim(provider)) == ["i"]


class StartTests(ContractBase):
    """A delayed start."""

    def test_a_delayed_start_is_claimed_when_its_time_has_come_and_not_before(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        later = _delayed(clock)
        start = replace(a_start("i"), wake_at=later, not_before=later)
        expect(one(provider, start), Started)
        assert read(provider).row.not_before == later
        assert claim(provider) == ()
        clock.advance(timedelta(seconds=3599))
        assert claim(provider) == ()
        clock.advance(timedelta(seconds=1))
        (snapshot,) = claim(provider)
        assert snapshot.row.not_before == later

    def test_an_event_does_not_start_it_early(self, provider: Provider, clock: ManualClock) -> None:
        later = _delayed(clock)
        expect(one(provider, replace(a_start("i"), wake_at=later, not_before=later)), Started)
        expect(one(provider, an_append("i", "m")), Appended)
        assert claim(provider) == ()
        assert read(provider).row.wake_at == later
        clock.advance(timedelta(hours=1))
        assert ids(claim(provider)) == ["i"]

    def test_a_cancel_makes_it_ready_at_once(self, provider: Provider, clock: ManualClock) -> None:
        later = _delayed(clock)
        expect(one(provider, replace(a_start("i"), wake_at=later, not_before=later)), Started)
        expect(one(provider, an_append("i", "m")), Appended)
        expect(one(provider, Cancel("i", "enough")), Appended)
        assert ids(claim(provider)) == ["i"]

    def test_once_it_has_begun_events_wake_it_as_any_other(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        row = begin(provider)
        expect(one(provider, a_park(row, wake_at=_delayed(clock))), Granted)
        expect(one(provider, an_append("i", "m")), Appended)
        assert ids(claim(provider)) == ["i"]
