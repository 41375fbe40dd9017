"""How many more activities a node can run now: in tasks of its event loop, and in threads."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

__all__ = ["Places"]


@dataclass(slots=True)
class Places:
    """Free places. A thread is one of the places, too.

    Args:
        slots: how many activities may begin.
        threads: how many of these may need a thread.
        blocking: the names of those that need one.
    """

    slots: int
    threads: int
    blocking: Collection[str]

    def has_one_for(self, name: str) -> bool:
        """Return whether an activity could begin now."""
        return self.slots > 0 and (self.threads > 0 or name not in self.blocking)

    def take(self, name: str) -> None:
        """Give an activity its place."""
        self.slots -= 1
        self.threads -= name in self.blocking
