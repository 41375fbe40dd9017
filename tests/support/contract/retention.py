"""Letting go of what is over: laps in the write of a boundary, ended instances when their time has
run out (I3, I9).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestra.store.changes import Append, Write
from orchestra.store.executions import Closing, ExecutionDelta, Prune
from orchestra.store.instances import InstanceRow
from orchestra.store.kinds import ExecutionEnd, Status
from orchestra.store.outcomes import Appended, AppendRefused, Granted, Refusal, Refused, Started
from orchestra.store.port import Provider
from orchestra.store.routes import DEFAULT_QUEUE, Kind
from orchestra.store.tasks import ActivityRow
from orchestra.testing import ManualClock
from tests.support.contract.base import ContractBase, Open
from tests.support.contract.shorthand import (
    FOREIGN_KIND,
    SECOND,
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


def lap(provider: Provider, prune: Prune | None = None, closed_at: int = 1) -> None:
    """Close the current execution of "i" and begin the next, with an event in each."""
    row = read(provider).row
    expect(one(provider, a_boundary(row, prune, closed_at)), Granted)


def a_boundary(row: InstanceRow, prune: Prune | None, closed_at: int = 1) -> Write:
    number = row.execution + 1
    closed = Closing(closed_at, ExecutionEnd.CONTINUED_AS_NEW, None, None)
    following = ExecutionDelta(number, create=an_execution(number), events=(an_event(1),))
    deltas = (ExecutionDelta(number - 1, closed=closed), following)
    return a_write(row, a_state(row, execution=number), executions=deltas, prune=prune)


def laps(provider: Provider, count: int) -> None:
    """Begin "i" and run laps; the n-th of them ended at n."""
    row = begin(provider)
    expect(
        one(provider, a_write(row, executions=(ExecutionDelta(1, events=(an_event(1),)),))), Granted
    )
    for number in range(1, count + 1):
        lap(provider, closed_at=number)


def kept(provider: Provider) -> tuple[list[int], list[int]]:
    """Return the executions that have rows, and those that have events."""
    rows = [execution.number for execution in provider.directory.executions("i")]
    return rows, [number for number in range(1, 100) if provider.store.history("i", number)]


def an_ending(
    provider: Provider, instance_id: str = "i", status: Status = Status.COMPLETED
) -> None:
    expect(one(provider, an_end(begin(provider, instance_id), status)), Granted)


class RetentionTests(ContractBase):
    """What a write lets go of, and what goes by itself."""

    def test_a_write_lets_go_of_a_prefix_and_rows_outlive_events(self, provider: Provider) -> None:
        laps(provider, 9)
        lap(provider, Prune(histories=6, executions=3))
        assert kept(provider) == ([4, 5, 6, 7, 8, 9, 10, 11], [7, 8, 9, 10, 11])
        lap(provider, Prune(histories=2, executions=1))
        assert kept(provider)[1] == [7, 8, 9, 10, 11, 12], "what is gone already is no fault"

    def test_no_row_goes_without_its_events(self, provider: Provider) -> None:
        laps(provider, 5)
        lap(provider, Prune(executions=3))
        assert kept(provider) == ([4, 5, 6, 7], [4, 5, 6, 7])

    @pytest.mark.parametrize(
        "prune", [Prune(10**6, 10**6), Prune(histories=4, executions=4), Prune(closed_until=10**17)]
    )
    def test_the_current_execution_is_never_touched(self, provider: Provider, prune: Prune) -> None:
        """Scenario 21, whatever the numbers say."""
        laps(provider, 2)
        lap(provider, prune)
        rows, histories = kept(provider)
        assert rows[-1] == histories[-1] == 4
        record = read(provider)
        assert (record.status, record.row.execution, record.execution.number) == (Status.OPEN, 4, 4)
        lap(provider)

    def test_by_age_the_longest_old_prefix_goes(self, provider: Provider) -> None:
        laps(provider, 8)
        lap(provider, Prune(closed_until=5), closed_at=9)
        assert kept(provider) == ([6, 7, 8, 9, 10], [6, 7, 8, 9, 10])
        lap(provider, Prune(closed_until=5), closed_at=10)
        assert kept(provider)[0][0] == 6, "nothing more is as old"

    def test_by_age_a_suffix_is_left_also_where_a_clock_went_back(self, provider: Provider) -> None:
        row = begin(provider)
        expect(
            one(provider, a_write(row, executions=(ExecutionDelta(1, events=(an_event(1),)),))),
            Granted,
        )
        for closed_at in (1, 2, 9, 3, 4, 5):
            lap(provider, closed_at=closed_at)
        lap(provider, Prune(closed_until=6), closed_at=10)
        assert kept(provider)[0] == [3, 4, 5, 6, 7, 8], (
            "the one that seems young keeps those behind it"
        )

    def test_by_age_the_newest_closed_one_stays(self, provider: Provider) -> None:
        laps(provider, 5)
        lap(provider, Prune(closed_until=10**17), closed_at=6)
        assert kept(provider) == ([6, 7], [6, 7])

    def test_by_number_and_by_age_together_more_goes(self, provider: Provider) -> None:
        laps(provider, 8)
        lap(provider, Prune(histories=6, executions=2, closed_until=4), closed_at=9)
        assert kept(provider) == ([5, 6, 7, 8, 9, 10], [7, 8, 9, 10])

    @pytest.mark.parametrize(
        "prune", [Prune(2_400, 2_400), Prune(closed_until=2_400)], ids=["by number", "by age"]
    )
    def test_of_a_long_backlog_a_part_goes_at_a_time_the_oldest_first(
        self, provider: Provider, prune: Prune
    ) -> None:
        """A bound that was lowered stops nobody for long."""
        row = begin(provider)
        deltas = [
            ExecutionDelta(
                1,
                events=(an_event(1),),
                closed=Closing(1, ExecutionEnd.CONTINUED_AS_NEW, None, None),
            )
        ]
        for number in range(2, 2_501):
            closed = Closing(number, ExecutionEnd.CONTINUED_AS_NEW, None, None)
            deltas.append(
                ExecutionDelta(
                    number, create=an_execution(number), events=(an_event(1),), closed=closed
                )
            )
        deltas.append(ExecutionDelta(2_501, create=an_execution(2_501), events=(an_event(1),)))
        expect(
            one(provider, a_write(row, a_state(row, execution=2_501), executions=tuple(deltas))),
            Granted,
        )
        for oldest in (1, 1_001, 2_001, 2_401, 2_401):
            rows = [
                execution.number for execution in provider.directory.executions("i", limit=10_000)
            ]
            assert rows == list(range(oldest, 2_502))
            assert bool(provider.store.history("i", oldest)) is True
            assert provider.store.history("i", oldest - 1) == []
            row = read(provider).row
            expect(one(provider, a_write(row, a_state(row), prune=prune)), Granted)

    def test_a_refused_write_lets_go_of_nothing(self, provider: Provider) -> None:
        laps(provider, 4)
        row = read(provider).row
        assert (
            one(provider, a_boundary(replace(row, revision=row.revision - 1), Prune(3, 3)))
            == Refused()
        )
        assert kept(provider)[0] == [1, 2, 3, 4, 5]

    def test_an_end_may_let_go_as_well(self, provider: Provider) -> None:
        laps(provider, 4)
        expect(one(provider, an_end(read(provider).row, prune=Prune(3, 2))), Granted)
        assert kept(provider) == ([3, 4, 5], [4, 5])

    # --- ended instances ---

    def test_without_an_expiry_ended_instances_are_kept(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        an_ending(provider)
        assert read(provider).expires_at is None
        clock.advance(timedelta(days=10_000))
        assert provider.store.expire() == 0
        assert read(provider).status is Status.COMPLETED

    def test_an_ended_instance_goes_when_its_time_has_run_out_and_not_before(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        provider.admin.set_expiry({"watch": 60 * SECOND})
        an_ending(provider)
        assert read(provider).expires_at == clock.now() + 60 * SECOND
        clock.advance(timedelta(seconds=60) - timedelta(microseconds=1))
        assert provider.store.expire() == 0
        clock.advance(timedelta(microseconds=1))
        assert provider.store.expire() == 1
        assert provider.directory.get("i") is None
        assert provider.store.expire() == 0

    def test_nothing_is_left_of_an_instance_that_has_gone(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        """I9: its id is free, and its labels, tombstones, messages, activities, events and rows are
        gone.
        """
        provider.admin.set_expiry({"watch": SECOND})
        expect(one(provider, replace(a_start("i"), labels={"team": "blue"})), Started)
        expect(one(provider, an_append("i", "m1")), Appended)
        expect(one(provider, an_append("i", "m2")), Appended)
        (snapshot,) = claim(provider)
        told = a_write(
            snapshot.row,
            consumed=(1,),
            executions=(ExecutionDelta(1, events=(an_event(1),)),),
            activities=(ActivityRow(1, 1, 1, 5, 4, b"[]"),),
        )
        expect(one(provider, told), Granted)
        expect(one(provider, an_end(read(provider).row)), Granted)
        clock.advance(timedelta(seconds=1))
        assert provider.store.expire() == 1
        assert (provider.directory.executions("i"), provider.directory.history("i", 1)) == ([], [])
        assert one(provider, an_append("i", "m1")) == AppendRefused(Refusal.NOT_FOUND)
        expect(one(provider, a_start("i", incarnation="b", request_id="r")), Started)
        assert expect(one(provider, an_append("i", "m1")), Appended).fresh
        assert (read(provider).labels, read(provider).activities) == ({}, ())
        assert read(provider).expires_at is None

    def test_an_open_instance_never_goes(self, provider: Provider, clock: ManualClock) -> None:
        provider.admin.set_expiry({"watch": SECOND})
        row = begin(provider)
        expect(one(provider, a_write(row, a_state(row, owner=None, wake_at=None))), Granted)
        clock.advance(timedelta(days=10_000))
        assert provider.store.expire() == 0
        assert read(provider).status is Status.OPEN

    def test_each_name_has_its_own_time(self, provider: Provider, clock: ManualClock) -> None:
        provider.admin.set_expiry({"watch": 60 * SECOND, "other": SECOND, "third": None})
        an_ending(provider)
        for name in ("other", "third"):
            kind = Kind(DEFAULT_QUEUE, name, "1.0.0", 1)
            expect(one(provider, a_start(name, kind=kind)), Started)
            (snapshot,) = claim(provider, kinds=(kind,))
            expect(one(provider, an_end(snapshot.row)), Granted)
        clock.advance(timedelta(seconds=1))
        assert provider.store.expire() == 1
        assert provider.directory.get("other") is None
        clock.advance(timedelta(seconds=59))
        assert provider.store.expire() == 1
        assert provider.directory.get("i") is None
        assert provider.directory.get("third") is not None

    def test_whoever_ends_an_instance_needs_no_code_to_set_its_time(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        """An operator terminates what no node has ever run."""
        provider.admin.set_expiry({FOREIGN_KIND.name: SECOND})
        expect(one(provider, a_start("i", kind=FOREIGN_KIND)), Started)
        expect(one(provider, an_end(read(provider).row, Status.TERMINATED)), Granted)
        clock.advance(timedelta(seconds=1))
        assert provider.store.expire() == 1

    def test_a_changed_time_counts_for_what_ends_from_then_on(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        provider.admin.set_expiry({"watch": 60 * SECOND})
        an_ending(provider, "first")
        provider.admin.set_expiry({"watch": SECOND})
        an_ending(provider, "second")
        provider.admin.set_expiry({"watch": None})
        an_ending(provider, "third")
        provider.admin.set_expiry({"other": SECOND})
        clock.advance(timedelta(seconds=1))
        assert provider.store.expire() == 1
        assert provider.directory.get("second") is None
        clock.advance(timedelta(days=1))
        assert provider.store.expire() == 1
        assert provider.directory.get("third") is not None

    def test_many_go_in_small_parts_the_longest_overdue_first(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        provider.admin.set_expiry({"watch": SECOND})
        for number in range(5):
            an_ending(provider, f"i{number}")
            clock.advance(timedelta(seconds=1))
        assert provider.store.expire(limit=2) == 2
        assert [f"i{number}" for number in range(5) if provider.directory.get(f"i{number}")] == [
            "i2",
            "i3",
            "i4",
        ]
        assert [provider.store.expire(limit=2) for _ in range(3)] == [2, 1, 0]

    def test_of_two_nodes_one_deletes_what_both_have_found(
        self, connect: Open, clock: ManualClock
    ) -> None:
        first, second = connect(), connect()
        first.admin.set_expiry({"watch": SECOND})
        an_ending(first)
        clock.advance(timedelta(seconds=1))
        assert (second.store.expire(), first.store.expire()) == (1, 0)

    def test_deleting_many_deletes_those_that_have_ended_and_are_the_same(
        self, provider: Provider
    ) -> None:
        for instance_id in ("a", "b"):
            an_ending(provider, instance_id)
        begin(provider, "open")
        asked = [("a", "a"), ("open", "a"), ("nobody", "a"), ("b", "another incarnation")]
        assert provider.admin.delete_all(asked, by="me", reason="") == ["a"]
        assert provider.directory.get("a") is None
        assert {"b", "open"} == {one for one in ("b", "open") if provider.directory.get(one)}
        assert provider.admin.delete_all([], by="me", reason="") == []

    def test_who_writes_past_the_engine_can_say_so(self, provider: Provider) -> None:
        provider.store.changed()
        assert not provider.store.changed()
        one(provider, a_start("i"))
        assert not provider.store.changed(), "its own writes are no news to an engine"
        one(provider, Append("i", "m", "go", an_append("i").payload))
        provider.store.stir()
        assert provider.store.changed()
        assert not provider.store.changed()
