"""The same on trio: a script that watches whether a port answers. Host and activity use trio; the
library follows.

    python examples/on_trio.py [DATABASE] [HOST] [PORT]

SIGTERM and Ctrl-C stop it in order. The next start goes on with the same instance. Needs `pip
install trio`.
"""

from __future__ import annotations

import logging
import signal
import sys
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

import trio

from orchestra import (
    OrchestrationContext,
    OrchestrationRegistry,
    PlainFormatter,
    Runtime,
    SqliteProvider,
    activity,
)

INSTANCE = "port"


@dataclass(frozen=True)
class Port:
    """The state of the loop: all that crosses from lap to lap."""

    host: str
    number: int
    checks: int = 0


@activity(timeout=timedelta(seconds=10))
async def answers(host: str, port: int) -> bool:
    """Return whether something accepts connections there."""
    try:
        stream = await trio.open_tcp_stream(host, port)
    except OSError:
        return False
    await stream.aclose()
    return True


async def watch_port(ctx: OrchestrationContext, state: Port) -> None:
    """One lap: try, show it, wait, continue as new."""
    is_open = await ctx.schedule_activity(answers, state.host, state.number)
    ctx.trace_info("tried", host=state.host, port=state.number, open=is_open)
    ctx.set_custom_status({"open": is_open, "checks": state.checks + 1})
    await ctx.schedule_timer(timedelta(seconds=1))
    ctx.continue_as_new(replace(state, checks=state.checks + 1))


registry = OrchestrationRegistry.builder().register("watch_port", watch_port).build()


async def main(database: str = "port.db", host: str = "localhost", port: str = "22") -> None:
    """Run the loop until a signal comes."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with Runtime(SqliteProvider(database), registry, activities=[answers]) as runtime:
            await runtime.client.start(
                "watch_port",
                Port(host, int(port)),
                instance_id=INSTANCE,
                if_running="return",
                if_ended="restart",
            )
            print("running; SIGTERM or Ctrl-C stops", flush=True)
            await anext(aiter(signals))
    print("stopped", flush=True)


if __name__ == "__main__":
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter())
    logging.getLogger("orchestra").addHandler(handler)
    logging.getLogger("orchestra").setLevel(logging.INFO)
    trio.run(partial(main, *sys.argv[1:]))
