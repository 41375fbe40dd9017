"""Programs that are not async: ``sync.call`` passes on what a method takes and returns."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, assert_type

import orchestra.sync
from orchestra import Handle, InstanceInfo, OrchestrationContext, SqliteProvider


@dataclass
class Watch:
    url: str


async def watch(ctx: OrchestrationContext, state: Watch) -> str:
    return state.url


def program() -> None:
    with orchestra.sync.connect(SqliteProvider("app.db")) as sync:
        by_name = sync.call(sync.client.start, "watch", Watch("x"), instance_id="watch-1")
        assert_type(by_name, Handle[Any])
        by_function = sync.call(sync.client.start, watch, Watch("x"))
        assert_type(by_function, Handle[str])
        assert_type(sync.call(by_function.result, timeout=timedelta(seconds=1)), str)
        assert_type(sync.call(by_name.result, str), str)
        assert_type(sync.call(sync.client.get_instance_info, "watch-1"), InstanceInfo)
