"""Connections to a store: opening, closing, and noticing one another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from orchestra.clock import SystemClock
from orchestra.store.executions import ExecutionDelta
from orchestra.store.outcomes import Granted, Started
from orchestra.store.port import Provider
from orchestra.store.queries import InstanceQuery
from orchestra.testing import ManualClock
from tests.support.contract.base import ContractBase, Open
from tests.support.contract.shorthand import (
    a_start,
    a_write,
    an_event,
    begin,
    expect,
    one,
    read,
)

_PATIENCE: Final = 20.0


class ConnectionTests(ContractBase):
    """Several openings of one store, one after the other and at once."""

    def test_what_another_connection_writes_is_noticed(self, connect: Open) -> None:
        first, second = connect(), connect()
        first.store.changed()
        assert not first.store.changed()
        expect(one(second, a_start("i")), Started)
        assert _comes_true(first.store.changed), "the hint may take its way, but it comes"
        assert not first.store.changed()

    def test_opening_is_counted_and_closing_is_harmless(self, provider: Provider) -> None:
        provider.open()
        provider.close()
        expect(one(provider, a_start("i")), Started)
        provider.close()
        provider.close()
        provider.open()
        assert provider.description

    def test_many_openers_of_an_empty_store_make_it_once(
        self, tmp_path: Path, clock: ManualClock
    ) -> None:
        providers = [self.make_provider(tmp_path, clock) for _ in range(8)]
        failures: list[Exception] = []
        at_once = threading.Barrier(len(providers))

        def open_and_start(number: int) -> None:
            at_once.wait()
            try:
                providers[number].open()
                expect(one(providers[number], a_start(f"i{number}")), Started)
            except Exception as error:
                failures.append(error)

        threads = [
            threading.Thread(target=open_and_start, args=(number,))
            for number in range(len(providers))
        ]
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
        expect(
            one(first, a_write(row, executions=(ExecutionDelta(1, events=(an_event(1),)),))),
            Granted,
        )
        before = read(first)
        first.close()
        second = connect()
        assert read(second) == before
        assert second.store.history("i", 1) == [an_event(1)]


def _comes_true(look: Callable[[], bool]) -> bool:
    """Return whether a look succeeds in a reasonable time; what travels between processes cannot be
    waited for otherwise.
    """
    clock = SystemClock()
    until = clock.monotonic() + _PATIENCE
    while not (found := look()) and clock.monotonic() < until:
        time.sleep(0.002)
    return found
