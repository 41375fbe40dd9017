"""The tests on virtual time run on both async backends."""

import pytest


@pytest.fixture(params=["asyncio", pytest.param("trio", marks=pytest.mark.slow)])
def anyio_backend(request):
    return request.param
