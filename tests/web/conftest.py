"""A store on virtual time with everything that a page may show, and HTTP in front of it."""

from datetime import UTC, datetime

import pytest

from orchestra.testing import TestRuntime
from orchestra.web import create_app
from tests.support.dashboard import probe, registry
from tests.support.web import reach


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def env():
    start = datetime(2026, 3, 1, tzinfo=UTC)
    async with TestRuntime(registry(), activities=[probe], start=start) as env:
        yield env


@pytest.fixture
def app(env):
    return create_app(env.client, registry=registry(newer=True))


@pytest.fixture
async def http(app):
    async with reach(app) as http:
        yield http
