"""A plain long-lived script on asyncio, without a web framework: it watches the free space of a
disk for as long as it runs.

    python examples/long_lived_script.py [DATABASE] [DIRECTORY]

SIGTERM and Ctrl-C stop it in order. The next start continues the same instance, on the same lap,
even after a `kill -9`.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
import sys
from dataclasses import dataclass, replace
from datetime import timedelta

from orchestra import (
    OrchestrationContext,
    OrchestrationRegistry,
    PlainFormatter,
    Runtime,
    SqliteProvider,
    activity,
)

INSTANCE = "disk"


@dataclass(frozen=True)
class Disk:
    """The state of the loop: all that crosses from lap to lap."""

    directory: str
    low_percent: float = 10.0
    checks: int = 0


@activity(timeout=timedelta(seconds=30))
def free_percent(directory: str) -> float:
    """Return how much of a disk is free: blocking code, which runs in a thread."""
    usage = shutil.disk_usage(directory)
    return round(100 * usage.free / usage.total, 1)


async def watch_disk(ctx: OrchestrationContext, state: Disk) -> None:
    """One lap: measure, show it, wait, continue as new."""
    free = await ctx.schedule_activity(free_percent, state.directory)
    log = ctx.trace_warning if free < state.low_percent else ctx.trace_info
    log("looked", free_percent=free, checks=state.checks + 1)
    ctx.set_custom_status({"free_percent": free, "checks": state.checks + 1})
    await ctx.schedule_timer(timedelta(seconds=1))
    ctx.continue_as_new(replace(state, checks=state.checks + 1))


registry = OrchestrationRegistry.builder().register("watch_disk", watch_disk).build()


async def main(database: str = "disk.db", directory: str = ".") -> None:
    """Run the loop until a signal comes."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Runtime(SqliteProvider(database), registry, activities=[free_percent]) as runtime:
        await runtime.client.start(
            "watch_disk",
            Disk(directory),
            instance_id=INSTANCE,
            if_running="return",
            if_ended="restart",
        )
        print("running; SIGTERM or Ctrl-C stops", flush=True)
        await stop.wait()
    print("stopped", flush=True)


if __name__ == "__main__":
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter())
    logging.getLogger("orchestra").addHandler(handler)
    logging.getLogger("orchestra").setLevel(logging.INFO)
    asyncio.run(main(*sys.argv[1:]))
