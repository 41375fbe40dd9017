"""The nodes, and what they can run."""

from __future__ import annotations

import sqlite3

from orchestra.levels import Levels
from orchestra.providers.sqlite import statements as sql
from orchestra.providers.sqlite.kinds import read_kind
from orchestra.providers.sqlite.writer import Transaction
from orchestra.store.catalogue import Catalogue, NodeRow, PolicyRow
from orchestra.store.kinds import Dialect
from orchestra.store.nodes import read_nodes
from orchestra.store.routes import SESSION_QUEUES, Route

__all__ = ["read_catalogue", "read_levels", "stored_nodes"]


def read_catalogue(connection: sqlite3.Connection, now: int, dialect: Dialect) -> Catalogue:
    """Return the catalogue, in one snapshot."""
    connection.execute(sql.BEGIN_READ)
    try:
        return Catalogue(
            now=now,
            nodes=stored_nodes(connection),
            policies={row[0]: PolicyRow(*row) for row in connection.execute(sql.LIST_POLICIES)},
            kinds=tuple(read_kind(row) for row in connection.execute(sql.LIST_KINDS)),
            levels=dialect.heard(_levels(connection)),
            library=dialect.library,
            sessions=_read_sessions(connection),
        )
    finally:
        connection.execute(sql.ROLLBACK)


def stored_nodes(connection: sqlite3.Connection) -> tuple[NodeRow, ...]:
    """Return the nodes that are not dead."""
    return read_nodes(
        connection.execute(sql.LIST_NODES),
        connection.execute(sql.LIST_CAPABILITIES),
        connection.execute(sql.LIST_NODE_ACTIVITIES),
    )


def _read_sessions(connection: sqlite3.Connection) -> tuple[Route, ...]:
    """Return the routes of the sessions that wait for a node. One probe of an index, if none do."""
    found: list[Route] = []
    last, end = (SESSION_QUEUES[0], ""), SESSION_QUEUES[1]
    while (row := connection.execute(sql.NEXT_WAITING_ROUTE, last).fetchone()) is not None:
        if row[0] >= end:
            break
        last = row
        found.append(Route(*row))
    return tuple(found)


def read_levels(transaction: Transaction) -> Levels:
    """Return the levels of the store, and remember them."""
    return transaction.dialect.heard(_levels(transaction.connection))


def _levels(connection: sqlite3.Connection) -> Levels:
    return Levels(*connection.execute(sql.READ_LEVELS).fetchone())
