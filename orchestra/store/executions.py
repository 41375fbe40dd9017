"""The rows of executions, what a write adds to one, and how ended ones are removed."""

from __future__ import annotations

from typing import Final

from orchestra.codec import Packed, Payload
from orchestra.events import EventRecord
from orchestra.frozen import frozen
from orchestra.levels import Unknown
from orchestra.store.kinds import ExecutionEnd, ResolvedBy

__all__ = [
    "PRUNED_AT_ONCE",
    "Closing",
    "ExecutionDelta",
    "ExecutionRow",
    "Opening",
    "Prune",
    "Resolution",
    "Retargeting",
]


@frozen
class Resolution:
    """How a version was chosen, by which node, and under which revision of the policy."""

    how: ResolvedBy | Unknown
    by: str
    policy_revision: int


@frozen
class ExecutionRow:
    """One execution. ``state`` is its raw input; ``state_version`` the version that wrote it.

    What a client or a parent starts is written by the version that was chosen then. ``state_shape``
    is the hash of that version's input type, where the writer had its code. Both are ``None`` where
    an older library wrote the row.

    ``traceparent`` is the trace of an opened execution, and of the one before while it is not
    opened.
    """

    number: int
    name: str
    version: str
    resolution: Resolution
    state: Payload
    state_version: str | None
    created_at: int
    format: int | None = None
    fingerprint: str | None = None
    opened_at: int | None = None
    closed_at: int | None = None
    end: ExecutionEnd | Unknown | None = None
    output: Payload | None = None
    error: Packed | None = None
    events: int = 0
    bytes: int = 0
    traceparent: str | None = None
    state_shape: str | None = None

    def opened(
        self, version: str, resolution: Resolution, event_format: int, fingerprint: str, at: int
    ) -> ExecutionRow:
        """Return the row of an execution that waited to be opened, as it is once it was.
        ``replace`` takes thrice as long.
        """
        return ExecutionRow(
            self.number,
            self.name,
            version,
            resolution,
            self.state,
            self.state_version,
            self.created_at,
            event_format,
            fingerprint,
            at,
            traceparent=self.traceparent,
            state_shape=self.state_shape,
        )


@frozen
class Opening:
    """An execution is opened: its first turn has run, on this version and code."""

    at: int
    version: str
    fingerprint: str
    format: int
    resolution: Resolution


@frozen
class Retargeting:
    """An execution that is not opened yet will open on another version."""

    version: str
    resolution: Resolution


@frozen
class Closing:
    """An execution ends. ``error`` is the stored form of what it has failed with."""

    at: int
    end: ExecutionEnd
    output: Payload | None = None
    error: Packed | None = None


@frozen
class ExecutionDelta:
    """What a write does to one execution. ``create`` makes its row; it is opened and closed at most
    once.

    ``traceparent`` is stored with an opening and with a retargeting. A closing delta carries the
    execution's final counts of events and bytes. ``children``: the execution has started some, so
    the store looks for those that its end concerns.
    """

    number: int
    create: ExecutionRow | None = None
    opened: Opening | None = None
    retargeted: Retargeting | None = None
    events: tuple[EventRecord, ...] = ()
    closed: Closing | None = None
    event_count: int = 0
    byte_count: int = 0
    traceparent: str | None = None
    children: bool = False


PRUNED_AT_ONCE: Final = 1_000
"""How many executions one write lets go of at most. Whoever writes must ask for it more often than
as many are made.
"""


@frozen
class Prune:
    """Which executions a write lets go of: always a prefix (I3), and never the current one,
    whatever the numbers say.

    The events of the executions up to ``histories`` go, and up to ``executions`` their rows. By age
    go events and rows of the longest prefix of executions that were all closed at or before
    ``closed_until``; the newest closed one stays. Of each at most :data:`PRUNED_AT_ONCE` executions
    go, the oldest first, so that a bound that was lowered stops nobody for long: what is left goes
    with the next.
    """

    histories: int = 0
    executions: int = 0
    closed_until: int | None = None
