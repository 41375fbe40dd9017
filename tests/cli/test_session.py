"""The recorded session of the guide, run again."""

import doctest
import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from orchestra import OrchestrationRegistry, Runtime, SqliteProvider

GUIDE = Path(__file__).parents[2] / "ops" / "guide" / "pages" / "reference" / "cli.md"


def session():
    """Return the commands of the guide, each with what it writes."""
    blocks = re.findall(
        r"^```console\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    for block in blocks:
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, written = part.partition("\n")
            yield command, written


async def loop(ctx, laps: int) -> None:
    await ctx.wait_for_event("check")
    ctx.continue_as_new(laps + 1)


async def serve(path, ready, stop):
    registry = OrchestrationRegistry.builder().register("loop", loop).build()
    async with Runtime(SqliteProvider(path, durability="relaxed"), registry) as runtime:
        for number, plan in ((1, "pro"), (2, "pro"), (3, "free")):
            handle = await runtime.client.start(
                "loop", 0, instance_id=f"loop-{number}", labels={"plan": plan}
            )
            while not (await handle.info()).waiting_on:
                await anyio.sleep(0.005)
        handle = runtime.client.handle("loop-1")
        for lap in (2, 3):
            await handle.raise_event("check")
            while True:
                info = await handle.info()
                if info.execution_id == lap and info.waiting_on:
                    break
                await anyio.sleep(0.005)
        ready.set()
        await stop.wait()


@pytest.mark.slow
def test_the_session_of_the_guide_is_what_the_commands_write(path):
    environment = {
        **os.environ,
        "ORCHESTRA_STORE": str(path),
        "ORCHESTRA_OPERATOR": "ann",
        "PYTHONIOENCODING": "utf-8",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    shell = f'orchestra() {{ "{sys.executable}" -m orchestra.cli "$@"; }}; python3() {{ "{sys.executable}" "$@"; }}; '
    checker = doctest.OutputChecker()

    def run_session():
        for command, expected in session():
            done = subprocess.run(
                ["bash", "-c", shell + command],
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
                env=environment,
            )
            flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            assert checker.check_output(expected, done.stdout, flags), (
                f"$ {command}\n{done.stdout}{done.stderr}instead of\n{expected}"
            )

    async def beside_a_service():
        ready, stop = anyio.Event(), anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(serve, path, ready, stop)
            with anyio.fail_after(timedelta(seconds=30).total_seconds()):
                await ready.wait()
            try:
                await anyio.to_thread.run_sync(run_session)
            finally:
                stop.set()

    anyio.run(beside_a_service)
