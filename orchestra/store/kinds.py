"""The kinds of rows, the tables of their stored forms, and what a library reads and writes.

To add a kind: add a member to its enumeration, add a line to its table in which its level is the
next one, and raise :data:`THIS_LIBRARY`'s level to it. Nodes then read the kind at once, and write
it when the store's write level has risen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final

from orchestra.errors import LibraryTooOld
from orchestra.events import EVENTS, EventForms
from orchestra.levels import BASE_LEVEL, Forms, Kinds, Levels, Stored
from orchestra.versions import POLICIES, Policies

__all__ = [
    "CONTROL_LEVEL",
    "DELAYED_START_LEVEL",
    "NUDGE_LEVEL",
    "REQUEST_LEVEL",
    "SCHEDULE_LEVEL",
    "SESSION_LEVEL",
    "SET_ASIDE_LEVEL",
    "THIS_LIBRARY",
    "Dialect",
    "ExecutionEnd",
    "HoldKind",
    "Library",
    "MessageKind",
    "ResolvedBy",
    "Status",
]


class Status(IntEnum):
    """The status of an instance. ``OPEN`` until its last execution has ended (I4)."""

    OPEN = 0
    COMPLETED = 1
    FAILED = 2
    CANCELLED = 3
    TERMINATED = 4


class ExecutionEnd(IntEnum):
    """How one execution ended. The first four mean the same as in :class:`Status`."""

    COMPLETED = 1
    FAILED = 2
    CANCELLED = 3
    TERMINATED = 4
    CONTINUED_AS_NEW = 5
    REWOUND = 6
    """An operator ended it and began a former one again."""


class ResolvedBy(StrEnum):
    """Who chose the version of an execution."""

    POLICY = "policy"
    EXPLICIT = "explicit"
    PIN = "pin"
    REWIND = "rewind"
    """The operator who rewound the instance, and did not pin it."""


class HoldKind(StrEnum):
    """Why an instance cannot go on without an outside change."""

    ERROR = "error"
    """Its code raised an exception that is no declared failure."""
    LIMIT = "limit"
    """Its execution is over its limits."""
    NONDETERMINISM = "nondeterminism"
    HISTORY = "history"
    STATE = "state"
    """A stored value does not decode: its state, or a message."""
    MIGRATION = "migration"
    """Its state does not migrate to the version that opens it, or does not fit it."""
    PAYLOAD = "payload"
    """A sealed value does not open: a key is missing, or it was changed or moved."""
    STORE = "store"
    INTERNAL = "internal"
    OPERATOR = "operator"
    """An operator has paused it, or the boundary that was due has."""
    VERSION_MISSING = "version_missing"
    """No living node has its version, or reads its history. Derived, never stored (rule 5)."""
    CRASHING = "crashing"
    """Nodes were lost while they ran it, several in a row. Derived, never stored."""
    ACTIVITY_MISSING = "activity_missing"
    """It waits for an activity that no living node takes. Derived, never stored."""

    @property
    def blames_code(self) -> bool:
        """Whether the instance's code is the cause, not the store or the engine."""
        return self not in {
            self.PAYLOAD,
            self.STORE,
            self.INTERNAL,
            self.OPERATOR,
            self.VERSION_MISSING,
            self.CRASHING,
            self.ACTIVITY_MISSING,
        }


class MessageKind(IntEnum):
    """The kind of a message: an event, the end of a child, a request, or the receipt of a send.

    Ends of children are those of :class:`Status`. Such an end, and a receipt, belongs to one
    execution: it is stored only while that is open, and deleted with it. The end of a background
    child belongs to one life of its instance.
    """

    EVENT = 0
    CHILD_COMPLETED = 1
    CHILD_FAILED = 2
    CHILD_CANCELLED = 3
    CHILD_TERMINATED = 4
    REQUEST = 5
    """A request: it stays in the inbox until it is answered, also while code has it in hand."""
    SEND_DELIVERED = 6
    """What the instance has sent to another one is stored there."""
    SEND_REFUSED = 7
    """It was refused, and why."""
    BACKGROUND_CHILD_ENDED = 8
    """A background child has ended. It belongs to the instance, and crosses boundaries."""


RECEIPTS: Final = (MessageKind.SEND_DELIVERED, MessageKind.SEND_REFUSED)
"""The receipts of what an instance has sent to others."""

REPORTS: Final = (
    MessageKind.CHILD_COMPLETED,
    MessageKind.CHILD_FAILED,
    MessageKind.CHILD_CANCELLED,
    MessageKind.CHILD_TERMINATED,
    *RECEIPTS,
)
"""What answers commands of an execution. It is deleted with the execution that has asked."""


