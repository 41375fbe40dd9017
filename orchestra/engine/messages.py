"""Messages between the engine and its shell.

The shell tells the engine what clients ask for and what activities report (:data:`ToEngine`). The
engine tells the shell what to do once a commit stands (:data:`ToShell`), through its
:class:`Outbox`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from orchestra.codec import Packed, Payload, pack_value, unpack
from orchestra.errors import ErrorInfo, OrchestraError
from orchestra.events import error_from_wire, error_to_wire
from orchestra.frozen import frozen
from orchestra.replay import ACTIVITY_CANCELLED, Identity, LogEntry
from orchestra.store.changes import ClientChange
from orchestra.store.kinds import Status
from orchestra.store.outcomes import Outcome
from orchestra.store.requests import RequestAnswer

__all__ = [
    "STOPPED",
    "AbortActivity",
    "ActivityEnded",
    "ActivityFailure",
    "ActivityKey",
    "Heartbeat",
    "InstanceEnded",
    "ItemsStored",
    "Outbox",
    "PolicyChanged",
    "PublishItems",
    "Reply",
    "RequestsAnswered",
    "RunActivity",
    "SessionsOpen",
    "StopActivity",
    "Submit",
    "ToEngine",
    "ToShell",
    "WriteLogs",
]


class ActivityKey(NamedTuple):
    """Identifies an activity: its instance with the incarnation, the execution, and the event."""

    instance_id: str
    incarnation: str
    execution: int
    event_id: int

    def __str__(self) -> str:
        return "/".join(map(str, self))


# --- to the engine ----------------------------------------------------------------------------


@frozen
class Submit:
    """A client's change. ``token`` comes back with the reply."""

    change: ClientChange
    token: Any


@frozen
class ActivityFailure:
    """Why an attempt ended without a result.

    ``untried``: the activity was not called, or its node left while it ran. ``unread``: the
    fingerprint of the activity's code that cannot read these arguments; other code may.
    """

    error: ErrorInfo
    type_names: tuple[str, ...]
    """The names of the exception's class and its bases, for the policy's list of non-retryable
    ones.
    """
    non_retryable: bool = False
    untried: bool = False
    unread: str | None = None

    def to_bytes(self) -> Packed:
        """Return the form in which the store keeps it."""
        return pack_value(
            {
                "error": error_to_wire(self.error),
                "types": list(self.type_names),
                "final": self.non_retryable,
                "untried": self.untried,
                "unread": self.unread,
            }
        )

    @staticmethod
    def from_bytes(stored: bytes) -> ActivityFailure:
        """Read the form in which the store keeps it."""
        known = unpack(stored)
        return ActivityFailure(
            error_from_wire(known["error"]),
            tuple(known["types"]),
            known["final"],
            known["untried"],
            known.get("unread"),
        )


STOPPED: Final = ActivityFailure(ACTIVITY_CANCELLED, (ACTIVITY_CANCELLED.type,), non_retryable=True)
"""The end of a cancelled attempt that was not begun, or that reports nothing else."""


@frozen
class ActivityEnded:
    """An attempt of an activity has ended, with a result or a failure."""

    key: ActivityKey
    attempt: int
    result: Payload | ActivityFailure
    heartbeat: Payload | None = None


@frozen
class Heartbeat:
    """A running activity has saved its progress for its next attempt."""

    key: ActivityKey
    attempt: int
    payload: Payload


@frozen
class PublishItems:
    """A running activity publishes values: their streams, the values, and their numbers within the
    attempt. ``steps``: some of them are results of its steps.
    """

    key: ActivityKey
    attempt: int
    orchestration: str
    items: tuple[tuple[str, Payload, int], ...]
    steps: bool = False


ToEngine = Submit | ActivityEnded | Heartbeat | PublishItems


# --- to the shell -----------------------------------------------------------------------------


@frozen
class RunActivity:
    """Begin an attempt. Timeouts are microseconds."""

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
    session: str | None = None
    """The node of its session, if it is in one."""


@frozen
class AbortActivity:
    """Give up an attempt. The engine ignores its end."""

    key: ActivityKey


@frozen
class StopActivity:
    """Ask a cancelled attempt to end soon. The engine waits for its end."""

    key: ActivityKey


@frozen
class Reply:
    """The answer to a client's change."""

    token: Any
    outcome: Outcome | OrchestraError


@frozen
class ItemsStored:
    """The last items of an attempt are stored, or why not. ``is_stale``: the attempt is no longer
    current.
    """

    key: ActivityKey
    attempt: int
    error: OrchestraError | None
    is_stale: bool = False


@frozen
class InstanceEnded:
    """An instance has ended. Waiters in this process learn it without reading the store."""

    instance_id: str
    status: Status
    output: Payload | None
    error: Packed | None


@frozen
class RequestsAnswered:
    """Requests to an instance were answered. Their senders in this process learn it without reading
    the store.
    """

    instance_id: str
    answers: tuple[RequestAnswer, ...]


@frozen
class WriteLogs:
    """The log entries of a committed turn."""

    identity: Identity
    entries: tuple[LogEntry, ...]
    traceparent: str | None = None


@frozen
class PolicyChanged:
    """The node has learned a new version policy of a name. Held executions should follow it.

    ``only_pinned``: the policy is as before, but a pin may have expired.
    """

    name: str
    only_pinned: bool = False


@frozen
class SessionsOpen:
    """So many sessions are open on this node now."""

    count: int


ToShell = (
    RunActivity
    | AbortActivity
    | StopActivity
    | Reply
    | InstanceEnded
    | WriteLogs
    | PolicyChanged
    | RequestsAnswered
    | ItemsStored
    | SessionsOpen
)


class Outbox:
    """Messages to the shell, in the order in which the shell must follow them."""

    def __init__(self) -> None:
        self._messages: list[ToShell] = []

    def add(self, message: ToShell) -> None:
        """Add a message for the next delivery."""
        self._messages.append(message)

    def take(self) -> list[ToShell]:
        """Return all messages and empty the outbox."""
        messages, self._messages = self._messages, []
        return messages

    def put_back(self, messages: Sequence[ToShell]) -> None:
        """Put undelivered messages in front of the newer ones."""
        self._messages = [*messages, *self._messages]

    def drop_beginnings(self) -> None:
        """Drop the activities that were not handed to the shell yet."""
        self._messages = [
            message for message in self._messages if not isinstance(message, RunActivity)
        ]
