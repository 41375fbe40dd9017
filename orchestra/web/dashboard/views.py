"""What the pages show, read from the client: plain values, each from a bounded number of rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Final, cast

from orchestra.client import Client
from orchestra.client.history import HistoryEvent
from orchestra.client.info import ExecutionInfo, InstanceInfo, InstanceStatus, NodeInfo
from orchestra.client.selections import OrderBy, Selection
from orchestra.client.streams import StreamInfo
from orchestra.client.version_reports import VersionInfo

__all__ = [
    "Difference",
    "InstanceView",
    "Overview",
    "differences",
    "read_instance",
    "read_overview",
]

LAPS: Final = 200
"""The last laps that an instance's page shows."""
_STATES: Final = 12
"""The last boundaries whose states are compared."""
_EVENTS: Final = 2_000
"""A history of more events is not read for the timeline."""
_LIVE: Final = (InstanceStatus.PENDING, InstanceStatus.RUNNING, InstanceStatus.HELD)


@dataclass(frozen=True, slots=True)
class Overview:
    """What goes on in the store."""

    live: Sequence[tuple[str, Mapping[str, int]]]
    total: int
    drifting: int
    overdue: int
    due: Mapping[str, int]
    held: Mapping[str, int]
    statuses: Mapping[str, int]
    waits_longest: InstanceInfo | None
    nodes: Sequence[NodeInfo]


@dataclass(frozen=True, slots=True)
class Difference:
    """A field of a state that a boundary has changed. ``None``: it was not there."""

    field: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class InstanceView:
    """An instance, its last laps, the events of the current one, and how its state has changed."""

    info: InstanceInfo
    laps: Sequence[ExecutionInfo]
    events: Sequence[HistoryEvent]
    changes: Sequence[tuple[ExecutionInfo, Sequence[Difference]]]
    messages: Sequence[Any]
    streams: Sequence[StreamInfo]


async def read_overview(client: Client, now: datetime) -> Overview:
    """Read the overview. The store counts; no list is read."""
    live: dict[str, dict[str, int]] = defaultdict(dict)
    counts = await client.count_instances(Selection(status=_LIVE), group_by=("name", "version"))
    for group in counts.groups:
        live[str(group.values["name"])][str(group.values["version"])] = group.count
    held = await client.count_instances(Selection(held=True), group_by=("held",))
    statuses = await client.count_instances(group_by=("status",))
    drifting = await client.count_instances(Selection(drifting=True))
    report = await client.version_report()
    oldest = await client.list_instances(
        Selection(status=InstanceStatus.RUNNING), order_by=OrderBy.EARLIEST_CHANGE, limit=1
    )
    return Overview(
        sorted(live.items()),
        counts.total,
        drifting.total,
        (await client.count_instances(Selection(overdue=True))).total,
        _due(report, now),
        {str(group.values["held"]): group.count for group in held.groups if group.count},
        {str(group.values["status"]): group.count for group in statuses.groups if group.count},
        next(iter(oldest.items), None),
        await client.list_nodes(),
    )


def _due(report: Sequence[VersionInfo], now: datetime) -> Mapping[str, int]:
    """Count versions by when their last due boundary comes."""
    due = {"in an hour": 0, "today": 0, "later": 0}
    for version in report:
        at = version.latest_boundary_due
        if at is None or at <= now:
            continue
        left = at - now
        key = "in an hour" if left <= timedelta(hours=1) else "today"
        due["later" if left > timedelta(days=1) else key] += 1
    return due


async def read_instance(client: Client, instance_id: str) -> InstanceView:
    """Read an instance's page."""
    info = await client.get_instance_info(instance_id)
    after = max(0, info.execution_id - LAPS)
    laps = await client.list_executions(instance_id, after=after, limit=LAPS)
    events: Sequence[HistoryEvent] = ()
    if info.history_events <= _EVENTS:
        events = await client.get_history(instance_id)
    messages: Sequence[Any] = ()
    if info.unread_messages or info.set_aside_messages:
        messages = await client.list_messages(instance_id, limit=50)
    streams = await client.list_streams(instance_id)
    return InstanceView(info, laps, events, _changes(laps[-_STATES:]), messages, streams)


def _changes(
    laps: Sequence[ExecutionInfo],
) -> Sequence[tuple[ExecutionInfo, Sequence[Difference]]]:
    """Return the last boundaries, the newest first, each with what its state has changed."""
    pairs = pairwise(laps)
    return [(lap, differences(before.input, lap.input)) for before, lap in pairs][::-1]


def differences(before: Any, after: Any, path: str = "") -> list[Difference]:
    """Return the fields in which two JSON values differ, by their paths."""
    if isinstance(before, dict) and isinstance(after, dict):
        old, new = cast("dict[str, Any]", before), cast("dict[str, Any]", after)
        found: list[Difference] = []
        for key in dict.fromkeys((*old, *new)):
            inner = f"{path}.{key}" if path else key
            if key not in old or key not in new:
                found.append(Difference(inner, old.get(key), new.get(key)))
            else:
                found += differences(old[key], new[key], inner)
        return found
    return [] if before == after else [Difference(path or "state", before, after)]
