"""The fence around what an owner writes, and what recovery shows after a lost reply (rules 1, 2, 3,
9; scenarios 35 and 39).
"""

from __future__ import annotations

from dataclasses import replace

from orchestra.store.changes import Recover
from orchestra.store.executions import ExecutionDelta
from orchestra.store.outcomes import Appended, Granted, Recovered, Refused, Started
from orchestra.store.port import Provider
from orchestra.store.tasks import ActivityRow
from tests.support.contract.base import ContractBase, Open
from tests.support.contract.shorthand import (
    a_node,
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
    one,
    read,
)


class FenceTests(ContractBase):
    """Who may write to an instance, and upon what knowledge of it."""

    def test_a_delayed_write_of_an_earlier_revision_is_refused(self, provider: Provider) -> None:
        row = begin(provider)
        delayed = a_park(row, wake_at=10**17)
        expect(one(provider, a_write(row, a_state(row, history_events=3))), Granted)
        before = read(provider)
        assert one(provider, delayed) == Refused()
        assert read(provider) == before

    def test_a_write_that_is_applied_twice_is_refused_the_second_time(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        write = a_write(row, executions=(ExecutionDelta(1, events=(an_event(1),)),))
        assert provider.store.commit([write, write]).outcomes == (Granted(0), Refused())
        assert provider.store.history("i", 1) == [an_event(1)]

    def test_nobody_writes_for_another_owner(self, provider: Provider) -> None:
        row = begin(provider)
        assert one(provider, a_write(row, owner="n2")) == Refused()
        assert one(provider, a_write(row)) == Granted(0)

    def test_an_owner_that_was_swept_away_is_refused_and_its_successor_is_not(
        self, connect: Open
    ) -> None:
        first, second = connect(), connect()
        old = begin(first, node="n1")
        second.store.join(a_node("n2"))
        assert second.store.sweep() == 1
        assert one(first, a_write(old)) == Refused()
        (taken,) = claim(second, "n2")
        assert one(first, a_write(old)) == Refused()
        assert one(second, a_write(taken.row)) == Granted(0)

    def test_a_write_that_comes_before_the_sweep_is_granted(self, connect: Open) -> None:
        first, second = connect(), connect()
        old = begin(first, node="n1")
        second.store.join(a_node("n2"))
        assert one(first, a_write(old)) == Granted(0)
        assert second.store.sweep() == 1
        assert one(first, a_write(replace(old, revision=old.revision + 1))) == Refused()

    def test_a_write_for_an_earlier_incarnation_is_refused(self, provider: Provider) -> None:
        old = begin(provider)
        expect(one(provider, an_end(old)), Granted)
        assert provider.admin.delete("i", old.incarnation, by="me", reason="")
        expect(one(provider, a_start("i", incarnation="b")), Started)
        (again,) = claim(provider)
        assert again.row.revision == old.revision, "only the incarnation tells them apart"
        assert one(provider, a_write(old)) == Refused()
        assert not provider.admin.delete("i", old.incarnation, by="me", reason="")

    def test_after_a_lost_reply_recovery_shows_the_write_that_came_through(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        write = a_write(
            row,
            a_state(row, history_events=5),
            executions=(ExecutionDelta(1, events=(an_event(1),)),),
        )
        expect(one(provider, write), Granted)
        recovered = expect(one(provider, Recover("i", "n1")), Recovered)
        assert recovered.snapshot is not None
        assert recovered.snapshot.row.history_events == 5
        assert recovered.snapshot.row.revision == row.revision + 2
        assert one(provider, write) == Refused()

    def test_after_a_lost_reply_recovery_fences_off_the_write_that_is_still_under_way(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        delayed = a_write(
            row,
            a_state(row, history_events=5),
            executions=(ExecutionDelta(1, events=(an_event(1),)),),
        )
        recovered = expect(one(provider, Recover("i", "n1")), Recovered)
        assert recovered.snapshot is not None
        assert recovered.snapshot.row.history_events == 0
        assert one(provider, delayed) == Refused()
        assert provider.store.history("i", 1) == []
        assert one(provider, a_write(recovered.snapshot.row)) == Granted(0)

    def test_recovery_gives_nothing_to_a_node_that_does_not_own_the_instance(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        outcomes = provider.store.commit([Recover("i", "n2"), Recover("nobody", "n1")]).outcomes
        assert outcomes == (Recovered(None), Recovered(None))
        assert read(provider).row.revision == row.revision

    def test_each_of_two_recoveries_in_one_group_shows_the_row_and_fences_it_off(
        self, provider: Provider
    ) -> None:
        """A client may ask for an instance through the node that asks for it, too."""
        row = begin(provider)
        outcomes = provider.store.commit(
            [Recover("i", "n1"), a_write(row), Recover("i", "n1"), an_append("i")]
        ).outcomes
        snapshots = [expect(outcomes[place], Recovered).snapshot for place in (0, 2)]
        assert [snapshot and snapshot.row.revision for snapshot in snapshots] == [
            row.revision + 1,
            row.revision + 2,
        ]
        assert outcomes[1] == Refused()
        after = read(provider).row
        assert (after.revision, after.inbox_seq) == (row.revision + 2, row.inbox_seq + 1)

    def test_recovery_sees_the_writes_before_it_in_its_group(self, provider: Provider) -> None:
        row = begin(provider)
        expect(one(provider, an_append("i")), Appended)
        write = a_write(row, consumed=(1,), activities=(ActivityRow(1, 2, 1, None, 5, b"[]"),))
        _, recovered = provider.store.commit([write, Recover("i", "n1")]).outcomes
        snapshot = expect(recovered, Recovered).snapshot
        assert snapshot is not None
        assert (snapshot.messages, len(snapshot.activities)) == ((), 1)
