"""Versions and the policies that choose among them.

Versions are `semver <https://semver.org>`_ and are compared as semver, never as strings. Build metadata is part of a
version's name, not of its rank.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import semver

from orchestra.errors import InvalidVersion

__all__ = ["Exact", "Latest", "Policy", "parse_version", "policy_from_text", "resolve", "version_key"]


@lru_cache(maxsize=4096)
def parse_version(text: str) -> semver.Version:
    """Return the parsed version.

    Raises:
        InvalidVersion: the text is not semver.
    """
    try:
        return semver.Version.parse(text)
    except (ValueError, TypeError) as error:
        raise InvalidVersion(f"{text!r} is not a semantic version; write MAJOR.MINOR.PATCH, for example '1.2.0'") from error


@lru_cache(maxsize=4096)
def version_key(text: str) -> str:
    """Return a text that sorts, byte by byte, as the version does: the form that a database can order by."""
    version = parse_version(text)
    core = "".join(_number_key(str(part)) for part in (version.major, version.minor, version.patch))
    if version.prerelease is None:
        return core + "~"  # a release comes after all its pre-releases
    identifiers = [_identifier_key(part) for part in version.prerelease.split(".")]
    return core + "-" + "".join(identifiers)


def _identifier_key(part: str) -> str:
    # Numeric identifiers rank below alphanumeric ones, by value; "\x01" ends a text so that a prefix sorts first.
    return f"0{_number_key(part)}" if part.isdigit() else f"1{part}\x01"


def _number_key(digits: str) -> str:
    # More digits are a greater number: semver forbids leading zeros, and bounds no number (20240131120000.0.0).
    return f"{len(digits):03d}{digits}."


@dataclass(frozen=True, slots=True)
class Latest:
    """Take the highest version that a living node has. Pre-releases count only where nothing else exists."""

    def __str__(self) -> str:
        return "latest"


@dataclass(frozen=True, slots=True)
class Exact:
    """Take this version, also where it is lower than the one that runs now.

    Raises:
        InvalidVersion: the version is not semver.
    """

    version: str

    def __post_init__(self) -> None:
        parse_version(self.version)

    def __str__(self) -> str:
        return f"exact:{self.version}"


Policy = Latest | Exact


def policy_from_text(text: str) -> Policy:
    """Return the policy that ``str(policy)`` wrote."""
    return Exact(text.removeprefix("exact:")) if text.startswith("exact:") else Latest()


def resolve(policy: Policy, available: Iterable[str]) -> str | None:
    """Return the version that a policy gives, or ``None`` where it gives none of the available ones."""
    match policy:
        case Exact(version):
            return version
        case Latest():
            versions = list(available)
            if len(versions) == 1:
                return versions[0]
            releases = [text for text in versions if parse_version(text).prerelease is None]
            # The text itself breaks ties between versions that differ in build metadata only.
            return max(releases or versions, key=lambda text: (version_key(text), text), default=None)
