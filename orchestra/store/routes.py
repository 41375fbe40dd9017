"""What work is called and where it may run: the kinds of work, and the routes that nodes and rows
are matched by.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from orchestra.events import FORMAT
from orchestra.levels import BASE_LEVEL

__all__ = ["DEFAULT_QUEUE", "Kind", "Route", "kind_of"]

DEFAULT_QUEUE: Final = "default"
"""The queue of whatever was given none. Every node serves it that is not told otherwise."""


class Kind(NamedTuple):
    """What a node must be able to do to run an instance now; what claims are routed by.

    ``floating``: the execution has not begun and its version was chosen by policy, so that a node
    for which the policy gives a higher version may take it. ``format`` is that of its events, and
    of the first format while it has none. ``level`` is what a library must read to go on with it:
    higher than the base where something in it was written at a higher level, or where a library has
    met something in it that it does not know.
    """

    queue: str
    name: str
    version: str
    format: int
    floating: bool = False
    level: int = BASE_LEVEL


kind_of: Final = lru_cache(maxsize=4_096)(Kind)
"""Return the kind that is so made, and for the same the same one: thousands of instances are of a
few kinds.
"""


class Route(NamedTuple):
    """Who may run an activity that the owner of its instance hands out: nodes that serve the queue
    and have the activity.

    It may be *narrowed* to those whose code of the activity has a fingerprint: others could not
    read its arguments.
    """

    queue: str
    name: str

    def narrowed(self, fingerprint: str) -> Route:
        """Return the route to those nodes whose code of the activity has this fingerprint."""
        return Route(self.queue, f"{self.name}{_NARROWED}{fingerprint}")

    def of_format(self, event_format: int) -> Route:
        """Return the route to those nodes that read events of this format, as the one that asks for
        the activity is.
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
        """Whose code may run it; ``None``: anybody's."""
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
