"""The contract of a provider, as tests that every provider must pass.

A provider's test module subclasses :class:`ProviderContract` and says how one is made::

    class TestSqlite(ProviderContract):
        def make_provider(self, location: Path, clock: Clock) -> Provider:
            return SqliteProvider(location / "store.db", clock=clock)

The tests name the rules of the commit protocol and the invariants that they hold. Where two things race, both orders are tried.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as some
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,  # pyright: ignore[reportUnknownVariableType]
)

from orchestra.clock import Clock
from orchestra.codec import Payload
from orchestra.errors import NodeBuried, StoreError
from orchestra.events import EventRecord
from orchestra.providers.interfaces import Provider
from orchestra.providers.rows import (
    ActivityRow,
    Append,
    Appended,
    AppendRefused,
    Cancel,
    Capability,
    Change,
    Claim,
    Claimed,
    ExecutionDelta,
    ExecutionEnd,
    ExecutionRow,
    Granted,
    Hold,
    HoldKind,
    InstanceQuery,
    InstanceRecord,
    InstanceRow,
    InstanceState,
    Kind,
    NodeRecord,
    Outcome,
    Pin,
    Recover,
    Recovered,
    Refusal,
    Refused,
    Release,
    Resolution,
    ResolvedBy,
    Snapshot,
    Start,
    Started,
    StartExists,
    Status,
    Write,
)
from orchestra.testing.model import ManualClock, ModelProvider

__all__ = ["ProviderContract"]

T = TypeVar("T")
Open = Callable[[], Provider]

KIND: Final = Kind("", "watch", "1.0.0", 1)
OTHER_KIND: Final = Kind("", "watch", "1.1.0", 1, floating=True)
FOREIGN_KIND: Final = Kind("elsewhere", "other", "2.0.0", 1)
POLICY: Final = Resolution(ResolvedBy.POLICY, "n1", 1)
SECOND: Final = 1_000_000

_SLOW: Final = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
"""What hypothesis would complain of, and what a real store's openings bring with them."""


# --- what the tests are written with ----------------------------------------------------------


def an_execution(number: int = 1, version: str = "1.0.0") -> ExecutionRow:
    return ExecutionRow(number, "watch", version, POLICY, Payload(b'{"checks":0}'), None, created_at=7)


def a_start(instance_id: str, incarnation: str = "a", request_id: str = "r", kind: Kind = KIND, wake_at: int = 0) -> Start:
    return Start(instance_id, incarnation, request_id, kind, an_execution(version=kind.version), wake_at)


def an_event(number: int) -> EventRecord:
    payload = Payload(b'["x"]', encoding=2) if number % 2 else None
    return EventRecord(number, kind=2, at=number, format=1, envelope=b"{%d}" % number, payload=payload)


def an_append(instance_id: str, message_id: str = "m1", name: str = "go", limit: int = 10_000) -> Append:
    return Append(instance_id, message_id, name, Payload(b'"hello"'), sender="somebody", limit=limit)


def a_hold(tried: tuple[str, ...] = ("f1",)) -> Hold:
    return Hold(HoldKind.STATE, "the state does not fit", since=5, by="n1", tried=tried)


def a_node(node_id: str = "n1", host: str = "here") -> NodeRecord:
    capabilities = (Capability("watch", "1.0.0", "f1"), Capability("watch", "1.1.0", "f2"))
    return NodeRecord(node_id, host, "boot", 1, "0.1.0", (1,), 15 * SECOND, capabilities, ("probe",), ("", "slow"))


def a_state(row: InstanceRow, **changes: Any) -> InstanceState:
    standing = InstanceState(
        kind=row.kind,
        owner=row.owner,
        wake_at=None,
        seen_seq=row.inbox_seq,
        execution=row.execution,
        opened=True,
        takeovers=0,
        status=Status.OPEN,
        history_events=row.history_events,
        history_bytes=row.history_bytes,
        summary=b"{}",
    )
    return replace(standing, **changes)


def a_write(row: InstanceRow, state: InstanceState | None = None, **fields: Any) -> Write:
    owner = fields.pop("owner", row.owner)
    return Write(row.instance_id, row.incarnation, row.revision, owner, state or a_state(row), **fields)


def an_end(row: InstanceRow, status: Status = Status.COMPLETED, **fields: Any) -> Write:
    closed = (9, ExecutionEnd(status.value), Payload(b'"done"'), None)
    delta = ExecutionDelta(row.execution, closed=closed, event_count=4, byte_count=44)
    return a_write(row, a_state(row, status=status, owner=None), executions=(delta,), **fields)


def a_park(row: InstanceRow, wake_at: int | None = None, seen_seq: int | None = None) -> Write:
    seen = row.inbox_seq if seen_seq is None else seen_seq
    return a_write(row, a_state(row, owner=None, wake_at=wake_at, seen_seq=seen))


def one(provider: Provider, change: Change) -> Outcome:
    return provider.store.commit([change]).outcomes[0]


def expect(outcome: Outcome, kind: type[T]) -> T:
    assert isinstance(outcome, kind), outcome
    return outcome


def claim(provider: Provider, node: str = "n1", limit: int = 10, kinds: tuple[Kind, ...] = (KIND,)) -> tuple[Snapshot, ...]:
    return expect(one(provider, Claim(node, kinds, limit)), Claimed).snapshots


def begin(provider: Provider, instance_id: str = "i", node: str = "n1") -> InstanceRow:
    """Start an instance and claim it."""
    expect(one(provider, a_start(instance_id)), Started)
    (snapshot,) = claim(provider, node)
    return snapshot.row


def read(provider: Provider, instance_id: str = "i") -> InstanceRecord:
    record = provider.directory.get(instance_id)
    assert record is not None
    return record


def ids(snapshots: Sequence[Snapshot]) -> list[str]:
    return [snapshot.row.instance_id for snapshot in snapshots]


