"""State migrations: how a state that one version wrote becomes the state of another.

A migration belongs to the version that changed the *shape* of the state. A version has the shape of
the highest migration at or below it; below the first one is the first shape. So the migrations of a
name make a list, or a tree where two lines are maintained::

    first shape ──► 2.0.0 ──► 3.0.0          migrate("2.0.0", up, down); migrate("3.0.0", up)
         └────────► 1.2.0                    migrate("1.2.0", up, after="1.0.0")

A state passes the ``up`` of each migration on its way, in order; on the way back, the ``down`` of
each in reverse. Between two lines it goes down to the shape that both come from, and up from there.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestra.codec import Decoder, Payload, encode, lost_field
from orchestra.errors import (
    DecodeError,
    MigrationFailed,
    PayloadError,
    PayloadUnreadable,
    RegistrationError,
)
from orchestra.fingerprint import fingerprint
from orchestra.frozen import frozen
from orchestra.signatures import annotation_decoder, awaits, names_around, typed_signature
from orchestra.versions import parse_version, version_key

__all__ = [
    "Declared",
    "Migration",
    "MigrationInfo",
    "Migrations",
    "OpenedState",
    "local_names_of",
    "migrations_of",
]


@dataclass(frozen=True, slots=True)
class MigrationInfo:
    """What a migration may know. ``from_version`` wrote the state, ``to_version`` opens it.

    A preflight runs migrations too, for instances that it does not change.
    """

    name: str
    instance_id: str
    from_version: str
    to_version: str


@dataclass(frozen=True, slots=True)
class _Step:
    """One direction of a migration."""

    function: Callable[..., Any]
    state: Decoder[Any]
    result: Decoder[Any]
    takes_info: bool

    def run(self, state: Payload, info: MigrationInfo, subject: str) -> Payload:
        value = self.state.decode(state, subject=subject)
        changed = self.function(value, info) if self.takes_info else self.function(value)
        if inspect.isawaitable(changed):
            if inspect.iscoroutine(changed):
                changed.close()
            raise TypeError("it returned an awaitable; a migration is a plain function")
        if self.result.annotation is Any:
            return encode(changed, subject=f"result of the {subject}")
        return self.result.encode(changed, subject=f"result of the {subject}")


@dataclass(frozen=True, slots=True)
class Migration:
    """The migration of one version. ``after`` is the version of the migration below it; ``None``:
    the first shape.
    """

    version: str
    up: _Step
    down: _Step | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Declared:
    """A migration as a registry's builder has it."""

    name: str
    version: str
    up: Callable[..., Any]
    down: Callable[..., Any] | None
    after: str | None
    local_names: dict[str, Any]


@frozen
class OpenedState:
    """A state as a version opens it. ``path`` are the migrations passed: ``2.0.0`` up, ``-2.0.0``
    down.
    """

    payload: Payload
    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Migrations:
    """The migrations of one name, by version."""

    name: str
    by_version: Mapping[str, Migration] = field(default_factory=dict[str, Migration])

    def open(
        self,
        state: Payload,
        *,
        writer: str,
        writer_shape: str | None,
        version: str,
        decoder: Decoder[Any],
        instance_id: str,
    ) -> OpenedState:
        """Return a state as a version opens it.

        The state of another version must fit strictly: a field that the type does not know is an
        error. A field that is missing takes its default. A state of the same version is read as
        always. A migration runs also where both shapes are the same: the meaning may have changed.

        Args:
            writer: the version that wrote the state; ``writer_shape`` the hash of its shape, if
                that is known.
            decoder: of the input of ``version``.

        Raises:
            MigrationFailed: a migration raised, a ``down`` is missing, or the result does not fit.
        """
        if writer == version:
            return OpenedState(state)
        start = self._shape_of(writer, writer_shape, decoder, version)
        path = self._path(start, self._shape_at(version))
        info = MigrationInfo(self.name, instance_id, writer, version)
        for direction, migration in path:
            state = self._run(direction, migration, state, info)
        self._check(state, decoder, info)
        return OpenedState(state, tuple(f"{sign}{step.version}" for sign, step in path))

    def _shape_at(self, version: str) -> str | None:
        """Return the version of the highest migration at or below a version."""
        key = version_key(version)
        below = [known for known in self.by_version if version_key(known) <= key]
        return max(below, key=version_key, default=None)

    def _shape_of(
        self, writer: str, shape: str | None, decoder: Decoder[Any], version: str
    ) -> str | None:
        """Return the shape that a version has written. A pre-release may have the shape of its
        release already: the stored hash says so.
        """
        written = parse_version(writer)
        release = str(written.finalize_version())
        if (
            written.prerelease is not None
            and release in self.by_version
            and shape is not None
            and shape in self._shapes_of_release(release, decoder, version)
        ):
            return release
        return self._shape_at(writer)

    def _shapes_of_release(self, release: str, decoder: Decoder[Any], version: str) -> set[str]:
        """Return the hashes that a state of a release may have, as far as they are known."""
        result = self.by_version[release].up.result
        shapes = set[str]() if result.annotation is Any else {result.shape}
        return shapes | {decoder.shape} if self._shape_at(version) == release else shapes

    def _path(self, start: str | None, end: str | None) -> list[tuple[str, Migration]]:
        down, up = self._ancestors(start), self._ancestors(end)
        while down and up and down[-1] == up[-1]:
            down.pop()
            up.pop()
        return [("-", self.by_version[one]) for one in down] + [
            ("", self.by_version[one]) for one in reversed(up)
        ]

    def _ancestors(self, shape: str | None) -> list[str]:
        """Return a shape and those below it, down to the first shape, which is not among them."""
        found: list[str] = []
        while shape is not None:
            found.append(shape)
            shape = self.by_version[shape].after
        return found

    def _run(
        self, direction: str, migration: Migration, state: Payload, info: MigrationInfo
    ) -> Payload:
        what = "down from" if direction else "to"
        subject = f"migration {what} {migration.version} of {self.name!r}"
        step = migration.down if direction else migration.up
        if step is None:
            raise MigrationFailed(
                f"{info.from_version} wrote the state, and {info.to_version} is lower, but the "
                f"{subject} has no `down`; give it one: migrate({self.name!r}, "
                f"{migration.version!r}, up, down)",
                name=self.name,
                step=migration.version,
            )
        try:
            return step.run(state, info, subject)
        except PayloadUnreadable:
            raise  # no migration is at fault
        except DecodeError as error:
            raise MigrationFailed(
                f"the {subject} cannot read the state that {info.from_version} wrote: {error}",
                name=self.name,
                step=migration.version,
                field=error.field,
            ) from error
        except Exception as error:
            raise MigrationFailed(
                f"the {subject} failed: {type(error).__name__}: {error}",
                name=self.name,
                step=migration.version,
                field=getattr(error, "field", "") if isinstance(error, PayloadError) else "",
            ) from error

    def _check(self, state: Payload, decoder: Decoder[Any], info: MigrationInfo) -> None:
        """Check that a state fits the version that opens it, and that no field of it is lost."""
        subject = f"state of {info.instance_id!r}"
        try:
            value = decoder.decode(state, subject=subject)
            field = lost_field(state, decoder, value)
        except PayloadUnreadable:
            raise
        except DecodeError as error:
            raise MigrationFailed(
                f"the state that {info.from_version} wrote does not fit {info.to_version}: "
                f"{error}; {self._remedy(info)}",
                name=self.name,
                step=info.to_version,
                field=error.field,
            ) from error
        if field is not None:
            raise MigrationFailed(
                f"the state that {info.from_version} wrote has the field {field}, which "
                f"{info.to_version} does not know; it is not dropped: {self._remedy(info)}",
                name=self.name,
                step=info.to_version,
                field=field,
            )

    def _remedy(self, info: MigrationInfo) -> str:
        higher, lower = info.to_version, info.from_version
        if version_key(higher) >= version_key(lower):
            return f"add migrate({self.name!r}, {higher!r}, up)"
        return f"add a `down` to the migration of {self.name!r} that {lower} has"

    @property
    def fingerprint(self) -> bytes:
        """A digest of the code of all migrations."""
        parts: list[str] = []
        for version in sorted(self.by_version, key=version_key):
            migration = self.by_version[version]
            parts += [version, str(migration.after), fingerprint(migration.up.function)]
            if migration.down is not None:
                parts.append(fingerprint(migration.down.function))
        return "/".join(parts).encode()


