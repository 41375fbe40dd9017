"""Ranges of versions: ``^1.2``, ``~1.2``, and comparisons that are joined by commas.

A range is read once into its bounds; a version lies in the range if it keeps them all.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import semver

from orchestra.errors import InvalidRange

__all__ = ["bounds_of", "lies_in"]

_LONGEST: Final = 1_024
_NUMBER: Final = "(0|[1-9][0-9]{0,17})"
_COMPARISON: Final = re.compile(
    rf"(\^|~|>=|>|<=|<|=) *{_NUMBER}(?:\.{_NUMBER}(?:\.{_NUMBER}(?:-([0-9A-Za-z.-]+))?)?)?"
)
_KEEPS: Final[dict[str, Callable[[semver.Version, semver.Version], bool]]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
}
_HOW: Final = "write '^1.2', '~1.2' or comparisons joined by commas, such as '>=1.2,<2'"


@dataclass(frozen=True, slots=True)
class _Bound:
    """A bound of a range: ``>=``, ``>``, ``<=`` or ``<``, and a version."""

    sign: str
    version: semver.Version

    @property
    def is_lower(self) -> bool:
        return self.sign[0] == ">"

    def has(self, version: semver.Version) -> bool:
        return _KEEPS[self.sign](version, self.version)


@lru_cache(maxsize=4096)
def lies_in(version: semver.Version, text: str) -> bool:
    """Return whether a version lies in a range.

    A pre-release does only if the range names a pre-release of the same MAJOR.MINOR.PATCH.
    """
    bounds = bounds_of(text)
    if version.prerelease is not None and not any(
        bound.version.prerelease is not None and _core(bound.version) == _core(version)
        for bound in bounds
    ):
        return False
    return all(bound.has(version) for bound in bounds)


@lru_cache(maxsize=1024)
def bounds_of(text: str) -> tuple[_Bound, ...]:
    """Return the bounds of a range.

    Raises:
        InvalidRange: the text is no range, or no version can lie in it.
    """
    if not isinstance(text, str) or len(text) > _LONGEST:  # pyright: ignore[reportUnnecessaryIsInstance] - users may give anything
        raise InvalidRange(f"{text!r} is no range of versions; {_HOW}")
    bounds = tuple(bound for part in text.split(",") for bound in _bounds(part.strip(" "), text))
    for low in bounds:
        for high in bounds:
            if low.is_lower and not high.is_lower and not _meet(low, high):
                raise InvalidRange(f"no version can lie in the range {text!r}; {_HOW}")
    return bounds


def _bounds(part: str, text: str) -> Iterator[_Bound]:
    """Yield the bounds of one comparison."""
    found = _COMPARISON.fullmatch(part)
    if found is None:
        raise InvalidRange(f"{text!r} is no range of versions: {part!r} is wrong; {_HOW}")
    sign, *texts, prerelease = found.groups()
    given = [int(number) for number in texts if number is not None]
    try:
        least = semver.Version.parse(
            ".".join(map(str, [*given, 0, 0][:3])) + (f"-{prerelease}" if prerelease else "")
        )
    except ValueError as error:
        raise InvalidRange(f"{text!r} is no range of versions: {error}; {_HOW}") from error
    last = len(given) - 1
    is_whole = last == 2
    match sign:
        case "^":  # the leftmost number that is not 0 stays
            kept = next((place for place, number in enumerate(given) if number), last)
            yield from (_Bound(">=", least), _Bound("<", _raised(least, kept)))
        case "~":
            yield from (_Bound(">=", least), _Bound("<", _raised(least, min(last, 1))))
        case "=" if is_whole:
            yield from (_Bound(">=", least), _Bound("<=", least))
        case "=":
            yield from (_Bound(">=", least), _Bound("<", _raised(least, last)))
        case ">" if not is_whole:  # after all versions that begin with these numbers
            yield _Bound(">=", _raised(least, last))
        case "<=" if not is_whole:
            yield _Bound("<", _raised(least, last))
        case _:
            yield _Bound(sign, least)


def _raised(version: semver.Version, place: int) -> semver.Version:
    """Return the first release with a greater number at a place (0 for MAJOR)."""
    return (version.bump_major, version.bump_minor, version.bump_patch)[place]()


def _core(version: semver.Version) -> tuple[int, int, int]:
    return version.major, version.minor, version.patch


def _meet(low: _Bound, high: _Bound) -> bool:
    """Return whether a lower and an upper bound leave a version between them."""
    if low.version == high.version:
        return (low.sign, high.sign) == (">=", "<=")
    return low.version < high.version
