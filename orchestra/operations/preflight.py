"""Preflight: what a deploy of a registry would do to the live instances of a store.

:class:`Preflight` is given one instance after the other, and changes none. It keeps one finding for
each kind of fault of each version, so that its memory does not grow with the instances.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from orchestra.codec import require_opened
from orchestra.context import Limits
from orchestra.errors import DecodeError, MigrationFailed, PayloadUnreadable
from orchestra.events import EventRecord, require_opened_history
from orchestra.registry import OrchestrationDefinition, OrchestrationRegistry
from orchestra.replay import Execution, Identity
from orchestra.resolution import policy_of
from orchestra.store.catalogue import Catalogue
from orchestra.store.queries import InstanceRecord
from orchestra.versions import Exact, Policy, UnknownPolicy, resolve, version_key

__all__ = [
    "Preflight",
    "PreflightFinding",
    "PreflightFindingKind",
    "PreflightMove",
    "PreflightReport",
]


class PreflightFindingKind(StrEnum):
    """What a preflight finds."""

    MISSING_VERSION = "missing_version"
    """Open executions run on a version that the registry lacks: they would be held."""
    MIGRATION = "migration"
    """A state does not migrate to the version that it would take next: it would be held."""
    CHANGED_CODE = "changed_code"
    """The code of a version differs from what open executions of it began with."""
    CHANGED_SHAPE = "changed_shape"
    """The input of a version has another shape than state that it wrote."""
    REPLAY = "replay"
    """An open execution does not replay on the code: it would be held."""
    DRIFT = "drift"
    """Code gives other values than history has; those of history count."""
    UNREADABLE_VALUES = "unreadable_values"
    """The state or the history of an instance is sealed and does not open here, so that nothing can
    be said of it. A node without the key would hold it.
    """
    UNREADABLE_POLICY = "unreadable_policy"
    """A newer library set the version policy of a name; this one cannot say what would move."""


Severity = Literal["error", "warning", "note"]

_SEVERITY: dict[PreflightFindingKind, Severity] = {
    PreflightFindingKind.MISSING_VERSION: "error",
    PreflightFindingKind.MIGRATION: "error",
    PreflightFindingKind.CHANGED_CODE: "warning",
    PreflightFindingKind.CHANGED_SHAPE: "warning",
    PreflightFindingKind.REPLAY: "error",
    PreflightFindingKind.DRIFT: "note",
    PreflightFindingKind.UNREADABLE_VALUES: "warning",
    PreflightFindingKind.UNREADABLE_POLICY: "warning",
}


@dataclass(frozen=True, slots=True)
class PreflightFinding:
    """One kind of fault of one version. ``instance_id`` is the first of its ``instances``; empty at
    the start of a node, which counts them.
    """

    kind: PreflightFindingKind
    severity: Severity
    name: str
    version: str
    instance_id: str
    field: str
    message: str
    instances: int = 1

    def __str__(self) -> str:
        text = f"{self.severity}: {self.name} {self.version}: {self.message}"
        if not self.instance_id:
            return f"{text} ({self.instances:,} instances)" if self.instances else text
        more = "" if self.instances == 1 else f", and {self.instances - 1:,} more"
        return f"{text} ({self.instance_id}{more})"


@dataclass(frozen=True, slots=True)
class PreflightMove:
    """So many instances of a name would go from one version to another at their next boundary."""

    name: str
    from_version: str
    to_version: str
    instances: int


@dataclass(frozen=True, slots=True)
class PreflightReport:
    """What a deploy would do. ``ok``: no finding is an error."""

    instances: int
    findings: tuple[PreflightFinding, ...]
    moves: tuple[PreflightMove, ...]

    @property
    def ok(self) -> bool:
        """Whether the deploy would strand nothing."""
        return all(finding.severity != "error" for finding in self.findings)

    def __str__(self) -> str:
        lines = [f"{self.instances:,} live instances: " + ("fine" if self.ok else "not fine")]
        lines += [str(finding) for finding in self.findings]
        lines += [
            f"{move.name}: {move.instances:,} would move from {move.from_version} to "
            f"{move.to_version}"
            for move in self.moves
        ]
        return "\n".join(lines)


class Preflight:
    """Judges live instances by the registry of a deploy.

    Args:
        catalogue: the policies of the store. The versions are those of the registry alone, as if
            every node ran it.
    """

    def __init__(
        self, registry: OrchestrationRegistry, catalogue: Catalogue, limits: Limits | None = None
    ) -> None:
        self._registry = registry
        self._catalogue = catalogue
        self._limits = limits or Limits()
        self._found: dict[tuple[PreflightFindingKind, str, str, str], PreflightFinding] = {}
        self._moves: Counter[tuple[str, str, str]] = Counter()
        self._instances = 0

    def look(self, record: InstanceRecord, history: Sequence[EventRecord] = ()) -> None:
        """Judge one live instance; with the history of its open execution, whether it replays."""
        self._instances += 1
        row, execution = record.row, record.execution
        name, version = row.kind.name, execution.version
        if row.opened:
            self._look_at_code(record)
        try:
            require_opened(execution.state, "its input")
            require_opened_history(history)
        except PayloadUnreadable as error:
            self._find(PreflightFindingKind.UNREADABLE_VALUES, record, version, str(error))
            return
        if row.opened and history:
            self._replay(record, history)
        target = self._target(record)
        if target is None:
            return
        if target != version:
            self._moves[name, version, target] += 1
        self._migrate(record, target)

    def report(self) -> PreflightReport:
        """Return what was found, errors first."""
        order = {"error": 0, "warning": 1, "note": 2}
        return PreflightReport(
            self._instances,
            tuple(
                sorted(
                    self._found.values(),
                    key=lambda one: (order[one.severity], one.name, version_key(one.version)),
                )
            ),
            tuple(PreflightMove(*move, count) for move, count in sorted(self._moves.items())),
        )

    def _find(
        self,
        kind: PreflightFindingKind,
        record: InstanceRecord,
        version: str,
        message: str,
        field: str = "",
    ) -> None:
        name = record.row.kind.name
        key = kind, name, version, field
        known = self._found.get(key)
        self._found[key] = (
            PreflightFinding(
                kind, _SEVERITY[kind], name, version, record.row.instance_id, field, message
            )
            if known is None
            else replace(known, instances=known.instances + 1)
        )

    def _look_at_code(self, record: InstanceRecord) -> None:
        name, version = record.row.kind.name, record.execution.version
        definition = self._registry.find(name, version)
        if definition is None:
            self._find(
                PreflightFindingKind.MISSING_VERSION,
                record,
                version,
                "open executions run on it, and the registry does not have it; keep it registered "
                "until they have crossed their boundary",
            )
            return
        recorded = record.execution.fingerprint
        if recorded is not None and recorded != definition.fingerprint:
            self._find(
                PreflightFindingKind.CHANGED_CODE,
                record,
                version,
                "its code differs from what open executions of it began with; register changed "
                "code under a new version",
            )

    def _target(self, record: InstanceRecord) -> str | None:
        """Return the version that an instance takes next, if every node runs the registry."""
        row, execution = record.row, record.execution
        if row.pin is not None and row.pin.holds(self._catalogue.now):
            return row.pin.version
        if not row.opened and not row.kind.floating:
            return execution.version
        name = row.kind.name
        policy = self._policy(name)
        if isinstance(policy, UnknownPolicy):
            self._find(
                PreflightFindingKind.UNREADABLE_POLICY,
                record,
                execution.version,
                f"a newer library has set its version policy, {policy}",
            )
            return None
        versions = self._registry.versions(name) if name in self._registry.names else ()
        resolved = resolve(policy, versions)
        if resolved is None:
            return execution.version
        if isinstance(policy, Exact):
            return resolved
        return max(resolved, execution.version, key=version_key)

    def _policy(self, name: str) -> Policy | UnknownPolicy:
        policy, revision = policy_of(self._catalogue, name)
        if revision == 0 and name in self._registry.names:
            return self._registry.policy(name)  # the first node of the deploy stores it
        return policy

    def _migrate(self, record: InstanceRecord, target: str) -> None:
        name, execution = record.row.kind.name, record.execution
        definition = self._registry.find(name, target)
        if definition is None:
            if not record.row.opened or target != execution.version:
                self._find(
                    PreflightFindingKind.MISSING_VERSION,
                    record,
                    target,
                    "instances take it next, and the registry does not have it",
                )
            return
        writer = execution.state_version or execution.version
        if writer == target:
            self._decode(record, definition)
        if writer == target and execution.state_shape not in {None, definition.state.shape}:
            self._find(
                PreflightFindingKind.CHANGED_SHAPE,
                record,
                target,
                "its input has another shape than state that it wrote; give the new shape a new "
                "version",
            )
        try:
            self._registry._migrations_of(name).open(
                execution.state,
                writer=writer,
                writer_shape=execution.state_shape,
                version=target,
                decoder=definition.state,
                instance_id=record.row.instance_id,
            )
        except MigrationFailed as error:
            self._find(PreflightFindingKind.MIGRATION, record, target, str(error), error.field)

    def _decode(self, record: InstanceRecord, definition: OrchestrationDefinition) -> None:
        try:
            definition.state.decode(record.execution.state, subject="its input")
        except DecodeError as error:
            self._find(
                PreflightFindingKind.MIGRATION, record, definition.version, str(error), error.field
            )

    def _replay(self, record: InstanceRecord, history: Sequence[EventRecord]) -> None:
        row, version = record.row, record.execution.version
        definition = self._registry.find(row.kind.name, version)
        if definition is None:
            return
        identity = Identity(row.instance_id, row.incarnation, row.execution, row.kind.name, version)
        execution = Execution(definition, identity, self._limits)
        try:
            execution.replay(history)
        except Exception as error:  # noqa: BLE001 - whatever it is, the deploy would meet it
            self._find(
                PreflightFindingKind.REPLAY,
                record,
                version,
                f"an open execution does not replay: {type(error).__name__}: {error}",
            )
        else:
            for drift in execution.drifts[:1]:
                self._find(PreflightFindingKind.DRIFT, record, version, str(drift))
        finally:
            execution.evict()
