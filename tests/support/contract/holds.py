"""Instances that are held (rule 5)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from orchestra.codec import Payload
from orchestra.store.changes import Claim, Release, Report
from orchestra.store.executions import ExecutionDelta, Opening
from orchestra.store.instances import InstanceRow
from orchestra.store.outcomes import Appended, Claimed, Granted, Refused, Reported, Started
from orchestra.store.port import Provider
from orchestra.store.routes import Route
from orchestra.store.tasks import LOST, ActivityRow
from orchestra.testing import ManualClock
from tests.support.contract.base import ContractBase, Open
from tests.support.contract.shorthand import (
    KIND,
    POLICY,
    a_hold,
    a_node,
    a_start,
    a_state,
    a_write,
    an_append,
    an_event,
    begin,
    claim,
    expect,
    one,
    read,
)

ROUTE: Final = Route("default", "probe")


def an_activity(number: int, **fields: Any) -> ActivityRow:
    return ActivityRow(1, number, 1, None, 4, b"[1]", **fields)


def hold_with(provider: Provider, *activities: ActivityRow) -> InstanceRow:
    """Start an instance that has asked for activities, and hold it with these rows."""
    row = begin(provider)
    events = tuple(an_event(activity.event_id) for activity in activities)
    opened = ExecutionDelta(1, opened=Opening(1, "1.0.0", "f1", 1, POLICY), events=events)
    expect(one(provider, a_write(row, executions=(opened,), activities=activities[:1])), Granted)
    row = read(provider).row
    expect(
        one(provider, a_write(row, a_state(row, owner=None), activities=activities, hold=a_hold())),
        Granted,
    )
    return read(provider).row


class HoldTests(ContractBase):
    """What is held stands still until it is released."""

    def test_the_ends_that_a_hold_keeps_come_with_the_next_claim_whoever_makes_it(
        self, connect: Open
    ) -> None:
        """Rule 39."""
        provider, other = connect(), connect()
        kept = (
            an_activity(1, result=Payload(b'"done"', encoding=2)),
            an_activity(2, failure=b"why", heartbeat=Payload(b"7")),
            an_activity(3),
        )
        row = hold_with(provider, *kept)
        assert [activity.has_ended for activity in read(provider).activities] == [True, True, False]
        assert expect(one(other, Claim("n2", (), 0, (ROUTE,), 5)), Claimed).tasks == ()
        expect(one(other, Release("i", row.incarnation, row.revision)), Granted)
        (snapshot,) = claim(other, "n2")
        assert [replace(activity, revision=0) for activity in snapshot.activities] == list(kept)
        completed = a_write(
            snapshot.row, completed=(1, 2), activities=(an_activity(3, result=Payload(b"1")),)
        )
        expect(one(other, completed), Granted)
        (left,) = read(provider).activities
        assert (left.event_id, left.result) == (3, Payload(b"1"))

    def test_what_runs_on_is_a_task_of_its_node_and_its_end_is_kept_while_the_instance_is_held(
        self, connect: Open
    ) -> None:
        provider, other = connect(), connect()
        provider.store.join(a_node("n1"))
        row = hold_with(
            provider,
            an_activity(1, route=ROUTE, owner="n1"),
            an_activity(2, route=ROUTE, owner="n1"),
        )
        first, second = provider.store.taken("n1")
        assert (first.event_id, second.event_id) == (1, 2)
        assert expect(one(other, Claim("n2", (), 0, (ROUTE,), 5)), Claimed).tasks == ()
        key = (first.instance_id, first.incarnation, first.execution, first.event_id)
        expect(
            one(provider, Report(*key, first.revision, "n1", result=Payload(b'"done"'))), Reported
        )
        assert claim(other, "n2") == (), "it is held"
        row = read(provider).row
        expect(one(other, Release("i", row.incarnation, row.revision)), Granted)
        (snapshot,) = claim(other, "n2")
        assert [(activity.result, activity.owner) for activity in snapshot.activities] == [
            (Payload(b'"done"'), None),
            (None, "n1"),
        ]

    def test_what_runs_on_is_lost_with_its_node(self, provider: Provider) -> None:
        provider.store.join(a_node("n1"))
        hold_with(provider, an_activity(1, route=ROUTE, owner="n1"))
        assert provider.store.bury("n1", renewals=0)
        assert provider.store.sweep() == 1
        (lost,) = read(provider).activities
        assert (lost.failure, lost.owner) == (LOST, None)
        assert claim(provider) == (), "it is held"

    def test_neither_message_nor_timer_makes_a_held_instance_ready(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        row = begin(provider)
        expect(
            one(provider, a_write(row, a_state(row, owner=None, wake_at=0), hold=a_hold())), Granted
        )
        expect(one(provider, an_append("i")), Appended)
        clock.advance(timedelta(days=1))
        assert claim(provider) == ()
        assert provider.store.next_wake([KIND]) is None
        record = read(provider)
        assert (record.held, record.row.hold) == (True, a_hold())
        (held,) = provider.store.held(["watch", "other"]).rows
        assert (held.instance_id, held.revision, held.kind, held.hold) == (
            "i",
            record.row.revision,
            KIND,
            a_hold(),
        )
        assert provider.store.held(["other"]).rows == ()

    def test_holds_are_read_in_pages_that_look_at_so_many_whatever_their_names(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        for number, name in enumerate(["watch", "other", "other", "watch", "other"]):
            clock.advance(timedelta(seconds=1))
            kind = KIND._replace(name=name)
            expect(one(provider, a_start(f"i{number}", kind=kind)), Started)
            (snapshot,) = claim(provider, kinds=(kind,))
            row = snapshot.row
            expect(one(provider, a_write(row, a_state(row, owner=None), hold=a_hold())), Granted)
        pages: list[tuple[str, ...]] = []
        after = None
        while not pages or after is not None:
            page = provider.store.held(["watch"], after, limit=2)
            pages.append(tuple(row.instance_id for row in page.rows))
            after = page.after
        assert pages == [("i0",), ("i3",), ()]
        every = provider.store.held(["watch", "other"])
        assert [row.instance_id for row in every.rows] == ["i0", "i1", "i2", "i3", "i4"]
        assert every.after is None

    def test_a_released_instance_may_be_claimed_and_still_shows_what_was_tried(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        hold = a_hold(("f1", "f2"))
        expect(one(provider, a_write(row, a_state(row, owner=None), hold=hold)), Granted)
        revision = row.revision + 1
        assert one(provider, Release("i", "a", revision - 1)) == Refused()
        assert one(provider, Release("i", "b", revision)) == Refused()
        assert one(provider, Release("i", "a", revision)) == Granted(inbox_seq=0)
        assert one(provider, Release("i", "a", revision + 1)) == Refused(), "it is held no more"
        (snapshot,) = claim(provider)
        assert snapshot.row.hold == hold
        assert not read(provider).held
        assert provider.store.held(["watch"]).rows == ()

    def test_an_owner_that_keeps_what_it_has_held_ends_the_hold_with_its_next_write(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        expect(one(provider, a_write(row, hold=a_hold())), Granted)
        row = read(provider).row
        assert (read(provider).held, row.owner) == (True, "n1")
        expect(one(provider, a_write(row)), Granted)
        assert not read(provider).held