class ProviderContract:
    """Subclass it as ``Test...`` and implement :meth:`make_provider`."""

    def make_provider(self, location: Path, clock: Clock) -> Provider:
        """Return a new, unopened provider of the store at ``location``.

        Two providers of one location are what two processes are on one store. The location is an empty directory at first.
        """
        raise NotImplementedError

    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    def connect(self, tmp_path: Path, clock: ManualClock) -> Generator[Open]:
        """Return a function that opens one more connection to the store of this test."""
        opened: list[Provider] = []

        def open_another() -> Provider:
            provider = self.make_provider(tmp_path, clock)
            provider.open()
            opened.append(provider)
            return provider

        yield open_another
        for provider in opened:
            provider.close()

    @pytest.fixture
    def provider(self, connect: Open) -> Provider:
        return connect()

    # --- all or nothing (scenario 33, rules 7 and 8) ----------------------------------------

    def test_a_refused_change_does_not_hinder_the_others_of_its_group(self, provider: Provider) -> None:
        row = begin(provider)
        stale = replace(a_write(row), revision=row.revision - 1)
        group = (stale, a_start("j"), an_append("nobody"), an_append("i"), a_start("j", request_id="another"))
        refused, started, unknown, appended, exists = provider.store.commit(group).outcomes
        assert (refused, started, exists) == (Refused(), Started(), StartExists(same=False))
        assert unknown == AppendRefused(Refusal.NOT_FOUND)
        assert expect(appended, Appended).fresh
        assert read(provider, "j").status is Status.OPEN

    def test_a_failing_write_takes_its_whole_group_back(self, provider: Provider) -> None:
        row = begin(provider)
        granted = expect(one(provider, a_write(row, executions=(ExecutionDelta(1, events=(an_event(1),)),))), Granted)
        assert granted.inbox_seq == 0
        row = read(provider).row
        poison = a_write(row, executions=(ExecutionDelta(1, events=(an_event(2), an_event(1))),))
        unknown_kind = replace(KIND, version="9.9.9")
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
        lost, kept = replace(KIND, version="8.0.0"), replace(KIND, version="9.0.0")
        poison = a_write(
            row, a_state(row, kind=lost), executions=(ExecutionDelta(5, closed=(1, ExecutionEnd.FAILED, None, b"e")),)
        )
        with pytest.raises(StoreError):
            first.store.commit([poison])
        expect(one(second, a_start("j", kind=kept)), Started)
        expect(one(first, a_start("k", kind=lost)), Started)
        assert ids(claim(first, kinds=(lost,))) == ["k"]
        assert ids(claim(second, kinds=(kept,))) == ["j"]

    def test_a_write_and_a_message_of_one_group_both_count(self, provider: Provider) -> None:
        row = begin(provider)
        appended, granted = provider.store.commit([an_append("i"), a_write(row, a_state(row, history_events=7))]).outcomes
        assert granted == Granted(inbox_seq=0), "owners' writes come first, whatever the order of the group"
        assert expect(appended, Appended).sequence == 1
        record = read(provider)
        assert (record.row.history_events, record.row.inbox_seq, record.unread_messages) == (7, 1, 1)

    def test_two_writes_of_one_instance_apply_in_order(self, provider: Provider) -> None:
        row = begin(provider)
        activity = ActivityRow(1, 2, 1, None, 5, b"[]")
        first = a_write(row, activities=(activity,), executions=(ExecutionDelta(1, events=(an_event(1),)),))
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

    def test_the_time_of_a_store_never_goes_back(self, provider: Provider, clock: ManualClock) -> None:
        before = provider.store.commit([]).now
        clock.advance(timedelta(hours=-1))
        assert provider.store.commit([]).now == before

    # --- the fence (rules 1, 2, 3; scenario 35) ---------------------------------------------

    def test_a_delayed_write_of_an_earlier_revision_is_refused(self, provider: Provider) -> None:
        row = begin(provider)
        delayed = a_park(row, wake_at=10**17)
        expect(one(provider, a_write(row, a_state(row, history_events=3))), Granted)
        before = read(provider)
        assert one(provider, delayed) == Refused()
        assert read(provider) == before

    def test_a_write_that_is_applied_twice_is_refused_the_second_time(self, provider: Provider) -> None:
        row = begin(provider)
        write = a_write(row, executions=(ExecutionDelta(1, events=(an_event(1),)),))
        assert provider.store.commit([write, write]).outcomes == (Granted(0), Refused())
        assert provider.store.history("i", 1) == [an_event(1)]

    def test_nobody_writes_for_another_owner(self, provider: Provider) -> None:
        row = begin(provider)
        assert one(provider, a_write(row, owner="n2")) == Refused()
        assert one(provider, a_write(row)) == Granted(0)

    def test_an_owner_that_was_swept_away_is_refused_and_its_successor_is_not(self, connect: Open) -> None:
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
        assert provider.admin.delete("i", old.incarnation)
        expect(one(provider, a_start("i", incarnation="b")), Started)
        (again,) = claim(provider)
        assert again.row.revision == old.revision, "only the incarnation tells them apart"
        assert one(provider, a_write(old)) == Refused()
        assert not provider.admin.delete("i", old.incarnation)

    # --- wake-up (rules 4 and 10) -----------------------------------------------------------

    def test_a_message_that_came_before_the_park_wakes_the_instance(self, provider: Provider) -> None:
        row = begin(provider)
        appended = expect(one(provider, an_append("i")), Appended)
        assert appended.owner == "n1"
        assert one(provider, a_park(row)) == Granted(inbox_seq=1)
        assert ids(claim(provider)) == ["i"]

    def test_a_message_that_came_after_the_park_wakes_the_instance(self, provider: Provider) -> None:
        row = begin(provider)
        assert one(provider, a_park(row)) == Granted(inbox_seq=0)
        assert claim(provider) == ()
        assert expect(one(provider, an_append("i")), Appended).owner is None
        (snapshot,) = claim(provider)
        assert [message.name for message in snapshot.messages] == ["go"]

    def test_a_park_that_meets_a_message_in_its_group_is_no_park(self, provider: Provider) -> None:
        row = begin(provider)
        group = (a_park(row, wake_at=10**17), an_append("i"), Claim("n1", (KIND,), 1))
        granted, _, claimed = provider.store.commit(group).outcomes
        assert granted == Granted(inbox_seq=0)
        (snapshot,) = expect(claimed, Claimed).snapshots
        assert [message.sequence for message in snapshot.messages] == [1]

    def test_a_message_that_was_seen_and_that_nobody_awaits_lets_the_instance_rest(self, provider: Provider) -> None:
        expect(one(provider, a_start("i")), Started)
        expect(one(provider, an_append("i")), Appended)
        (snapshot,) = claim(provider)
        expect(one(provider, a_park(snapshot.row)), Granted)
        assert claim(provider) == ()
        assert read(provider).unread_messages == 1

    def test_messages_are_numbered_in_the_order_of_their_arrival(self, connect: Open) -> None:
        first, second = connect(), connect()
        expect(one(first, a_start("i")), Started)
        for number in range(1, 6):
            provider = first if number % 2 else second
            assert expect(one(provider, an_append("i", f"m{number}")), Appended).sequence == number
        (snapshot,) = claim(second)
        assert [message.message_id for message in snapshot.messages] == ["m1", "m2", "m3", "m4", "m5"]

    def test_news_tells_of_what_no_write_has_taken_note_of(self, provider: Provider) -> None:
        row = begin(provider)
        assert provider.store.news("n1") == []
        expect(one(provider, an_append("i", "m1")), Appended)
        expect(one(provider, a_write(row)), Granted)  # it has seen nothing yet: seen_seq is 0
        expect(one(provider, an_append("i", "m2")), Appended)
        (news,) = provider.store.news("n1")
        assert (news.instance_id, news.incarnation, news.inbox_seq, news.cancel) == ("i", "a", 2, None)
        assert [message.sequence for message in news.messages] == [1, 2]
        assert provider.store.news("n2") == []
        row = read(provider).row
        expect(one(provider, a_write(row, a_state(row, seen_seq=2))), Granted)
        assert provider.store.news("n1") == []
        expect(one(provider, Cancel("i", "enough", "me")), Appended)
        (news,) = provider.store.news("n1")
        assert news.messages == ()
        assert news.cancel is not None
        assert (news.inbox_seq, news.cancel.reason) == (3, "enough")

    # --- held (rule 5) ----------------------------------------------------------------------

    def test_neither_message_nor_timer_makes_a_held_instance_ready(self, provider: Provider, clock: ManualClock) -> None:
        row = begin(provider)
        expect(one(provider, a_write(row, a_state(row, owner=None, wake_at=0), hold=a_hold())), Granted)
        expect(one(provider, an_append("i")), Appended)
        clock.advance(timedelta(days=1))
        assert claim(provider) == ()
        assert provider.store.next_wake([KIND]) is None
        record = read(provider)
        assert (record.held, record.row.hold) == (True, a_hold())
        (held,) = provider.store.held(["watch", "other"])
        assert (held.instance_id, held.revision, held.kind, held.hold) == ("i", record.row.revision, KIND, a_hold())
        assert provider.store.held(["other"]) == []

    def test_a_released_instance_may_be_claimed_and_still_shows_what_was_tried(self, provider: Provider) -> None:
        row = begin(provider)
        expect(one(provider, a_write(row, a_state(row, owner=None), hold=a_hold())), Granted)
        revision = row.revision + 1
        assert one(provider, Release("i", "a", revision - 1)) == Refused()
        assert one(provider, Release("i", "b", revision)) == Refused()
        assert one(provider, Release("i", "a", revision)) == Granted(inbox_seq=0)
        assert one(provider, Release("i", "a", revision + 1)) == Refused(), "it is held no more"
        (snapshot,) = claim(provider)
        assert snapshot.row.hold == a_hold()
        assert not read(provider).held
        assert provider.store.held(["watch"]) == []

    # --- operators (rule 6) -----------------------------------------------------------------

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

    # --- lost replies (rule 9, scenario 39) -------------------------------------------------

    def test_after_a_lost_reply_recovery_shows_the_write_that_came_through(self, provider: Provider) -> None:
        row = begin(provider)
        write = a_write(row, a_state(row, history_events=5), executions=(ExecutionDelta(1, events=(an_event(1),)),))
        expect(one(provider, write), Granted)
        recovered = expect(one(provider, Recover("i", "n1")), Recovered)
        assert recovered.snapshot is not None
        assert recovered.snapshot.row.history_events == 5
        assert recovered.snapshot.row.revision == row.revision + 2
        assert one(provider, write) == Refused()

    def test_after_a_lost_reply_recovery_fences_off_the_write_that_is_still_under_way(self, provider: Provider) -> None:
        row = begin(provider)
        delayed = a_write(row, a_state(row, history_events=5), executions=(ExecutionDelta(1, events=(an_event(1),)),))
        recovered = expect(one(provider, Recover("i", "n1")), Recovered)
        assert recovered.snapshot is not None
        assert recovered.snapshot.row.history_events == 0
        assert one(provider, delayed) == Refused()
        assert provider.store.history("i", 1) == []
        assert one(provider, a_write(recovered.snapshot.row)) == Granted(0)

    def test_recovery_gives_nothing_to_a_node_that_does_not_own_the_instance(self, provider: Provider) -> None:
        row = begin(provider)
        outcomes = provider.store.commit([Recover("i", "n2"), Recover("nobody", "n1")]).outcomes
        assert outcomes == (Recovered(None), Recovered(None))
        assert read(provider).row.revision == row.revision

    def test_recovery_sees_the_writes_before_it_in_its_group(self, provider: Provider) -> None:
        row = begin(provider)
        expect(one(provider, an_append("i")), Appended)
        write = a_write(row, consumed=(1,), activities=(ActivityRow(1, 2, 1, None, 5, b"[]"),))
        _, recovered = provider.store.commit([write, Recover("i", "n1")]).outcomes
        snapshot = expect(recovered, Recovered).snapshot
        assert snapshot is not None
        assert (snapshot.messages, len(snapshot.activities)) == ((), 1)

    # --- nodes (rules 11, 12, 13, 14) -------------------------------------------------------

    def test_a_node_is_known_from_joining_to_leaving(self, connect: Open, clock: ManualClock) -> None:
        first, second = connect(), connect()
        assert first.store.join(a_node("n1")) == clock.now()
        clock.advance(timedelta(seconds=1))
        assert first.store.renew("n1") == clock.now()
        (node,) = second.store.catalogue().nodes
        assert node.record == a_node("n1")
        assert (node.renewals, node.renewed_at, node.started_at) == (1, clock.now(), clock.now() - SECOND)
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
        assert snapshot.row.revision == row.revision + 2, "the release is fenced like any other write (rule 1)"

    def test_a_node_can_list_what_it_owns_and_has_forgotten(self, provider: Provider) -> None:
        provider.store.commit([a_start("b"), a_start("a"), Claim("n1", (KIND,), 10)])
        assert provider.store.owned("n1") == ["a", "b"]
        expect(one(provider, a_park(read(provider, "a").row)), Granted)
        assert provider.store.owned("n1") == ["b"]

    def test_from_the_third_crash_on_the_claim_waits(self, provider: Provider, clock: ManualClock) -> None:
        expect(one(provider, a_start("i")), Started)
        for takeovers in (1, 2):
            assert len(claim(provider, "ghost")) == 1
            assert provider.store.sweep() == 1
            assert (read(provider).row.takeovers, read(provider).row.wake_at) == (takeovers, 0)
        for takeovers, seconds in ((3, 8), (4, 16), (5, 32), (6, 64), (7, 128), (8, 256), (9, 300), (10, 300)):
            assert len(claim(provider, "ghost")) == 1
            assert provider.store.sweep() == 1
            assert read(provider).row.takeovers == takeovers
            clock.advance(timedelta(seconds=seconds, microseconds=-1))
            assert claim(provider) == ()
            clock.advance(timedelta(microseconds=1))
        assert [record.row.instance_id for record in provider.directory.list(InstanceQuery(held=True))] == ["i"]
        (snapshot,) = claim(provider)
        expect(one(provider, a_park(snapshot.row)), Granted)
        assert read(provider).row.takeovers == 0

    def test_a_message_does_not_hurry_an_instance_that_crashes_its_owners(self, provider: Provider, clock: ManualClock) -> None:
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
        expect(one(provider, a_write(snapshot.row, a_state(snapshot.row, owner=None, wake_at=10**17, takeovers=3))), Granted)
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

    # --- the boundary (rule 16, I2, I3, I4) --------------------------------------------------

    def test_a_boundary_closes_one_execution_and_makes_the_next_in_one_write(self, provider: Provider) -> None:
        row = begin(provider)
        opened = (11, "1.0.0", "f1", 1, POLICY)
        closed = (12, ExecutionEnd.CONTINUED_AS_NEW, None, None)
        following = replace(an_execution(2, "1.1.0"), state=Payload(b'{"checks":1}'), state_version="1.0.0")
        write = a_write(
            row,
            a_state(row, kind=OTHER_KIND, owner=None, wake_at=0, execution=2, opened=False),
            executions=(
                ExecutionDelta(1, opened=opened, events=(an_event(1), an_event(2)), closed=closed, event_count=2, byte_count=9),
                ExecutionDelta(2, create=following),
            ),
            activities=(ActivityRow(2, 1, 1, 5, 4, b"[]", Payload(b"1")),),
        )
        expect(one(provider, write), Granted)
        assert claim(provider) == ()
        (snapshot,) = claim(provider, kinds=(OTHER_KIND,))
        assert (snapshot.row.execution, snapshot.row.opened, snapshot.execution) == (2, False, following)
        assert len(snapshot.activities) == 1
        first, second = provider.directory.executions("i")
        assert (first.opened_at, first.fingerprint, first.format, first.closed_at) == (11, "f1", 1, 12)
        assert (first.end, first.events, first.bytes) == (ExecutionEnd.CONTINUED_AS_NEW, 2, 9)
        assert second == following
        assert provider.directory.executions("i", after=1) == [following]
        assert provider.directory.executions("i", limit=1) == [first]

    def test_a_write_may_run_whole_laps(self, provider: Provider) -> None:
        row = begin(provider)
        explicit = Resolution(ResolvedBy.EXPLICIT, "n1", 4)
        laps = tuple(
            ExecutionDelta(
                number,
                create=None if number == 1 else an_execution(number),
                opened=(number, "1.1.0", "f2", 1, explicit),
                events=(an_event(1), an_event(2)),
                closed=(number, ExecutionEnd.CONTINUED_AS_NEW, None, None) if number < 4 else None,
            )
            for number in (1, 2, 3, 4)
        )
        expect(one(provider, a_write(row, a_state(row, execution=4), executions=laps)), Granted)
        executions = provider.directory.executions("i")
        assert [execution.number for execution in executions] == [1, 2, 3, 4]
        assert {(execution.version, execution.resolution) for execution in executions} == {("1.1.0", explicit)}
        assert [execution.closed_at for execution in executions] == [1, 2, 3, None]
        assert all(provider.store.history("i", number) == [an_event(1), an_event(2)] for number in (1, 2, 3, 4))

    @pytest.mark.parametrize("again", ["open", "close", "create"])
    def test_no_execution_begins_or_ends_twice(self, provider: Provider, again: str) -> None:
        deltas = {
            "open": ExecutionDelta(1, opened=(1, "1.0.0", "f1", 1, POLICY)),
            "close": ExecutionDelta(1, closed=(2, ExecutionEnd.FAILED, None, b"e")),
            "create": ExecutionDelta(2, create=an_execution(2)),
        }
        row = begin(provider)
        expect(one(provider, a_write(row, executions=(deltas[again],))), Granted)
        before = read(provider)
        with pytest.raises(StoreError):
            provider.store.commit([a_write(before.row, executions=(deltas[again],))])
        assert read(provider) == before

    def test_old_laps_are_let_go_of_and_what_is_left_is_a_suffix(self, provider: Provider) -> None:
        row = begin(provider)
        for number in range(2, 41):
            row = read(provider).row
            deltas = (
                ExecutionDelta(number - 1, events=(an_event(1),), closed=(1, ExecutionEnd.CONTINUED_AS_NEW, None, None)),
                ExecutionDelta(number, create=an_execution(number)),
            )
            expect(one(provider, a_write(row, a_state(row, execution=number), executions=deltas)), Granted)
        kept = [number for number in range(1, 40) if provider.store.history("i", number)]
        assert kept == list(range(kept[0], 40))
        assert 9 <= len(kept) <= 20
        assert len(provider.directory.executions("i")) == 40

    # --- cancel (rule 18) -------------------------------------------------------------------

    def test_a_cancel_wakes_and_a_second_one_changes_nothing(self, provider: Provider, clock: ManualClock) -> None:
        expect(one(provider, a_park(begin(provider))), Granted)
        first = expect(one(provider, Cancel("i", "enough", "me")), Appended)
        assert (first.fresh, first.sequence, first.message) == (True, 1, None)
        assert first.cancel is not None
        assert (first.cancel.reason, first.cancel.by, first.cancel.at) == ("enough", "me", clock.now())
        (snapshot,) = claim(provider)
        assert snapshot.row.cancel == first.cancel
        before = read(provider)
        second = expect(one(provider, Cancel("i", "really", "you")), Appended)
        assert second == replace(first, fresh=False, owner="n1")
        assert read(provider) == before

    def test_a_cancel_crosses_the_boundary(self, provider: Provider) -> None:
        row = begin(provider)
        expect(one(provider, Cancel("i", "enough")), Appended)
        deltas = (
            ExecutionDelta(1, closed=(1, ExecutionEnd.CONTINUED_AS_NEW, None, None)),
            ExecutionDelta(2, create=an_execution(2)),
        )
        write = a_write(row, a_state(row, owner=None, seen_seq=1, wake_at=0, execution=2, opened=False), executions=deltas)
        expect(one(provider, write), Granted)
        (snapshot,) = claim(provider)
        assert snapshot.row.cancel is not None

    def test_a_cancel_before_the_end_is_taken_and_one_after_it_is_refused(self, provider: Provider) -> None:
        row = begin(provider)
        assert expect(one(provider, Cancel("i", "enough")), Appended).fresh
        assert one(provider, an_end(row)) == Granted(inbox_seq=1)
        assert one(provider, Cancel("i", "enough")) == AppendRefused(Refusal.CLOSED)
        assert one(provider, Cancel("nobody", "enough")) == AppendRefused(Refusal.NOT_FOUND)

    # --- the end (rule 19) ------------------------------------------------------------------

    def test_the_end_empties_the_inbox_and_counts_what_was_unread(self, provider: Provider) -> None:
        row = begin(provider)
        provider.store.commit([an_append("i", f"m{number}", name) for number, name in enumerate(["go", "go", "stop", "go"])])
        expect(one(provider, an_end(row, consumed=(2,), activities=(ActivityRow(1, 2, 1, None, 5, b"[]"),))), Granted)
        record = read(provider)
        assert (record.unread_messages, dict(record.unread_at_end)) == (0, {"go": 2, "stop": 1})
        assert (record.status, record.row.owner, record.activities) == (Status.COMPLETED, None, ())
        assert record.execution.output == Payload(b'"done"')
        assert provider.store.owned("n1") == []

    def test_a_message_of_the_group_that_ends_the_instance_is_refused(self, provider: Provider) -> None:
        row = begin(provider)
        refused, _ = provider.store.commit([an_append("i"), an_end(row)]).outcomes
        assert refused == AppendRefused(Refusal.CLOSED)

    def test_a_sender_whose_message_was_read_learns_so_even_after_the_end(self, provider: Provider) -> None:
        row = begin(provider)
        provider.store.commit([an_append("i", "read"), an_append("i", "unread")])
        expect(one(provider, an_end(row, consumed=(1,))), Granted)
        assert one(provider, an_append("i", "read")) == Appended(1, None, fresh=False)
        assert one(provider, an_append("i", "unread")) == AppendRefused(Refusal.CLOSED)

    # --- once and only once (rule 21, scenario 36) -------------------------------------------

    def test_starting_twice_makes_one_instance(self, connect: Open) -> None:
        first, second = connect(), connect()
        assert first.store.commit([a_start("i"), a_start("i")]).outcomes == (Started(), StartExists(same=True))
        assert one(second, a_start("i", incarnation="z")) == StartExists(same=True)
        assert one(second, a_start("i", request_id="other")) == StartExists(same=False)
        assert read(second).row.incarnation == "a"

    def test_an_unread_message_is_stored_once(self, provider: Provider) -> None:
        expect(one(provider, a_start("i")), Started)
        first, second = (expect(one(provider, an_append("i")), Appended) for _ in range(2))
        assert (first.fresh, second) == (True, replace(first, fresh=False))
        assert read(provider).unread_messages == 1

    def test_a_message_that_was_read_is_remembered_for_a_window(self, provider: Provider, clock: ManualClock) -> None:
        row = begin(provider)
        expect(one(provider, an_append("i")), Appended)
        expect(one(provider, a_write(row, consumed=(1,))), Granted)
        clock.advance(timedelta(minutes=59))
        before = read(provider)
        assert one(provider, an_append("i")) == Appended(1, "n1", fresh=False)
        assert read(provider) == before
        clock.advance(timedelta(minutes=1))
        assert expect(one(provider, an_append("i")), Appended).sequence == 2
        row = read(provider).row
        expect(one(provider, a_write(row, consumed=(2,))), Granted)
        assert one(provider, an_append("i")) == Appended(2, "n1", fresh=False)

    def test_the_same_message_id_at_two_instances_is_two_messages(self, provider: Provider) -> None:
        outcomes = provider.store.commit([a_start("i"), a_start("j"), an_append("i"), an_append("j")]).outcomes
        assert [expect(outcome, Appended).fresh for outcome in outcomes[2:]] == [True, True]

    def test_a_message_cannot_be_consumed_twice(self, provider: Provider) -> None:
        row = begin(provider)
        expect(one(provider, an_append("i")), Appended)
        expect(one(provider, a_write(row, consumed=(1,))), Granted)
        with pytest.raises(StoreError):
            one(provider, a_write(read(provider).row, consumed=(1,)))

    def test_a_full_inbox_refuses_and_takes_again_when_something_was_read(self, provider: Provider) -> None:
        row = begin(provider)
        outcomes = provider.store.commit([an_append("i", f"m{number}", limit=3) for number in range(4)]).outcomes
        assert [type(outcome) for outcome in outcomes] == [Appended, Appended, Appended, AppendRefused]
        assert outcomes[3] == AppendRefused(Refusal.FULL)
        assert not expect(one(provider, an_append("i", "m0", limit=3)), Appended).fresh, "it is there already"
        expect(one(provider, a_write(row, consumed=(2,))), Granted)
        assert expect(one(provider, an_append("i", "m3", limit=3)), Appended).sequence == 4

    # --- claims (rule 24, scenarios 34 and 38) -----------------------------------------------

    def test_a_node_claims_only_what_it_can_run(self, provider: Provider) -> None:
        provider.store.commit([a_start("i"), a_start("j", kind=FOREIGN_KIND), a_start("k", kind=OTHER_KIND)])
        never_seen = replace(KIND, version="7.0.0")
        assert ids(claim(provider, kinds=(never_seen, OTHER_KIND))) == ["k"]
        assert ids(claim(provider, kinds=(KIND, OTHER_KIND, KIND))) == ["i"]
        assert set(provider.store.catalogue().kinds) == {KIND, FOREIGN_KIND, OTHER_KIND}

    def test_the_longest_due_comes_first_and_a_timer_is_never_early(self, provider: Provider, clock: ManualClock) -> None:
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

    def test_a_limited_claim_says_that_there_is_more_and_starves_no_kind(self, provider: Provider) -> None:
        provider.store.commit([a_start(f"busy{number}") for number in range(20)] + [a_start("quiet", kind=OTHER_KIND)])
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
        assert [snapshot.messages[0].message_id for snapshot in snapshots] == [f"m-{name}" for name in names]
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

        threads = [threading.Thread(target=claim_one, args=(each, f"n{number}")) for number, each in enumerate(providers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(taken) == [f"i{number}" for number in range(10)]

    def test_concurrent_writers_all_get_their_turn(self, connect: Open) -> None:
        providers = [connect() for _ in range(4)]
        expect(one(providers[0], a_start("i")), Started)
        failures: list[Exception] = []

        def send(provider: Provider, sender: int) -> None:
            try:
                for number in range(25):
                    expect(one(provider, an_append("i", f"{sender}-{number}")), Appended)
            except Exception as error:  # noqa: BLE001 - reported below, in the thread of the test
                failures.append(error)

        threads = [threading.Thread(target=send, args=(each, number)) for number, each in enumerate(providers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert (read(providers[0]).unread_messages, read(providers[0]).row.inbox_seq) == (100, 100)

    # --- activities -------------------------------------------------------------------------

    def test_activities_are_remembered_until_they_are_settled(self, provider: Provider) -> None:
        row = begin(provider)
        tries = [ActivityRow(1, number, 1, 50 + number, 4, b"[1]", Payload(b"%d" % number, 2)) for number in (1, 2, 3)]
        expect(one(provider, a_write(row, activities=tuple(tries))), Granted)
        again = replace(tries[1], attempt=2, due=None, attempts=b"[1,2]", heartbeat=None)
        row = read(provider).row
        expect(one(provider, a_write(row, a_state(row, owner=None, wake_at=0), activities=(again,), settled=(1, 9))), Granted)
        (snapshot,) = claim(provider)
        assert snapshot.activities == (again, tries[2])
        assert read(provider).activities == (again, tries[2])

    # --- reading ----------------------------------------------------------------------------

    def test_everything_comes_back_as_it_was_stored(self, provider: Provider, clock: ManualClock) -> None:
        text = "naïve ☃ 'quoted\" \\ %_ \U0001f600 </script> ; DROP TABLE instance"
        labels = {text: text, "team": "blue"}
        start = replace(a_start(text), labels=labels, created_by=text, request_id=text, incarnation=text)
        expect(one(provider, start), Started)
        created_at = clock.now()
        clock.advance(timedelta(seconds=1))
        (snapshot,) = claim(provider)
        append = Append(text, text, text, Payload(b"\x00\xff", encoding=7), sender=text)
        sent = expect(one(provider, append), Appended)
        state = a_state(snapshot.row, summary=b"\x00summary", history_events=3, history_bytes=4)
        events = (replace(an_event(1), at=2**62, envelope=b"\x00\xff"), an_event(2))
        custom = Payload(b"custom", encoding=3)
        write = a_write(snapshot.row, state, executions=(ExecutionDelta(1, events=events),), custom_status=custom)
        expect(one(provider, write), Granted)
        record = read(provider, text)
        assert (record.labels, record.created_by, record.summary, record.custom_status) == (
            labels,
            text,
            b"\x00summary",
            custom,
        )
        assert (record.created_at, record.updated_at) == (created_at, clock.now())
        assert (record.row.history_events, record.row.history_bytes, record.row.incarnation) == (3, 4, text)
        assert provider.store.history(text, 1) == list(events) == provider.directory.history(text, 1)
        (news,) = provider.store.news("n1")
        assert news.messages == (sent.message,)
        expect(one(provider, a_write(record.row)), Granted)
        assert read(provider, text).custom_status == custom, "what a write does not mention stays"

    def test_lists_are_filtered(self, provider: Provider, clock: ManualClock) -> None:
        starts = [
            replace(a_start("a_1"), labels={"team": "blue", "tier": "1"}),
            replace(a_start("a%2", kind=OTHER_KIND), labels={"team": "blue"}),
            replace(a_start("ab3", kind=FOREIGN_KIND), labels={"team": "red"}),
            a_start("b\U0010ffff"),
        ]
        for start in starts:
            expect(one(provider, start), Started)
            clock.advance(timedelta(seconds=1))
        first = clock.now() - 4 * SECOND
        (snapshot,) = claim(provider, limit=1)
        expect(one(provider, an_end(snapshot.row, Status.FAILED)), Granted)

        def found(**conditions: Any) -> list[str]:
            return [record.row.instance_id for record in provider.directory.list(InstanceQuery(**conditions))]

        assert found() == ["b\U0010ffff", "ab3", "a%2", "a_1"]
        assert found(name="other") == ["ab3"]
        assert found(name="watch", version="1.1.0") == ["a%2"]
        assert found(statuses=(Status.FAILED, Status.COMPLETED)) == ["a_1"]
        assert found(statuses=()) == []
        assert found(id_prefix="a") == ["ab3", "a%2", "a_1"]
        assert found(id_prefix="a%") == ["a%2"]
        assert found(id_prefix="a_") == ["a_1"]
        assert found(id_prefix="b\U0010ffff") == ["b\U0010ffff"]
        assert found(labels={"team": "blue"}) == ["a%2", "a_1"]
        assert found(labels={"team": "blue", "tier": "1"}) == ["a_1"]
        assert found(created_from=first + SECOND, created_until=first + 3 * SECOND) == ["ab3", "a%2"]
        assert found(held=True) == []
        assert found(held=True, unserved=(FOREIGN_KIND,)) == ["ab3"]
        assert found(held=True, unserved=(KIND, FOREIGN_KIND)) == ["b\U0010ffff", "ab3"], "what has ended is not held"
        assert found(held=False, unserved=(FOREIGN_KIND,)) == ["b\U0010ffff", "a%2", "a_1"]

    def test_a_list_is_read_page_by_page(self, provider: Provider) -> None:
        names = [f"i{number:02d}" for number in range(25)]
        provider.store.commit([a_start(name) for name in names])
        after: tuple[int, str] | None = None
        pages: list[list[str]] = []
        while page := provider.directory.list(InstanceQuery(limit=10, after=after)):
            pages.append([record.row.instance_id for record in page])
            after = (page[-1].created_at, page[-1].row.instance_id)
        assert [len(page) for page in pages] == [10, 10, 5]
        assert [name for page in pages for name in page] == names[::-1]

    def test_a_listed_record_is_the_one_that_is_got(self, provider: Provider) -> None:
        row = begin(provider)
        expect(one(provider, an_append("i")), Appended)
        expect(one(provider, a_write(row, a_state(row, owner=None), hold=a_hold(), custom_status=Payload(b"1"))), Granted)
        assert provider.directory.list(InstanceQuery(held=True)) == [read(provider)]

    def test_readers_work_in_many_threads_while_the_writer_writes(self, provider: Provider) -> None:
        begin(provider)
        failures: list[BaseException] = []

        def read_often() -> None:
            try:
                for _ in range(20):
                    read(provider)
                    provider.directory.list(InstanceQuery())
                    provider.directory.catalogue()
            except BaseException as error:  # noqa: BLE001 - reported below, in the thread of the test
                failures.append(error)

        threads = [threading.Thread(target=read_often) for _ in range(6)]
        for thread in threads:
            thread.start()
        for number in range(20):
            expect(one(provider, an_append("i", f"m{number}")), Appended)
        for thread in threads:
            thread.join()
        assert failures == []

    def test_what_another_connection_writes_is_noticed(self, connect: Open) -> None:
        first, second = connect(), connect()
        first.store.changed()
        assert not first.store.changed()
        expect(one(second, a_start("i")), Started)
        assert first.store.changed()
        assert not first.store.changed()

    # --- opening ----------------------------------------------------------------------------

    def test_opening_is_counted_and_closing_is_harmless(self, provider: Provider) -> None:
        provider.open()
        provider.close()
        expect(one(provider, a_start("i")), Started)
        provider.close()
        provider.close()
        provider.open()
        assert provider.description

    def test_many_openers_of_an_empty_store_make_it_once(self, tmp_path: Path, clock: ManualClock) -> None:
        providers = [self.make_provider(tmp_path, clock) for _ in range(8)]
        failures: list[Exception] = []
        at_once = threading.Barrier(len(providers))

        def open_and_start(number: int) -> None:
            at_once.wait()
            try:
                providers[number].open()
                expect(one(providers[number], a_start(f"i{number}")), Started)
            except Exception as error:  # noqa: BLE001 - reported below, in the thread of the test
                failures.append(error)

        threads = [threading.Thread(target=open_and_start, args=(number,)) for number in range(len(providers))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(providers[0].directory.list(InstanceQuery())) == len(providers)
        for provider in providers:
            provider.close()

    def test_what_was_committed_is_there_after_opening_anew(self, connect: Open) -> None:
        first = connect()
        row = begin(first)
        expect(one(first, a_write(row, executions=(ExecutionDelta(1, events=(an_event(1),)),))), Granted)
        before = read(first)
        first.close()
        second = connect()
        assert read(second) == before
        assert second.store.history("i", 1) == [an_event(1)]

    # --- the reference ----------------------------------------------------------------------

    def test_it_does_what_the_model_does(self) -> None:
        """Compares random groups of changes with :class:`~orchestra.testing.model.ModelProvider`."""
        run_state_machine_as_test(
            lambda: ComparedWithModel(self.make_provider),
            settings=settings(
                max_examples=40,
                stateful_step_count=25,
                deadline=None,
                database=None,
                print_blob=True,
                suppress_health_check=_SLOW,
            ),
        )


# --- comparing with the model -----------------------------------------------------------------

_INSTANCES: Final = ("a", "b", "c")
_NODES: Final = ("n1", "n2", "n3")
_KINDS: Final = (KIND, OTHER_KIND, FOREIGN_KIND)
_instances = some.sampled_from(_INSTANCES)
_nodes = some.sampled_from(_NODES)
_kinds = some.sampled_from(_KINDS)
_mostly = some.sampled_from((True, True, True, True, False))


class ComparedWithModel(RuleBasedStateMachine):
    """Gives the same random changes to a provider and to the model, and compares all that can be seen."""

    def __init__(self, make_provider: Callable[[Path, Clock], Provider]) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.folder = tempfile.TemporaryDirectory()
        self.provider = make_provider(Path(self.folder.name), self.clock)
        self.model = ModelProvider(clock=self.clock)
        self.provider.open()
        self.model.open()
        self.made = 0

    def teardown(self) -> None:
        self.provider.close()
        self.folder.cleanup()

    @initialize()
    def start_something(self) -> None:
        self.commit([a_start(instance_id) for instance_id in _INSTANCES])

    @rule(data=some.data(), size=some.integers(1, 5))
    def commit_a_group(self, data: some.DataObject, size: int) -> None:
        makers = some.sampled_from(
            (self.start, self.append, self.cancel, self.write, self.write, self.claim, self.recover, self.release)
        )
        self.commit([data.draw(makers)(data) for _ in range(size)])

    @rule(data=some.data())
    def write_something(self, data: some.DataObject) -> None:
        self.commit([self.write(data)])

    @rule(milliseconds=some.sampled_from((1, 1000, 60_000, 3_600_000)))
    def let_time_pass(self, milliseconds: int) -> None:
        self.clock.advance(timedelta(milliseconds=milliseconds))

    @rule(node=_nodes, how=some.sampled_from(("join", "leave", "renew", "bury")))
    def let_a_node_live_or_die(self, node: str, how: str) -> None:
        known = {standing.record.node_id: standing for standing in self.model.store.catalogue().nodes}
        if how == "join" and node not in known:
            # A dead node never comes back: the next one has a new id (rule 11).
            self.both(lambda provider: provider.store.leave(node))
            self.both(lambda provider: provider.store.join(a_node(node)))
        elif how == "leave":
            self.both(lambda provider: provider.store.leave(node))
        elif how == "renew" and node in known:
            self.both(lambda provider: provider.store.renew(node))
        elif how == "bury" and node in known:
            self.both(lambda provider: provider.store.bury(node, known[node].renewals))
        self.compare()

    @rule()
    def sweep(self) -> None:
        self.both(lambda provider: provider.store.sweep())
        self.compare()

    @rule(instance_id=_instances, pinned=some.booleans())
    def pin(self, instance_id: str, pinned: bool) -> None:  # noqa: FBT001
        pin = Pin("1.0.0", 3, "me", "") if pinned else None
        self.both(lambda provider: provider.admin.set_pin(instance_id, pin))
        self.compare()

    @rule(instance_id=_instances)
    def delete(self, instance_id: str) -> None:
        record = self.model.directory.get(instance_id)
        incarnation = "" if record is None else record.row.incarnation
        self.both(lambda provider: provider.admin.delete(instance_id, incarnation))
        self.compare()

    # --- changes --------------------------------------------------------------------------

    def start(self, data: some.DataObject) -> Change:
        self.made += 1
        request_id = data.draw(some.sampled_from(("r", "r2")))
        wake_at = data.draw(some.sampled_from((0, self.clock.now() + 1000, self.clock.now() + SECOND)))
        return a_start(data.draw(_instances), f"incarnation {self.made}", request_id, data.draw(_kinds), wake_at)

    def append(self, data: some.DataObject) -> Change:
        message_id, name = data.draw(some.sampled_from(("m1", "m2", "m3", "m4"))), data.draw(some.sampled_from(("go", "stop")))
        return an_append(data.draw(_instances), message_id, name, limit=3)

    def cancel(self, data: some.DataObject) -> Change:
        return Cancel(data.draw(_instances), "enough", "me")

    def claim(self, data: some.DataObject) -> Change:
        kinds = tuple(data.draw(some.lists(_kinds, min_size=1, max_size=3)))
        return Claim(data.draw(_nodes), kinds, data.draw(some.integers(1, 3)))

    def recover(self, data: some.DataObject) -> Change:
        return Recover(data.draw(_instances), data.draw(_nodes))

    def release(self, data: some.DataObject) -> Change:
        instance_id = data.draw(_instances)
        record = self.model.directory.get(instance_id)
        return (
            Release(instance_id, "", 0) if record is None else Release(instance_id, record.row.incarnation, record.row.revision)
        )

    def write(self, data: some.DataObject) -> Change:
        instance_id = data.draw(_instances)
        record = self.model.directory.get(instance_id)
        if record is None:
            return self.start(data)
        row = record.row
        if not data.draw(_mostly):
            row = replace(row, revision=row.revision - 1)
        number = row.execution
        boundary = record.status is Status.OPEN and data.draw(some.sampled_from((False, False, True)))
        ending = not boundary and not data.draw(_mostly)
        deltas = self.deltas(data, record, boundary=boundary, ending=ending)
        messages = self.unread(instance_id) if record.status is Status.OPEN else ()
        state = a_state(
            row,
            kind=data.draw(_kinds),
            owner=data.draw(some.sampled_from((None, row.owner))),
            wake_at=data.draw(some.sampled_from((None, 0, self.clock.now() + 1000))),
            seen_seq=data.draw(some.integers(row.seen_seq, row.inbox_seq)),
            execution=number + 1 if boundary else number,
            opened=not boundary and (row.opened or deltas[0].opened is not None),
            takeovers=data.draw(some.sampled_from((0, row.takeovers))),
            history_events=0 if boundary else row.history_events + len(deltas[0].events),
            status=Status.FAILED if ending else Status.OPEN,
            summary=data.draw(some.sampled_from((b"{}", b"other"))),
        )
        return a_write(
            row,
            state,
            owner=data.draw(some.sampled_from((row.owner, row.owner, None, "n1"))),
            executions=deltas,
            consumed=tuple(sequence for sequence in messages if data.draw(some.booleans())),
            activities=()
            if data.draw(_mostly)
            else (ActivityRow(state.execution, 1, data.draw(some.integers(1, 2)), None, 1, b"[]"),),
            settled=(1,) if data.draw(some.booleans()) else (),
            custom_status=None if data.draw(_mostly) else Payload(b"%d" % row.revision),
            hold=None if data.draw(_mostly) else a_hold((f"f{row.revision}",)),
        )

    def deltas(
        self, data: some.DataObject, record: InstanceRecord, *, boundary: bool, ending: bool
    ) -> tuple[ExecutionDelta, ...]:
        row, number = record.row, record.row.execution
        opened = None if row.opened or data.draw(some.booleans()) else (1, "1.1.0", "f", 1, POLICY)
        poisonous = row.history_events > 0 and not data.draw(_mostly) and not data.draw(_mostly)
        first = row.history_events + (0 if poisonous else 1)
        events = tuple(an_event(event_id) for event_id in range(first, first + data.draw(some.integers(1, 3))))
        closed = None
        if boundary or ending:
            closed = (2, ExecutionEnd.CONTINUED_AS_NEW if boundary else ExecutionEnd.FAILED, None, b"error")
        delta = ExecutionDelta(number, opened=opened, events=events, closed=closed, event_count=len(events), byte_count=1)
        return (delta, ExecutionDelta(number + 1, create=an_execution(number + 1))) if boundary else (delta,)

    def unread(self, instance_id: str) -> tuple[int, ...]:
        world = self.model.world
        return tuple(message.sequence for message in world.instances[instance_id].messages)

    # --- comparing ------------------------------------------------------------------------

    def commit(self, changes: Sequence[Change]) -> None:
        self.both(lambda provider: provider.store.commit(changes))
        self.compare()

    def both(self, ask: Callable[[Provider], object]) -> None:
        assert _answer(ask, self.provider) == _answer(ask, self.model)

    def compare(self) -> None:
        for instance_id in _INSTANCES:
            self.both(lambda provider, key=instance_id: provider.directory.get(key))
            self.both(lambda provider, key=instance_id: provider.directory.executions(key))
            record = self.model.directory.get(instance_id)
            for number in range(1, 1 if record is None else record.row.execution + 1):
                self.both(lambda provider, key=instance_id, lap=number: provider.store.history(key, lap))
        for node in _NODES:
            self.both(lambda provider, key=node: provider.store.news(key))
            self.both(lambda provider, key=node: provider.store.owned(key))
        self.both(lambda provider: provider.store.next_wake(_KINDS))
        self.both(lambda provider: provider.store.held(["watch"]))
        self.both(lambda provider: provider.store.catalogue().nodes)
        self.both(lambda provider: provider.directory.list(InstanceQuery(held=True)))


def _answer(ask: Callable[[Provider], object], provider: Provider) -> object:
    """Return what a provider says; failures are compared by their type."""
    try:
        return ask(provider)
    except StoreError as error:
        return type(error)
