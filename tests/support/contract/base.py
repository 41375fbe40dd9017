"""What every part of the contract stands on: how a provider is made, and the fixtures of a test."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from orchestra.clock import Clock
from orchestra.store.kinds import THIS_LIBRARY, Library
from orchestra.store.port import Provider
from orchestra.testing import ManualClock
from tests.support.model.world import Operation

Open = Callable[[], Provider]


class ContractBase:
    """Makes the providers of a test."""

    def make_provider(
        self, location: Path, clock: Clock, library: Library = THIS_LIBRARY
    ) -> Provider:
        """Return a new, unopened provider of the store at ``location``, with what a library reads
        and writes.

        Two providers of one location are what two processes are on one store. The location is an
        empty directory at first.
        """
        raise NotImplementedError

    def give_back(self, location: Path) -> None:
        """Nothing of this test uses the store at a location any more."""

    def read_audit(self, provider: Provider) -> list[Operation]:
        """Return what operators have done, as the store keeps it, the oldest first."""
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
