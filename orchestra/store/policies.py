"""Changes of version policies: what one does, given the policy that stands (protocol rule 28)."""

from __future__ import annotations

from typing import Final

from orchestra.frozen import frozen
from orchestra.store.catalogue import PolicyRow

__all__ = ["KEPT_POLICIES", "PolicyChange", "PolicyOutcome", "oldest_kept"]

KEPT_POLICIES: Final = 1_000
"""How many former policies of a name the store keeps."""


@frozen
class PolicyOutcome:
    """What became of a change. ``row`` is the policy that is now in force; ``None``: the name has
    none.
    """

    granted: bool
    row: PolicyRow | None


@frozen
class PolicyChange:
    """A change of the policy of a name; ``value`` is the policy's text form.

    ``only_first``: only if the name has none. ``expected_revision``: only if its policy has this
    revision; 0 means that it has none.
    """

    name: str
    value: str
    by: str
    reason: str
    only_first: bool = False
    expected_revision: int | None = None

    def settled(self, standing: PolicyRow | None) -> PolicyOutcome | None:
        """Return the outcome if nothing is to be written: the change is refused, or was made
        before.
        """
        if standing is not None and self.only_first:
            return PolicyOutcome(granted=False, row=standing)
        revision = 0 if standing is None else standing.revision
        if self.expected_revision in {None, revision}:
            return None
        # The reply to the same change was lost, and its caller asks again.
        is_made = (
            standing is not None
            and self.expected_revision == revision - 1
            and standing.value == self.value
        )
        return PolicyOutcome(granted=is_made, row=standing)

    def row(self, standing: PolicyRow | None, now: int) -> PolicyRow:
        """Return the row that the change writes at an instant."""
        revision = 1 if standing is None else standing.revision + 1
        return PolicyRow(self.name, revision, self.value, self.by, self.reason, now)


def oldest_kept(row: PolicyRow) -> int:
    """Return the revision of the oldest former policy that is kept beside a new one."""
    return row.revision - KEPT_POLICIES
