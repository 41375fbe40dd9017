"""The rows of executions, what a write adds to them, and how old ones are deleted."""

from __future__ import annotations

from typing import Final

from orchestra.codec import Packed, Payload
from orchestra.events import EventRecord
from orchestra.frozen import frozen
from orchestra.levels import Unknown
from orchestra.store.kinds import ExecutionEnd, ResolvedBy

__all__ = [
    "FAMILY_SCANNED",
    "GOES_WITH_LAP",
    "MARKED_AT_ONCE",
    "PRUNED_AT_ONCE",
    "Closing",
    "ExecutionDelta",
    "ExecutionRow",
    "Opening",
    "Prune",
    "Resolution",
    "Retargeting",
    "Rewind",
]


@frozen
class Resolution:
    """How a version was chosen: by which node, and under which revision of the policy."""

    how: ResolvedBy | Unknown
    by: str
    policy_revision: int


@frozen
class Rewind:
    """The rewind that began an execution: it has the state of execution ``to`` again.

    ``undone`` are the executions whose effects it has undone, each with the numbers of the messages
    that it had read.
    """

    to: int
    undone: tuple[tuple[int, tuple[int, ...]], ...] = ()


@frozen
class ExecutionRow:
    """One execution. ``state`` is its raw input; ``state_version`` the version that wrote it.

    A start by a client or a parent is written by the version chosen then. ``state_shape`` is the
    hash of that version's input type, if the writer had its code. Both are ``None`` if an older
    library wrote the row.

    ``traceparent`` is the trace of the execution, or of the one before until it is opened.
    ``request_id`` is the request that made it: a start, or a rewind, which is ``rewind``.
    ``patches`` are the marks of ``ctx.patched`` that it has recorded.
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
    migrations: tuple[str, ...] = ()
    request_id: str | None = None
    patches: tuple[str, ...] = ()
    rewind: Rewind | None = None

    def opened(
        self,
        version: str,
        resolution: Resolution,
        event_format: int,
        fingerprint: str,
        at: int,
        migrations: tuple[str, ...] = (),
    ) -> ExecutionRow:
        """Return the row of an execution after its opening. ``replace`` takes thrice as long."""
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
            migrations=migrations,
            request_id=self.request_id,
            rewind=self.rewind,
        )


@frozen
class Opening:
    """An execution opens: its first turn has run, on this version and code.

    ``migrations`` are those that its state has passed: ``2.0.0`` up, ``-2.0.0`` down.
    """

    at: int
    version: str
    fingerprint: str
    format: int
    resolution: Resolution
    migrations: tuple[str, ...] = ()


@frozen
class Retargeting:
    """An unopened execution gets another version."""

    version: str
    resolution: Resolution


@frozen
class Closing:
    """An execution ends. ``error`` is the stored form of its failure."""

    at: int
    end: ExecutionEnd
    output: Payload | None = None
    error: Packed | None = None


@frozen
class ExecutionDelta:
    """The changes of a write to one execution. ``create`` makes its row. It opens and closes at
    most once.

    ``traceparent`` is stored with an opening and with a retargeting. A closing delta carries the
    execution's final counts of events and bytes. ``children``: it has started children, so the
    store looks up those that its end affects. ``patches`` are all the marks of the execution, where
    the write adds one. ``receipts``: it closes, and receipts of what it has sent may wait unread.
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
    patches: tuple[str, ...] = ()
    receipts: bool = False


PRUNED_AT_ONCE: Final = 1_000
"""The most executions that one write deletes. Writers must prune more often than they make as
many.
"""


GOES_WITH_LAP: Final = 1
"""The ``expires_at`` of an ended child whose lap was deleted: it is overdue. Its deletion passes
this on to its own ended children (I9).
"""

FAMILY_SCANNED: Final = 1_000
"""How many children of deleted laps one write looks at, to find those that have ended."""

MARKED_AT_ONCE: Final = 1_000
"""How many ended children of an instance one deletion marks. If there are more, the instance stays
for the next one.
"""


@frozen
class Prune:
    """The executions that a write deletes: always a prefix (I3), and never the current one.

    Events of executions up to ``histories`` are deleted, and rows up to ``executions``. By age,
    events and rows of the longest prefix are deleted that closed at or before ``closed_until``; the
    newest closed one stays. Each write deletes at most :data:`PRUNED_AT_ONCE` executions, the
    oldest first, so a lowered bound blocks no write for long. The next write deletes the rest.

    After that, up to ``children`` ended children of laps without a row expire at once
    (:data:`GOES_WITH_LAP`): children of this life of the instance, those of the oldest laps first,
    from lap ``children_from`` on. The write looks at :data:`FAMILY_SCANNED` children, after all
    else that its group does.
    """

    histories: int = 0
    executions: int = 0
    closed_until: int | None = None
    children: int = 0
    children_from: int = 0
