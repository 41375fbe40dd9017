"""Which executions the state of an execution follows from, and which messages it has read.

An execution follows from the one before it. One that a rewind has begun has the state of a former
one, and follows from what that one follows from. So executions that a rewind has undone are passed
over, until another rewind goes back to one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from orchestra.store.executions import ExecutionRow

__all__ = ["lineage", "read_by"]


def lineage(number: int, begun: Sequence[ExecutionRow], earliest: int) -> set[int]:
    """Return the executions that led to the state of one.

    Args:
        begun: the executions that a start or a rewind has begun, in their order.
        earliest: the first execution whose row is kept. What led to it is not known.
    """
    led: set[int] = set()
    end = number
    while number > earliest:
        before = [row for row in begun if row.number <= number]
        led.update(range(before[-1].number if before else earliest, number))
        if not before or before[-1].rewind is None:
            break
        number = before[-1].rewind.to
    first = min(led, default=number)
    if first == earliest > 1 and all(row.number != earliest for row in begun):
        led.add(earliest - 1)  # its row is gone, and yet it is known: nothing came between
    # What a rewind has undone led to the execution before it, also where its row is gone.
    for row in reversed(begun):
        if row.rewind is not None and (row.number - 1 == end or row.number - 1 in led):
            led.update(
                execution
                for execution, _ in row.rewind.undone
                if execution < min(earliest, row.number - 1)
            )
    return led


def read_by(executions: set[int], begun: Iterable[ExecutionRow]) -> set[int]:
    """Return the messages that these executions have read, of those that a rewind has undone."""
    return {
        sequence
        for row in begun
        if row.rewind is not None
        for execution, sequences in row.rewind.undone
        if execution in executions
        for sequence in sequences
    }
