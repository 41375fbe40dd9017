"""The nodes, and what they can run."""

from __future__ import annotations

from orchestra.levels import Levels
from orchestra.providers.postgres import statements as sql
from orchestra.providers.postgres.calls import Calls
from orchestra.providers.postgres.kinds import read_kind
from orchestra.store.catalogue import Catalogue, PolicyRow
from orchestra.store.kinds import Dialect
from orchestra.store.nodes import read_nodes
from orchestra.store.routes import Route

__all__ = ["read_catalogue"]

_READS = (
    sql.LIST_NODES,
    sql.LIST_CAPABILITIES,
    sql.LIST_NODE_ACTIVITIES,
    sql.LIST_POLICIES,
    sql.LIST_KINDS,
    sql.READ_LEVELS,
    sql.WAITING_SESSIONS,
)


def read_catalogue(calls: Calls, dialect: Dialect) -> Catalogue:
    """Return the catalogue, in one snapshot."""
    time, *rows = calls.read_all(
        [calls.time.read, *((statement, ()) for statement in _READS)], one_moment=True
    )
    nodes, capabilities, activities, policies, kinds, levels, sessions = rows
    return Catalogue(
        now=calls.time.heard(time[0]),
        nodes=read_nodes(nodes, capabilities, activities),
        policies={row[0]: PolicyRow(*row) for row in policies},
        kinds=tuple(read_kind(row[:6]) for row in kinds),
        levels=dialect.heard(Levels(*levels[0])),
        library=dialect.library,
        sessions=tuple(Route(*row) for row in sessions),
    )
