"""The orchestration, in two versions: probe a server, wait, continue as new."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta

from orchestra import OrchestrationContext, OrchestrationRegistry, RetryPolicy, activity

NAME = "watch"
OLD = "1.0.0"
NEW = "1.1.0"

# --- the state: the only thing that crosses from lap to lap, and so from version to version ---


@dataclass(frozen=True)
class Watch:
    """One watched server. Fields of later versions have defaults, so older states still fit."""

    url: str
    pause: timedelta
    checks: int = 0
    timed_checks: int = 0  # since 1.1.0
    total_ms: int = 0  # since 1.1.0


# --- the activity: ordinary blocking code; the runtime runs it in a thread ---


@dataclass(frozen=True)
class Reply:
    """What a server answered, and after how long."""

    http: int
    ms: int


class ServerFailing(Exception):
    """The server answered with a 5xx status: worth another attempt."""


_opener = urllib.request.build_opener(
    urllib.request.ProxyHandler({})
)  # loopback is never behind a proxy


@activity(
    retry=RetryPolicy(
        max_attempts=None,
        initial_interval=timedelta(seconds=0.5),
        factor=1.5,
        max_interval=timedelta(seconds=2),
    ),
    timeout=timedelta(seconds=10),
)
def probe(url: str) -> Reply:
    """Ask a server once."""
    began = time.perf_counter()
    try:
        with _opener.open(url, timeout=5) as response:
            status: int = response.status
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise ServerFailing(f"HTTP {error.code}") from None
        status = error.code
    return Reply(status, round((time.perf_counter() - began) * 1000))


# --- the loop ---


async def watch_1_0_0(ctx: OrchestrationContext, state: Watch) -> str:
    """One lap: probe, show the answer, wait."""
    reply = await ctx.schedule_activity(probe, state.url)
    ctx.trace_info("probed", http=reply.http)
    ctx.set_custom_status({"http": reply.http})
    return await wait_and_go_on(ctx, replace(state, checks=state.checks + 1))


async def watch_1_1_0(ctx: OrchestrationContext, state: Watch) -> str:
    """One lap that also keeps response times."""
    reply = await ctx.schedule_activity(probe, state.url)
    timed, total = state.timed_checks + 1, state.total_ms + reply.ms
    ctx.trace_info("probed", http=reply.http, ms=reply.ms)
    ctx.set_custom_status({"http": reply.http, "ms": reply.ms, "average_ms": round(total / timed)})
    return await wait_and_go_on(
        ctx, replace(state, checks=state.checks + 1, timed_checks=timed, total_ms=total)
    )


async def wait_and_go_on(ctx: OrchestrationContext, state: Watch) -> str:
    """Wait for the pause or for "stop", whichever comes first. The lap after a pause may run on
    another version.
    """
    first = await ctx.race(ctx.schedule_timer(state.pause), ctx.wait_for_event("stop"))
    if first.index == 0:
        ctx.continue_as_new(state)
    return f"stopped after {state.checks} checks"


# --- the registry ---

VERSIONS = {OLD: watch_1_0_0, NEW: watch_1_1_0}


def build_registry(versions: Iterable[str]) -> OrchestrationRegistry:
    """Return a registry that has these versions of the loop. Its policy is the default: the latest
    one.
    """
    builder = OrchestrationRegistry.builder()
    for version in versions:
        builder.register(NAME, VERSIONS[version], version=version)
    return builder.build()
