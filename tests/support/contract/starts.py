"""Starts that wait for their time."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from orchestra.store.changes import Cancel
from orchestra.store.outcomes import Appended, Granted, Started
from orchestra.store.port import Provider
from orchestra.testing import ManualClock
from tests.support.contract.base import ContractBase
from tests.support.contract.shorthand import (
    SECOND,
    a_park,
    a_start,
    an_append,
    begin,
    claim,
    expect,
    ids,
    one,
    read,
)


def _delayed(clock: ManualClock) -> int:
    return clock.now() + 3600 * SECOND


class StartTests(ContractBase):
    """A delayed start."""

    def test_a_delayed_start_is_claimed_when_its_time_has_come_and_not_before(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        later = _delayed(clock)
        start = replace(a_start("i"), wake_at=later, not_before=later)
        expect(one(provider, start), Started)
        assert read(provider).row.not_before == later
        assert claim(provider) == ()
        clock.advance(timedelta(seconds=3599))
        assert claim(provider) == ()
        clock.advance(timedelta(seconds=1))
        (snapshot,) = claim(provider)
        assert snapshot.row.not_before == later

    def test_an_event_does_not_start_it_early(self, provider: Provider, clock: ManualClock) -> None:
        later = _delayed(clock)
        expect(one(provider, replace(a_start("i"), wake_at=later, not_before=later)), Started)
        expect(one(provider, an_append("i", "m")), Appended)
        assert claim(provider) == ()
        assert read(provider).row.wake_at == later
        clock.advance(timedelta(hours=1))
        assert ids(claim(provider)) == ["i"]

    def test_a_cancel_makes_it_ready_at_once(self, provider: Provider, clock: ManualClock) -> None:
        later = _delayed(clock)
        expect(one(provider, replace(a_start("i"), wake_at=later, not_before=later)), Started)
        expect(one(provider, an_append("i", "m")), Appended)
        expect(one(provider, Cancel("i", "enough")), Appended)
        assert ids(claim(provider)) == ["i"]

    def test_once_it_has_begun_events_wake_it_as_any_other(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        row = begin(provider)
        expect(one(provider, a_park(row, wake_at=_delayed(clock))), Granted)
        expect(one(provider, an_append("i", "m")), Appended)
        assert ids(claim(provider)) == ["i"]
