"""What the living nodes have registered, the policies, and the levels of the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestra.events import FORMAT
from orchestra.levels import BASE_LEVEL, Levels
from orchestra.store.kinds import THIS_LIBRARY, Library
from orchestra.store.routes import DEFAULT_QUEUE, Kind, Route

__all__ = ["Capability", "Catalogue", "NodeRecord", "NodeRow", "PolicyRow", "Renewal"]


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a node hears when it renews: the store's time, and its levels."""

    now: int
    levels: Levels


@dataclass(frozen=True, slots=True)
class Capability:
    """One registered version of an orchestration and the fingerprint of its code."""

    name: str
    version: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """How a node presents itself. ``lease`` is in microseconds; ``slots`` is how many activities it
    runs at once.
    """

    node_id: str
    host: str
    boot_id: str
    pid: int
    library: str
    formats: tuple[int, ...]
    lease: int
    capabilities: tuple[Capability, ...]
    activities: tuple[str, ...]
    queues: tuple[str, ...] = (DEFAULT_QUEUE,)
    slots: int = 0
    fingerprints: tuple[tuple[str, str], ...] = ()
    """Of the code of its activities, by their names. It changes whenever other arguments may be
    read.
    """
    reads: int = BASE_LEVEL
    """The highest level of kinds that its library reads."""
    writes: int = BASE_LEVEL
    """The level to which its library wants the store's write level to rise."""

    @property
    def routes(self) -> tuple[Route, ...]:
        """By which routes it takes activities."""
        plain = [Route(queue, name) for queue in self.queues for name in self.activities]
        plain += [
            Route(queue, name).narrowed(code)
            for queue in self.queues
            for name, code in self.fingerprints
        ]
        newer = [
            route.of_format(number)
            for number in self.formats
            if number != FORMAT
            for route in plain
        ]
        return (*plain, *newer)


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node as the store knows it. ``renewals`` standing still for a lease is what a watcher
    buries it for.

    ``load``: how many activities it ran when it last renewed.
    """

    record: NodeRecord
    started_at: int
    renewed_at: int
    renewals: int
    dead: bool
    load: int = 0


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """The version policy of a name: its text form, and who set it why."""

    name: str
    revision: int
    value: str
    by: str
    reason: str
    at: int


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Nodes that are not dead, policies, every kind that was ever routed by, and the store's
    levels, at ``now``.

    ``library`` is the one that has read it, and that reads the policies.
    """

    now: int
    nodes: tuple[NodeRow, ...]
    policies: Mapping[str, PolicyRow]
    kinds: tuple[Kind, ...]
    levels: Levels = field(default_factory=Levels)
    library: Library = field(default=THIS_LIBRARY, compare=False, repr=False)
    _versions: dict[tuple[str, str | None], frozenset[str]] = field(
        default_factory=lambda: {}, init=False, compare=False, repr=False
    )
    """What :meth:`versions` has returned: it is asked at each start and at each lap, and a
    catalogue lives for a second.
    """

    def versions(self, name: str, queue: str | None = None) -> frozenset[str]:
        """Return the versions of a name that nodes have which are not dead, and which serve the
        queue, if one is given.
        """
        found = self._versions.get((name, queue))
        if found is None:
            nodes = (
                node.record for node in self.nodes if queue is None or queue in node.record.queues
            )
            found = frozenset(
                has.version for node in nodes for has in node.capabilities if has.name == name
            )
            self._versions[name, queue] = found
        return found
