"""The kinds of work, and the routes that match work with nodes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from orchestra.events import FORMAT
from orchestra.levels import BASE_LEVEL

__all__ = [
    "DEFAULT_QUEUE",
    "NODE_QUEUES",
    "NO_SESSION",
    "SESSION_QUEUES",
    "Kind",
    "Route",
    "kind_of",
    "node_of",
    "node_queue",
    "session_route",
]

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


_NODE: Final = "\x1d"
"""Begins the queue of one node. No node serves a queue of this form by a name that it was given."""

_SESSION: Final = "\x1e"
"""Begins a queue of sessions that wait for a node; the queue that the node must serve follows."""

NODE_QUEUES: Final = (_NODE, "\x1e")
"""Queues of nodes are not before the first text, and before the second one."""

SESSION_QUEUES: Final = (_SESSION, "\x1f")
"""Queues of sessions, likewise."""

NO_SESSION: Final = "\x1f"
"""A queue from this text on is neither. That saves the common route two looks."""

_NAMES: Final = "\x1d"
"""Stands between the names of a session's activities."""


def node_queue(node_id: str) -> str:
    """Return the queue of one node: no other node takes what is in it."""
    return f"{_NODE}{node_id}"


def node_of(queue: str | None) -> str | None:
    """Return the node that a queue belongs to; ``None``: a queue of any node."""
    return queue[1:] if queue is not None and queue.startswith(_NODE) else None


class Route(NamedTuple):
    """The nodes that may run an activity which was handed out: those that serve the queue and have
    the activity.

    It may be *narrowed* to nodes whose code of the activity has a given fingerprint: others could
    not read its arguments. A route of a *session* leads to nodes that have all its activities, and
    the route of an activity in a session to one node.
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
    def node(self) -> str | None:
        """The one node that may run it; ``None``: any that serves the queue."""
        return node_of(self.queue)

    @property
    def session(self) -> tuple[str, ...] | None:
        """The activities that a node must have to take a session; ``None``: it is an activity."""
        return tuple(self._plain.split(_NAMES)) if self.queue.startswith(_SESSION) else None

    @property
    def served_queue(self) -> str:
        """The queue that a node must serve to take it."""
        return self.queue.removeprefix(_SESSION)

    @property
    def _plain(self) -> str:
        return self.name.partition(_OF_FORMAT)[0]


_NARROWED: Final = "\x1f"
"""No name of an activity holds one: it is a control character."""


_OF_FORMAT: Final = "\x1e"
"""Nor this one. Routes of the first format do not name it."""


def session_route(queue: str, activities: Iterable[str]) -> Route:
    """Return the route of a session that waits for a node with all these activities."""
    return Route(f"{_SESSION}{queue}", _NAMES.join(sorted(set(activities))))
