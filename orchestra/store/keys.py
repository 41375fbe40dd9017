"""Which keys stored values need, and what is stored outside: facts of the headers of sealed values.

A :class:`Source` is a column with sealed values. For each there is an index of the sealed ones
alone, by key and instance. Each costs every write a little, so a store has them only once a
pipeline has opened it. The sources are the same in every store; a provider writes its own
statements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from orchestra.codec.sealed import LONGEST_KEY_ID

__all__ = ["SOURCES", "KeyUse", "Needs", "Source", "key_uses"]

Needs = Literal["open", "lap", "lives", "kept"]
"""Whether code of an instance must read a value: as long as the instance is open (``open``); as
long as its lap goes on (``lap``); always (``lives``); or never, as people alone read it (``kept``).
"""


@dataclass(frozen=True, slots=True)
class Source:
    """A column whose values may be sealed. ``is_open_lap`` restricts it to laps that are open, or
    that are closed. ``encoding`` is the column with the value's encoding number, if there is one.
    """

    table: str
    column: str
    needs: Needs
    id: str = "instance_id"
    is_open_lap: bool | None = None
    encoding: str | None = None

    @property
    def name(self) -> str:
        """The name of its index."""
        lap = {None: "", True: "_open", False: "_closed"}[self.is_open_lap]
        return f"key_{self.table}_{self.column}{lap}"


SOURCES: Final = (
    Source("execution", "state", "lives", is_open_lap=True, encoding="state_encoding"),
    Source("message", "payload", "open", encoding="encoding"),
    Source("activity", "attempts", "open"),
    Source("activity", "heartbeat", "open", encoding="heartbeat_encoding"),
    Source("activity", "result", "open", encoding="result_encoding"),
    Source("activity", "failure", "open"),
    Source("schedule", "value", "lives", "schedule_id", encoding="value_encoding"),
    Source("event", "payload", "lap", encoding="encoding"),
    Source("event", "envelope", "lap"),
    Source("execution", "state", "kept", is_open_lap=False, encoding="state_encoding"),
    Source("execution", "output", "kept", encoding="output_encoding"),
    Source("execution", "error", "kept"),
    Source("instance_detail", "custom_status", "kept", encoding="custom_status_encoding"),
    Source("set_aside", "payload", "kept", encoding="encoding"),
    Source("request", "answer", "kept", encoding="answer_encoding"),
    Source("stream_item", "payload", "kept", encoding="encoding"),
)
"""All columns with sealed values, but for texts and for the errors of holds: people alone read
those, and what does not open of them is shown as it is.
"""


@dataclass(frozen=True, slots=True)
class KeyUse:
    """The instances, or schedules, that have values in one source under one key.

    ``ids`` are the first ones in their order, each with whether its code must read such a value.
    ``more``: there are others.
    """

    key_id: str
    source: Source
    ids: tuple[tuple[str, bool], ...]
    more: bool


def key_uses(
    statements: Iterable[tuple[Source, str, str]],
    limit: int,
    read: Callable[..., Sequence[tuple[Any, ...]]],
) -> list[KeyUse]:
    """Return which instances need which keys.

    Args:
        statements: for each source the statement of the key behind one, and the statement of the
            first so many ids with a key.
        limit: how many ids of each key and source are told.
        read: runs a statement with its values.
    """
    found: list[KeyUse] = []
    for source, next_key, ids in statements:
        key = b""
        while rows := read(next_key, key):
            key = bytes(rows[0][0])
            if not key.strip(b"\0"):
                continue  # compressed, and not encrypted
            having = read(ids, key, limit + 1)
            told = tuple((one, bool(needed)) for one, needed in having[:limit])
            name = key[:LONGEST_KEY_ID].rstrip(b"\0").decode("ascii", "replace")
            found.append(KeyUse(name, source, told, len(having) > limit))
    return found
