"""Claims: who gets what is due, and when (rule 24, scenarios 34 and 38)."""

from __future__ import annotations

import threading
from datetime import timedelta

from orchestra.store.changes import Claim
from orchestra.store.outcomes import Claimed
from orchestra.store.port import Provider
from orchestra.testing import ManualClock
from tests.support.contract.base import ContractBase, Open
from tests.support.contract.shorthand import (
    FOREIGN_KIND,
    KIND,
    OTHER_KIND,
    a_start,
    an_append,
    claim,
    expect,
    ids,
    one,
)


class ClaimTests(ContractBase):
    """Nodes that look for work."""

    def test_a_node_claims_only_what_it_can_run(self, provider: Provider) -> None:
        provider.store.commit(
            [a_start("i"), a_start("j", kind=FOREIGN_KIND), a_start("k", kind=OTHER_KIND)]
        )
        never_seen = KIND._replace(version="7.0.0")
        assert ids(claim(provider, kinds=(never_seen, OTHER_KIND))) == ["k"]
        assert ids(claim(provider, kinds=(KIND, OTHER_KIND, KIND))) == ["i"]
        assert set(provider.store.catalogue().kinds) == {KIND, FOREIGN_KIND, OTHER_KIND}

    def test_the_longest_due_comes_first_and_a_timer_is_never_early(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        now = clock.now()
        dues = {"late": now + 2, "soon": now + 1, "now": now, "past": 5}
        provider.store.commit([a_start(name, wake_at=due) for name, due in dues.items()])
        assert ids(claim(provider)) == ["past", "now"]
        assert provider.store.next_wake([KIND, FOREIGN_KIND]) == now + 1
        assert provider.store.next_wake([FOREIGN_KIND]) is None
        clock.advance(timedelta(microseconds=1))
        assert ids(claim(provider)) == ["soon"]
        clock.advance(timedelta(microseconds=1))
        assert ids(claim(provider)) == ["late"]
        assert provider.store.next_wake([KIND]) is None

    def test_a_limited_claim_says_that_there_is_more_and_starves_no_kind(
        self, provider: Provider
    ) -> None:
        provider.store.commit(
            [a_start(f"busy{number}") for number in range(20)] + [a_start("quiet", kind=OTHER_KIND)]
        )
        claimed = expect(one(provider, Claim("n1", (KIND, OTHER_KIND), 4)), Claimed)
        assert claimed.more
        assert len(claimed.snapshots) == 4
        assert "quiet" in ids(claimed.snapshots)

    def test_a_large_claim_brings_everything_along(self, provider: Provider) -> None:
        names = [f"i{number:03d}" for number in range(300)]
        provider.store.commit([a_start(name) for name in names])
        provider.store.commit([an_append(name, f"m-{name}") for name in names])
        snapshots = claim(provider, limit=1000)
        assert ids(snapshots) == names
        assert [snapshot.messages[0].message_id for snapshot in snapshots] == [
            f"m-{name}" for name in names
        ]
        assert {snapshot.row.owner for snapshot in snapshots} == {"n1"}
        assert provider.store.owned("n1") == names

    def test_ten_concurrent_claimers_get_ten_distinct_instances(self, connect: Open) -> None:
        providers = [connect() for _ in range(10)]
        providers[0].store.commit([a_start(f"i{number}") for number in range(10)])
        at_once = threading.Barrier(10)
        taken: list[str] = []

        def claim_one(provider: Provider, node: str) -> None:
            at_once.wait()
            taken.extend(ids(claim(provider, node, limit=1)))

        threads = [
            threading.Thread(target=claim_one, args=(each, f"n{number}"))
            for number, each in enumerate(providers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(taken) == [f"i{number}" for number in range(10)]
