"""The orchestrations of a program: several versions under one stable name, and the policy that
chooses.

::

    registry = (
        OrchestrationRegistry.builder()
        .register("watch", watch)                       # 1.0.0
        .register("watch", watch_1_1_0, version="1.1.0")
        .set_version_policy("watch", Latest())          # the default
        .build()
    )
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import CodeType, MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from orchestra.activities import Activity
from orchestra.boundaries import BoundaryDue, WhenDue
from orchestra.codec import PLAIN, Decoder
from orchestra.errors import (
    DuplicateVersion,
    InvalidFunction,
    RegistrationError,
    UnknownOrchestration,
    UnknownVersion,
)
from orchestra.fingerprint import fingerprint
from orchestra.ids import check_name
from orchestra.migrations import Declared, Migrations, local_names_of, migrations_of
from orchestra.retention import Retention
from orchestra.retry import type_name
from orchestra.signatures import (
    annotation_decoder,
    awaits,
    called,
    names_around,
    plain_function,
    typed_signature,
)
from orchestra.versions import (
    Exact,
    Latest,
    Policy,
    Range,
    listed,
    parse_version,
    resolve,
    version_key,
)

__all__ = ["OrchestrationDefinition", "OrchestrationRegistry", "RegistryBuilder"]

if TYPE_CHECKING:
    from orchestra.context import OrchestrationContext

OrchestrationFunction = Callable[[Any, Any], Awaitable[Any]]
RegisteredFunction: TypeAlias = "Callable[[OrchestrationContext, Any], Awaitable[Any]]"


@dataclass(frozen=True, slots=True)
class OrchestrationDefinition:
    """One registered version of an orchestration."""

    name: str
    version: str
    function: OrchestrationFunction
    state: Decoder[Any]
    result: Decoder[Any]
    fingerprint: str
    failures: tuple[type[BaseException], ...] = ()
    """The exceptions that fail it, besides those that always do."""
    family: Mapping[OrchestrationFunction, tuple[OrchestrationDefinition, ...]] = field(
        default_factory=dict["OrchestrationFunction", "tuple[OrchestrationDefinition, ...]"],
        compare=False,
        repr=False,
    )
    """All definitions of its registry, by function."""
    states: Mapping[str, Mapping[str, Decoder[Any]]] = field(
        default_factory=dict["str", "Mapping[str, Decoder[Any]]"], compare=False, repr=False
    )
    """The codecs of all inputs of its registry, by name and version."""
    migrating_fingerprint: str | None = None
    """The fingerprint of the code and of all migrations of the name, if there are any."""
    remarks: set[str] = field(default_factory=set[str], compare=False, repr=False)
    """Remarks on this code that were logged: each line once, not for each instance and lap."""

    @property
    def opening_fingerprint(self) -> str:
        """The fingerprint of all code that opens an execution: its own, and its migrations'."""
        return self.migrating_fingerprint or self.fingerprint

    def is_news(self, remark: str) -> bool:
        """Return whether this remark on the code is new."""
        if remark in self.remarks:
            return False
        self.remarks.add(remark)
        return True

    @property
    def place(self) -> str:
        """The location of the function, as ``file:line in function``."""
        code = getattr(self.function, "__code__", None)
        return (
            repr(self.function)
            if code is None
            else f"{code.co_filename}:{code.co_firstlineno} in {code.co_qualname}"
        )

    def begin(self, context: Any, state: Any) -> Coroutine[Any, Any, Any]:
        """Return the coroutine of one execution."""
        code: CodeType | None = getattr(self.function, "__code__", None)
        if (
            code is not None and code.co_flags & inspect.CO_COROUTINE
        ):  # what inspect asks, without its detours
            coroutine: Any = self.function(context, state)
            return coroutine
        return _awaited(
            self.function, context, state
        )  # a `def` that wraps an `async def`; its own code is part of it

    def called(self, function: OrchestrationFunction) -> tuple[str, Decoder[Any]]:
        """Return the name of a function in this definition's registry, and the decoder of its
        result.

        Raises:
            UnknownOrchestration: the function is not registered.
            InvalidFunction: it is registered under several names.
        """
        return _called(self.family, function, f"beside {self.name!r} {self.version}")

    def state_of(self, name: str, version: str | None) -> Decoder[Any]:
        """Return the codec for an input of an orchestration, as this definition's registry knows
        it.

        It is the value's own type if the version is not registered, or if the version is open and
        the versions differ.
        """
        versions = self.states.get(name, {})
        if version is not None:
            return versions.get(version, PLAIN)
        kinds = {id(state): state for state in versions.values()}
        return next(iter(kinds.values())) if len(kinds) == 1 else PLAIN