def migrations_of(name: str, declared: list[Declared]) -> Migrations:
    """Return the migrations of one name, in the order in which they were declared.

    Raises:
        RegistrationError: two have one version, one is inserted below another without ``after``, or
            a function is none.
        UnresolvableAnnotation: an annotation names no type that can be found or read.
    """
    known: dict[str, Migration] = {}
    migrations = Migrations(name, known)
    for one in declared:
        parse_version(one.version)
        if any(version_key(other) == version_key(one.version) for other in known):
            raise RegistrationError(
                f"{name!r} has two migrations to {one.version}; a version has one"
            )
        above = [other for other in known if version_key(other) > version_key(one.version)]
        if above and one.after is None:
            lowest = min(above, key=version_key)
            raise RegistrationError(
                f"the migration of {name!r} to {one.version} stands behind that to {lowest}; where "
                "two lines are maintained, say which shape it follows: migrate("
                f"{name!r}, {one.version!r}, up, after='1.0.0'). Else declare it before {lowest}"
            )
        if one.after is not None and version_key(one.after) >= version_key(one.version):
            raise RegistrationError(
                f"the migration of {name!r} to {one.version} cannot follow {one.after}, which is "
                "not lower"
            )
        follows = migrations._shape_at(one.after or one.version)
        up = _step(one, one.up, "up")
        down = None if one.down is None else _step(one, one.down, "down")
        known[one.version] = Migration(one.version, up, down, follows)
    return migrations


def _step(declared: Declared, function: Callable[..., Any], which: str) -> _Step:
    what = f"{which} of the migration of {declared.name!r} to {declared.version}"
    if not callable(function):
        raise RegistrationError(f"{what} is {function!r}; give a plain function")
    if awaits(function):
        raise RegistrationError(
            f"{what} is async; a migration is a plain function without I/O: it may run several "
            "times before one result is committed"
        )
    signature, annotations = typed_signature(function, declared.local_names, untyped=0)
    parameters = list(signature.parameters.values())
    required = [one for one in parameters if one.default is inspect.Parameter.empty]
    if not parameters or len(required) > 2:
        raise RegistrationError(
            f"{what} takes {signature}; write def {which}(state: Old) -> New, or with a second "
            "parameter, info: MigrationInfo"
        )
    return _Step(
        function,
        annotation_decoder(annotations.get(parameters[0].name, Any), f"the state of the {what}"),
        annotation_decoder(annotations.get("return", Any), f"the result of the {what}"),
        takes_info=len(required) == 2
        or (len(parameters) > 1 and annotations.get(parameters[1].name) is MigrationInfo),
    )


def local_names_of(*functions: Any) -> dict[str, Any]:
    """Return the names around the functions of a migration, which their annotations may use."""
    names: dict[str, Any] = {}
    for function in functions:
        if function is not None:
            names |= names_around(function)
    return names
