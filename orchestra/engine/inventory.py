"""What the store has in this node's name or for its code, compared with what the node knows (rules 5 and 13)."""

from __future__ import annotations

from orchestra.context import Limits
from orchestra.engine.activities import Activities
from orchestra.engine.flights import Flights
from orchestra.engine.ownership import Ownership
from orchestra.fingerprint import limited_fingerprint
from orchestra.providers.interfaces import Store
from orchestra.providers.rows import Catalogue, Release
from orchestra.registry import OrchestrationRegistry
from orchestra.resolution import opening_version
from orchestra.telemetry import Recorder

__all__ = ["Inventory"]


class Inventory:
    """Reads, when it is asked to, what this node owns, what it has taken of others, and what is held that it could try.

    What could not be read is read the next time.
    """

    def __init__(
        self,
        store: Store,
        registry: OrchestrationRegistry,
        ownership: Ownership,
        activities: Activities,
        flights: Flights,
        recorder: Recorder,
        limits: Limits,
    ) -> None:
        self._store = store
        self._registry = registry
        self._ownership = ownership
        self._activities = activities
        self._flights = flights
        self._recorder = recorder
        self._limits = limits
        self.of_owned: bool = False
        """Whether owned instances are to be compared at the next step."""
        self.of_tasks: bool = False
        """Whether activities that were taken from others are to be compared at the next step."""
        self.of_held: bool = False
        """Whether holds are to be looked through with the next catalogue."""

    @property
    def is_wanted(self) -> bool:
        """Whether something is to be read at the next step."""
        return self.of_owned or self.of_tasks

    def read(self, node: str) -> None:
        """Compare what is to be compared: adopt what was forgotten, and give up what is not this node's any more.

        Raises:
            StoreError: the store cannot be read now.
        """
        if self.of_owned:
            self._ownership.compare(self._store.owned(node))
            self.of_owned = False
        if self.of_tasks:
            self._activities.compare_tasks(self._store.taken(node), node)
            self.of_tasks = False

    def release_held(self, catalogue: Catalogue) -> None:
        """Let code that has not been tried yet try once with what is held (rule 5).

        Raises:
            StoreError: the store cannot be read now.
        """
        if not self.of_held:
            return
        rows = self._store.held(self._registry.names)
        self._recorder.held(rows)
        for held in rows:
            definition = self._registry.find(held.kind.name, opening_version(catalogue, held.kind))
            if definition is not None and self._trials(definition.fingerprint).isdisjoint(held.hold.tried):
                self._flights.queue(Release(held.instance_id, held.incarnation, held.revision))
        self.of_held = False

    def _trials(self, code: str) -> set[str]:
        """Return by what a hold names a try of this node: its code, or its code under its limits."""
        return {code, limited_fingerprint(code, self._limits.max_events, self._limits.max_bytes)}
