"""Worlds of engines and paths for runtimes, as their own tests have them, and something that sees
what they tell.
"""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))
sys.path.insert(0, str(Path(__file__).parent))

from harness import World
from observed import Observed

from orchestra.providers.memory import MemoryProvider


@pytest.fixture(params=["asyncio", "trio"])
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
