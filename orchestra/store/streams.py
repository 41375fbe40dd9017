"""Streams: what instances and their activities publish for readers (protocol rule 34).

A stream belongs to an instance, over all its laps and lives. Its items stand outside of history.
Offsets are 1..n; the store gives them under the lock of the instance's row. The oldest items are
cut in the write that appends.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from orchestra.clock import micros
from orchestra.codec import Payload
from orchestra.frozen import frozen
from orchestra.retention import StreamRetention

__all__ = [
    "AT_ONCE",
    "JOURNAL",
    "PAGE",
    "STREAM_LEVEL",
    "UNBOUNDED",
    "Bounds",
    "Page",
    "Published",
    "StreamItemRow",
    "StreamPage",
    "StreamRow",
    "bounds_of",
    "is_over",
    "journal_of",
    "last_cut",
]

STREAM_LEVEL: Final = 3
"""The write level of the store from which on streams are written. Older libraries would leave them
behind when they delete an instance.
"""

AT_ONCE: Final = 4_000
"""How many items one write cuts at most."""

SLACK: Final = 8
"""A stream is cut when it is an eighth over one of its bounds, so that few writes pay for it."""


JOURNAL: Final = "orchestra:journal/"
"""The beginning of the names of streams that are journals of activities. Users have no such
streams.
"""


def journal_of(execution: int, event_id: int) -> str:
    """Return the stream in which the steps of an activity stand, until the activity has ended. It
    goes with the activity's row.
    """
    return f"{JOURNAL}{execution}/{event_id}"


class Bounds(NamedTuple):
    """How much of a stream is kept: items, bytes of payloads, and an age in microseconds."""

    items: int | None
    bytes: int | None
    age: int | None


def bounds_of(retention: StreamRetention) -> Bounds:
    """Return the bounds of a retention."""
    age = None if retention.keep_for is None else micros(retention.keep_for)
    return Bounds(retention.items, retention.bytes, age)


UNBOUNDED: Final = Bounds(None, None, None)


@frozen
class Published:
    """A published value. ``event_id`` and ``attempt`` name the activity, if one has published it.

    ``at`` is the writer's store time. ``number`` counts the items of an attempt from 1, over all
    its streams, so that a repeated change stores none twice.
    """

    stream: str
    payload: Payload
    at: int
    execution: int
    event_id: int | None = None
    attempt: int | None = None
    number: int = 0


@frozen
class StreamItemRow:
    """A stored item of a stream."""

    offset: int
    payload: Payload
    at: int
    execution: int
    event_id: int | None = None
    attempt: int | None = None


@frozen
class StreamRow:
    """A stream. ``incarnation`` is the life of the instance in which it began; items before
    ``first_offset`` were cut. ``bytes`` are those of the payloads that are kept.
    """

    name: str
    incarnation: str
    first_offset: int
    last_offset: int
    bytes: int


class StreamPage(NamedTuple):
    """A part of a stream, as of one moment. ``ended``: the instance has ended.

    ``stream`` is ``None`` as long as nothing was published.
    """

    ended: bool
    stream: StreamRow | None
    items: tuple[StreamItemRow, ...]


class Page(NamedTuple):
    """How much one read returns; one item in any case."""

    items: int
    bytes: int


PAGE: Final = Page(500, 1024 * 1024)


def is_over(bounds: Bounds, items: int, size: int, first_at: int, now: int) -> bool:
    """Return whether a stream is to be cut."""
    return (
        (bounds.items is not None and items > bounds.items + bounds.items // SLACK)
        or (bounds.bytes is not None and size > bounds.bytes + bounds.bytes // SLACK)
        or (bounds.age is not None and first_at < now - bounds.age - bounds.age // SLACK)
    )


def last_cut(
    bounds: Bounds, last: int, size: int, now: int, oldest: Iterable[tuple[int, int, int]]
) -> tuple[int, int]:
    """Return the offset up to which a stream is cut, and the bytes that go; ``(0, 0)``: none.

    Args:
        last: its last offset, which stays in any case.
        size: the bytes of all its items.
        oldest: offsets, sizes and times of its oldest items, in order; at most :data:`AT_ONCE`.
            They are read as far as needed.
    """
    cut = gone = passed = 0
    for offset, item_size, at in oldest:
        if offset == last:
            break
        goes = (
            (bounds.items is not None and offset <= last - bounds.items)
            or (bounds.bytes is not None and size - passed > bounds.bytes)
            or (bounds.age is not None and at < now - bounds.age)
        )
        if not goes and bounds.age is None:
            break  # none behind it goes; by their age some may, for clocks of nodes differ
        passed += item_size
        if goes:
            cut, gone = offset, passed
    return cut, gone
