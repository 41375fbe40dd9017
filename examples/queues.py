"""Queues: one process decides, and another one with the right hardware does the heavy work.

    python examples/queues.py [DATABASE]

The first runtime has the orchestration, and no renderer. The second one serves the queue "gpu", has
the renderer, and runs two frames at once. Here they share a process and a SQLite file; on several
machines they share a PostgreSQL schema, and nothing else changes.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import anyio

from orchestra import (
    OrchestrationContext,
    OrchestrationRegistry,
    PlainFormatter,
    RetryPolicy,
    Runtime,
    SqliteProvider,
    activity,
    activity_context,
)


@activity(queue="gpu", retry=RetryPolicy(max_attempts=5), timeout=timedelta(minutes=10))
async def render(scene: str, frame: int) -> str:
    """Runs on nodes that serve "gpu". If its node dies, another one tries again."""
    context = activity_context()
    for part in range(3):
        await anyio.sleep(0.01)
        context.heartbeat({"part": part})
    return f"{scene}-{frame}.png"


@activity
async def publish(files: list[str]) -> int:
    """Without a queue: runs where the orchestration runs."""
    return len(files)


async def film(ctx: OrchestrationContext, scene: str) -> int:
    """Render all frames at once, wherever there is room, and publish them."""
    files = await ctx.gather(*(ctx.schedule_activity(render, scene, frame) for frame in range(6)))
    ctx.trace_info("rendered", frames=len(files))
    return await ctx.schedule_activity(publish, files)


registry = OrchestrationRegistry.builder().register("film", film).build()
nothing = OrchestrationRegistry.builder().build()


async def main(path: Path) -> None:
    studio = Runtime(SqliteProvider(path), registry, activities=[publish])
    farm = Runtime(
        SqliteProvider(path),
        nothing,
        activities=[render],
        queues=["gpu"],
        max_concurrent_activities=2,
    )
    async with studio, farm:
        handle = await studio.client.start("film", "sunrise")
        print(f"published {await handle.result()} frames")
        for node in await studio.client.list_nodes():
            print(
                f"queues {', '.join(node.queues)}: {', '.join(node.activities)}, {node.slots} at "
                "once"
            )


if __name__ == "__main__":
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    given = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        anyio.run(main, Path(given[0]) if given else Path(folder) / "film.db")
