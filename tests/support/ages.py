"""An artificial next library: this one, and of each sort of kinds one more, an event format, and a
step of the schema.

It is made by adding a line to each table and by nothing else: that is all a kind of a real release
needs where it is stored. Each addition means what an older kind means, so that the engine can run
on it as it is. A store in which both libraries work has rows that only one of them can read.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from orchestra.codec import pack, unpack
from orchestra.events import EVENTS, EventForms, EventKind, Wire
from orchestra.levels import Kinds
from orchestra.store.kinds import (
    THIS_LIBRARY,
    ExecutionEnd,
    HoldKind,
    Library,
    MessageKind,
    ResolvedBy,
    Status,
)
from orchestra.versions import Exact, Latest

__all__ = [
    "FIRST_LIBRARY",
    "FORMAT_LIBRARY",
    "LATER_LIBRARY",
    "NEXT_FORMAT",
    "NEXT_LEVEL",
    "NEXT_LIBRARY",
    "SECOND_LIBRARY",
    "STERN_LIBRARY",
]

NEXT_LEVEL: Final = THIS_LIBRARY.level + 1
NEXT_FORMAT: Final = max(THIS_LIBRARY.formats) + 1

_SQLITE: Final = """-- lowest reader: 1
ALTER TABLE instance ADD COLUMN later TEXT;
ALTER TABLE instance_detail ADD COLUMN later INTEGER NOT NULL DEFAULT 7;
ALTER TABLE execution ADD COLUMN later BLOB;
ALTER TABLE event ADD COLUMN later TEXT;
ALTER TABLE message ADD COLUMN later TEXT;
ALTER TABLE activity ADD COLUMN later INTEGER;
ALTER TABLE node ADD COLUMN later TEXT;
ALTER TABLE policy ADD COLUMN later TEXT;
ALTER TABLE kind ADD COLUMN later TEXT;
CREATE TABLE later (thing TEXT NOT NULL PRIMARY KEY) STRICT, WITHOUT ROWID;
"""

_POSTGRES: Final = (
    _SQLITE.replace("TABLE ", "TABLE @")
    .replace("BLOB", "bytea")
    .replace(") STRICT, WITHOUT ROWID", ")")
)


def _pack(envelope: Any) -> bytes:
    return pack({"of": NEXT_FORMAT, "envelope": envelope})


def _unpack(data: bytes) -> Any:
    return unpack(data)["envelope"]


NEXT_LIBRARY: Final = replace(
    THIS_LIBRARY,
    level=NEXT_LEVEL,
    writes=NEXT_LEVEL,
    lowest_readers={**THIS_LIBRARY.lowest_readers, NEXT_LEVEL: THIS_LIBRARY.level},
    events=EventForms(
        {**EVENTS.formats, NEXT_FORMAT: Wire(_pack, _unpack)},
        EVENTS.kinds.adding(41, EventKind.TIMER_FIRED, NEXT_LEVEL),
    ),
    messages=THIS_LIBRARY.messages.adding(9, MessageKind.CHILD_COMPLETED, NEXT_LEVEL),
    holds=THIS_LIBRARY.holds.adding("shape", HoldKind.STATE, NEXT_LEVEL),
    ends=THIS_LIBRARY.ends.adding(9, ExecutionEnd.CANCELLED, NEXT_LEVEL),
    statuses=THIS_LIBRARY.statuses.adding(9, Status.CANCELLED, NEXT_LEVEL),
    resolutions=THIS_LIBRARY.resolutions.adding("choice", ResolvedBy.EXPLICIT, NEXT_LEVEL),
    policies=THIS_LIBRARY.policies.adding("only", Exact, NEXT_LEVEL),
    migrations={"sqlite": (_SQLITE,), "postgres": (_POSTGRES,)},
)
"""The next library. What it writes at its level, this one leaves alone, and both may work on the
store.
"""

STERN_LIBRARY: Final[Library] = replace(
    NEXT_LIBRARY, lowest_readers={**THIS_LIBRARY.lowest_readers, NEXT_LEVEL: NEXT_LEVEL}
)
"""The same, but of a level that rules out older libraries."""

FORMAT_LIBRARY: Final[Library] = replace(
    NEXT_LIBRARY,
    level=THIS_LIBRARY.level,
    writes=THIS_LIBRARY.level,
    events=EventForms(NEXT_LIBRARY.events.formats, EVENTS.kinds),
)
"""This library with the next event format, and nothing else that is new."""

LATER_LIBRARY: Final[Library] = replace(
    FORMAT_LIBRARY,
    events=EventForms({NEXT_FORMAT: NEXT_LIBRARY.events.formats[NEXT_FORMAT]}, EVENTS.kinds),
)
"""One that came after it, and no longer reads the first format."""

FIRST_LIBRARY: Final[Library] = replace(
    THIS_LIBRARY,
    level=1,
    writes=1,
    events=EventForms(
        kinds=Kinds("event", {kind.value: kind for kind in EventKind if kind.value < 25})
    ),
    messages=Kinds("message", {kind.value: kind for kind in MessageKind if kind.value < 5}),
    holds=Kinds("hold", {kind.value: kind for kind in HoldKind if kind.value != "migration"}),
    policies=Kinds("version policy", {"latest": Latest, "exact": Exact}),
)
"""A library of level 1: this one without the kinds of level 2."""

SECOND_LIBRARY: Final[Library] = replace(
    THIS_LIBRARY,
    level=2,
    writes=2,
    events=EventForms(
        kinds=Kinds(
            "event",
            {kind.value: kind for kind in EventKind if kind.value < 28},
            dict.fromkeys((25, 26, 27), 2),
        )
    ),
    messages=FIRST_LIBRARY.messages,
)
"""A library of level 2: this one without the kinds of level 3."""
