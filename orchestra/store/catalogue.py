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
    """The reply to a node's renewal: the store's time, and its levels."""

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
    """A node, as it registers itself. ``lease`` is in microseconds; ``slots`` is how many
    activities it runs at once.
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
    """Fingerprints of its activities' code, by name. A fingerprint changes when other arguments may
    be readable.
    """
    reads: int = BASE_LEVEL
    """The highest level of kinds that its library reads."""
    writes: int = BASE_LEVEL
    """The level to which its library raises the store's write level."""
    processes: str = ""
    """The space in which ``pid`` means its process: the boot, and the namespace of process numbers.
    Empty where that is not known.
    """

    @property
    def routes(self) -> tuple[Route, ...]:
        """The routes by which it takes activities."""
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

    def takes_session(self, route: Route) -> bool:
        """Return whether it may take the sessions of a route: it serves the queue, has all their
        activities, and reads the format.
        """
        names = route.session
        return (
            names is not None
            and route.served_queue in self.queues
            and route.format in self.formats
            and set(names) <= set(self.activities)
        )


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node as the store knows it. Other nodes bury it if ``renewals`` stands still for a lease.

    ``load``: how many activities it ran at its last renewal.
    """

    record: NodeRecord
    started_at: int
    renewed_at: int
    renewals: int
    dead: bool
    load: int = 0


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """The version policy of a name: its text form, who set it, and why."""

    name: str
    revision: int
    value: str
    by: str
    reason: str
    at: int


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The nodes that are not dead, the policies, all kinds that were ever used, the store's
    levels, and which sessions wait for a node, at ``now``.

    ``library`` is the library that read it; it parses the policies.
    """

    now: int
    nodes: tuple[NodeRow, ...]
    policies: Mapping[str, PolicyRow]
    kinds: tuple[Kind, ...]
    levels: Levels = field(default_factory=Levels)
    library: Library = field(default=THIS_LIBRARY, compare=False, repr=False)
    sessions: tuple[Route, ...] = ()
    """The routes of the sessions that wait for a node, in order."""
    _versions: dict[tuple[str, str | None], frozenset[str]] = field(
        default_factory=lambda: {}, init=False, compare=False, repr=False
    )
    """Results of :meth:`versions`: each start and each lap asks for them, and a catalogue lives for
    a second.
    """

    def versions(self, name: str, queue: str | None = None) -> frozenset[str]:
        """Return the versions of a name that living nodes have. With a queue: nodes that serve
        it.
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