class OrchestrationRegistry:
    """An immutable set of orchestrations. Make one with :meth:`builder`."""

    __slots__ = (
        "_boundaries",
        "_definitions",
        "_migrations",
        "_policies",
        "_retentions",
        "_shapes",
    )

    def __init__(
        self,
        definitions: Mapping[str, Mapping[str, OrchestrationDefinition]],
        policies: Mapping[str, Policy],
        retentions: Mapping[str, Retention],
        migrations: Mapping[str, Migrations] | None = None,
        boundaries: Mapping[str, BoundaryDue] | None = None,
    ) -> None:
        self._boundaries: Mapping[str, BoundaryDue] = boundaries or {}
        self._definitions = definitions
        self._policies = policies
        self._retentions = retentions
        self._migrations: Mapping[str, Migrations] = migrations or {}
        self._shapes: Mapping[tuple[str, str], str] = {
            (name, version): definition.state.shape
            for name, versions in definitions.items()
            for version, definition in versions.items()
        }
        """Kept apart: the hash is looked up in each lap."""

    @staticmethod
    def builder() -> RegistryBuilder:
        """Return a new, empty builder."""
        return RegistryBuilder()

    @property
    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        return tuple(sorted(self._definitions))

    def versions(self, name: str) -> tuple[str, ...]:
        """Return the versions of a name in ascending order.

        Raises:
            UnknownOrchestration: the name is not registered.
        """
        return tuple(sorted(self._of(name), key=version_key))

    def policy(self, name: str) -> Policy:
        """Return the builder's policy of a name; ``Latest()`` if it has none."""
        self._of(name)
        return self._policies.get(name, Latest())

    @property
    def policies(self) -> Mapping[str, Policy]:
        """The builder's policies, by name."""
        return self._policies

    @property
    def retentions(self) -> Mapping[str, Retention]:
        """The builder's retentions, by name; for other names the runtime's own counts."""
        return self._retentions

    @property
    def boundaries(self) -> Mapping[str, BoundaryDue]:
        """When boundaries are due, by name; of other names they never are."""
        return self._boundaries

    def resolve(self, name: str) -> str:
        """Return the version that the builder's policy chooses among the registered ones."""
        version = resolve(self.policy(name), self._of(name))
        assert version is not None  # a registered name has a version
        return version

    def get(self, name: str, version: str) -> OrchestrationDefinition:
        """Return one definition.

        Raises:
            UnknownOrchestration: the name is not registered.
            UnknownVersion: the name is, the version is not.
        """
        found = self._of(name).get(version)
        if found is None:
            have = ", ".join(self.versions(name))
            raise UnknownVersion(
                f"{name!r} is registered in {have}, not in {version}", name=name, version=version
            )
        return found

    def find(self, name: str, version: str) -> OrchestrationDefinition | None:
        """Return one definition, or ``None``."""
        return self._definitions.get(name, {}).get(version)

    def shape(self, name: str, version: str) -> str | None:
        """Return the hash of the shape of a version's input; ``None``: not registered."""
        return self._shapes.get((name, version))

    def _migrations_of(self, name: str) -> Migrations:
        """Return the state migrations of a name."""
        return self._migrations.get(name) or Migrations(name)

    def called(self, function: OrchestrationFunction) -> tuple[str, Decoder[Any]]:
        """Return the name under which a function is registered, and the decoder of its result.

        Raises:
            UnknownOrchestration: the function is not registered.
            InvalidFunction: it is registered under several names.
        """
        for versions in self._definitions.values():
            for definition in versions.values():
                return _called(definition.family, function, "here")
        return _called({}, function, "here")

    def capabilities(self) -> tuple[OrchestrationDefinition, ...]:
        """Return all definitions, by name and ascending version."""
        return tuple(
            self.get(name, version) for name in self.names for version in self.versions(name)
        )

    def fingerprint(self, name: str, version: str) -> str:
        """Return the fingerprint of a version's normalised code."""
        return self.get(name, version).fingerprint

    def _of(self, name: str) -> Mapping[str, OrchestrationDefinition]:
        found = self._definitions.get(name)
        if found is None:
            have = ", ".join(map(repr, self.names)) or "nothing"
            raise UnknownOrchestration(
                f"no orchestration {name!r} is registered here (registered: {have})", name=name
            )
        return found


