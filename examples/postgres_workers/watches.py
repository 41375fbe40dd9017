"""The code of every worker: the loop, its activity and its registry. The web process needs only the
names and the state.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import timedelta

import httpx

from orchestra import (
    ActivityFailed,
    OrchestrationContext,
    OrchestrationRegistry,
    RetryPolicy,
    activity,
)
from orchestra.providers.postgres import PostgresProvider

NAME = "watch"


@dataclass(frozen=True)
class Watch:
    """The state: all that crosses from lap to lap."""

    url: str
    pause_seconds: float = 60.0
    checks: int = 0


@activity(
    retry=RetryPolicy(max_attempts=5, initial_interval=timedelta(seconds=0.2)),
    timeout=timedelta(seconds=60),
)
def probe(url: str) -> tuple[int, int]:
    """Ask a server once; return its HTTP status and the asking process."""
    return httpx.get(url, timeout=30).status_code, os.getpid()


async def watch(ctx: OrchestrationContext, state: Watch) -> str:
    """One lap: probe, show the answer, wait for "check", "stop" or the pause. Any worker may run
    the next one.
    """
    try:
        status, process = await ctx.schedule_activity(probe, state.url)
    except ActivityFailed as error:
        status, process = None, None
        ctx.trace_warning("no answer", url=state.url, error=str(error.cause))
    state = replace(state, checks=state.checks + 1)
    ctx.set_custom_status({"http": status, "probed_by": process, "checks": state.checks})
    first = await ctx.race(
        ctx.wait_for_event("stop"),
        ctx.wait_for_event("check"),
        ctx.schedule_timer(timedelta(seconds=state.pause_seconds)),
    )
    if first.index == 0:
        return f"stopped after {state.checks} checks"
    ctx.continue_as_new(state)


registry = OrchestrationRegistry.builder().register(NAME, watch).build()


def store() -> PostgresProvider:
    """Return the store that ``DSN`` names, in the schema ``SCHEMA``. With ``MIGRATE=no`` its owner
    has made the tables.
    """
    return PostgresProvider(
        os.environ["DSN"],
        os.environ.get("SCHEMA", "orchestra"),
        migrate=os.environ.get("MIGRATE", "yes") != "no",
    )
