"""Registries and pipelines that commands name, and the baselines of shapes."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TypeVar

from orchestra.errors import InvalidArgument
from orchestra.payloads import Pipeline
from orchestra.registry import OrchestrationRegistry
from orchestra.shapes import ShapeFinding, baseline_of, compare_shapes, read_baseline

__all__ = [
    "check_baseline",
    "load_pipeline",
    "load_registry",
    "write_baseline",
]

T = TypeVar("T")


def load_registry(place: str) -> OrchestrationRegistry:
    """Return the registry at ``package.module:attribute``, imported from the working directory.

    Raises:
        InvalidArgument: there is none at this place.
    """
    return _load(place, OrchestrationRegistry, "registry")


def load_pipeline(place: str) -> Pipeline:
    """Return the pipeline at ``package.module:attribute``, imported from the working directory.

    Raises:
        InvalidArgument: there is none at this place.
    """
    return _load(place, Pipeline, "pipeline")


def _load(place: str, kind: type[T], what: str) -> T:
    module, _, attribute = place.partition(":")
    if not module or not attribute:
        raise InvalidArgument(f"{place!r} names no {what}; write package.module:attribute")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: object = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:
        # The module is the user's program, and may raise anything as it is imported.
        raise InvalidArgument(
            f"{place!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(found, kind):
        raise InvalidArgument(f"{place!r} is {type(found).__name__}, and no {what}")
    return found


def write_baseline(registry: OrchestrationRegistry, path: Path) -> None:
    """Write the baseline of shapes, and keep versions that are in it already and were retired.

    Raises:
        InvalidArgument: the file is there, and is no baseline.
        OSError: it cannot be written.
    """
    earlier = read_baseline(path.read_bytes()) if path.exists() else None
    path.write_bytes(baseline_of(registry, earlier))


def check_baseline(registry: OrchestrationRegistry, path: Path) -> tuple[ShapeFinding, ...]:
    """Return what of a registry would break state that versions of the baseline have written.

    Raises:
        InvalidArgument: the file is no baseline.
        OSError: it cannot be read.
    """
    return compare_shapes(registry, read_baseline(path.read_bytes()))
