"""Which kinds of instances drift, and which routes of activities no living node offers."""

from __future__ import annotations

from collections.abc import Iterable

from orchestra.operations.holds import why_unserved
from orchestra.resolution import boundary_version
from orchestra.store.catalogue import Catalogue
from orchestra.store.queries import Target
from orchestra.store.routes import Kind, Route

__all__ = ["drifting", "leading_to", "unserved_routes"]


def leading_to(version: str, catalogue: Catalogue) -> Target:
    """Return the condition that an instance takes a version at its next boundary."""
    kinds = tuple(kind for kind in catalogue.kinds if _next_version(kind, catalogue) == version)
    return Target(kinds, version)


def drifting(catalogue: Catalogue, *, wanted: bool) -> Target:
    """Return the condition that an instance takes another version at its next boundary, or its
    opposite.
    """
    kinds = (kind for kind in catalogue.kinds if _next_version(kind, catalogue) != kind.version)
    return Target(tuple(kinds), wanted=wanted)


def unserved_routes(routes: Iterable[Route], catalogue: Catalogue) -> tuple[Route, ...]:
    """Return those of some routes by which no living node takes an activity."""
    return tuple(route for route in routes if why_unserved(route, catalogue) is not None)


def _next_version(kind: Kind, catalogue: Catalogue) -> str:
    return boundary_version(catalogue, kind, kind.version, explicit=None, pin=None, node="")[0]