class RegistryBuilder:
    """Collects orchestrations. :meth:`build` completes the checks; the order of calls does not
    matter.
    """

    def __init__(self) -> None:
        self._entries: list[
            tuple[str, str, OrchestrationFunction, tuple[type[BaseException], ...], dict[str, Any]]
        ] = []
        self._migrations: list[Declared] = []
        self._policies: dict[str, Policy] = {}
        self._retentions: dict[str, Retention] = {}
        self._boundaries: dict[str, BoundaryDue] = {}

    def register(
        self,
        name: str,
        function: RegisteredFunction,
        version: str = "1.0.0",
        *,
        failures: Iterable[type[BaseException]] = (),
    ) -> RegistryBuilder:
        """Add ``async def function(ctx, input)`` as one version of a name.

        Args:
            failures: exceptions that fail the instance when they leave the function, besides
                ``Failure``, ``ActivityFailed``, ``ChildFailed`` and ``Cancelled``. Any other
                exception holds the instance until changed code is deployed. ``(Exception,)`` fails
                it for every exception.
        """
        self._entries.append(
            (
                name,
                version,
                function,
                _check_failures(name, version, failures),
                names_around(function),
            )
        )
        return self

    def migrate(
        self,
        name: str,
        version: str,
        up: Callable[..., Any],
        down: Callable[..., Any] | None = None,
        *,
        after: str | None = None,
    ) -> RegistryBuilder:
        """Say how the state changes its shape with a version: ``def up(state: Old) -> New``.

        A state that a lower version wrote passes the ``up`` of each migration on its way to the
        version that opens it; one that a higher version wrote passes the ``down``\\ s in reverse. A
        new field with a default needs no migration on the way up. The write that opens the
        execution records the result; replay never migrates again.

        Args:
            version: the version that changed the shape. Those above it have its shape too, up to
                the next migration. It need not be registered any more.
            up: a plain function without I/O: it may run several times before one result is
                committed. Its annotation says how the stored state is read. It may take a second
                parameter, ``info: MigrationInfo``.
            down: the way back, for a rollback.
            after: a version whose shape it follows, where two lines are maintained: 1.2.0, released
                after 2.0.0, follows 1.0.0.
        """
        names = local_names_of(up, down)
        self._migrations.append(Declared(name, version, up, down, after, names))
        return self

    def set_version_policy(self, name: str, policy: Policy) -> RegistryBuilder:
        """Set the version that starts and boundaries take: ``Latest()``, ``Exact("1.2.0")`` or
        ``Range("^1.2")``.

        A store keeps the first policy of a name. ``client.set_version_policy`` changes it.
        """
        self._policies[name] = policy
        return self

    def set_retention(self, name: str, retention: Retention) -> RegistryBuilder:
        """Set which laps and ended instances of a name are kept, instead of the runtime's
        ``retention``.
        """
        self._retentions[name] = retention
        return self

    def set_boundary(
        self, name: str, *, due: timedelta, then: WhenDue = "report"
    ) -> RegistryBuilder:
        """Say how long an execution of a name may take from its opening to its boundary.

        It is fixed when the execution opens: a later value counts from the next boundary on.
        ``info.boundary_due_at`` and ``info.boundary_overdue`` show it.

        Args:
            due: how long.
            then: what happens to an execution that takes longer. ``"report"``: it is shown and
                counted. ``"nudge"``: it is asked to reach its boundary, as by ``client.nudge``.
                ``"cancel"``: its instance is cancelled. ``"hold"``: its instance is held until an
                operator releases it. The author of each is ``boundary due``.

        Raises:
            RegistrationError: ``due`` is no positive timedelta, or ``then`` is none of the four.
        """
        self._boundaries[name] = BoundaryDue(due, then)
        return self

    def build(self) -> OrchestrationRegistry:
        """Return the registry.

        Raises:
            DuplicateVersion: one version of a name was registered twice.
            InvalidVersion: a version is not semver.
            InvalidFunction: a function is not ``async def`` with two positional parameters.
            UnresolvableAnnotation: an annotation names no type that can be found or read.
            RegistrationError: a name is not text of 1 to 1,024 characters, or a policy, a
                retention or a boundary names what is not registered.
        """
        definitions: dict[str, dict[str, OrchestrationDefinition]] = {}
        family: dict[OrchestrationFunction, tuple[OrchestrationDefinition, ...]] = {}
        states: dict[str, dict[str, Decoder[Any]]] = {}
        for name, version, function, failures, local_names in self._entries:
            definition = replace(
                _define(name, version, function, failures, local_names),
                family=family,
                states=states,
            )
            states.setdefault(name, {})[version] = definition.state
            family[function] = (*family.get(function, ()), definition)
            versions = definitions.setdefault(name, {})
            # Build metadata does not rank, so 1.0.0+a and 1.0.0+b would be equally high.
            twin = next(
                (
                    known
                    for known in versions.values()
                    if version_key(known.version) == version_key(version)
                ),
                None,
            )
            if twin is not None:
                raise DuplicateVersion(
                    f"{name!r} {version} is registered twice: {_place(twin.function)} and "
                    f"{_place(function)}; give one of them another version"
                )
            versions[version] = definition
        migrations = self._build_migrations(definitions)
        self._check_policies(definitions)
        self._check_retentions(definitions)
        for name in self._boundaries:
            if name not in definitions:
                raise RegistrationError(f"a boundary is set for {name!r}, which is not registered")
        return OrchestrationRegistry(
            MappingProxyType(
                {name: MappingProxyType(versions) for name, versions in definitions.items()}
            ),
            MappingProxyType(dict(self._policies)),
            MappingProxyType(dict(self._retentions)),
            MappingProxyType(migrations),
            MappingProxyType(dict(self._boundaries)),
        )

    def _build_migrations(
        self, definitions: dict[str, dict[str, OrchestrationDefinition]]
    ) -> dict[str, Migrations]:
        """Return the migrations by name. Their code has part in what a hold at an opening names: a
        mended migration is a reason to try again.
        """
        declared: dict[str, list[Declared]] = {}
        for one in self._migrations:
            declared.setdefault(one.name, []).append(one)
        found: dict[str, Migrations] = {}
        for name, some in declared.items():
            if name not in definitions:
                raise RegistrationError(
                    f"a migration to {some[0].version} is declared for {name!r}, which is not "
                    "registered"
                )
            found[name] = migrations_of(name, some)
            for version, definition in definitions[name].items():
                digest = hashlib.sha256(definition.fingerprint.encode() + found[name].fingerprint)
                definitions[name][version] = replace(
                    definition, migrating_fingerprint=digest.hexdigest()[:16]
                )
        return found

    def _check_policies(
        self, definitions: Mapping[str, Mapping[str, OrchestrationDefinition]]
    ) -> None:
        for name, policy in self._policies.items():
            if name not in definitions:
                raise RegistrationError(
                    f"a version policy is set for {name!r}, which is not registered"
                )
            if not isinstance(policy, (Latest, Exact, Range)):
                raise RegistrationError(
                    f"the policy of {name!r} is {policy!r}; give Latest(), Exact('1.2.0') or "
                    "Range('^1.2')"
                )
            if resolve(policy, definitions[name]) not in definitions[name]:
                raise RegistrationError(
                    f"the policy of {name!r} is {policy!r}, but registered are "
                    f"{listed(definitions[name])}"
                )

    def _check_retentions(
        self, definitions: Mapping[str, Mapping[str, OrchestrationDefinition]]
    ) -> None:
        for name, retention in self._retentions.items():
            if name not in definitions:
                raise RegistrationError(f"a retention is set for {name!r}, which is not registered")
            if not isinstance(retention, Retention):
                raise RegistrationError(
                    f"the retention of {name!r} is {retention!r}; give Retention(...)"
                )


