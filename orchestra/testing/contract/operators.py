"""What operators do to instances and policies (rule 6)."""

from __future__ import annotations

from dataclasses import replace

from orchestra.providers.interfaces import Provider
from orchestra.providers.rows import (
    Appended,
    AppendRefused,
    ExecutionDelta,
    Granted,
    Pin,
    Refusal,
    Refused,
    Started,
    StartExists,
    Status,
)
from orchestra.testing.contract.base import ContractBase
from orchestra.testing.contract.shorthand import (
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
        assert one(provider, a_write(replace(row, revision=row.revision + 1))) == Refused(), "it has ended"
        record = read(provider)
        assert (record.status, record.row.owner, record.row.wake_at) == (Status.TERMINATED, None, None)

    def test_terminating_upon_what_was_read_before_the_owners_write_is_refused(self, provider: Provider) -> None:
        row = begin(provider)
        assert one(provider, a_write(row)) == Granted(0)
        assert one(provider, replace(an_end(row, Status.TERMINATED), owner=None)) == Refused()
        assert read(provider).status is Status.OPEN

    def test_a_held_instance_can_be_terminated_and_is_held_no_more(self, provider: Provider) -> None:
        row = begin(provider)
        expect(one(provider, a_write(row, a_state(row, owner=None), hold=a_hold())), Granted)
        expect(one(provider, an_end(read(provider).row, Status.TERMINATED)), Granted)
        assert not read(provider).held
        assert provider.store.held(["watch"]) == []

    def test_a_pin_reaches_an_owner_that_has_the_instance_in_memory(self, provider: Provider) -> None:
        row = begin(provider)
        pin = Pin("1.0.0", 3, "me", "the new one is slow")
        assert provider.admin.set_pin("i", pin)
        assert one(provider, a_write(row)) == Refused()
        (snapshot,) = claim(provider)
        assert snapshot.row.pin == pin
        assert provider.admin.set_pin("i", None)
        assert read(provider).row.pin is None
        assert not provider.admin.set_pin("nobody", pin)

    def test_a_pin_does_not_wake_a_waiting_instance(self, provider: Provider) -> None:
        expect(one(provider, a_park(begin(provider), wake_at=10**17)), Granted)
        assert provider.admin.set_pin("i", Pin("1.0.0", 3, "me", ""))
        assert read(provider).row.wake_at == 10**17
        expect(one(provider, an_end(read(provider).row)), Granted)
        assert not provider.admin.set_pin("i", None), "it has ended"

    def test_only_a_closed_instance_is_deleted_and_then_nothing_of_it_is_left(self, provider: Provider) -> None:
        start = replace(a_start("i"), labels={"team": "blue"})
        expect(one(provider, start), Started)
        expect(one(provider, an_append("i")), Appended)
        (snapshot,) = claim(provider)
        assert not provider.admin.delete("i", "a")
        row = snapshot.row
        expect(one(provider, a_write(row, consumed=(1,), executions=(ExecutionDelta(1, events=(an_event(1),)),))), Granted)
        expect(one(provider, an_end(read(provider).row)), Granted)
        assert one(provider, a_start("i")) == StartExists(same=True), "an id is free only after delete"
        assert provider.admin.delete("i", "a")
        assert provider.directory.get("i") is None
        assert provider.directory.executions("i") == []
        assert provider.directory.history("i", 1) == []
        assert one(provider, an_append("i")) == AppendRefused(Refusal.NOT_FOUND)
        expect(one(provider, a_start("i", incarnation="b", request_id="r2")), Started)
        assert expect(one(provider, an_append("i")), Appended).fresh, "its tombstones are gone too"
        assert read(provider).labels == {}

    def test_a_policy_has_a_revision_and_the_first_value_can_be_only_a_default(self, provider: Provider) -> None:
        assert provider.admin.set_policy("watch", "latest", by="builder", reason="", only_first=True)
        assert not provider.admin.set_policy("watch", "exact:1.0.0", by="builder", reason="", only_first=True)
        assert provider.admin.set_policy("watch", "exact:1.1.0", by="me", reason="because")
        policy = provider.store.catalogue().policies["watch"]
        assert (policy.revision, policy.value, policy.by, policy.reason) == (2, "exact:1.1.0", "me", "because")
        assert provider.directory.catalogue().policies == {"watch": policy}
