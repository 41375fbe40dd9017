"""What explains the versions of a simulated world: its policies, and what its nodes had."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Final

from orchestra.levels import Unknown
from orchestra.resolution import LOWEST_VERSION
from orchestra.store.executions import ExecutionRow
from orchestra.store.kinds import ResolvedBy
from orchestra.versions import Exact, Latest, Policy, Range, version_key

__all__ = ["Versions"]

_NEVER_SET: Final = Latest()


class Versions:
    """Checks that the revision that an execution records explains its version (rule 28)."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._policies: dict[str, list[Policy]] = defaultdict(lambda: [_NEVER_SET])
        """Of each name its policies, by revision."""
        self._had: dict[str, set[str]] = defaultdict(set)
        """Of each name the versions that some node had."""

    def policy_set(self, name: str, policy: Policy) -> None:
        """An operator has set a policy."""
        self._policies[name].append(policy)
        self._counts["policies set"] += 1

    def joined(self, name: str, version: str) -> None:
        """A node has a version."""
        self._had[name].add(version)

    def check(self, row: ExecutionRow) -> None:
        """Check an execution that has begun."""
        resolution = row.resolution
        if isinstance(resolution.how, Unknown):
            return
        place = f"{row.name} {row.version} in execution {row.number}, by {resolution}"
        policies = self._policies[row.name]
        assert resolution.policy_revision < len(policies), f"rule 28: {place}: no such revision"
        if resolution.how is not ResolvedBy.POLICY:
            return
        self._counts["versions by policy"] += 1
        before = row.state_version
        if row.version in (before, LOWEST_VERSION):
            return  # it stays where the policy chooses no living version, or a lower one
        policy = policies[resolution.policy_revision]
        match policy:
            case Exact(version):
                fits = row.version == version
            case Range():
                fits = row.version in policy
            case Latest():
                fits = True
        assert fits, f"rule 28: {place}, and its policy was {policy}"
        assert isinstance(policy, Exact) or row.version in self._had[row.name], (
            f"rule 28: {place}, and no node had it"
        )
        # What a start or a rewind has made, and has not begun, follows a policy down as well.
        at_boundary = row.request_id is None
        goes_down = (
            at_boundary and before is not None and version_key(row.version) < version_key(before)
        )
        assert isinstance(policy, Exact) or not goes_down, (
            f"rule 28: {place} comes down from {before}"
        )
