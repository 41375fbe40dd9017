"""Activities that were handed out: find, take, report, and lose them with their node."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Any

from orchestra.providers.sqlite import statements as sql
from orchestra.store.changes import Claim
from orchestra.store.decoding import read_task
from orchestra.store.instances import LONGEST_DELAY
from orchestra.store.routes import Route
from orchestra.store.tasks import Task

__all__ = ["leave_tasks", "lose_tasks", "next_task", "take_tasks", "taken_by"]


def next_task(connection: sqlite3.Connection, routes: Sequence[Route]) -> int | None:
    """Return since when the oldest untaken activity of these routes waits."""
    if not routes or connection.execute(sql.ANY_WAITING).fetchone() is None:
        return None
    oldest = (connection.execute(sql.FIND_WAITING, (*route, 1)).fetchone() for route in routes)
    return min((row[3] for row in oldest if row is not None), default=None)


def take_tasks(connection: sqlite3.Connection, claim: Claim) -> tuple[Task, ...]:
    """Take activities for a node's free places, one of each route in turn, and return them."""
    # Mostly there is none; nodes with many activities must not query each of them.
    if claim.slots <= 0 or connection.execute(sql.ANY_WAITING).fetchone() is None:
        return ()
    waiting: list[list[tuple[tuple[Any, ...], bool]]] = []
    for route in dict.fromkeys(claim.routes):
        blocks = route in claim.blocking
        rows = connection.execute(
            sql.FIND_WAITING, (*route, min(claim.slots, claim.threads) if blocks else claim.slots)
        )
        waiting.append([(row[:3], blocks) for row in rows])
    keys: list[tuple[Any, ...]] = []
    threads = claim.threads
    for found in chain.from_iterable(zip_longest(*waiting)):
        if found is None or (found[1] and threads <= 0):
            continue
        if len(keys) == claim.slots:
            break
        keys.append(found[0])
        threads -= found[1]
    keys.sort()
    connection.executemany(sql.TAKE_TASK, [(claim.node, *key) for key in keys])
    return tuple(read_task(connection.execute(sql.READ_TASK, key).fetchone()) for key in keys)


def taken_by(connection: sqlite3.Connection, node: str) -> list[Task]:
    """Return the activities that a node has taken and not reported."""
    return [read_task(row) for row in connection.execute(sql.LIST_TASKS, (node,))]


def leave_tasks(connection: sqlite3.Connection, now: int, node: str) -> None:
    """Hand back the activities of a leaving node. Those with a stop mark end."""
    connection.execute(sql.RELEASE_TASKS, (node,))
    _lose(connection, now, connection.execute(sql.FIND_STOPPING_TASKS, (node,)).fetchall())


def lose_tasks(connection: sqlite3.Connection, now: int, limit: int) -> int:
    """Mark activities of lost nodes as lost, those that they had not taken as well, and wake their
    instances. Return how many.
    """
    lost = connection.execute(sql.FIND_LOST_TASKS, (limit,)).fetchall()
    lost += connection.execute(sql.FIND_ABANDONED_TASKS, (limit,)).fetchall()
    _lose(connection, now, lost)
    return len(lost)


def _lose(connection: sqlite3.Connection, now: int, keys: Sequence[tuple[Any, ...]]) -> None:
    for key in keys:
        connection.execute(sql.LOSE_TASK, key)
        latest = now + LONGEST_DELAY
        connection.execute(sql.RING_BY_REPORT, (now, now, latest, now, now, key[0]))
