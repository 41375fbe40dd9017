"""A picture of the lives of versions: a lane each, from when it was seen first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from markupsafe import Markup

from orchestra.client.version_reports import VersionInfo
from orchestra.web.dashboard.svg import group, line, named, picture, rect, text
from orchestra.web.dashboard.wording import counted, duration

__all__ = ["Lane", "Stage", "lane_of", "lanes"]

Stage = Literal["target", "draining", "drained", "waiting"]

_ROW: Final = 24
_BAR: Final = 12
_NUMBERS: Final = 130
_WIDTH: Final = 990


@dataclass(frozen=True, slots=True)
class Lane:
    """A version's life. ``first_seen`` is when a node had it first; ``last_seen`` when it was seen
    last, ``None``: a living node has it.
    """

    name: str
    version: str
    stage: Stage
    live: int
    first_seen: datetime | None
    last_seen: datetime | None


def lane_of(info: VersionInfo) -> Lane:
    """Return the lane of a version.

    It is the ``target`` of its name, or still ``draining``, or ``drained``; ``waiting``: nothing
    has needed it so far, such as one that an exact policy or a range keeps back.
    """
    if info.is_target:
        stage: Stage = "target"
    elif info.live:
        stage = "draining"
    else:
        stage = "drained" if info.safe_to_retire else "waiting"
    first = min((code.first_seen_at for code in info.code), default=None)
    last = max((code.last_seen_at for code in info.code), default=None)
    return Lane(info.name, info.version, stage, info.live, first, None if info.nodes else last)


def lanes(shown: Sequence[Lane], now: datetime, of_version: Mapping[str, str]) -> Markup:
    """Return the lanes over one axis of time, which ends now."""
    begin = min((lane.first_seen for lane in shown if lane.first_seen), default=now)
    whole = max(now - begin, timedelta(seconds=1))
    space = _WIDTH - _NUMBERS
    parts: list[Markup] = []
    for number, lane in enumerate(shown):
        top = number * _ROW + 6.0
        label = f"{lane.name} {lane.version}"
        first = lane.first_seen or now
        left = (first - begin) / whole * space
        width = max(4.0, ((lane.last_seen or now) - first) / whole * space)
        said = f"{label}: {lane.stage}, {counted(lane.live, 'live instance')}"
        if lane.first_seen is not None:
            said += f", first seen {duration(now - lane.first_seen)} ago"
        kind = f"{of_version[lane.version]} lane is-{lane.stage}"
        parts.append(group(said, rect(kind, left, top, width, _BAR)))
        parts.append(
            text(f"{lane.stage} · {lane.live:,} live", _WIDTH - _NUMBERS + 8, top + 10, "soft")
        )
    height = max(1, len(shown)) * _ROW + 22
    bottom = height - 16
    parts.append(line("axis", 0, bottom, space, bottom))
    parts.append(text(f"{duration(now - begin)} ago", 0, height - 2, "soft"))
    parts.append(text("now", space, height - 2, "soft end"))
    words = "; ".join(f"{one.name} {one.version} {one.stage}, {one.live:,} live" for one in shown)
    whole = picture("lanes", _WIDTH, height, words or "no versions", parts)
    return named((f"{lane.name} {lane.version}" for lane in shown), "rows-24", whole)
