"""What the store has in this node's name or for its code, compared with what the node knows (rules
5 and 13).
"""

from __future__ import annotations

from typing import Final

from orchestra.context import Limits
from orchestra.engine.activities import Activities
from orchestra.engine.in_flight import InFlightWrites
from orchestra.engine.ownership import Ownership
from orchestra.fingerprint import limited_fingerprint
from orchestra.levels import Unknown
from orchestra.registry import OrchestrationRegistry
from orchestra.resolution import opening_version
from orchestra.store.catalogue import Catalogue
from orchestra.store.changes import Release
from orchestra.store.instances import HeldRow
from orchestra.store.kinds import THIS_LIBRARY, Library
from orchestra.store.port import Store
from orchestra.telemetry import Recorder

__all__ = ["OwnershipCheck"]


_MANY_HELD: Final = 100
_SECOND: Final = 1_000_000


class OwnershipCheck:
    """Reads, when it is asked to, what this node owns, what it has taken of others, and what is
    held that it could try.

    What could not be read is read the next time.
    """

    def __init__(
        self,
        store: Store,
        registry: OrchestrationRegistry,
        ownership: Ownership,
        activities: Activities,
        in_flight: InFlightWrites,
        recorder: Recorder,
        limits: Limits,
        library: Library = THIS_LIBRARY,
    ) -> None:
        self._store = store
        self._library = library
        self._registry = registry
        self._ownership = ownership
        self._activities = activities
        self._in_flight = in_flight
        self._recorder = recorder
        self._limits = limits
        self.owned_due: bool = False
        """Whether owned instances are to be compared at the next step."""
        self.tasks_due: bool = False
        """Whether activities that were taken from others are to be compared at the next step."""
        self.holds_due: bool = False
        """Whether holds are to be looked through: at the next step where versions have several
        codes, or with the catalogue.
        """
        self.is_mixed: bool = False
        """Whether another living node has other code for a version that this node has."""
        self._found = 0
        self._looked_at = 0

    @property
    def is_wanted(self) -> bool:
        """Whether something is to be read at the next step."""
        return self.owned_due or self.tasks_due

    @property
    def checks_holds(self) -> bool:
        """Whether holds are to be looked through at the next step, for another node's code may not
        fit.
        """
        return self.holds_due and self.is_mixed

    def look_for_holds(self, now: int) -> None:
        """Look through the holds at the next step where another node's code may not be able to go
        on and this node's may.

        Where many are held for long, that is done once a second.
        """
        if self.is_mixed and (self._found <= _MANY_HELD or now - self._looked_at >= _SECOND):
            self.holds_due = True

    def read(self, node: str) -> None:
        """Compare what is to be compared: adopt what was forgotten, and give up what is not this
        node's any more.

        Raises:
            StoreError: the store cannot be read now.
        """
        if self.owned_due:
            self._ownership.compare(self._store.owned(node))
            self.owned_due = False
        if self.tasks_due:
            self._activities.compare_tasks(self._store.taken(node), node)
            self.tasks_due = False

    def release_held(self, catalogue: Catalogue) -> None:
        """Let code that has not been tried yet try once with what is held (rule 5).

        Raises:
            StoreError: the store cannot be read now.
        """
        if not self.holds_due:
            return
        rows = self._store.held(self._registry.names)
        self._found, self._looked_at = len(rows), catalogue.now
        self._recorder.held(rows)
        for held in rows:
            if not self._knows(held):
                continue  # a newer library has held it, and knows what releases it
            definition = self._registry.find(held.kind.name, opening_version(catalogue, held.kind))
            if definition is not None and self._trials(definition.fingerprint).isdisjoint(
                held.hold.tried
            ):
                self._in_flight.queue(Release(held.instance_id, held.incarnation, held.revision))
        self.holds_due = False

    def _knows(self, held: HeldRow) -> bool:
        """Return whether this library could go on with what is held."""
        kind = held.kind
        return (
            not isinstance(held.hold.kind, Unknown)
            and kind.level <= self._library.level
            and kind.format in self._library.formats
        )

    def _trials(self, code: str) -> set[str]:
        """Return by what a hold names a try of this node: its code, or its code under its
        limits.
        """
        return {code, limited_fingerprint(code, self._limits.max_events, self._limits.max_bytes)}
