"""The tests of payloads run on asyncio; what differs by the backend is tested elsewhere."""

import pytest


@pytest.fixture
def anyio_backend():
    return "asyncio"
