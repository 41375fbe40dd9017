"""The loop of the service, in two versions: probe a server, show the answer, wait, continue as
new.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Annotated

import httpx
from pydantic import BaseModel, Field

from orchestra import (
    ActivityFailed,
    OrchestrationContext,
    OrchestrationRegistry,
    RetryPolicy,
    activity,
)

NAME = "watch"

Url = Annotated[str, Field(pattern=r"^https?://[^/]", max_length=2000)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


@dataclass(frozen=True)
class Watch:
    """The state: all that crosses from lap to lap. Fields of later versions have defaults, so older
    states still fit.
    """

    url: str
    pause_seconds: float
    checks: int = 0
    failures: int = 0  # in a row; since 1.1.0


class Config(BaseModel):
    """The payload of the event "config". Missing fields change nothing."""

    url: Url | None = None
    pause_seconds: Seconds | None = None


# --- the activity: ordinary blocking code; the runtime runs it in a thread ---


@activity(
    retry=RetryPolicy(max_attempts=3, initial_interval=timedelta(seconds=0.2)),
    timeout=timedelta(seconds=15),
)
def probe(url: str) -> int:
    """Ask a server once; return its HTTP status."""
    return httpx.get(url, timeout=10).status_code


async def answer_of(ctx: OrchestrationContext, url: str) -> int | None:
    """Return a server's HTTP status, or ``None`` if all attempts failed: the loop outlives the
    watched server.
    """
    try:
        status = await ctx.schedule_activity(probe, url)
    except ActivityFailed as error:
        ctx.trace_warning("no answer", url=url, error=str(error.cause))
        return None
    ctx.trace_info("answered", url=url, http=status)
    ctx.publish("answers", {"url": url, "http": status})
    return status


# --- the loop ---


async def watch_1_0_0(ctx: OrchestrationContext, state: Watch) -> str:
    """One lap: probe, show the answer, wait."""
    status = await answer_of(ctx, state.url)
    state = replace(state, checks=state.checks + 1)
    ctx.set_custom_status({"http": status, "checks": state.checks})
    return await wait_and_go_on(ctx, state)


async def watch_1_1_0(ctx: OrchestrationContext, state: Watch) -> str:
    """One lap that also counts how often in a row the server has failed."""
    status = await answer_of(ctx, state.url)
    healthy = status is not None and status < 500
    state = replace(state, checks=state.checks + 1, failures=0 if healthy else state.failures + 1)
    ctx.set_custom_status({"http": status, "checks": state.checks, "failures": state.failures})
    return await wait_and_go_on(ctx, state)


async def wait_and_go_on(ctx: OrchestrationContext, state: Watch) -> str:
    """Wait for "stop", for "config" or for the pause, whichever comes first. The next lap may run
    on another version.
    """
    first = await ctx.race(
        ctx.wait_for_event("stop"),
        ctx.wait_for_event("config", Config),
        ctx.schedule_timer(timedelta(seconds=state.pause_seconds)),
    )
    if first.index != 0:
        if isinstance(first.value, Config):
            state = replace(state, **first.value.model_dump(exclude_none=True))
        ctx.continue_as_new(state)
    return f"stopped after {state.checks} checks"


# --- the registry: a new version is registered beside the old one, which stays until no lap runs on

VERSIONS = {"1.0.0": watch_1_0_0, "1.1.0": watch_1_1_0}


def build_registry(versions: Iterable[str] = tuple(VERSIONS)) -> OrchestrationRegistry:
    """Return a registry that has these versions of the loop. Its policy is the default: the latest
    one.
    """
    builder = OrchestrationRegistry.builder()
    for version in versions:
        builder.register(NAME, VERSIONS[version], version=version)
    return builder.build()
