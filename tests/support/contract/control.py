"""What operators do to an instance without its code: hold it, end it and begin it again, go back."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

import pytest

from orchestra.codec import Payload, UserText
from orchestra.events import OnParentClose
from orchestra.store.changes import (
    Cancel,
    ChildStart,
    Claim,
    IfEnded,
    Release,
    Report,
    Resume,
    Suspend,
)
from orchestra.store.executions import Closing, ExecutionDelta, Opening
from orchestra.store.instances import OperatorHold, ParentLink, Pin
from orchestra.store.kinds import ExecutionEnd, HoldKind, Status
from orchestra.store.messages import MessageRow
from orchestra.store.outcomes import (
    Appended,
    AppendRefused,
    Claimed,
    Granted,
    Refusal,
    Refused,
    Reported,
    Started,
    StartExists,
)
from orchestra.store.port import Provider
from orchestra.store.routes import Route
from orchestra.store.tasks import ActivityRow
from orchestra.testing import ManualClock
from tests.support.contract.base import ContractBase, Open
from tests.support.contract.shorthand import (
    KIND,
    OTHER_KIND,
    POLICY,
    a_hold,
    a_start,
    a_state,
    a_write,
    an_append,
    an_end,
    an_event,
    an_execution,
    begin,
    claim,
    expect,
    one,
    read,
)

ROUTE: Final = Route("default", "probe")
WAIT: Final = Suspend("i", "anna", UserText("wait"))
GO: Final = Resume("i", "anna")


def again(request_id: str = "again", **fields: object):
    """Return a start that begins an ended instance again."""
    start = a_start("i", f"life of {request_id}", request_id)
    execution = replace(start.execution, request_id=request_id)
    return replace(start, execution=execution, **{"if_ended": IfEnded.RESTART, **fields})


class HoldByOperatorTests(ContractBase):
    """Rule 32: an operator's hold stands in a column of its own, and only a release ends it."""

    def test_it_takes_ownership_away_and_the_owner_may_write_no_more(self, connect: Open) -> None:
        provider, other = connect(), connect()
        row = begin(provider)
        expect(one(other, WAIT), Granted)
        assert one(provider, a_write(row)) == Refused()
        record = read(provider)
        assert (record.held, record.row.paused, record.row.owner) == (True, True, None)
        hold = record.row.operator_hold
        assert hold == OperatorHold(record.updated_at, "anna", "wait")
        assert claim(provider) == ()
        expect(one(other, GO), Granted)
        (snapshot,) = claim(provider)
        assert (snapshot.row.paused, snapshot.row.revision) == (False, row.revision + 3)

    def test_a_second_one_changes_nothing_and_a_second_release_neither(
        self, provider: Provider
    ) -> None:
        begin(provider)
        expect(one(provider, WAIT), Granted)
        before = read(provider)
        assert one(provider, replace(WAIT, reason=UserText("again"))) == Refused()
        assert read(provider) == before
        expect(one(provider, GO), Granted)
        assert one(provider, GO) == Refused()

    def test_what_is_not_there_or_has_ended_is_told(self, provider: Provider) -> None:
        assert one(provider, WAIT) == AppendRefused(Refusal.NOT_FOUND)
        assert one(provider, GO) == AppendRefused(Refusal.NOT_FOUND)
        expect(one(provider, an_end(begin(provider))), Granted)
        assert one(provider, WAIT) == AppendRefused(Refusal.CLOSED)
        assert one(provider, GO) == AppendRefused(Refusal.CLOSED)

    def test_a_release_restores_the_wake_time_and_what_came_due_is_due_once(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        row = begin(provider)
        due = clock.now() + 60_000_000
        expect(one(provider, a_write(row, a_state(row, owner=None, wake_at=due))), Granted)
        expect(one(provider, WAIT), Granted)
        expect(one(provider, GO), Granted)
        assert (read(provider).row.wake_at, claim(provider)) == (due, ())
        expect(one(provider, WAIT), Granted)
        clock.advance(timedelta(hours=1))
        assert claim(provider) == ()
        expect(one(provider, GO), Granted)
        (snapshot,) = claim(provider)
        assert snapshot.row.wake_at == due

    def test_messages_arrive_meanwhile_and_make_it_due_after_the_release(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        row = begin(provider)
        later = clock.now() + 10**9
        expect(one(provider, a_write(row, a_state(row, owner=None, wake_at=later))), Granted)
        expect(one(provider, WAIT), Granted)
        expect(one(provider, an_append("i")), Appended)
        assert claim(provider) == ()
        expect(one(provider, GO), Granted)
        (snapshot,) = claim(provider)
        assert [message.name for message in snapshot.messages] == ["go"]

    def test_new_code_does_not_end_it_but_the_release_ends_what_else_holds(
        self, provider: Provider
    ) -> None:
        """[M] A hold without tried fingerprints was released by a node within three seconds."""
        row = begin(provider)
        held = a_write(row, a_state(row, owner=None), hold=a_hold())
        expect(one(provider, held), Granted)
        expect(one(provider, WAIT), Granted)
        row = read(provider).row
        assert one(provider, Release("i", row.incarnation, row.revision)) == Refused()
        (shown,) = provider.store.held(["watch"]).rows
        assert (shown.hold.kind, shown.hold.detail, shown.hold.by) == (
            HoldKind.OPERATOR,
            "wait",
            "anna",
        )
        expect(one(provider, GO), Granted)
        assert len(claim(provider)) == 1
        assert provider.store.held(["watch"]).rows == ()

    def test_handed_out_activities_are_revoked_and_not_taken_meanwhile(self, connect: Open) -> None:
        provider, other = connect(), connect()
        row = begin(provider)
        activities = tuple(
            ActivityRow(1, number, 1, None, number, b"[1]", route=ROUTE) for number in (1, 2)
        )
        opened = ExecutionDelta(
            1,
            opened=Opening(1, "1.0.0", "f1", 1, POLICY),
            events=tuple(an_event(number) for number in (1, 2)),
        )
        expect(one(provider, a_write(row, executions=(opened,), activities=activities)), Granted)
        (task,) = expect(one(other, Claim("n2", (), 0, (ROUTE,), 1)), Claimed).tasks
        expect(one(provider, WAIT), Granted)
        assert other.store.taken("n2") == []
        assert expect(one(other, Claim("n2", (), 0, (ROUTE,), 5)), Claimed).tasks == ()
        assert other.store.next_wake((), [ROUTE]) is None
        key = (task.instance_id, task.incarnation, task.execution, task.event_id)
        assert one(other, Report(*key, task.revision, "n2", result=Payload(b"1"))) == Refused()
        expect(one(provider, GO), Granted)
        tasks = expect(one(other, Claim("n2", (), 0, (ROUTE,), 5)), Claimed).tasks
        assert [(one.event_id, one.attempt) for one in tasks] == [(1, 1), (2, 1)]
        expect(one(other, Report(*key, tasks[0].revision, "n2", result=Payload(b"1"))), Reported)

    @pytest.mark.parametrize("reports_first", [True, False])
    def test_a_heartbeat_in_the_same_group_takes_nothing_from_a_hold(
        self, connect: Open, *, reports_first: bool
    ) -> None:
        provider = connect()
        row = begin(provider)
        opened = ExecutionDelta(
            1, opened=Opening(1, "1.0.0", "f1", 1, POLICY), events=(an_event(1),)
        )
        activity = ActivityRow(1, 1, 1, None, 1, b"[1]", route=ROUTE)
        write = a_write(row, executions=(opened,), activities=(activity,))
        expect(one(provider, write), Granted)
        (task,) = expect(one(provider, Claim("n2", (), 0, (ROUTE,), 1)), Claimed).tasks
        key = (task.instance_id, task.incarnation, task.execution, task.event_id)
        beat = Report(*key, task.revision, "n2", heartbeat=Payload(b"7"))
        commit = provider.store.commit([beat, WAIT] if reports_first else [WAIT, beat])
        told = next(one for one in commit.outcomes if not isinstance(one, Granted))
        assert isinstance(told, Reported if reports_first else Refused)
        assert provider.store.taken("n2") == [], "the hold has taken it from its node"
        end = Report(*key, task.revision, "n2", result=Payload(b"1"))
        assert one(provider, end) == Refused()
        assert expect(one(provider, Claim("n2", (), 0, (ROUTE,), 5)), Claimed).tasks == ()
        expect(one(provider, GO), Granted)
        (again,) = expect(one(provider, Claim("n2", (), 0, (ROUTE,), 5)), Claimed).tasks
        assert (again.attempt, again.heartbeat) == (1, Payload(b"7") if reports_first else None)

    def test_a_cancel_waits_for_the_release_and_a_terminate_mark_does_not(
        self, provider: Provider
    ) -> None:
        """[M] A held child that was marked terminate stayed held."""
        row = begin(provider)
        expect(one(provider, a_write(row, a_state(row, owner=None))), Granted)
        expect(one(provider, WAIT), Granted)
        expect(one(provider, Cancel("i", UserText("stop"), "me")), Appended)
        assert claim(provider) == ()
        expect(one(provider, Cancel("i", UserText("now"), "me", terminate=True)), Appended)
        (snapshot,) = claim(provider)
        assert snapshot.row.cancel is not None
        assert snapshot.row.cancel.terminate
        assert not read(provider).held
        assert one(provider, WAIT) == Refused(), "terminate beats a hold"

    def test_a_terminate_mark_makes_what_a_fault_holds_claimable_too(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        held = a_write(row, a_state(row, owner=None), hold=a_hold())
        expect(one(provider, held), Granted)
        expect(one(provider, Cancel("i", UserText("now"), "me", terminate=True)), Appended)
        assert len(claim(provider)) == 1

    def test_an_end_from_outside_ends_it(self, provider: Provider) -> None:
        begin(provider)
        expect(one(provider, WAIT), Granted)
        row = read(provider).row
        expect(one(provider, an_end(row, Status.TERMINATED, owner=None)), Granted)
        record = read(provider)
        assert (record.status, record.held, record.row.paused) == (Status.TERMINATED, False, False)


class BeginAgainTests(ContractBase):
    """An ended instance begins again under its id, in one write."""

    def end(self, provider: Provider, status: Status = Status.FAILED) -> None:
        row = begin(provider)
        opened = ExecutionDelta(
            1, opened=Opening(1, "1.0.0", "f1", 1, POLICY), events=(an_event(1),)
        )
        expect(one(provider, a_write(row, executions=(opened,))), Granted)
        expect(one(provider, an_end(read(provider).row, status)), Granted)

    def test_its_executions_are_numbered_on_and_the_earlier_ones_stay(
        self, provider: Provider
    ) -> None:
        provider.admin.set_expiry({"watch": 1})
        self.end(provider)
        former = read(provider)
        assert former.expires_at is not None
        outcome = expect(one(provider, again(labels={"tier": "beta"})), Started)
        assert outcome.restarted
        record = read(provider)
        assert (record.status, record.row.execution, record.row.opened) == (Status.OPEN, 2, False)
        assert record.row.incarnation == "life of again" != former.row.incarnation
        assert record.row.revision > former.row.revision
        assert (record.expires_at, record.labels) == (None, {"tier": "beta"})
        rows = provider.directory.executions("i")
        assert [(row.number, row.end, row.request_id) for row in rows] == [
            (1, ExecutionEnd.FAILED, None),
            (2, None, "again"),
        ]
        assert len(provider.store.history("i", 1)) == 1
        (snapshot,) = claim(provider)
        assert (snapshot.execution.number, snapshot.row.cancel) == (2, None)

    def test_of_two_at_once_one_begins_it_and_the_other_finds_it_running(
        self, connect: Open
    ) -> None:
        provider, other = connect(), connect()
        self.end(provider)
        outcomes = provider.store.commit([again("r1"), again("r2")]).outcomes
        assert outcomes == (Started(restarted=True), StartExists(same=False, is_open=True))
        assert one(other, again("r3")) == StartExists(same=False, is_open=True)

    def test_a_repeated_request_has_no_effect_also_after_its_life_has_ended(
        self, provider: Provider
    ) -> None:
        self.end(provider)
        expect(one(provider, again("r1")), Started)
        assert one(provider, again("r1")) == StartExists(same=True, is_open=True)
        (snapshot,) = claim(provider)
        expect(one(provider, an_end(snapshot.row)), Granted)
        assert one(provider, again("r1")) == StartExists(same=True, is_open=False)
        expect(one(provider, again("r2")), Started)
        assert one(provider, again("r1")) == StartExists(same=True, is_open=True)

    def test_a_plain_start_that_is_repeated_in_a_later_life_is_known(
        self, provider: Provider
    ) -> None:
        start = a_start("i", request_id="first")
        start = replace(start, execution=replace(start.execution, request_id="first"))
        expect(one(provider, start), Started)
        (snapshot,) = claim(provider)
        expect(one(provider, an_end(snapshot.row)), Granted)
        expect(one(provider, again("second")), Started)
        assert one(provider, start) == StartExists(same=True)

    def test_what_has_completed_stays_if_only_failures_begin_again(
        self, provider: Provider
    ) -> None:
        self.end(provider, Status.COMPLETED)
        start = again(if_ended=IfEnded.RESTART_IF_FAILED)
        assert one(provider, start) == StartExists(same=False, is_open=False)
        expect(one(provider, again()), Started)
        (snapshot,) = claim(provider)
        expect(one(provider, an_end(snapshot.row, Status.TERMINATED)), Granted)
        expect(one(provider, replace(start, request_id="r3")), Started)

    def test_only_the_life_and_revision_that_were_seen_begin_again_if_they_are_named(
        self, provider: Provider
    ) -> None:
        self.end(provider)
        row = read(provider).row
        stale = again(follows=(row.incarnation, row.revision - 1))
        assert one(provider, stale) == StartExists(same=False, is_open=False)
        expect(one(provider, again(follows=(row.incarnation, row.revision))), Started)

    def test_a_child_of_the_same_parent_begins_again_and_no_other(self, provider: Provider) -> None:
        """Case 19: a fixed id for the child of each lap."""
        link = ParentLink("p", "a", 1, 3)
        child = replace(a_start("i"), parent=link, root_id="p")
        expect(one(provider, child), Started)
        (snapshot,) = claim(provider)
        expect(one(provider, an_end(snapshot.row)), Granted)
        for parent, begins in ((("q", "a"), False), (("p", "b"), False), (("p", "a"), True)):
            start = again(
                f"of {parent}",
                if_ended=IfEnded.RESTART_OWN,
                parent=ParentLink(*parent, 2, 3),
                root_id="p",
            )
            starter = begin(provider, f"starter of {parent}")
            step = a_write(starter, starts=(ChildStart("i", start.parent, start, None),))
            expect(one(provider, step), Granted)
            assert (read(provider).row.incarnation == start.incarnation) is begins

    def test_the_end_of_a_child_is_not_told_as_that_of_its_next_life(
        self, provider: Provider
    ) -> None:
        """One group ends a child, and starts it again for the next lap of its parent."""
        parent = begin(provider, "p")
        link = ParentLink("p", parent.incarnation, 1, 3)
        first = replace(a_start("i"), parent=link, root_id="p")
        step = a_write(parent, starts=(ChildStart("i", link, first, b"{}"),))
        expect(one(provider, step), Granted)
        (child,) = claim(provider)
        row = read(provider, "p").row
        next_link = ParentLink("p", parent.incarnation, 2, 3)
        start = again(if_ended=IfEnded.RESTART_OWN, parent=next_link, root_id="p")
        lap = a_write(
            row,
            a_state(row, execution=2),
            executions=(
                ExecutionDelta(1, closed=Closing(2, ExecutionEnd.CONTINUED_AS_NEW)),
                ExecutionDelta(2, create=an_execution(2)),
            ),
            starts=(ChildStart("i", next_link, start, b"{}"),),
        )
        outcomes = provider.store.commit([lap, an_end(child.row)]).outcomes
        assert [expect(outcome, Granted).arrivals for outcome in outcomes] == [(), ()]
        assert read(provider, "p").reports == ()
        assert (read(provider).status, read(provider).row.parent) == (Status.OPEN, next_link)
        (child,) = claim(provider)
        ((told, _),) = expect(one(provider, an_end(child.row)), Granted).arrivals
        assert (told, read(provider, "p").reports) == ("p", (3,))

    def test_the_events_of_a_start_come_with_it_or_go_to_the_one_that_runs(
        self, provider: Provider
    ) -> None:
        events = (an_append("i", "m1"), an_append("i", "m2", "stop"))
        start = replace(a_start("i"), events=events)
        outcome = expect(one(provider, start), Started)
        assert [one.sequence for one in outcome.appended] == [1, 2]
        other = replace(a_start("i", "b", "r2"), events=(an_append("i", "m3"), events[0]))
        exists = expect(one(provider, other), StartExists)
        assert (exists.is_open, exists.full) == (True, None)
        assert [(one.sequence, one.fresh) for one in exists.appended] == [(3, True), (1, False)]
        (snapshot,) = claim(provider)
        assert [message.name for message in snapshot.messages] == ["go", "stop", "go"]

    @pytest.mark.parametrize("if_ended", [IfEnded.LEAVE, IfEnded.RESTART])
    def test_a_start_whose_events_were_read_by_a_life_that_has_ended_is_known_when_it_is_repeated(
        self, provider: Provider, if_ended: IfEnded
    ) -> None:
        """Its first reply was lost, and what it had given ended the instance."""
        expect(one(provider, a_start("i")), Started)
        given = again("give", if_ended=if_ended, gives_events=True, events=(an_append("i", "m1"),))
        assert expect(one(provider, given), StartExists).appended
        (snapshot,) = claim(provider)
        end = replace(an_end(snapshot.row), consumed=(snapshot.messages[0].sequence,))
        expect(one(provider, end), Granted)
        assert one(provider, given) == StartExists(same=True, is_open=False)
        other = again("other", events=(an_append("i", "m2"),))
        expect(one(provider, other), Started)

    def test_the_events_of_a_start_are_stored_all_or_none(self, provider: Provider) -> None:
        expect(one(provider, a_start("i")), Started)
        events = tuple(an_append("i", f"m{number}", limit=2) for number in range(3))
        outcome = expect(
            one(provider, replace(a_start("i", "b", "r2"), events=events)), StartExists
        )
        assert outcome.full is not None
        assert outcome.appended == ()
        assert read(provider).unread_messages == 0
        expect(one(provider, an_append("i", "m9", limit=2)), Appended)

    def test_a_write_may_end_an_instance_and_begin_it_again(self, provider: Provider) -> None:
        row = begin(provider)
        expect(one(provider, an_append("i")), Appended)
        row = read(provider).row
        restart = again()
        end = an_end(row, Status.TERMINATED, owner=None, restart=restart)
        expect(one(provider, end), Granted)
        record = read(provider)
        assert (record.status, record.row.execution, record.unread_messages) == (Status.OPEN, 2, 0)
        (snapshot,) = claim(provider)
        assert (snapshot.row.incarnation, snapshot.messages) == (restart.incarnation, ())
        assert one(provider, again()) == StartExists(same=True, is_open=True)


class GoingBackTests(ContractBase):
    """Rule 31: what a rewind writes."""

    def test_messages_come_back_at_their_numbers_and_in_their_order(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        for number in (1, 2, 3):
            expect(one(provider, an_append("i", f"m{number}")), Appended)
        row = read(provider).row
        expect(one(provider, a_write(row, consumed=(1, 2))), Granted)
        expect(one(provider, Cancel("i", UserText("stop"), "me")), Appended)
        row = read(provider).row
        back = tuple(
            MessageRow(number, f"back {number}", "go", Payload(b"%d" % number), 5)
            for number in (1, 2)
        )
        closed = Closing(9, ExecutionEnd.REWOUND)
        write = a_write(
            row,
            a_state(row, kind=OTHER_KIND, owner=None, wake_at=0, execution=2, opened=False),
            owner=None,
            executions=(
                ExecutionDelta(1, closed=closed),
                ExecutionDelta(2, create=replace(an_execution(2), request_id="back")),
            ),
            restored=back,
            uncancels=True,
            pin=Pin("1.1.0", 5, "anna", "it broke"),
        )
        provider.store.raise_level(provider.library.target(2))
        expect(one(provider, write), Granted)
        (snapshot,) = claim(provider, kinds=(KIND, OTHER_KIND))
        assert [message.sequence for message in snapshot.messages] == [1, 2, 3]
        assert (snapshot.row.cancel, snapshot.row.pin) == (None, write.extras.pin)
        assert provider.directory.executions("i")[0].end is ExecutionEnd.REWOUND
        expect(one(provider, a_write(snapshot.row, consumed=(1, 2, 3))), Granted)
        repeated = one(provider, an_append("i", "m1"))
        assert expect(repeated, Appended).fresh is False, "its sender is still known"

    def test_what_comes_back_counts_for_what_comes_in_the_same_group(
        self, provider: Provider
    ) -> None:
        begin(provider)
        expect(one(provider, an_append("i", "m1", limit=2)), Appended)
        row = read(provider).row
        expect(one(provider, a_write(row, consumed=(1,))), Granted)
        row = read(provider).row
        back = MessageRow(1, "back", "go", Payload(b"1"), 5)
        write = a_write(row, a_state(row, owner=None), owner=None, restored=(back,))
        other = an_append("i", "m2", "stop", limit=2)
        full = an_append("i", "m3", limit=2)
        outcomes = provider.store.commit([write, other, full]).outcomes
        assert isinstance(outcomes[1], Appended)
        assert expect(outcomes[2], AppendRefused).reason is Refusal.FULL

    def test_children_are_left_alone_if_the_write_says_so(self, provider: Provider) -> None:
        row = begin(provider)
        link = ParentLink("i", row.incarnation, 1, 3)
        for number, (leaves, marked) in enumerate(((True, False), (False, True))):
            child_id = f"c{number}"
            child = replace(
                a_start(child_id, request_id=child_id),
                parent=link,
                on_parent_close=OnParentClose.TERMINATE,
            )
            expect(one(provider, child), Started)
            row = read(provider).row
            write = a_write(
                row,
                a_state(row, owner=None, execution=row.execution + 1, opened=False),
                owner=None,
                executions=(
                    ExecutionDelta(row.execution, closed=Closing(9, ExecutionEnd.CONTINUED_AS_NEW)),
                    ExecutionDelta(row.execution + 1, create=an_execution(row.execution + 1)),
                ),
                leaves_children=leaves,
            )
            expect(one(provider, write), Granted)
            assert (read(provider, child_id).row.cancel is not None) is marked
            link = replace(link, execution=row.execution + 1)
