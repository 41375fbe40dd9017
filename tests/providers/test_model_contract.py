"""The reference keeps the contract itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestra.clock import Clock
from orchestra.store.kinds import THIS_LIBRARY, Library
from orchestra.store.port import Provider
from tests.support.contract import ProviderContract
from tests.support.model import ModelProvider, ModelWorld


class TestModel(ProviderContract):
    @pytest.fixture(autouse=True)
    def _no_worlds(self) -> None:
        self.worlds: dict[Path, ModelWorld] = {}

    def make_provider(
        self, location: Path, clock: Clock, library: Library = THIS_LIBRARY
    ) -> Provider:
        return ModelProvider(
            self.worlds.setdefault(location, ModelWorld()), clock=clock, library=library
        )

    def read_audit(self, provider):
        return [operation for _, operation in provider.world.operations]
