"""What the page of an instance shows, read from the client: a bounded number of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final, cast

from orchestra.client import Client
from orchestra.client.history import HistoryEvent
from orchestra.client.info import ExecutionInfo, InstanceInfo, UnreadMessage
from orchestra.client.streams import StreamInfo
from orchestra.web.dashboard.ribbon import Bin, bins_of

__all__ = [
    "Boundary",
    "Difference",
    "InstanceView",
    "boundaries_of",
    "differences",
    "read_instance",
    "why_next",
]

LAPS: Final = 200
"""The last laps, each of which has a cell."""
_BINS: Final = 20
"""The cells of all laps before."""
_BOUNDARIES: Final = 12
"""The last boundaries whose states are compared."""
_EVENTS: Final = 2_000
"""A history of more events is not read for the timeline."""
_MESSAGES: Final = 50


@dataclass(frozen=True, slots=True)
class Difference:
    """A field of a state that a boundary has changed. ``None``: it was not there.

    ``is_migrated``: a migration has changed it, as the lap opened; otherwise the lap before has.
    """

    field: str
    before: Any
    after: Any
    is_migrated: bool = False


@dataclass(frozen=True, slots=True)
class Boundary:
    """A boundary: the lap that it has opened, and what its state has changed against the one
    before. ``migrations`` are those that the state has passed.
    """

    lap: int
    version: str
    migrations: Sequence[str]
    differences: Sequence[Difference]
    is_rewind: bool


@dataclass(frozen=True, slots=True)
class InstanceView:
    """An instance: its last laps, bins of the ones before, the events of one lap, how its state has
    changed, and what waits for it. ``lap`` is the lap of the events; ``None``: it was deleted.
    ``lap_events`` is how many its history has.
    """

    info: InstanceInfo
    laps: Sequence[ExecutionInfo]
    older: Sequence[Bin]
    lap: ExecutionInfo | None
    lap_events: int
    events: Sequence[HistoryEvent]
    boundaries: Sequence[Boundary]
    messages: Sequence[UnreadMessage]
    streams: Sequence[StreamInfo]
    paused: frozenset[int] = frozenset()
    """The laps, of those that are read, that an operator has held or released."""


async def read_instance(client: Client, instance_id: str, lap: int | None = None) -> InstanceView:
    """Read an instance's page.

    Args:
        lap: whose timeline it shows; by default that of the current one.
    """
    info = await client.get_instance_info(instance_id)
    after = max(0, info.execution_id - LAPS)
    laps = await client.list_executions(instance_id, after=after, limit=LAPS)
    older = await _older(client, instance_id, laps[0].execution_id) if laps else ()
    chosen = await _lap(client, instance_id, laps, lap or info.execution_id)
    events: Sequence[HistoryEvent] = ()
    number = 0
    if chosen is not None:
        is_current = chosen.execution_id == info.execution_id
        number = info.history_events if is_current else chosen.history_events
        if number <= _EVENTS:
            events = await client.get_history(instance_id, chosen.execution_id)
    shown = laps[-_BOUNDARIES - 1 :]
    messages: Sequence[UnreadMessage] = ()
    if info.unread_messages or info.set_aside_messages or info.unread_by_name:
        messages = await client.list_messages(instance_id, limit=_MESSAGES)
    return InstanceView(
        info,
        laps,
        older,
        chosen,
        number,
        events,
        boundaries_of(shown, await _opened(client, shown)),
        messages,
        await client.list_streams(instance_id),
        await _paused(client, instance_id, laps),
    )


async def _paused(
    client: Client, instance_id: str, laps: Sequence[ExecutionInfo]
) -> frozenset[int]:
    """Read from the audit which laps an operator has held or released. What has held an instance
    and was over by itself has left no trace.
    """
    acts = [
        one.at
        for action in ("hold", "release")
        for one in (await client.list_operations(subject=instance_id, action=action)).items
    ]
    return frozenset(
        lap.execution_id
        for lap in laps
        for at in acts
        if lap.started_at is not None
        and lap.started_at <= at
        and (lap.ended_at is None or at <= lap.ended_at)
    )


async def _older(client: Client, instance_id: str, first: int) -> Sequence[Bin]:
    """Read the first lap of each bin of older laps: as many rows as there are bins."""
    if first <= 1:
        return ()
    (oldest,) = await client.list_executions(instance_id, limit=1)
    begin = oldest.execution_id  # retention may have deleted a prefix (I3)
    if begin >= first:
        return ()
    size = -(-(first - begin) // _BINS)
    probes = [oldest]
    for start in range(begin + size, first, size):
        probes += await client.list_executions(instance_id, after=start - 1, limit=1)
    return bins_of(probes, first)


async def _lap(
    client: Client, instance_id: str, laps: Sequence[ExecutionInfo], number: int
) -> ExecutionInfo | None:
    known = next((lap for lap in laps if lap.execution_id == number), None)
    if known is not None or number < 1:
        return known
    found = await client.list_executions(instance_id, after=number - 1, limit=1)
    return found[0] if found and found[0].execution_id == number else None


async def _opened(client: Client, laps: Sequence[ExecutionInfo]) -> Mapping[int, Any]:
    """Read what migrations have made of the states of laps, by the laps' numbers."""
    opened: dict[int, Any] = {}
    for lap in laps:
        if lap.migrations and lap.history_events <= _EVENTS:
            events = await client.get_history(lap.instance_id, lap.execution_id)
            if events and events[0].kind == "execution_started":  # retention has left it
                opened[lap.execution_id] = events[0].details.get("input")
    return opened


def boundaries_of(
    laps: Sequence[ExecutionInfo], opened: Mapping[int, Any] = MappingProxyType({})
) -> tuple[Boundary, ...]:
    """Return the boundaries between consecutive laps, the newest first.

    Args:
        opened: the states of migrated laps as their code saw them.
    """
    return tuple(
        Boundary(
            lap.execution_id,
            lap.version,
            lap.migrations,
            (
                *differences(opened.get(before.execution_id, before.input), lap.input),
                *(
                    replace(one, is_migrated=True)
                    for one in differences(lap.input, opened.get(lap.execution_id, lap.input))
                ),
            ),
            before.status == "rewound",
        )
        for before, lap in pairwise(laps)
    )[::-1]


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


def why_next(info: InstanceInfo) -> str:
    """Return in words why an open instance takes its next version."""
    if info.pin is not None and not info.pin.has_expired:
        reason = f": {info.pin.reason}" if info.pin.reason else ""
        return f"pinned by {info.pin.by}{reason}"
    if info.pin is not None:
        return "the policy of its name; its pin has expired"
    if info.target_version == info.version:
        return "the policy of its name keeps it there"
    return "the policy of its name"
