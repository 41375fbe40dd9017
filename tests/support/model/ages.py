"""Kinds in the model: it keeps each as it is stored, and reads it as the library of the provider
that asks.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import TypeVar

from orchestra.levels import Kinds, Stored, Unknown
from orchestra.store.executions import ExecutionRow, Resolution
from orchestra.store.instances import Hold, InstanceRow
from orchestra.store.kinds import Dialect
from orchestra.store.messages import MessageRow

K = TypeVar("K", bound=Enum)


def as_stored(kind: K, stored: Stored) -> K | Unknown:
    """Return a kind as the model keeps it: one that is not stored by its own value as nobody knows
    it.
    """
    return kind if kind.value == stored else Unknown("", stored)


def stored_form(kind: Enum | Unknown) -> Stored:
    """Return how a kind that the model keeps is stored."""
    return kind.stored if isinstance(kind, Unknown) else kind.value


def read(kind: K | Unknown, kinds: Kinds[K]) -> K | Unknown:
    """Return a kind that the model keeps as a library reads it."""
    return kinds.read(stored_form(kind))


def read_message(message: MessageRow, dialect: Dialect) -> MessageRow:
    return replace(message, kind=read(message.kind, dialect.library.messages))


def read_hold(hold: Hold | None, dialect: Dialect) -> Hold | None:
    return None if hold is None else replace(hold, kind=read(hold.kind, dialect.library.holds))


def read_row(row: InstanceRow, dialect: Dialect) -> InstanceRow:
    return replace(row, hold=read_hold(row.hold, dialect))


def read_execution(row: ExecutionRow, dialect: Dialect) -> ExecutionRow:
    how = read(row.resolution.how, dialect.library.resolutions)
    end = None if row.end is None else read(row.end, dialect.library.ends)
    return replace(row, resolution=replace(row.resolution, how=how), end=end)


def write_resolution(resolution: Resolution, dialect: Dialect) -> Resolution:
    assert not isinstance(resolution.how, Unknown)
    return replace(resolution, how=as_stored(resolution.how, dialect.resolutions[resolution.how]))


def write_execution(row: ExecutionRow, dialect: Dialect) -> ExecutionRow:
    return replace(row, resolution=write_resolution(row.resolution, dialect))


def write_hold(hold: Hold | None, dialect: Dialect) -> Hold | None:
    if hold is None:
        return None
    assert not isinstance(hold.kind, Unknown)
    return replace(hold, kind=as_stored(hold.kind, dialect.holds[hold.kind]))
