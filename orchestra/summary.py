"""A summary of what an instance waits for, small enough for its row. Each turn writes it; lists
read it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, NamedTuple

from orchestra.codec import Packed, as_payload, is_sealed, pack_value, unpack, unreadable
from orchestra.events import (
    ActivityScheduled,
    ChildAwaited,
    ChildStarted,
    CommandEvent,
    EventAwaited,
    EventKind,
    RequestAwaited,
    TimerCreated,
    attempts_from_wire,
)
from orchestra.store.tasks import ActivityRow

__all__ = [
    "BOUNDARY_REQUEST",
    "EMPTY_SUMMARY",
    "Summary",
    "Tried",
    "WaitEntry",
    "read_put_backs",
    "read_summary",
    "read_tried",
    "with_texts",
    "write_summary",
]

BOUNDARY_REQUEST: Final = "boundary_request"
"""The kind of a wait for a request to reach the boundary."""

_CAP: Final = 16
_TEXT: Final = 200


class Tried(NamedTuple):
    """An activity's attempts: the number of the current one, when it may begin, and the last
    error.
    """

    attempt: int
    due: int | None
    last_error: str | None


class WaitEntry(NamedTuple):
    """One pending command. Instants are microseconds; ``until`` is set for timers.

    ``child`` is a child's id, and the version that the call named, where this lap has started it.
    """

    kind: str
    name: str
    since: int
    until: int | None
    event_id: int
    tried: Tried | None
    child: tuple[str, str | None] | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """The first 16 pending commands of an instance, and the number of each kind."""

    entries: tuple[WaitEntry, ...]
    counts: Mapping[str, int]


EMPTY_SUMMARY: Final = pack_value({"w": [], "n": {}})


_KINDS: Final[Mapping[int, str]] = {
    EventKind.ACTIVITY_SCHEDULED: "activity",
    EventKind.TIMER_CREATED: "timer",
    EventKind.EVENT_AWAITED: "event",
    EventKind.CHILD_STARTED: "child",
    EventKind.REQUEST_AWAITED: "request",
    EventKind.CHILD_AWAITED: "child",
}

_NAMED: Final = (ActivityScheduled, EventAwaited, ChildStarted, RequestAwaited, ChildAwaited)


def write_summary(
    pending: Iterable[CommandEvent],
    counts: Mapping[int, int],
    tried: Callable[[int], Tried | None],
    put_backs: Sequence[tuple[int, int]] = (),
    boundary_awaited_since: int | None = None,
) -> Packed:
    """Return the stored form of the pending commands; only the first few are read.

    ``boundary_awaited_since``: since when code waits for a request to reach its boundary, which is
    no command.
    ``put_backs``: by how much the store's clock went back since the execution began, and from when
    on it was wrong.
    """
    if counts.get(EventKind.EVENT_SENT) or counts.get(EventKind.CANCEL_SENT):
        # Their receipts come with the write that stores them: no instance rests on them.
        pending = (event for event in pending if event.kind in _KINDS)
        counts = {kind: count for kind, count in counts.items() if kind in _KINDS}
    entries: list[list[Any]] = []
    for event in islice(pending, _CAP):
        name = event.name if isinstance(event, _NAMED) else ""
        until = event.due if isinstance(event, TimerCreated) else None
        known = tried(event.id) if isinstance(event, ActivityScheduled) else None
        shown = (
            None
            if known is None
            else [known.attempt, known.due, known.last_error and known.last_error[:_TEXT]]
        )
        entries.append([_KINDS[event.kind], name, event.at, until, event.id, shown])
        if isinstance(event, ChildStarted):
            entries[-1].append([event.child_id, event.version])
        elif isinstance(event, ChildAwaited):
            entries[-1].append([event.child_id, None])
    numbers = {_KINDS[kind]: count for kind, count in counts.items() if count}
    if counts.get(EventKind.CHILD_AWAITED):  # children of both ways are shown as one kind
        ordinary = counts.get(EventKind.CHILD_STARTED, 0)
        numbers["child"] = counts[EventKind.CHILD_AWAITED] + ordinary
    if boundary_awaited_since is not None:
        numbers[BOUNDARY_REQUEST] = 1
        entries[_CAP - 1 :] = [[BOUNDARY_REQUEST, "", boundary_awaited_since, None, 0, None]]
    summary: dict[str, Any] = {"w": entries, "n": numbers}
    return pack_value({**summary, "b": put_backs} if put_backs else summary)


def read_put_backs(data: bytes) -> tuple[tuple[int, int], ...]:
    """Return how the store's clock went back since the execution began. Nearly always empty, and
    fast.
    """
    if not data.endswith(b"]]}"):
        return ()
    return tuple((by, since) for by, since in unpack(data).get("b", ()))


def read_tried(row: ActivityRow) -> Tried:
    """Return the attempts in a remembered activity's row."""
    if is_sealed(row.attempts):
        error = str(unreadable(as_payload(row.attempts), "its last error"))
        return Tried(row.attempt, row.due, error[:_TEXT])
    known = unpack(row.attempts)
    tries = attempts_from_wire(known["tries"])
    last_error = known.get("unread_error") or (str(tries[-1].error) if tries else None)
    return Tried(row.attempt, row.due, None if last_error is None else last_error[:_TEXT])


def with_texts(data: Packed, convert: Callable[[str], str]) -> Packed:
    """Return a summary with the errors that it quotes converted."""
    if not data.startswith(b"{") or b'"]' not in data:
        return data  # a text ends no list in it
    stored = unpack(data)
    changed = False
    for entry in stored["w"]:
        tried = entry[5]
        if tried is not None and tried[2] is not None:
            tried[2] = convert(tried[2])
            changed = True
    return pack_value(stored) if changed else data


def read_summary(data: bytes) -> Summary:
    """Return the summary that :func:`write_summary` wrote; an empty one before an instance's first
    turn.
    """
    if not data:
        return Summary((), {})
    stored = unpack(data)
    entries = tuple(
        WaitEntry(
            kind,
            name,
            since,
            until,
            event_id,
            None if tried is None else Tried(*tried),
            (child[0][0], child[0][1]) if child else None,
        )
        for kind, name, since, until, event_id, tried, *child in stored["w"]
    )
    return Summary(entries, stored["n"])
