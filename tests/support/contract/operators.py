"""What operators do to instances and policies (rule 6)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestra.errors import StoreError
from orchestra.store.executions import ExecutionDelta, Opening, Resolution, Retargeting
from orchestra.store.instances import Pin
from orchestra.store.kinds import ResolvedBy, Status
from orchestra.store.outcomes import (
    Appended,
    AppendRefused,
    Granted,
    Refusal,
    Refused,
    Started,
    StartExists,
)
from orchestra.store.port import Provider
from orchestra.testing import ManualClock
from tests.support.contract.base import ContractBase
from tests.support.contract.shorthand import (
    OTHER_KIND,
    POLICY,
    TRACEPARENT,
    a_hold,
    a_park,
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


class OperatorTests(ContractBase):
    """Terminating, pinning, deleting, and setting policies."""

    def test_terminating_takes_ownership_away(self, provider: Provider) -> None:
        row = begin(provider)
        terminate = replace(an_end(row, Status.TERMINATED), owner=None)
        assert one(provider, terminate) == Granted(0)
        assert one(provider, a_write(row)) == Refused()
        assert one(provider, a_write(replace(row, revision=row.revision + 1))) == Refused(), (
            "it has ended"
        )
        record = read(provider)
        assert (record.status, record.row.owner, record.row.wake_at) == (
            Status.TERMINATED,
            None,
            None,
        )

    def test_terminating_upon_what_was_read_before_the_owners_write_is_refused(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        assert one(provider, a_write(row)) == Granted(0)
        assert one(provider, replace(an_end(row, Status.TERMINATED), owner=None)) == Refused()
        assert read(provider).status is Status.OPEN

    def test_a_held_instance_can_be_terminated_and_is_held_no_more(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        expect(one(provider, a_write(row, a_state(row, owner=None), hold=a_hold())), Granted)
        expect(one(provider, an_end(read(provider).row, Status.TERMINATED)), Granted)
        assert not read(provider).held
        assert provider.store.held(["watch"]).rows == ()

    def test_a_pin_reaches_an_owner_that_has_the_instance_in_memory(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        assert provider.admin.set_pin("i", "1.0.0", by="me", reason="the new one is slow")
        at = read(provider).updated_at
        assert one(provider, a_write(row)) == Refused()
        (snapshot,) = claim(provider)
        assert snapshot.row.pin == Pin("1.0.0", at, "me", "the new one is slow"), (
            "when it was set is the store's time"
        )
        assert provider.admin.set_pin("i", None, by="me", reason="")
        assert read(provider).row.pin is None
        assert not provider.admin.set_pin("nobody", "1.0.0", by="me", reason="")

    def test_a_pin_that_stands_is_set_again_only_if_it_is_asked_for(
        self, provider: Provider
    ) -> None:
        def pinned(version: str | None) -> bool:
            return provider.admin.set_pin("i", version, by="me", reason="", unless_same=True)

        begin(provider)
        assert not pinned(None), "it has no pin to lose"
        assert pinned("1.0.0")
        revision = read(provider).row.revision
        assert not pinned("1.0.0")
        assert read(provider).row.revision == revision, "nothing was written"
        assert provider.admin.set_pin("i", "1.0.0", by="you", reason="")
        assert pinned("1.1.0")
        assert pinned(None)
        assert not pinned(None)
        acts = sorted(entry[1] for entry in self.read_audit(provider))
        assert acts == ["pin", "pin", "pin", "unpin"]

    def test_a_pin_does_not_wake_a_waiting_instance(self, provider: Provider) -> None:
        expect(one(provider, a_park(begin(provider), wake_at=10**17)), Granted)
        assert provider.admin.set_pin("i", "1.0.0", by="me", reason="")
        assert read(provider).row.wake_at == 10**17
        expect(one(provider, an_end(read(provider).row)), Granted)
        assert not provider.admin.set_pin("i", None, by="me", reason=""), "it has ended"

    def test_only_a_closed_instance_is_deleted_and_then_nothing_of_it_is_left(
        self, provider: Provider
    ) -> None:
        start = replace(a_start("i"), labels={"team": "blue"})
        expect(one(provider, start), Started)
        expect(one(provider, an_append("i")), Appended)
        (snapshot,) = claim(provider)
        assert not provider.admin.delete("i", "a", by="me", reason="")
        row = snapshot.row
        expect(
            one(
                provider,
                a_write(row, consumed=(1,), executions=(ExecutionDelta(1, events=(an_event(1),)),)),
            ),
            Granted,
        )
        expect(one(provider, an_end(read(provider).row)), Granted)
        assert one(provider, a_start("i")) == StartExists(same=True), (
            "an id is free only after delete"
        )
        assert provider.admin.delete("i", "a", by="me", reason="")
        assert provider.directory.get("i") is None
        assert provider.directory.executions("i") == []
        assert provider.directory.history("i", 1) == []
        assert one(provider, an_append("i")) == AppendRefused(Refusal.NOT_FOUND)
        expect(one(provider, a_start("i", incarnation="b", request_id="r2")), Started)
        assert expect(one(provider, an_append("i")), Appended).fresh, "its tombstones are gone too"
        assert read(provider).labels == {}

    def test_a_policy_has_a_revision_and_the_first_value_can_be_only_a_default(
        self, provider: Provider
    ) -> None:
        assert provider.admin.set_policy(
            "watch", "latest", by="builder", reason="", only_first=True
        ).granted
        assert not provider.admin.set_policy(
            "watch", "exact:1.0.0", by="builder", reason="", only_first=True
        ).granted
        assert provider.admin.set_policy("watch", "exact:1.1.0", by="me", reason="because").granted
        policy = provider.store.catalogue().policies["watch"]
        assert (policy.revision, policy.value, policy.by, policy.reason) == (
            2,
            "exact:1.1.0",
            "me",
            "because",
        )
        assert provider.directory.catalogue().policies == {"watch": policy}

    def test_every_operators_write_leaves_who_did_it_and_why(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        def later(done: object) -> object:
            clock.advance(timedelta(seconds=1))
            return done

        for instance_id in ("i", "j", "k"):
            begin(provider, instance_id)
        later(provider.admin.set_policy("watch", "latest", by="me", reason="p"))
        later(provider.admin.set_pin("i", "1.0.0", by="you", reason="q"))
        later(provider.admin.set_pin("i", None, by="them", reason="r"))
        assert not later(provider.admin.delete("i", "a", by="nobody", reason="it is open")), (
            "what was refused is no operation"
        )
        for instance_id in ("i", "j", "k"):
            expect(
                one(provider, replace(an_end(read(provider, instance_id).row), owner=None)), Granted
            )
        later(provider.admin.delete("i", "a", by="we", reason="s"))
        later(provider.admin.delete_all([("j", "a"), ("k", "a"), ("i", "a")], by="she", reason="t"))
        assert self.read_audit(provider) == [
            ("me", "set policy", "watch", {"value": "latest", "reason": "p"}),
            ("you", "pin", "i", {"version": "1.0.0", "reason": "q"}),
            ("them", "unpin", "i", {"reason": "r"}),
            ("we", "delete", "i", {"incarnation": "a", "reason": "s"}),
            ("she", "purge", "", {"count": 2, "first": ["j", "k"], "reason": "t"}),
        ]

    def test_an_execution_that_waits_to_be_opened_is_given_another_version_and_its_hold_ends(
        self, provider: Provider
    ) -> None:
        start = replace(
            a_start("i"),
            execution=replace(an_execution(), traceparent=TRACEPARENT, state_version="0.9.0"),
        )
        expect(one(provider, start), Started)
        (snapshot,) = claim(provider)
        row = snapshot.row
        held = a_state(row, owner=None, opened=False)
        expect(one(provider, a_write(row, held, hold=a_hold())), Granted)
        row = read(provider).row
        pinned = Resolution(ResolvedBy.PIN, "me", 7)
        delta = ExecutionDelta(1, retargeted=Retargeting("1.1.0", pinned), traceparent=TRACEPARENT)
        state = a_state(row, kind=OTHER_KIND, owner=None, opened=False, wake_at=0)
        stale = replace(row, revision=row.revision - 1)
        assert one(provider, a_write(stale, state, owner=None, executions=(delta,))) == Refused()
        expect(one(provider, a_write(row, state, owner=None, executions=(delta,))), Granted)
        expected = replace(start.execution, version="1.1.0", resolution=pinned)
        record = read(provider)
        assert (record.held, record.row.opened, record.execution) == (False, False, expected)
        assert record.row.hold == a_hold(), "what was tried is still known"
        assert provider.directory.executions("i") == [expected]
        assert claim(provider) == ()
        (snapshot,) = claim(provider, kinds=(OTHER_KIND,))
        assert snapshot.execution == expected
        opened = Opening(11, "1.1.0", "f1", 1, pinned)
        expect(
            one(provider, a_write(snapshot.row, executions=(ExecutionDelta(1, opened=opened),))),
            Granted,
        )

    def test_an_execution_that_has_been_opened_keeps_its_version(self, provider: Provider) -> None:
        row = begin(provider)
        opened = Opening(11, "1.0.0", "f1", 1, POLICY)
        expect(one(provider, a_write(row, executions=(ExecutionDelta(1, opened=opened),))), Granted)
        row = read(provider).row
        with pytest.raises(StoreError):
            one(
                provider,
                a_write(
                    row,
                    owner=None,
                    executions=(ExecutionDelta(1, retargeted=Retargeting("1.1.0", POLICY)),),
                ),
            )
        assert read(provider).row.revision == row.revision
        assert read(provider).execution.version == "1.0.0"
