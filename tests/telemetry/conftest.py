"""Worlds of engines and paths for runtimes, as their own tests have them, and something that sees
what they tell.
"""

import pytest

from orchestra.providers.memory import MemoryProvider
from tests.support.harness import World
from tests.support.observed import Observed


@pytest.fixture(params=["asyncio", pytest.param("trio", marks=pytest.mark.slow)])
def anyio_backend(request):
    return request.param


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.db"


@pytest.fixture
def world():
    made = World(lambda clock: MemoryProvider(clock=clock))
    yield made
    made.close()


@pytest.fixture
def observed():
    made = Observed()
    yield made
    made.close()
