"""The same test under every test runner: anyio's plugin, pytest-asyncio, unittest, and none."""

import subprocess
import sys
import textwrap

import pytest

from orchestra.testing import TestRuntime
from tests.testing.programs import LOOPS, charge, ship

PROGRAM = """
    from datetime import timedelta
    from orchestra import OrchestrationRegistry, activity
    from orchestra.testing import TestRuntime

    @activity
    async def probe(url: str) -> int:
        raise NotImplementedError

    async def watch(ctx, laps: int) -> None:
        await ctx.schedule_activity(probe, "http://example.org")
        await ctx.schedule_timer(timedelta(days=1))
        ctx.continue_as_new(laps + 1)

    registry = OrchestrationRegistry.builder().register("watch", watch).build()
"""
BODY = """
    env.fake(probe, lambda url: 200)
    handle = await env.client.start(watch, 0)
    await env.advance(timedelta(days=30))
    assert (await handle.info()).execution_id == 31
"""
RUNNERS = {
    "anyio": (
        """
    import pytest

    @pytest.mark.anyio
    async def test_a_month(orchestra_runtime):
        async with orchestra_runtime(registry, activities=[probe]) as env:
""",
        ("-m", "pytest", "-p", "no:asyncio", "-q"),
    ),
    "asyncio": (
        """
    import pytest

    @pytest.mark.asyncio
    async def test_a_month(orchestra_runtime):
        async with orchestra_runtime(registry, activities=[probe]) as env:
""",
        ("-m", "pytest", "-p", "no:anyio", "-q"),
    ),
    "unittest": (
        """
    import unittest

    class Months(unittest.IsolatedAsyncioTestCase):
        async def asyncSetUp(self):
            self.env = await TestRuntime(registry, activities=[probe]).__aenter__()

        async def asyncTearDown(self):
            await self.env.__aexit__(None, None, None)

        async def test_a_month(self):
            env = self.env
            if True:
""",
        ("-m", "unittest", "-q"),
    ),
    "no runner": (
        """
    import asyncio

    async def main():
        async with TestRuntime(registry, activities=[probe]) as env:
""",
        (),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("runner", RUNNERS)
def test_it_runs_under(runner, tmp_path):
    head, arguments = RUNNERS[runner]
    file = tmp_path / "test_months.py"
    depth = head.rstrip().split("\n")[-1]
    inner = len(depth) - len(depth.lstrip()) + 4
    body = textwrap.indent(textwrap.dedent(BODY), " " * inner)
    ending = "\n    asyncio.run(main())\n" if runner == "no runner" else ""
    file.write_text(textwrap.dedent(PROGRAM + head + body + ending))
    target = "test_months" if runner == "unittest" else str(file)
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", *arguments, target],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.anyio
async def test_the_fixture_makes_a_runtime_with_the_parameters_of_one(orchestra_runtime):
    async with orchestra_runtime(LOOPS, activities=[charge, ship]) as env:
        assert isinstance(env, TestRuntime)
        env.fake(charge, [1])
        await env.client.start("grows", 1)
        await env.run_until_idle()
