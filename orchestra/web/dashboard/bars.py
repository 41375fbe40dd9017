"""A picture of how many instances live on which version of which name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from orchestra.client.version_reports import VersionInfo
from orchestra.web.dashboard.svg import group, rect, stretching, text

__all__ = ["NameBar", "bars", "name_bars"]

_ROW: Final = 26
_BAR: Final = 16
_SPACE: Final = 370
_SHOWN: Final = 24


@dataclass(frozen=True, slots=True)
class NameBar:
    """The open instances of a name, by their versions, the lowest first."""

    name: str
    counts: Mapping[str, int]

    @property
    def total(self) -> int:
        """How many there are."""
        return sum(self.counts.values())


def name_bars(versions: Sequence[VersionInfo]) -> tuple[NameBar, ...]:
    """Return the names that live, those with the most instances first."""
    counts: dict[str, dict[str, int]] = {}
    for version in versions:
        if version.live:
            counts.setdefault(version.name, {})[version.version] = version.live
    found = [NameBar(name, of_version) for name, of_version in counts.items()]
    return tuple(sorted(found, key=lambda bar: (-bar.total, bar.name)))


def bars(names: Sequence[NameBar], of_version: Mapping[str, str]) -> Markup:
    """Return stacked bars, one for each name: as long as it has instances, coloured by version.
    They are as wide as their place: a telephone shows the longest one as a whole.

    A version with few instances beside many still has a visible part.
    """
    longest = max((bar.total for bar in names), default=0)
    texts: list[Markup] = []
    parts: list[Markup] = []
    for number, bar in enumerate(names[:_SHOWN]):
        top = number * _ROW + 4.0
        texts.append(text(_shortened(bar.name), 0, top + 12))
        left = 0.0
        for version, count in bar.counts.items():
            width = max(3.0, count / longest * _SPACE)
            title = f"{bar.name} {version}: {count:,}"
            parts.append(group(title, rect(of_version[version], left, top, width - 1, _BAR)))
            left += width
        texts.append(text(f"{bar.total:,}", "100%", top + 12, "soft end"))
    words = "; ".join(
        f"{bar.name}: "
        + ", ".join(f"{count:,} on {version}" for version, count in bar.counts.items())
        for bar in names
    )
    height = max(1, min(len(names), _SHOWN)) * _ROW
    size = float(_SPACE), float(height)
    return stretching("bars", size, f"live instances: {words}", texts, parts)


def _shortened(words: str, most: int = 18) -> str:
    return words if len(words) <= most else f"{words[: most - 1]}…"
