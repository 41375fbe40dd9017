"""One node, put together: what it says of itself to the store, and the engine's cycle that drives
it.

A runtime drives the cycle in a thread of its own; :class:`orchestra.testing.TestRuntime` drives the
same cycle in the caller's task, on virtual time.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from orchestra.activities import Activity, as_activity
from orchestra.clock import Clock, micros, new_id
from orchestra.context import Limits
from orchestra.engine.cycle import Cycle
from orchestra.engine.engine import Engine, EngineOptions
from orchestra.engine.membership import Membership
from orchestra.engine.messages import WriteLogs
from orchestra.errors import InvalidArgument, LevelTooLow, RegistrationError
from orchestra.processes import boot_id, process_space
from orchestra.registry import OrchestrationRegistry
from orchestra.resolution import policy_of, stored_policy
from orchestra.retention import Retention
from orchestra.runtime.arguments import activity_fingerprint
from orchestra.runtime.start_checks import PreflightMode, StartCheck
from orchestra.store.catalogue import Capability, Catalogue, NodeRecord
from orchestra.store.port import Provider, Store
from orchestra.store.routes import DEFAULT_QUEUE
from orchestra.telemetry import Recorder, engine_logger, library_version, log_orchestration
from orchestra.versions import Policy

__all__ = [
    "Node",
    "NodeSettings",
    "activities_by_name",
    "node_record",
    "set_first_policies",
    "write_logs",
]


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What a node runs, and within which bounds. ``lease`` is in microseconds, ``poll`` in
    seconds.
    """

    registry: OrchestrationRegistry
    activities: Mapping[str, Activity[..., Any]] = field(
        default_factory=dict[str, Activity[..., Any]]
    )
    queues: Sequence[str] = (DEFAULT_QUEUE,)
    limits: Limits = Limits()  # noqa: RUF009 - it is frozen
    retention: Retention = Retention()  # noqa: RUF009 - it is frozen
    options: EngineOptions = EngineOptions()  # noqa: RUF009 - it is frozen
    slots: int = 256
    lease: int = 10_000_000
    poll: float = 1.0
    preflight: PreflightMode = "off"
    strict: bool = False


class Node:
    """An engine that works on a store under a node id.

    Args:
        store: the way to the store, where it is not the provider's own: tests put something in
            between.
        record: what the node says of itself, where it is not of this process.
        make_id: makes the id under which a buried node goes on.
    """

    def __init__(
        self,
        provider: Provider,
        node_id: str,
        settings: NodeSettings,
        clock: Clock,
        recorder: Recorder,
        *,
        store: Store | None = None,
        record: NodeRecord | None = None,
        make_id: Callable[[], str] = new_id,
    ) -> None:
        self._provider = provider
        self._settings = settings
        store = store or provider.store
        record = record or node_record(node_id, provider, settings)
        self._start_check = StartCheck(record, settings.preflight, strict=settings.strict)
        self.engine: Engine = Engine(
            store,
            provider.directory,
            settings.registry,
            record,
            clock,
            library=provider.library,
            limits=settings.limits,
            options=settings.options,
            retention=settings.retention,
            recorder=recorder,
            activities=settings.activities,
            payloads=provider,
        )
        self.membership: Membership = Membership(store, record, clock, make_id=make_id)
        self.cycle: Cycle = Cycle(
            store,
            self.engine,
            self.membership,
            clock,
            poll=settings.poll,
            recorder=recorder,
            check_joined=self._start_check.after_joining,
        )

    def prepare_store(self) -> None:
        """Check the store, and store what the registry says of its names, where the store does not
        know it yet. It blocks.

        Raises:
            StartRefused: the node would strand instances, or run them on other code.
        """
        self._start_check.before_joining(self._provider.directory)
        set_first_policies(self._provider, self._settings.registry, self.engine.node.node_id)
        _set_expiries(self._provider, self._settings)