async def _awaited(function: OrchestrationFunction, context: Any, state: Any) -> Any:
    return await function(context, state)


def _called(
    family: Mapping[OrchestrationFunction, tuple[OrchestrationDefinition, ...]],
    function: OrchestrationFunction,
    where: str,
) -> tuple[str, Decoder[Any]]:
    found: list[OrchestrationDefinition] = []
    with suppress(TypeError):  # nothing that can be registered is unhashable
        found.extend(family.get(function, ()))
    names = sorted({definition.name for definition in found})
    if not names:
        shown = called(function)
        raise UnknownOrchestration(
            (
                f"{shown} is not registered {where}; register it, or give the name that it has "
                "elsewhere"
            ),
            name=shown,
        )
    if len(names) > 1:
        raise InvalidFunction(
            f"{_place(function)} is registered as {' and as '.join(map(repr, names))}; give the "
            "name"
        )
    return names[0], found[0].result


def _place(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _check_failures(name: str, version: str, failures: object) -> tuple[type[BaseException], ...]:
    classes: tuple[object, ...] = (
        tuple(cast("Iterable[object]", failures)) if isinstance(failures, Iterable) else (failures,)
    )
    for cls in classes:
        if not isinstance(cls, type) or not issubclass(cls, BaseException):
            raise RegistrationError(
                f"{name!r} {version}: failures holds {cls!r}; give classes of exceptions, as in "
                "(MyError,)"
            )
    return cast("tuple[type[BaseException], ...]", classes)


def _define(
    name: str,
    version: str,
    function: OrchestrationFunction,
    failures: tuple[type[BaseException], ...],
    local_names: dict[str, Any],
) -> OrchestrationDefinition:
    check_name(name, "an orchestration's name", RegistrationError)
    parse_version(version)
    which = f"{name!r} {version}"
    if isinstance(function, Activity):
        raise InvalidFunction(
            f"{which}: {function!r} cannot be an orchestration; give it to "
            "Runtime(activities=[...])"
        )
    function = plain_function(function, f"the orchestration {which}")
    if not awaits(function):
        raise InvalidFunction(
            f"{which}: {_place(function)} is not `async def`; write `async def f(ctx, input)`"
        )
    signature, annotations = typed_signature(function, local_names, untyped=1)
    parameters = list(signature.parameters.values())
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [
        parameter for parameter in parameters if parameter.default is inspect.Parameter.empty
    ]
    if (
        len(parameters) < 2
        or len(required) > 2
        or any(parameter.kind not in positional for parameter in parameters[:2])
    ):
        raise InvalidFunction(
            f"{which}: {_place(function)}{inspect.signature(function)} must take exactly (ctx, "
            "input)"
        )
    state = annotation_decoder(
        annotations.get(parameters[1].name, Any), f"{which}: the input of {_place(function)}"
    )
    result = annotation_decoder(
        annotations.get("return", Any), f"{which}: the result of {_place(function)}"
    )
    # Without any, the fingerprint is the same as before this option existed.
    also = (" ".join(sorted(type_name(cls) for cls in failures)).encode(),) if failures else ()
    digits = fingerprint(function, state.schema(), *also, state=state.annotation)
    return OrchestrationDefinition(name, version, function, state, result, digits, failures)
