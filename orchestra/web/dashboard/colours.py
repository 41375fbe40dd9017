"""A colour for each version, the same on every page and in every process.

A colour is a class; the style sheet gives it a tone for light and one for dark.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Final

from orchestra.errors import InvalidVersion
from orchestra.versions import parse_version, version_key

__all__ = ["COLOURS", "colour_of", "colours"]

COLOURS: Final = 12


def colour_of(version: str) -> str:
    """Return the class of a version's colour. It follows from the version alone."""
    return f"v{_place(version)}"


def colours(versions: Iterable[str]) -> dict[str, str]:
    """Return the classes of versions that are shown together, the lowest version first.

    Of two with the same colour the higher one takes the next that is free, as long as one is.
    """
    taken: dict[str, str] = {}
    for version in sorted(set(versions), key=_rank):
        ways = [f"v{(_place(version) + step) % COLOURS}" for step in range(COLOURS)]
        taken[version] = next((way for way in ways if way not in taken.values()), ways[0])
    return taken


def _place(version: str) -> int:
    try:
        parsed = parse_version(version)
    except InvalidVersion:
        return zlib.crc32(version.encode()) % COLOURS
    if parsed.prerelease is not None:
        return zlib.crc32(version.encode()) % COLOURS
    # Neighbours differ: 1.0.0, 1.1.0, 1.1.1 and 2.0.0 have four colours.
    return (5 * parsed.major + parsed.minor + 7 * parsed.patch) % COLOURS


def _rank(version: str) -> tuple[int, str]:
    try:
        return (0, version_key(version))
    except InvalidVersion:
        return (1, version)
