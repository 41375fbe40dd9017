"""The pytest plugin: the fixture ``orchestra_runtime``.

::

    async def test_a_month(orchestra_runtime):
        async with orchestra_runtime(registry, activities=[probe]) as env:
            ...

It works with anyio's plugin, with pytest-asyncio and with pytest-trio: it is a plain function that
makes a :class:`~orchestra.testing.TestRuntime`, and it fails the test that does not enter one.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from orchestra.testing import TestRuntime

__all__ = ["orchestra_runtime"]


@pytest.fixture
def orchestra_runtime() -> Generator[Callable[..., TestRuntime], None, None]:
    """Return a function that makes a test runtime, with the parameters of ``TestRuntime``."""
    # Loaded where a test asks for it: a plugin must not slow down each run of pytest.
    from orchestra.testing import TestRuntime  # noqa: PLC0415

    made: list[TestRuntime] = []

    def make(*args: Any, **options: Any) -> TestRuntime:
        made.append(TestRuntime(*args, **options))
        return made[-1]

    yield make
    left_open = [runtime for runtime in made if runtime.is_open]
    assert not left_open, "a test runtime was entered and not left; use it with `async with`"