def activities_by_name(activities: object) -> dict[str, Activity[..., Any]]:
    """Return the activities that were given to a node, by name.

    Raises:
        InvalidArgument: it is no sequence.
        RegistrationError: two different activities have one name.
    """
    if not isinstance(activities, Collection) or isinstance(activities, (str, bytes, Mapping)):
        how = (
            "; @activity(name=...) gives an activity another name"
            if isinstance(activities, Mapping)
            else ""
        )
        raise InvalidArgument(
            f"activities is {activities!r}; give a sequence of functions or activities, such as "
            f"[probe]{how}"
        )
    named: dict[str, Activity[..., Any]] = {}
    for candidate in cast("Collection[Callable[..., Any] | Activity[..., Any]]", activities):
        activity = as_activity(candidate)
        if activity.name in named:
            if named[activity.name] == activity:
                continue  # lists of several modules name it twice
            raise RegistrationError(
                f"two activities are named {activity.name!r}; give one of them @activity(name=...)"
            )
        named[activity.name] = activity
    return named


def write_logs(message: WriteLogs) -> None:
    """Log what orchestration code has said in a turn that stands."""
    identity = message.identity
    for entry in message.entries:
        log_orchestration(
            entry.level,
            entry.message,
            entry.fields,
            name=identity.name,
            version=identity.version,
            instance_id=identity.instance_id,
            execution_id=identity.execution,
            traceparent=message.traceparent,
        )


def set_first_policies(provider: Provider, registry: OrchestrationRegistry, by: str) -> None:
    """Store the builder's policies for names without one; log a name whose stored policy
    differs.

    Raises:
        LevelTooLow: a node with an older library, which cannot read a policy, is still known.
    """
    admin, directory = provider.admin, provider.directory
    for name, policy in registry.policies.items():
        catalogue = directory.catalogue()
        if name not in catalogue.policies:
            value = _first_value(provider, catalogue, name, policy)
            if admin.set_policy(name, value, by=by, reason="registry", only_first=True).granted:
                continue
        stored = policy_of(directory.catalogue(), name)[0]
        if stored != policy:
            engine_logger.warning(
                "the store's version policy for %r is %s, the registry's is %s; the store's "
                "counts. Change it with client.set_version_policy(%r, ...)",
                name,
                stored,
                policy,
                name,
            )


def _first_value(provider: Provider, catalogue: Catalogue, name: str, policy: Policy) -> str:
    """Return the stored form of a builder's policy. A policy of a higher level raises the store's
    write level first.

    Raises:
        LevelTooLow: a node with an older library is still known.
    """
    library = provider.library
    if type(policy) not in library.policies.at(catalogue.levels.write):
        levels = provider.store.raise_level(library.target(library.writes))
        catalogue = replace(catalogue, levels=levels)
    try:
        return stored_policy(catalogue, policy)
    except LevelTooLow as error:
        # Without its policy the name would go by Latest() until the policy can be stored.
        raise LevelTooLow(
            f"the version policy {policy} of {name!r} cannot be stored while a node with an older "
            "library lives; stop that node, or start with Latest() or Exact(...) and set the "
            "policy with client.set_version_policy later. A node that was killed counts until a "
            "runtime that starts without this policy has buried it"
        ) from error


def _set_expiries(provider: Provider, settings: NodeSettings) -> None:
    """Store how long ended instances are kept, so that a client without a registry can apply it
    too.
    """
    registry = settings.registry
    kept = {name: registry.retentions.get(name, settings.retention) for name in registry.names}
    provider.admin.set_expiry(
        {
            name: None if retention.finished is None else micros(retention.finished)
            for name, retention in kept.items()
        }
    )


def node_record(node_id: str, provider: Provider, settings: NodeSettings) -> NodeRecord:
    library = provider.library
    return NodeRecord(
        node_id=node_id,
        host=platform.node(),
        boot_id=boot_id(),
        pid=os.getpid(),
        library=library_version(),
        formats=library.formats,
        lease=settings.lease,
        capabilities=tuple(
            Capability(definition.name, definition.version, definition.fingerprint)
            for definition in settings.registry.capabilities()
        ),
        activities=tuple(sorted(settings.activities)),
        queues=tuple(settings.queues),
        slots=settings.slots,
        fingerprints=tuple(
            (name, activity_fingerprint(activity))
            for name, activity in sorted(settings.activities.items())
        ),
        reads=library.level,
        writes=library.writes,
        processes=process_space(),
    )
