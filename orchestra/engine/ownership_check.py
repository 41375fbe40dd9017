"""Compares what the store has in this node's name, or for its code, with what the node knows (rules
5 and 13).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Container, Sequence
from typing import Any, Final, Protocol

from orchestra.context import Limits
from orchestra.engine.activities import Activities
from orchestra.engine.ownership import Ownership
from orchestra.fingerprint import limited_fingerprint
from orchestra.levels import Unknown
from orchestra.registry import OrchestrationDefinition, OrchestrationRegistry
from orchestra.resolution import opening_version
from orchestra.store.catalogue import Catalogue
from orchestra.store.changes import Release
from orchestra.store.instances import HeldRow, shown_hold
from orchestra.store.kinds import THIS_LIBRARY, HoldKind, Library
from orchestra.store.port import Store
from orchestra.telemetry import Recorder, engine_logger

__all__ = ["OwnershipCheck", "Payloads"]


_MANY_HELD: Final = 100
_SECOND: Final = 1_000_000
_TRY_STORAGE_AGAIN: Final = 30_000_000
"""After how many microseconds a node tries an instance again for which the external storage of
values did not answer.
"""


_STORAGE: Final = "storage"
"""What a hold has tried for which the external storage did not answer."""


class Payloads(Protocol):
    """What the engine knows of the pipeline of payloads before the store."""

    has_payloads: bool

    def may_open(self, tried: Collection[str]) -> bool:
        """Return whether it has what was missing when an instance was held."""
        ...


class OwnershipCheck:
    """Reads what this node owns, which tasks it has, and which holds its code may end.

    What is due is read at the next step. What cannot be read stays due.

    Args:
        unknown: the instances whose last write has an unknown outcome.
        queue: has a change committed with one of the next groups.
    """

    def __init__(
        self,
        store: Store,
        registry: OrchestrationRegistry,
        ownership: Ownership,
        activities: Activities,
        unknown: Container[str],
        queue: Callable[[Release], Any],
        recorder: Recorder,
        limits: Limits,
        library: Library = THIS_LIBRARY,
        payloads: Payloads | None = None,
    ) -> None:
        self._store = store
        self._payloads = payloads if payloads is not None and payloads.has_payloads else None
        self._library = library
        self._registry = registry
        self._ownership = ownership
        self._activities = activities
        self._unknown = unknown
        self._queue = queue
        self._recorder = recorder
        self._limits = limits
        self.owned_due: bool = False
        """Whether the next step compares the owned instances."""
        self.tasks_due: bool = False
        """Whether the next step compares the tasks."""
        self.holds_due: bool = False
        """Whether the holds are read: by the next step if :attr:`is_mixed`, or else with the next
        catalogue.
        """
        self.is_mixed: bool = False
        """Whether another living node has other code for a version that this node has."""
        self._found: Counter[tuple[str, str]] = Counter()
        self._looked_at = 0
        self._is_reading_holds = False
        self._read_to: tuple[int, str] | None = None

    @property
    def is_due(self) -> bool:
        """Whether the next step has something to compare."""
        return self.owned_due or self.tasks_due

    @property
    def reads_holds(self) -> bool:
        """Whether the next step reads holds: the code of another node may be at fault, or there
        are more than one page of them.
        """
        return self._is_reading_holds or (self.holds_due and self.is_watchful)

    @property
    def is_watchful(self) -> bool:
        """Whether holds are looked at again and again."""
        return self.is_mixed or self._payloads is not None

    def look_for_holds(self, now: int) -> None:
        """Have holds read where another node's code may be at fault, and this node's is not, and
        where keys may have come back.

        While there are many holds, this is done once a second.
        """
        if not self.is_watchful or self._is_reading_holds:
            return
        if self._found.total() <= _MANY_HELD or now - self._looked_at >= _SECOND:
            self.holds_due = True

    def compare(self, node: str) -> None:
        """Compare what is due: recover forgotten instances, and drop those of other nodes.

        Raises:
            StoreError: the store cannot be read now.
        """
        if self.owned_due:
            self._ownership.compare(self._store.owned(node))
            self.owned_due = False
        if self.tasks_due:
            self._activities.compare_tasks(self._store.taken(node), node, self._unknown)
            self.tasks_due = False

    def release_held(self, catalogue: Catalogue) -> None:
        """Release the held instances that this node's code has not tried yet (rule 5), of one page
        of those that are held.

        Raises:
            StoreError: the store cannot be read now.
        """
        if not (self.holds_due or self._is_reading_holds):
            return
        page = self._store.held(self._registry.names, self._read_to)
        if not self._is_reading_holds:
            self._is_reading_holds = True
            self.holds_due = False  # what comes due from now on reads all of them once more
            self._looked_at = catalogue.now
            self._found.clear()
        self._found.update((row.kind.name, shown_hold(row.hold)) for row in page.rows)
        self._release(page.rows, catalogue)
        self._read_to = page.after
        if self._read_to is None:
            self._is_reading_holds = False
            self._record_holds(catalogue.now)

    def _record_holds(self, now: int) -> None:
        self._recorder.held(self._found)
        if self._recorder.recording and self._registry.boundaries:
            self._recorder.overdue(self._store.overdue(tuple(self._registry.boundaries), now))

    def _release(self, rows: Sequence[HeldRow], catalogue: Catalogue) -> None:
        released: list[str] = []
        for held in rows:
            if held.hold.kind is HoldKind.OPERATOR:
                continue  # only a release ends it (rule 32)
            if not self._reads(held):
                continue  # a newer library has held it, and knows what releases it
            definition = self._registry.find(held.kind.name, opening_version(catalogue, held.kind))
            if definition is not None and self._may_go_on(held, definition, catalogue.now):
                self._queue(Release(held.instance_id, held.incarnation, held.revision))
                kind = held.kind
                self._recorder.released(kind.name, kind.version, shown_hold(held.hold))
                released.append(held.instance_id)
        if released:
            engine_logger.info(
                "%d held instances are tried with the code of this node, %r among them",
                len(released),
                released[0],
            )

    def _may_go_on(self, held: HeldRow, definition: OrchestrationDefinition, now: int) -> bool:
        """Return whether this node has something that the hold has not tried."""
        hold = held.hold
        if hold.kind is not HoldKind.PAYLOAD:
            return self._trials(definition).isdisjoint(hold.tried)
        if self._payloads is None:
            return False
        waits = _STORAGE in hold.tried and now - hold.since >= _TRY_STORAGE_AGAIN
        return waits or self._payloads.may_open(hold.tried)

    def _reads(self, held: HeldRow) -> bool:
        """Return whether this library could go on with a held instance."""
        kind = held.kind
        return (
            not isinstance(held.hold.kind, Unknown)
            and kind.level <= self._library.level
            and kind.format in self._library.formats
        )

    def _trials(self, definition: OrchestrationDefinition) -> set[str]:
        """Return the names that a hold gives to this node's code: plain, with the migrations that
        open it, and with its limits.
        """
        codes = {definition.fingerprint, definition.opening_fingerprint}
        limits = self._limits.max_events, self._limits.max_bytes
        return codes | {limited_fingerprint(code, *limits) for code in codes}
