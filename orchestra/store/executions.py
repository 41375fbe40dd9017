"""The rows of executions, what a write adds to one, and how ended ones are removed."""

from __future__ import annotations

from typing import Final

from orchestra.codec import Payload
from orchestra.events import EventRecord
from orchestra.frozen import frozen
from orchestra.levels import Unknown
from orchestra.store.kinds import ExecutionEnd, ResolvedBy

__all__ = ["PRUNED_AT_ONCE", "ExecutionDelta", "ExecutionRow", "Prune", "Resolution"]


@frozen
class Resolution:
    """How a version was chosen, by which node, and under which revision of the policy."""

    how: ResolvedBy | Unknown
    by: str
    policy_revision: int


@frozen
class ExecutionRow:
    """One execution. ``state`` is its raw input; ``state_version`` the version that wrote it
    (``None``: a client).

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
    error: bytes | None = None
    events: int = 0
    bytes: int = 0
    traceparent: str | None = None

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
        )


@frozen
class ExecutionDelta:
    """What a write does to one execution. ``create`` makes its row; ``open`` and ``close`` happen
    at most once.

    ``opened`` is (at, version, fingerprint, format, resolution), and then ``traceparent`` is stored
    with it. ``retargeted``, of an execution that is not opened yet, is the version with which it is
    to be and how that was chosen; again with ``traceparent``. ``closed`` is (at, end, output,
    error). A closing delta carries the execution's final counts of events and bytes; ``children``
    says that the execution has asked for some, so that the store must look who of them is to be
    told.
    """

    number: int
    create: ExecutionRow | None = None
    opened: tuple[int, str, str, int, Resolution] | None = None
    retargeted: tuple[str, Resolution] | None = None
    events: tuple[EventRecord, ...] = ()
    closed: tuple[int, ExecutionEnd, Payload | None, bytes | None] | None = None
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
