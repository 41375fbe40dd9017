"""Programs that are not async: what ``orchestra.sync`` calls keeps its types."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import assert_type

import orchestra
from orchestra import (
    Client,
    Handle,
    InstanceInfo,
    NodeInfo,
    OrchestrationContext,
    Runtime,
    SqliteProvider,
)


async def double(value: int, *, times: int = 1) -> int:
    return 2 * value * times


async def names(prefix: str) -> AsyncIterator[str]:
    yield prefix


async def loop(ctx: OrchestrationContext, state: int) -> str:
    return str(state)


def calls(runtime: Runtime) -> None:
    with orchestra.sync.connect(runtime) as sync:
        assert_type(sync.client, Client)
        assert_type(sync.call(double, 3), int)
        assert_type(sync.call(double, 3, times=2), int)
        sync.call(double, "three")  # type: ignore[arg-type]
        assert_type(sync.call(sync.client.get_instance_info, "one"), InstanceInfo)
        assert_type(sync.call(sync.client.list_nodes), tuple[NodeInfo, ...])
        handle = sync.call(sync.client.start, loop, 3)
        assert_type(handle, Handle[str])
        assert_type(sync.call(handle.result), str)
        assert_type(sync.call(handle.result, int), int)
        assert_type(sync.call(handle.info), InstanceInfo)
        named = sync.call(sync.client.start, "loop", 3, instance_id="one")
        sync.call(named.raise_event, "go", 1)
        for name in sync.iterate(names, "a"):
            assert_type(name, str)


def alone() -> None:
    sync = orchestra.sync.connect(SqliteProvider("app.db"), backend="trio").open()
    sync.close()
