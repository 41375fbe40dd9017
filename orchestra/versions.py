"""Versions, and the policies that choose among them.

Versions are `semver <https://semver.org>`_ and are compared as semver, never as strings. Build
metadata is part of a version's name, not of its rank.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import semver

from orchestra.errors import InvalidRange, InvalidVersion
from orchestra.levels import BASE_LEVEL, Kinds, Unknown
from orchestra.ranges import bounds_of, lies_in

__all__ = [
    "POLICIES",
    "Exact",
    "Latest",
    "Policies",
    "Policy",
    "Range",
    "UnknownPolicy",
    "listed",
    "parse_version",
    "policy_from_text",
    "policy_to_text",
    "resolve",
    "version_key",
]


@lru_cache(maxsize=4096)
def parse_version(text: str) -> semver.Version:
    """Return the parsed version.

    Raises:
        InvalidVersion: the text is not semver.
    """
    try:
        return semver.Version.parse(text)
    except (ValueError, TypeError) as error:
        raise InvalidVersion(
            f"{text!r} is not a semantic version; write MAJOR.MINOR.PATCH, for example '1.2.0'"
        ) from error


@lru_cache(maxsize=4096)
def version_key(text: str) -> str:
    """Return a text that sorts, byte by byte, as the version does: a database can order by it."""
    version = parse_version(text)
    core = "".join(_number_key(str(part)) for part in (version.major, version.minor, version.patch))
    if version.prerelease is None:
        return core + "~"  # a release comes after all its pre-releases
    identifiers = [_identifier_key(part) for part in version.prerelease.split(".")]
    return core + "-" + "".join(identifiers)


def listed(versions: Iterable[str]) -> str:
    """Return versions as a part of a sentence, the lowest first."""
    return ", ".join(sorted(versions, key=version_key))


def _identifier_key(part: str) -> str:
    # Numeric identifiers rank below alphanumeric ones, by value; "\x01" ends a text so that a
    # prefix sorts first.
    return f"0{_number_key(part)}" if part.isdigit() else f"1{part}\x01"


def _number_key(digits: str) -> str:
    # More digits are a greater number: semver forbids leading zeros, and bounds no number
    # (20240131120000.0.0).
    return f"{len(digits):03d}{digits}."


@dataclass(frozen=True, slots=True)
class Latest:
    """Take the highest version of a living node. Pre-releases count only if nothing else exists."""

    def __str__(self) -> str:
        return "latest"


@dataclass(frozen=True, slots=True)
class Exact:
    """Take this version, even if it is lower than the running one.

    Raises:
        InvalidVersion: the version is not semver.
    """

    version: str

    def __post_init__(self) -> None:
        parse_version(self.version)

    def __str__(self) -> str:
        return f"exact:{self.version}"


@dataclass(frozen=True, slots=True)
class Range:
    """Take the highest version of a living node that lies in a range, as npm writes ranges.

    ``text`` is one comparison, or several that are joined by commas and must all hold:

    ============= =====================================================================
    ``^1.2``      from 1.2.0, below 2.0.0: the leftmost number that is not 0 stays.
                  ``^0.3.1`` is from 0.3.1, below 0.4.0
    ``~1.2``      from 1.2.0, below 1.3.0: the minor number stays. ``~1`` is below 2.0.0
    ``>=1.2,<2``  comparisons: ``>``, ``>=``, ``<``, ``<=`` and ``=``
    ============= =====================================================================

    A version may leave out its last numbers: ``=1.2`` means each 1.2 version, ``<=1.2`` means below
    1.3.0, and ``>1.2`` means from 1.3.0.

    A pre-release lies in a range only if a comparison of the range names a pre-release of the same
    MAJOR.MINOR.PATCH: ``>=2.0.0-rc.1,<3`` has 2.0.0-rc.2, but not 2.1.0-rc.1.

    If no living node has a version in the range, starts are refused, and instances stay on their
    version at a boundary. No boundary leads to a lower version.

    Raises:
        InvalidRange: the text is no range, or no version can lie in it.
    """

    text: str

    def __post_init__(self) -> None:
        bounds_of(self.text)

    def __contains__(self, version: str) -> bool:
        """Return whether a version lies in the range."""
        return lies_in(parse_version(version), self.text)

    def __str__(self) -> str:
        return f"range:{self.text}"


@dataclass(frozen=True, slots=True)
class UnknownPolicy:
    """A stored policy that a newer library set and this one cannot read. ``text`` is its stored
    form.

    This library chooses no version by it. Set another policy, or use a library that reads it.
    """

    text: str

    def __str__(self) -> str:
        return self.text


Policy = Latest | Exact | Range

Policies = Kinds[type[Latest] | type[Exact] | type[Range]]

POLICIES: Final[Policies] = Kinds(
    "version policy", {"latest": Latest, "exact": Exact, "range": Range}, {"range": 2}
)
"""Policies, by the first word of their stored text. A new one gets a line, with its level."""


def policy_from_text(text: str, policies: Policies = POLICIES) -> Policy | UnknownPolicy:
    """Return the policy that :func:`policy_to_text` wrote. An unreadable one is never read as
    another.
    """
    word, _, argument = text.partition(":")
    kind = policies.read(word)
    if isinstance(kind, Unknown):
        return UnknownPolicy(text)
    try:
        if kind is Exact:
            return Exact(argument)
        if kind is Range:
            return Range(argument)
    except (InvalidVersion, InvalidRange):
        return UnknownPolicy(text)
    return UnknownPolicy(text) if argument else Latest()


def policy_to_text(policy: Policy, policies: Policies = POLICIES, level: int = BASE_LEVEL) -> str:
    """Return the stored form of a policy at a write level.

    Raises:
        LevelTooLow: it may not be written yet.
    """
    word = policies.at(level)[type(policy)]
    match policy:
        case Exact(version):
            return f"{word}:{version}"
        case Range(text):
            return f"{word}:{text}"
        case Latest():
            return str(word)


def resolve(policy: Policy | UnknownPolicy, available: Iterable[str]) -> str | None:
    """Return the version that a policy chooses; ``None`` if it chooses no available one, or cannot
    be read.
    """
    match policy:
        case Exact(version):
            return version
        case UnknownPolicy():
            return None
        case Latest():
            versions = list(available)
            if len(versions) == 1:
                return versions[0]
            releases = [text for text in versions if parse_version(text).prerelease is None]
            return _highest(releases or versions)
        case Range():
            return _highest(text for text in available if text in policy)


def _highest(versions: Iterable[str]) -> str | None:
    # The text itself breaks ties between versions that differ in build metadata only.
    return max(versions, key=lambda text: (version_key(text), text), default=None)
