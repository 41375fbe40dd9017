"""The row of an instance and its parts: its parent, its pin, its hold, its cancellation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from orchestra.codec import Packed, UserText
from orchestra.frozen import frozen
from orchestra.levels import Unknown
from orchestra.store.kinds import HoldKind, Status
from orchestra.store.routes import Kind

__all__ = [
    "BEFORE_ALL_HELD",
    "CRASHES_BEFORE_DELAY",
    "HELD_PER_PAGE",
    "LONGEST_DELAY",
    "PARENT_CLOSED",
    "CancelMark",
    "HeldPage",
    "HeldRow",
    "Hold",
    "InstanceRow",
    "InstanceState",
    "Nudge",
    "OperatorHold",
    "ParentLink",
    "Pin",
    "hold_in_force",
    "hold_text",
    "shown_hold",
]

CRASHES_BEFORE_DELAY: Final = 3
"""The number of owners' crashes from which on each claim of an instance is delayed (protocol rule
14).
"""


LONGEST_DELAY: Final = 300_000_000
"""The longest delay, in microseconds. A message shortens a longer wait to this."""


@dataclass(frozen=True, slots=True)
class CancelMark:
    """The cancel mark of an instance. It stays over boundaries. ``terminate``: the next owner ends
    the instance without running code.
    """

    at: int
    reason: UserText
    by: str
    terminate: bool = False


PARENT_CLOSED: Final = UserText("its parent's execution has closed")
"""The reason of the mark that ``on_parent_close`` puts on a child; its author is the parent's
id.
"""


@dataclass(frozen=True, slots=True)
class ParentLink:
    """The parent of an instance: its id, its life, and the execution and the event that started the
    child.
    """

    instance_id: str
    incarnation: str
    execution: int
    event_id: int

    def __str__(self) -> str:
        return f"{self.instance_id}/{self.incarnation}/{self.execution}/{self.event_id}"


@dataclass(frozen=True, slots=True)
class Pin:
    """An operator's pin to a version, from the next boundary on, or up to a time. ``at`` is the
    time of the pin, on the store's clock.
    """

    version: str
    at: int
    by: str
    reason: UserText
    until: int | None = None

    def holds(self, now: int) -> bool:
        """Return whether it counts at a time."""
        return self.until is None or now < self.until


@dataclass(frozen=True, slots=True)
class OperatorHold:
    """A hold that an operator, or a boundary that was due, has put on an instance. Only a release
    ends it (rule 32).
    """

    since: int
    by: str
    reason: UserText


@dataclass(frozen=True, slots=True)
class Nudge:
    """An operator's wish that an execution reaches its boundary soon. It means this execution
    alone (rule 40).
    """

    execution: int
    at: int
    by: str
    reason: UserText


@dataclass(frozen=True, slots=True)
class Hold:
    """An instance is held. ``tried`` are the code fingerprints that could not go on with it.

    ``at_fault`` are those whose code was to blame: they stay tried, whatever holds the instance
    next. The others failed because of the store or the engine. They are tried once more after code
    that was to blame (rule 5). ``error`` is the exception that the code raised, if that holds it.
    """

    kind: HoldKind | Unknown
    detail: UserText
    since: int
    by: str
    tried: tuple[str, ...] = ()
    at_fault: tuple[str, ...] = ()
    error: Packed | None = None


def hold_in_force(
    hold: Hold | None, operator_hold: OperatorHold | None, *, paused: bool
) -> Hold | None:
    """Return what holds a held instance: the operator, if he does, or else the stored hold."""
    if paused and operator_hold is not None:
        return Hold(HoldKind.OPERATOR, operator_hold.reason, operator_hold.since, operator_hold.by)
    return hold


def shown_hold(hold: Hold) -> str:
    """Return the kind of a hold, for people."""
    return str(hold.kind) if isinstance(hold.kind, Unknown) else hold.kind.value


def hold_text(hold: Hold) -> str:
    """Return a hold as a text: its kind and its detail. The detail alone says which version or
    activity is missing.
    """
    return hold.detail if hold.kind in _SAY_ENOUGH else f"{shown_hold(hold)}: {hold.detail}"


_SAY_ENOUGH: Final = {HoldKind.VERSION_MISSING, HoldKind.ACTIVITY_MISSING}


@frozen
class InstanceRow:
    """The hot columns that an owner needs. ``traceparent`` is the trace of the start.

    ``paused``: the ``operator_hold`` is in force; otherwise it is a former one, or there is none.
    ``boundary_due`` is when the current execution should have reached its boundary. ``not_before``
    is when the first turn of a delayed start may run.
    """

    instance_id: str
    incarnation: str
    kind: Kind
    revision: int
    owner: str | None
    wake_at: int | None
    inbox_seq: int
    seen_seq: int
    execution: int
    opened: bool
    takeovers: int
    history_events: int
    history_bytes: int
    cancel: CancelMark | None = None
    pin: Pin | None = None
    hold: Hold | None = None
    traceparent: str | None = None
    parent: ParentLink | None = None
    root_id: str | None = None
    paused: bool = False
    boundary_due: int | None = None
    not_before: int | None = None
    operator_hold: OperatorHold | None = None
    nudge: Nudge | None = None


@frozen
class InstanceState:
    """The hot columns as a write leaves them. ``owner=None`` releases the instance.

    ``wake_at`` is stored as 0 if a message newer than ``seen_seq`` has arrived (protocol rule 4).
    """

    kind: Kind
    owner: str | None
    wake_at: int | None
    seen_seq: int
    execution: int
    opened: bool
    takeovers: int
    status: Status
    history_events: int
    history_bytes: int
    summary: Packed
    boundary_due: int | None = None


@dataclass(frozen=True, slots=True)
class HeldRow:
    """A stored hold, or an operator's, with the facts that decide whether new code may try
    again.
    """

    instance_id: str
    incarnation: str
    revision: int
    kind: Kind
    hold: Hold


HELD_PER_PAGE: Final = 1_000
"""How many held instances a page looks at."""


BEFORE_ALL_HELD: Final = (-1, "")
"""The place before the first held instance: when it was created, and its id."""


@dataclass(frozen=True, slots=True)
class HeldPage:
    """Some of the stored holds, in the order in which their instances were created."""

    rows: tuple[HeldRow, ...]
    after: tuple[int, str] | None
    """After which instance the next page begins, by when it was created and its id; ``None``: this
    is the last page.
    """
