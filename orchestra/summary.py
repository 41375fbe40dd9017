"""What an instance waits for, small enough to stand in its row: written with each turn, read by lists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from orchestra.codec import pack, unpack
from orchestra.events import ActivityScheduled, CommandEvent, EventAwaited, TimerCreated

__all__ = ["EMPTY_SUMMARY", "Summary", "Tried", "WaitEntry", "read_summary", "write_summary"]

_CAP: Final = 16
_TEXT: Final = 200


class Tried(NamedTuple):
    """What is known of an activity's tries: the number of the current one, when it may begin, and the last error."""

    attempt: int
    due: int | None
    last_error: str | None


class WaitEntry(NamedTuple):
    """One thing that is waited for. Instants are microseconds; ``until`` is set for timers."""

    kind: str
    name: str
    since: int
    until: int | None
    event_id: int
    tried: Tried | None


@dataclass(frozen=True, slots=True)
class Summary:
    """The first 16 things that an instance waits for, and how many there are of each kind."""

    entries: tuple[WaitEntry, ...]
    counts: Mapping[str, int]


EMPTY_SUMMARY: Final = pack({"w": [], "n": {}})


def write_summary(pending: Iterable[CommandEvent], tried: Mapping[int, Tried]) -> bytes:
    """Return the stored form of what is pending."""
    entries: list[list[Any]] = []
    counts: dict[str, int] = {}
    for event in pending:
        match event:
            case ActivityScheduled():
                kind, name, until = "activity", event.name, None
            case TimerCreated():
                kind, name, until = "timer", "", event.due
            case EventAwaited():
                kind, name, until = "event", event.name, None
            case _:
                continue
        counts[kind] = counts.get(kind, 0) + 1
        if len(entries) < _CAP:
            known = tried.get(event.id) if kind == "activity" else None
            shown = None if known is None else [known.attempt, known.due, known.last_error and known.last_error[:_TEXT]]
            entries.append([kind, name, event.at, until, event.id, shown])
    return pack({"w": entries, "n": counts})


def read_summary(data: bytes) -> Summary:
    """Return what :func:`write_summary` wrote; an empty summary before an instance's first turn, where nothing was written."""
    if not data:
        return Summary((), {})
    stored = unpack(data)
    entries = tuple(
        WaitEntry(kind, name, since, until, event_id, None if tried is None else Tried(*tried))
        for kind, name, since, until, event_id, tried in stored["w"]
    )
    return Summary(entries, stored["n"])
