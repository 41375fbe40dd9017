"""The row of an instance and what stands in it: its parent, its pin, its hold, its cancellation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from orchestra.codec import Packed, UserText
from orchestra.frozen import frozen
from orchestra.levels import Unknown
from orchestra.store.kinds import HoldKind, Status
from orchestra.store.routes import Kind

__all__ = [
    "CRASHES_BEFORE_DELAY",
    "LONGEST_DELAY",
    "PARENT_CLOSED",
    "CancelMark",
    "HeldRow",
    "Hold",
    "InstanceRow",
    "InstanceState",
    "ParentLink",
    "Pin",
    "shown_hold",
]

CRASHES_BEFORE_DELAY: Final = 3
"""From how many crashes of its owners on an instance is claimed only after a delay (protocol rule
14).
"""


LONGEST_DELAY: Final = 300_000_000
"""How long it waits then at most, in microseconds; a message shortens a longer wait to this."""


@dataclass(frozen=True, slots=True)
class CancelMark:
    """An instance is to be cancelled. It stays over boundaries. ``terminate``: its next owner ends
    it without running code.
    """

    at: int
    reason: UserText
    by: str
    terminate: bool = False


PARENT_CLOSED: Final = UserText("its parent's execution has closed")
"""The reason of a mark that a child gets for its ``on_parent_close``; who set it is the parent's
id.
"""


@dataclass(frozen=True, slots=True)
class ParentLink:
    """Whose child an instance is: the parent's id, its life, the execution and the event that asked
    for the child.
    """

    instance_id: str
    incarnation: str
    execution: int
    event_id: int

    def __str__(self) -> str:
        return f"{self.instance_id}/{self.incarnation}/{self.execution}/{self.event_id}"


@dataclass(frozen=True, slots=True)
class Pin:
    """An operator has tied the instance to a version, from its next boundary on; ``at`` is when, on
    the store's clock.
    """

    version: str
    at: int
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Hold:
    """An instance is held. ``tried`` are the code fingerprints that could not go on with it.

    ``at_fault`` are those of them whose code was to blame: they stay tried whatever holds the
    instance next. The others, which the store or the engine failed, are tried once more after code
    that is to blame (rule 5). ``error`` is what the code has raised, where that holds it.
    """

    kind: HoldKind | Unknown
    detail: UserText
    since: int
    by: str
    tried: tuple[str, ...] = ()
    at_fault: tuple[str, ...] = ()
    error: Packed | None = None


def shown_hold(hold: Hold) -> str:
    """Return the kind of a hold, for people."""
    return str(hold.kind) if isinstance(hold.kind, Unknown) else hold.kind.value


@frozen
class InstanceRow:
    """What an owner must know of an instance to go on with it. ``traceparent`` is that of whoever
    started it.
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


@frozen
class InstanceState:
    """The hot columns as a write leaves them. ``owner=None`` releases the instance.

    ``wake_at`` is stored as 0 where a message newer than ``seen_seq`` has arrived (protocol rule
    4).
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


@dataclass(frozen=True, slots=True)
class HeldRow:
    """A stored hold, with what is needed to judge whether new code may try again."""

    instance_id: str
    incarnation: str
    revision: int
    kind: Kind
    hold: Hold
