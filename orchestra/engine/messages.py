"""What the engine is told (items), and what it asks its shell to do once a commit stands
(effects).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from orchestra.codec import Packed, Payload
from orchestra.errors import ErrorInfo, OrchestraError
from orchestra.frozen import frozen
from orchestra.replay import Identity, LogEntry
from orchestra.store.changes import ClientChange
from orchestra.store.kinds import Status
from orchestra.store.outcomes import Outcome

__all__ = [
    "AbortActivity",
    "ActivityEnded",
    "ActivityFailure",
    "ActivityKey",
    "Heartbeat",
    "InstanceEnded",
    "PolicyChanged",
    "Reply",
    "RunActivity",
    "StopActivity",
    "Submit",
    "ToEngine",
    "ToShell",
    "WriteLogs",
]


class ActivityKey(NamedTuple):
    """Which activity of which execution of which life of an instance."""

    instance_id: str
    incarnation: str
    execution: int
    event_id: int

    def __str__(self) -> str:
        return "/".join(map(str, self))


# --- items ------------------------------------------------------------------------------------


@frozen
class Submit:
    """A client's change; ``token`` comes back with the reply."""

    change: ClientChange
    token: Any


@frozen
class ActivityFailure:
    """Why a try ended without a result. ``untried``: the activity was not called, or the node went
    away under it.

    ``unread``: the fingerprint of the activity's code that cannot read these arguments; other code
    may be able to.
    """

    error: ErrorInfo
    type_names: tuple[str, ...]
    """The names of the exception's class and of its bases, for the policy's list of non-retryable
    ones.
    """
    non_retryable: bool = False
    untried: bool = False
    unread: str | None = None


@frozen
class ActivityEnded:
    """A try of an activity has ended: with a result, or with a failure."""

    key: ActivityKey
    attempt: int
    result: Payload | ActivityFailure
    heartbeat: Payload | None = None


@frozen
class Heartbeat:
    """A running activity has something to remember for its next try."""

    key: ActivityKey
    attempt: int
    payload: Payload


ToEngine = Submit | ActivityEnded | Heartbeat


# --- effects ----------------------------------------------------------------------------------


@frozen
class RunActivity:
    """Begin a try. Timeouts are microseconds."""

    key: ActivityKey
    name: str
    arguments: Payload
    attempt: int
    timeout: int | None
    heartbeat_timeout: int | None
    last_heartbeat: Payload | None
    orchestration: str
    version: str
    traceparent: str | None = None


@frozen
class AbortActivity:
    """A try is not wanted any more; its end need not be reported."""

    key: ActivityKey


@frozen
class StopActivity:
    """A try is cancelled, and its end is waited for: it is to end soon, and to be reported."""

    key: ActivityKey


@frozen
class Reply:
    """The answer to a client's change."""

    token: Any
    outcome: Outcome | OrchestraError


@frozen
class InstanceEnded:
    """An instance has ended in this way; who waits for it in this process need not look."""

    instance_id: str
    status: Status
    output: Payload | None
    error: Packed | None


@frozen
class WriteLogs:
    """What orchestration code has said in a turn that now stands."""

    identity: Identity
    entries: tuple[LogEntry, ...]
    traceparent: str | None = None


@frozen
class PolicyChanged:
    """This node goes by a new version policy of a name from now on; what it has written by the old
    one is to follow.
    """

    name: str


ToShell = (
    RunActivity | AbortActivity | StopActivity | Reply | InstanceEnded | WriteLogs | PolicyChanged
)
