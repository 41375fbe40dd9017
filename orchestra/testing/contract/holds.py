"""Instances that are held (rule 5)."""

from __future__ import annotations

from datetime import timedelta

from orchestra.providers.interfaces import Provider
from orchestra.providers.rows import Appended, Granted, Refused, Release
from orchestra.testing.contract.base import ContractBase
from orchestra.testing.contract.shorthand import KIND, a_hold, a_state, a_write, an_append, begin, claim, expect, one, read
from orchestra.testing.model import ManualClock


class HoldTests(ContractBase):
    """What is held stands still until it is released."""

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
        assert provider.store.held(["watch"]) == []

    def test_an_owner_that_keeps_what_it_has_held_ends_the_hold_with_its_next_write(self, provider: Provider) -> None:
        row = begin(provider)
        expect(one(provider, a_write(row, hold=a_hold())), Granted)
        row = read(provider).row
        assert (read(provider).held, row.owner) == (True, "n1")
        expect(one(provider, a_write(row)), Granted)
        assert not read(provider).held
