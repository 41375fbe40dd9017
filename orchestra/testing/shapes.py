"""Checks of shapes and migrations in a user's tests."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from orchestra.codec import encode
from orchestra.errors import MigrationFailed
from orchestra.registry import OrchestrationRegistry
from orchestra.shapes import compare_shapes, read_baseline
from orchestra.versions import version_key

__all__ = ["check_migrations", "check_shapes"]


def check_shapes(registry: OrchestrationRegistry, path: str | Path) -> None:
    """Check a registry against a committed baseline of shapes.

    Raises:
        AssertionError: a released version has another shape, or a new version has an incompatible
            one and no migration leads there; with each field and its remedy.
        InvalidArgument: the file is no baseline.
        FileNotFoundError: there is none; write it: ``orchestra shapes app:registry --write FILE``.
    """
    found = compare_shapes(registry, read_baseline(Path(path).read_bytes()))
    if found:
        raise AssertionError("\n".join(map(str, found)))


def check_migrations(
    registry: OrchestrationRegistry, states: Iterable[tuple[str, str, Any]]
) -> int:
    """Check that states migrate to each registered version above the one that wrote them. Return
    how many openings were tried.

    Args:
        states: (name, version that wrote it, state): values or plain JSON, from production, say.

    Raises:
        AssertionError: one does not migrate; each is named, with the step and the field.
    """
    failed: list[str] = []
    tried = 0
    for name, writer, state in states:
        payload = encode(state, subject=f"state of {name!r}")
        for version in registry.versions(name):
            if version_key(version) < version_key(writer):
                continue
            tried += 1
            try:
                registry._migrations_of(name).open(
                    payload,
                    writer=writer,
                    writer_shape=None,
                    version=version,
                    decoder=registry.get(name, version).state,
                    instance_id="a test",
                )
            except MigrationFailed as error:
                failed.append(f"{name} {writer} to {version}: {error}")
    if failed:
        raise AssertionError("\n".join(failed))
    return tried
