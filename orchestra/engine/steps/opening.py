"""Opening an execution: a new one on the version that it gets, or a stored one by replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestra.activities import Activity
from orchestra.codec import Payload
from orchestra.context import Limits
from orchestra.engine.attempts import PendingActivity, how_it_ended, kept_end, require_opened_row
from orchestra.engine.messages import ActivityEnded, ActivityKey
from orchestra.engine.owned import OwnedInstance
from orchestra.engine.steps.due import due_at
from orchestra.errors import HistoryCorrupt, NewerLibraryNeeded
from orchestra.events import EventRecord, EventWriter, require_opened_history
from orchestra.registry import OrchestrationDefinition, OrchestrationRegistry
from orchestra.replay import Execution, Identity, Input
from orchestra.resolution import has_readable_policy, opening_version, policy_of
from orchestra.store.catalogue import Catalogue
from orchestra.store.executions import Opening, Resolution
from orchestra.store.kinds import NUDGE_LEVEL, Library, ResolvedBy
from orchestra.store.routes import kind_of

__all__ = ["Opener", "Unservable", "restore_activities"]


class Unservable(Exception):
    """This node cannot run the execution that is next."""


class Opener:
    """Opens the executions of owned instances.

    Args:
        node_id: who resolves versions.
        registered: what orchestration code means by plain names of activities.
        library: what is read and written.
    """

    def __init__(
        self,
        node_id: str,
        registry: OrchestrationRegistry,
        limits: Limits,
        registered: Mapping[str, Activity[..., Any]],
        library: Library,
    ) -> None:
        self.node_id = node_id
        self._registry = registry
        self._limits = limits
        self._registered = registered
        self._forms = library.events
        self.format: int = min(library.formats)
        """The event format of new executions: the highest that all living nodes read (rule 38)."""

    def open(self, instance: OwnedInstance, now: int, catalogue: Catalogue) -> Opening:
        """Begin an execution: choose its version, decode its state, run its code to the first wait.

        Raises:
            Unservable: this node does not have the version, or cannot choose it.
        """
        resolution = instance.current.resolution
        if instance.kind.floating and not has_readable_policy(catalogue, instance.kind.name):
            raise Unservable  # a node that can read the policy chooses the version (rule 37)
        # The version may come from a later policy than that of this node's catalogue, which is up
        # to a poll old.
        revision = policy_of(catalogue, instance.kind.name)[1]
        is_stale = revision < resolution.policy_revision
        version = instance.kind.version if is_stale else opening_version(catalogue, instance.kind)
        definition = self._registry.find(instance.kind.name, version)
        if definition is None:
            raise Unservable
        instance.trying = definition.opening_fingerprint
        if version != instance.current.version:
            # Resolved again while it waited, upwards only. Its row says by which node, and under
            # which revision (rule 16).
            resolution = Resolution(ResolvedBy.POLICY, self.node_id, revision)
        identity = Identity(
            instance.instance_id,
            instance.incarnation,
            instance.current.number,
            instance.kind.name,
            version,
        )
        writer = self._forms.writer(self.format, catalogue.levels.write)
        execution = Execution(
            definition, identity, self._limits, self._registered, self._forms, writer
        )
        try:
            state, path = instance.current.state, ()
            if instance.current.state_version not in {None, version}:
                state, path = self._migrated(instance, definition)
            execution.start(state, now, written_by=instance.current.state_version, path=path)
        except BaseException:
            execution.evict()
            raise
        instance.execution = execution
        instance.opened = True
        instance.boundary_due = due_at(
            self._registry.boundaries.get(instance.kind.name), now, catalogue
        )
        instance.hold = None
        event_format = self.format
        instance.kind = kind_of(
            instance.kind.queue,
            instance.kind.name,
            version,
            event_format,
            level=instance.kind.level,
        )
        instance.current = instance.current.opened(
            version, resolution, event_format, definition.fingerprint, now, path
        )
        return Opening(now, version, definition.fingerprint, event_format, resolution, path)

    def _migrated(
        self, instance: OwnedInstance, definition: OrchestrationDefinition
    ) -> tuple[Payload, tuple[str, ...]]:
        """Return the state that another version wrote as this one opens it, and the migrations that
        it has passed (rule 27). The row keeps what was written.
        """
        row = instance.current
        assert row.state_version is not None
        opened = self._registry._migrations_of(definition.name).open(
            row.state,
            writer=row.state_version,
            writer_shape=row.state_shape,
            version=definition.version,
            decoder=definition.state,
            instance_id=instance.instance_id,
        )
        return opened.payload, opened.path

    def load(
        self, instance: OwnedInstance, history: Sequence[EventRecord], catalogue: Catalogue
    ) -> Execution:
        """Replay a stored execution. Its activities are still to be restored.

        Raises:
            Unservable: this node does not have its version.
            HistoryCorrupt: it has ended by its history, and not by its row.
        """
        definition = self._registry.find(instance.kind.name, instance.current.version)
        if definition is None:
            raise Unservable
        instance.trying = definition.fingerprint
        execution = Execution(
            definition,
            instance.identity,
            self._limits,
            self._registered,
            self._forms,
            self.writer(instance, catalogue),
        )
        try:
            require_opened_history(history)
            execution.replay(history)
        except BaseException:
            execution.evict()
            raise
        if execution.ending is not None:
            # It was ended between the claim and this reading, and the fence refuses the hold; or
            # the store is damaged.
            execution.evict()
            raise HistoryCorrupt(
                f"history of {instance.instance_id!r}, execution {instance.current.number}, has "
                "ended, and its row has not"
            )
        for by, since in instance.put_backs:
            execution.time.put_back(by, since)
        instance.execution = execution
        return execution

    def writer(self, instance: OwnedInstance, catalogue: Catalogue) -> EventWriter:
        """Return the writer of an open execution's events, in the execution's own format.

        Raises:
            NewerLibraryNeeded: this library does not write the format.
        """
        event_format = instance.current.format or instance.kind.format
        if event_format not in self._forms.formats:
            raise NewerLibraryNeeded(
                f"event format {event_format}", instance_id=instance.instance_id
            )
        level = catalogue.levels.write
        if instance.nudge is not None or instance.boundary_due is not None:
            level = max(level, NUDGE_LEVEL)  # the catalogue may be older than these
        return self._forms.writer(event_format, level)

    def fingerprint(self, instance: OwnedInstance, catalogue: Catalogue) -> str | None:
        """Return the fingerprint of the code that would run now."""
        if instance.opened:
            return instance.current.fingerprint
        try:
            version = opening_version(catalogue, instance.kind)
            definition = self._registry.find(instance.kind.name, version)
        except Exception:  # noqa: BLE001 - the instance is held for this very fault
            return None
        return None if definition is None else definition.opening_fingerprint


def restore_activities(
    instance: OwnedInstance, now: int, early: Sequence[ActivityEnded] = ()
) -> list[ActivityKey]:
    """Restore the pending activities of a loaded execution. Crashes of earlier owners count as
    attempts (rule 14).

    Return the activities that still run here and that the execution does not want: cancelled, or in
    another attempt by now.

    Args:
        early: ends that came before the execution was loaded.
    """
    assert instance.execution is not None
    still_running, instance.still_running = instance.still_running, {}
    kept: list[tuple[int, int, Input]] = []
    ending = instance.execution.ending_activities
    for number, event in instance.execution.activities.items():
        row = instance.stored_activities.get(number)
        if row is not None:
            require_opened_row(row)
        activity = PendingActivity.restored(event, row)
        activity.stopping = number in ending
        if row is not None and row.has_ended:
            # As if it had run here: it did not die with any node.
            activity.running, activity.counted = True, instance.takeovers
            instance.attempts.add(activity)
            end = kept_end(row)
            if end is None:
                instance.end_attempt(number, how_it_ended(row), row.heartbeat, now)
            else:
                instance.attempts.end(number)
                kept.append(end)
            continue
        if activity.route is None and still_running.get(number) == activity.attempt:
            del still_running[number]
            activity.running = True
        instance.attempts.add(activity)
        if activity.stopping and not activity.running and activity.route is None:
            instance.inputs.append(instance.attempts.lose(number, now))  # it ended with its node
            continue
        if instance.takeovers and not activity.running:
            died = instance.attempts.crash(number, instance.takeovers, now)
            if died is not None:
                instance.inputs.append(died)
    # They came first: the turn that ended in a hold took them in already, in this order (rule 39).
    instance.inputs[:0] = [end for _, _, end in sorted(kept, key=lambda end: end[:2])]
    for ended in early:
        activity = instance.attempts.get(ended.key.event_id)
        if activity is not None and activity.running and activity.attempt == ended.attempt:
            instance.end_attempt(ended.key.event_id, ended.result, ended.heartbeat, now)
    instance.attempts.catch_up(now)
    return [instance.key(number) for number in still_running]
