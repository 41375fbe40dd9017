"""Nodes: how they live and die, and what becomes of what they own (rules 11, 12, 13 and 14)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestra.errors import NodeBuried
from orchestra.store.changes import Cancel, Claim
from orchestra.store.outcomes import Appended, Granted, Refused, Started
from orchestra.store.port import Provider
from orchestra.store.queries import InstanceQuery
from orchestra.testing import ManualClock
from tests.support.contract.base import ContractBase, Open
from tests.support.contract.shorthand import (
    KIND,
    SECOND,
    a_node,
    a_park,
    a_start,
    a_state,
    a_write,
    an_append,
    begin,
    claim,
    expect,
    one,
    read,
)


class NodeTests(ContractBase):
    """Joining, renewing, burial, sweeping, leaving."""

    def test_a_node_is_known_from_joining_to_leaving(
        self, connect: Open, clock: ManualClock
    ) -> None:
        first, second = connect(), connect()
        assert first.store.join(a_node("n1")) == clock.now()
        clock.advance(timedelta(seconds=1))
        assert first.store.renew("n1").now == clock.now()
        (node,) = second.store.catalogue().nodes
        assert node.record == a_node("n1")
        assert (node.renewals, node.renewed_at, node.started_at) == (
            1,
            clock.now(),
            clock.now() - SECOND,
        )
        assert second.directory.catalogue() == second.store.catalogue()
        assert second.store.catalogue().versions("watch") == {"1.0.0", "1.1.0"}
        first.store.leave("n1")
        assert second.store.catalogue().nodes == ()
        with pytest.raises(NodeBuried):
            first.store.renew("n1")

    def test_a_renewal_before_the_burial_saves_the_node(self, provider: Provider) -> None:
        provider.store.join(a_node())
        provider.store.renew("n1")
        assert not provider.store.bury("n1", renewals=0)
        provider.store.renew("n1")

    def test_a_burial_before_the_renewal_is_final(self, provider: Provider) -> None:
        provider.store.join(a_node())
        assert provider.store.bury("n1", renewals=0)
        assert not provider.store.bury("n1", renewals=0), "once is enough"
        with pytest.raises(NodeBuried):
            provider.store.renew("n1")
        assert provider.store.catalogue().nodes == ()

    def test_a_lapse_alone_changes_nothing(self, provider: Provider, clock: ManualClock) -> None:
        provider.store.join(a_node())
        row = begin(provider)
        clock.advance(timedelta(hours=1))
        assert provider.store.sweep() == 0
        assert one(provider, a_write(row)) == Granted(0)
        provider.store.renew("n1")

    def test_a_claim_of_a_node_that_is_already_buried_is_swept(self, provider: Provider) -> None:
        provider.store.join(a_node("n1"))
        provider.store.join(a_node("n2"))
        assert provider.store.bury("n1", renewals=0)
        assert provider.store.sweep() == 0
        begin(provider, node="n1")  # it was queued before the burial, and commits after it
        assert provider.store.sweep() == 1
        (snapshot,) = claim(provider, "n2")
        assert snapshot.row.takeovers == 1

    def test_a_sweep_leaves_the_instances_of_living_nodes_alone(self, provider: Provider) -> None:
        provider.store.join(a_node("n1"))
        begin(provider, "mine", node="n1")
        begin(provider, "ghosts", node="n2")
        assert provider.store.sweep() == 1
        assert provider.store.owned("n1") == ["mine"]
        assert provider.store.owned("n2") == []

    def test_a_sweep_goes_in_parts(self, provider: Provider) -> None:
        provider.store.commit([a_start(f"i{number}") for number in range(5)])
        assert len(claim(provider, "ghost")) == 5
        assert [provider.store.sweep(limit=2) for _ in range(4)] == [2, 2, 1, 0]

    def test_leaving_releases_what_the_node_owns(self, provider: Provider) -> None:
        provider.store.join(a_node("n1"))
        row = begin(provider, node="n1")
        provider.store.leave("n1")
        assert one(provider, a_write(row)) == Refused()
        (snapshot,) = claim(provider, "n2")
        assert snapshot.row.takeovers == 0, "leaving is no crash"
        assert snapshot.row.revision == row.revision + 2, (
            "the release is fenced like any other write (rule 1)"
        )

    def test_a_node_can_list_what_it_owns_and_has_forgotten(self, provider: Provider) -> None:
        provider.store.commit([a_start("b"), a_start("a"), Claim("n1", (KIND,), 10)])
        assert provider.store.owned("n1") == ["a", "b"]
        expect(one(provider, a_park(read(provider, "a").row)), Granted)
        assert provider.store.owned("n1") == ["b"]

    def test_readers_see_how_many_instances_each_node_owns(self, provider: Provider) -> None:
        assert provider.directory.count_owned([]) == {}
        provider.store.commit([a_start(f"i{number}") for number in range(5)])
        provider.store.commit([Claim("n1", (KIND,), 3), Claim("n2", (KIND,), 1)])
        assert provider.directory.count_owned(["n1", "n2", "n3"]) == {"n1": 3, "n2": 1, "n3": 0}
        (mine, *_) = provider.store.owned("n1")
        expect(one(provider, a_park(read(provider, mine).row)), Granted)
        provider.store.leave("n2")
        assert provider.directory.count_owned(["n2", "n1"]) == {"n1": 2, "n2": 0}, (
            "what is parked or released is nobody's"
        )

    def test_from_the_third_crash_on_the_claim_waits(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        expect(one(provider, a_start("i")), Started)
        for takeovers in (1, 2):
            assert len(claim(provider, "ghost")) == 1
            assert provider.store.sweep() == 1
            assert (read(provider).row.takeovers, read(provider).row.wake_at) == (takeovers, 0)
        for takeovers, seconds in (
            (3, 8),
            (4, 16),
            (5, 32),
            (6, 64),
            (7, 128),
            (8, 256),
            (9, 300),
            (10, 300),
        ):
            assert len(claim(provider, "ghost")) == 1
            assert provider.store.sweep() == 1
            assert read(provider).row.takeovers == takeovers
            clock.advance(timedelta(seconds=seconds, microseconds=-1))
            assert claim(provider) == ()
            clock.advance(timedelta(microseconds=1))
        assert [
            record.row.instance_id for record in provider.directory.list(InstanceQuery(held=True))
        ] == ["i"]
        (snapshot,) = claim(provider)
        expect(one(provider, a_park(snapshot.row)), Granted)
        assert read(provider).row.takeovers == 0

    def test_a_message_does_not_hurry_an_instance_that_crashes_its_owners(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        expect(one(provider, a_start("i")), Started)
        for _ in range(3):
            assert len(claim(provider, "ghost")) == 1
            assert provider.store.sweep() == 1
        expect(one(provider, an_append("i")), Appended)
        expect(one(provider, Cancel("i", "enough")), Appended)
        assert claim(provider) == ()
        clock.advance(timedelta(seconds=8))
        (snapshot,) = claim(provider)
        # Nor does it have to wait for ever, where it was parked for long without having recovered.
        expect(
            one(
                provider,
                a_write(
                    snapshot.row, a_state(snapshot.row, owner=None, wake_at=10**17, takeovers=3)
                ),
            ),
            Granted,
        )
        expect(one(provider, an_append("i", "m2")), Appended)
        assert provider.store.next_wake([KIND]) == clock.now() + 300 * SECOND

    def test_a_node_whose_process_is_gone_is_seen_to_have_vanished(self, connect: Open) -> None:
        first, second, third = connect(), connect(), connect()
        first.store.join(a_node("n1"))
        second.store.join(a_node("n2"))
        third.store.join(a_node("n3", host="elsewhere"))
        assert first.store.vanished() == []
        second.close()  # without leaving
        third.close()
        vanished = first.store.vanished()
        assert vanished in ([], ["n2"]), "it is a hint; nodes elsewhere cannot be judged"
        assert first.store.bury("n2", renewals=0)
        assert first.store.vanished() == []
