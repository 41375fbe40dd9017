"""Both async backends for every test, and nothing that a runtime has made may be left behind."""

import os
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.db"


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path):
    yield
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("orchestra-")]
    assert left == []
    assert open_below(tmp_path) == []


def open_below(directory):
    """Return the files below a directory that this process has open."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(descriptor)
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
        if target.startswith(f"{directory}{os.sep}"):
            found.append(target)
    return found
