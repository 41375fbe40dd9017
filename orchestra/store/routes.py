"""The kinds of work, and the routes that match work with nodes."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from orchestra.events import FORMAT
from orchestra.levels import BASE_LEVEL

__all__ = ["DEFAULT_QUEUE", "Kind", "Route", "kind_of"]

DEFAULT_QUEUE: Final = "default"
"""The queue of work that names none. A node serves it by default."""


class Kind(NamedTuple):
    """The abilities that a node needs to run an instance now. Claims are routed by it.

    ``floating``: the execution has not begun and a policy chose its version, so a node for which
    the policy gives a higher version may take it. ``format`` is the format of its events, the first
    one if it has none. ``level`` is the level that a library must read to continue it. It is above
    the base if a row was written at a higher level, or if a library met a row that it does not
    know.
    """

    queue: str
    name: str
    version: str
    format: int
    floating: bool = False
    level: int = BASE_LEVEL


kind_of: Final = lru_cache(maxsize=4_096)(Kind)
"""Return a kind; equal arguments give the same object: thousands of instances have a few kinds."""


class Route(NamedTuple):
    """The nodes that may run an activity which was handed out: those that serve the queue and have
    the activity.

    It may be *narrowed* to nodes whose code of the activity has a given fingerprint: others could
    not read its arguments.
    """

    queue: str
    name: str

    def narrowed(self, fingerprint: str) -> Route:
        """Return the route to nodes whose code of the activity has this fingerprint."""
        return Route(self.queue, f"{self.name}{_NARROWED}{fingerprint}")

    def of_format(self, event_format: int) -> Route:
        """Return the route to nodes that read this event format, the format of the scheduling
        event.
        """
        return (
            self
            if event_format == FORMAT
            else Route(self.queue, f"{self.name}{_OF_FORMAT}{event_format}")
        )

    @property
    def activity(self) -> str:
        """The name of the activity."""
        return self._plain.partition(_NARROWED)[0]

    @property
    def fingerprint(self) -> str | None:
        """The fingerprint of the code that may run it; ``None``: any code."""
        return self._plain.partition(_NARROWED)[2] or None

    @property
    def format(self) -> int:
        """The event format that a node must read to run it."""
        return int(self.name.partition(_OF_FORMAT)[2] or FORMAT)

    @property
    def _plain(self) -> str:
        return self.name.partition(_OF_FORMAT)[0]


_NARROWED: Final = "\x1f"
"""No name of an activity holds one: it is a control character."""


_OF_FORMAT: Final = "\x1e"
"""Nor this one. Routes of the first format do not name it."""