_MESSAGES: Final = Kinds(
    "message", {kind.value: kind for kind in MessageKind}, {5: 3, 6: 3, 7: 3, 8: 3}
)
_HOLDS: Final = Kinds(
    "hold",
    {kind.value: kind for kind in HoldKind},
    {
        "migration": 2,
        "operator": 2,
        "version_missing": 2,
        "crashing": 2,
        "activity_missing": 2,
        "payload": 3,
    },
)
_ENDS: Final = Kinds("end of an execution", {kind.value: kind for kind in ExecutionEnd}, {6: 2})
_RESOLUTIONS: Final = Kinds("resolution", {kind.value: kind for kind in ResolvedBy}, {"rewind": 2})
_STATUSES: Final = Kinds("status", {kind.value: kind for kind in Status})


@dataclass(frozen=True, slots=True, eq=False)
class Library:
    """What a library reads and writes. Libraries of different ages may share a store.

    ``level`` is the highest level of its kinds. ``writes`` is the level to which it raises the
    store's write level: its own, unless the release only learns to read. ``lowest_readers`` says
    for each write level which libraries may still work on the store: those that leave unknown kinds
    alone. ``migrations`` are further steps of the schema, by provider; tests use them to make a
    newer schema.
    """

    level: int = BASE_LEVEL
    writes: int = BASE_LEVEL
    lowest_readers: Mapping[int, int] = field(default_factory=lambda: {BASE_LEVEL: BASE_LEVEL})
    events: EventForms = EVENTS
    messages: Kinds[MessageKind] = _MESSAGES
    holds: Kinds[HoldKind] = _HOLDS
    ends: Kinds[ExecutionEnd] = _ENDS
    resolutions: Kinds[ResolvedBy] = _RESOLUTIONS
    statuses: Kinds[Status] = _STATUSES
    policies: Policies = POLICIES
    migrations: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])

    @property
    def formats(self) -> tuple[int, ...]:
        """The event formats that it can continue."""
        return tuple(sorted(self.events.formats))

    def target(self, level: int) -> Levels:
        """Return the levels of a store that is written at a level."""
        return Levels(level, self.lowest_readers[level])

    def require(self, levels: Levels, store: str) -> None:
        """Check that it may work on a store.

        Raises:
            LibraryTooOld: this library is too old for the store.
        """
        if levels.lowest_reader > self.level:
            raise LibraryTooOld(
                f"{store} is written at level {levels.write} and needs a library that reads "
                f"level {levels.lowest_reader}; this one reads up to level {self.level}. "
                "Upgrade the library here, as it was upgraded elsewhere.",
                level=self.level,
                lowest_reader=levels.lowest_reader,
            )


THIS_LIBRARY: Final = Library(level=3, writes=3, lowest_readers={1: 1, 2: 2, 3: 3})
"""This library. Level 2 brings the holds for a state that does not migrate, and what operators
control: a library that knows nothing of their holds would release them. Level 3 brings requests,
streams, schedules, what instances send each other, and background children: an older library would
leave their rows behind when it deletes an instance.
"""


SET_ASIDE_LEVEL: Final = 2
"""The write level of the store from which on messages are set aside. Older libraries would leave
them behind when they delete an instance.
"""

DELAYED_START_LEVEL: Final = 2
"""The level that a library must read to run a delayed start: an older one would not wait."""


CONTROL_LEVEL: Final = 2
"""The level that a library must read to respect an operator's hold and a rewind."""


NUDGE_LEVEL: Final = 2
"""The level that a library must read to hear a nudge, and to know when a boundary is due."""


REQUEST_LEVEL: Final = 3
"""The write level of the store from which on requests are sent and awaited."""


SCHEDULE_LEVEL: Final = 3
"""The write level of the store from which on it has schedules, and nodes tick them."""


SESSION_LEVEL: Final = 3
"""The write level of the store from which on sessions get a node. An older library would hand out
again what was lost with a session's node.
"""


class Dialect:
    """How one provider reads and writes kinds: its library's kinds, at the last known write level
    of the store.

    A store's level never goes down, so an old value is at worst too low.
    """

    def __init__(self, library: Library) -> None:
        self.library: Library = library
        self.levels: Levels = Levels()
        self._set(Levels())

    def heard(self, levels: Levels) -> Levels:
        """Remember the store's levels, and return them."""
        if levels != self.levels:
            self._set(levels)
        return levels

    def forget(self) -> None:
        """Forget the levels: the store may be another one now, such as a restored backup."""
        self._set(Levels())

    def _set(self, levels: Levels) -> None:
        library, level = self.library, min(levels.write, self.library.level)
        self.messages: Forms[MessageKind] = library.messages.at(level)
        self.holds: Forms[HoldKind] = library.holds.at(level)
        self.ends: Forms[ExecutionEnd] = library.ends.at(level)
        self.resolutions: Forms[ResolvedBy] = library.resolutions.at(level)
        self.statuses: Forms[Status] = library.statuses.at(level)
        self.reports: tuple[Stored, ...] = library.messages.forms(*REPORTS)
        """The stored kinds that are ends of children, or receipts."""
        self.levels = levels

    def statuses_of(self, statuses: Iterable[Status]) -> tuple[Stored, ...]:
        """Return every stored form of some statuses."""
        return self.library.statuses.forms(*statuses)
