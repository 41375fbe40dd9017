"""Every error that the library raises, in one tree. They and their subclasses can be pickled and
copied.

::

    OrchestraError
    ├── RegistrationError                 the registry cannot be built
    │   ├── DuplicateVersion
    │   ├── InvalidVersion
    │   ├── InvalidRange
    │   ├── InvalidFunction
    │   └── UnresolvableAnnotation
    ├── UnknownOrchestration              no living node has the name
    │   ├── UnknownVersion                ... the name, but not the version
    │   └── NoVersionInRange              ... the name, but no version in the policy's range; ``.range``, ``.registered``
    ├── UnreadablePolicy                  a newer library set the name's version policy; ``.name``, ``.value``
    ├── PolicyChangedMeanwhile            the policy has another revision than was expected; ``.name``, ``.revision``
    ├── InvalidArgument                   an id, label, page or limit that cannot be one
    │   └── InvalidSchedule               a spec or an option of a schedule
    │       └── UnknownZone               the host has no such time zone; ``.zone``
    ├── ScheduleError                     about one schedule; ``.schedule_id``
    │   ├── ScheduleNotFound
    │   ├── ScheduleExists
    │   ├── ScheduleChangedMeanwhile      it has another revision than was expected; ``.revision``
    │   └── ScheduleUnreadable            a newer library has written it
    ├── InstanceError                     about one instance; ``.instance_id``
    │   ├── InstanceNotFound
    │   ├── InstanceExists
    │   ├── InstanceCompleted             it has ended; nothing can be sent to it
    │   │   └── AlreadyCompleted          ... nor can it be cancelled or terminated
    │   ├── InstanceStillOpen             it has not ended; it cannot be deleted
    │   ├── InstanceNotHeld               it has no hold to release
    │   ├── InboxFull
    │   ├── RequestRejected               the instance, or an operator, has rejected a request; ``.reason``, ``.request_id``
    │   ├── NewerLibraryNeeded            it has rows that only a newer library knows; this one leaves it alone
    │   ├── InstanceFailed                raised by ``Handle.result``
    │   │   └── InstanceHeld              an error of its code holds it until changed code is deployed; also a WaitTimeout
    │   ├── InstanceCancelled
    │   ├── InstanceTerminated
    │   ├── StreamTruncated               the items were cut from the stream; ``.stream``, ``.first_offset``
    │   └── StaleAttempt                  an attempt of an activity is no longer current; ``.activity``, ``.attempt``
    ├── WaitTimeout                       ``.request_id``: asks again for the answer to a request
    ├── PayloadError                      ``.subject``, ``.field``
    │   ├── EncodeError
    │   ├── DecodeError
    │   │   └── PayloadUnreadable         it is sealed, and does not open here: it was changed or moved, say; ``.key_id``
    │   │       └── KeyMissing            ... the pipeline lacks the key
    │   └── PayloadTooLarge
    ├── MigrationFailed                   holds the instance; ``.name``, ``.step``, ``.field``
    ├── Failure                           raised by users to end an instance as failed; ``.details``
    ├── OrchestrationError                raised inside orchestration code, or about it
    │   ├── ActivityFailed                ``.tries``, ``.attempts``, ``.cause``
    │   ├── ChildFailed                   ``.child_id``, ``.status``, ``.cause``
    │   ├── ChildEndForgotten             ``.child_id``: an earlier lap has received its end, and it is deleted
    │   ├── StaleChildHandle              ``.child_id``: another life of an instance has started it
    │   ├── EventTimeout                  ``.event``, ``.timeout``: the event did not come in time
    │   ├── SessionLost                   ``.node_id``: the node of a session has died, or has left
    │   ├── SessionTimeout                ``.activities``, ``.timeout``: no node took the session in time
    │   ├── Deadlock                      the branches wait for each other
    │   ├── OperationCancelled            code awaited a durable future that was cancelled
    │   ├── ForeignAwait
    │   ├── ContinueAsNewSwallowed
    │   ├── ExecutionLimitExceeded        holds the instance
    │   ├── NondeterminismError           holds the instance
    │   └── HistoryCorrupt                holds the instance
    ├── ActivityContextMissing
    ├── RuntimeClosed
    ├── WrongEventLoop                    the call would block what it waits for
    ├── ProviderInUse                     another runtime runs on the same provider object
    ├── StartRefused                      a runtime would strand instances (``preflight="refuse"``); ``.findings``
    │   └── CodeChanged                   ... has other code under a version (``strict=True``); ``.name``, ``.version``
    └── StoreError
        ├── StoreBusy                     another writer holds the store; retry
        ├── StoreUnavailable              it cannot be reached now; ``.retryable``
        │   ├── StorageUnavailable        ... the external storage of large values
        │   ├── StoreFull
        │   ├── StoreReadOnly
        │   ├── StoreReplaced             the server may have lost commits; the node must drop its memory
        │   └── StoreAliased              the file has a second name; ``.path``
        ├── NetworkFileSystem             SQLite's log does not work there; ``.mount_point``, ``.file_system``
        ├── StoreForked                   opened before a fork; make a new provider in the child
        ├── StoreEmpty                    the file or schema exists, but holds no store yet
        ├── StoreCorrupt
        ├── SchemaMismatch                newer than this library, or older and migration is off
        │   └── LibraryTooOld             the store refuses libraries as old as this one; ``.lowest_reader``
        ├── LevelTooLow                   a new kind may not be written yet: older nodes cannot read it
        ├── NodeBuried                    other nodes declared this node dead, and own its instances
        └── OutcomeUnknown                the reply to a commit was lost

    BaseException
    └── Unwind                            not caught by ``except Exception``
        ├── Cancelled                     raised at the await of a cancelled orchestration or branch
        ├── ContinueAsNew                 leaves the execution for the next one
        └── Evicted                       the execution leaves memory; it decides nothing
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from orchestra.portable import Portable

__all__ = [
    "ActivityContextMissing",
    "ActivityFailed",
    "AlreadyCompleted",
    "Attempt",
    "Cancelled",
    "ChildEndForgotten",
    "ChildFailed",
    "CodeChanged",
    "ContinueAsNew",
    "ContinueAsNewSwallowed",
    "Deadlock",
    "DecodeError",
    "DuplicateVersion",
    "EncodeError",
    "ErrorInfo",
    "EventTimeout",
    "Evicted",
    "ExecutionLimitExceeded",
    "Failure",
    "ForeignAwait",
    "HistoryCorrupt",
    "InboxFull",
    "InstanceCancelled",
    "InstanceCompleted",
    "InstanceError",
    "InstanceExists",
    "InstanceFailed",
    "InstanceHeld",
    "InstanceNotFound",
    "InstanceNotHeld",
    "InstanceStillOpen",
    "InstanceTerminated",
    "InvalidArgument",
    "InvalidFunction",
    "InvalidRange",
    "InvalidSchedule",
    "InvalidVersion",
    "KeyMissing",
    "LevelTooLow",
    "LibraryTooOld",
    "MigrationFailed",
    "NetworkFileSystem",
    "NewerLibraryNeeded",
    "NoVersionInRange",
    "NodeBuried",
    "NondeterminismError",
    "OperationCancelled",
    "OrchestraError",
    "OrchestrationError",
    "OutcomeUnknown",
    "PayloadError",
    "PayloadTooLarge",
    "PayloadUnreadable",
    "PolicyChangedMeanwhile",
    "ProviderInUse",
    "RegistrationError",
    "RequestRejected",
    "RuntimeClosed",
    "ScheduleChangedMeanwhile",
    "ScheduleError",
    "ScheduleExists",
    "ScheduleNotFound",
    "ScheduleUnreadable",
    "SchemaMismatch",
    "SessionLost",
    "SessionTimeout",
    "StaleAttempt",
    "StaleChildHandle",
    "StartRefused",
    "StorageUnavailable",
    "StoreAliased",
    "StoreBusy",
    "StoreCorrupt",
    "StoreEmpty",
    "StoreError",
    "StoreForked",
    "StoreFull",
    "StoreReadOnly",
    "StoreReplaced",
    "StoreUnavailable",
    "StreamTruncated",
    "UnknownOrchestration",
    "UnknownVersion",
    "UnknownZone",
    "UnreadablePolicy",
    "UnresolvableAnnotation",
    "Unwind",
    "WaitTimeout",
    "WrongEventLoop",
]


_LINE: Final = 2_000
"""The most characters of an error in one line."""

_NOTE: Final = re.compile(r"\.\.\. \([\d,]+ characters in all\)$")

_SHOWN_LEAVES: Final = 5
_SHOWN_CAUSES: Final = 4


def shortened(text: str, most: int) -> str:
    """Return the text, or its beginning and a note of its length, in ``most`` characters."""
    if len(text) <= most:
        return text
    # A text that was shortened before has its true length in the note.
    earlier = _NOTE.search(text, max(0, len(text) - 60))
    note = earlier.group() if earlier else f"... ({len(text):,} characters in all)"
    return f"{text[: max(0, most - len(note))]}{note}"


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """A stored exception: its type's qualified name, its message, its traceback, and its nested
    errors.

    All of it is bounded: messages and tracebacks are cut, and at most 16 nested errors are kept.
    ``str()`` returns one line that also names the causes and the errors of a group.
    """

    type: str
    message: str
    traceback: str | None = None
    cause: ErrorInfo | None = None
    """The error that it was raised from (``raise ... from``)."""
    context: ErrorInfo | None = None
    """The error that was being handled when it was raised. ``None`` if there is a cause, or if the
    code says ``from None``.
    """
    members: tuple[ErrorInfo, ...] = ()
    """The errors of an exception group."""
    omitted: int = 0
    """The number of errors of the group that are not in ``members``."""
    details: Any = field(default=None, hash=False)
    """The details of a :class:`Failure`, as plain JSON values."""

    def __str__(self) -> str:
        return shortened(self._line(), _LINE)

    def _line(self) -> str:
        message = self.message
        if "\n" in message or "\r" in message:
            message = " ".join(part for line in message.splitlines() if (part := line.strip()))
        text = f"{self.type}: {message}" if message else self.type
        if not (self.members or self.cause or self.context):
            return text
        nested = max(200, _LINE // (2 * _SHOWN_LEAVES))
        parts = [shortened(text, _LINE // 4)]
        if self.members:
            leaves = self._leaves()
            shown = [shortened(leaf._line(), nested) for leaf in leaves[:_SHOWN_LEAVES]]
            left = len(leaves) - len(shown) + self._omitted()
            parts.append(f"[{'; '.join([*shown, *([f'and {left} more'] if left else [])])}]")
        error: ErrorInfo = self
        for _ in range(_SHOWN_CAUSES):
            how, below = (
                ("caused by", error.cause)
                if error.cause is not None
                else ("while handling", error.context)
            )
            if below is None or (below.message and below.message[:nested] in error.message):
                break  # ActivityFailed has its cause in its own message
            # The loop shows the rest of the chain.
            alone = ErrorInfo(
                below.type, below.message, members=below.members, omitted=below.omitted
            )
            parts.append(f"({how} {shortened(alone._line(), nested)})")
            error = below
        return " ".join(parts)

    def _leaves(self) -> list[ErrorInfo]:
        """Return the errors of a group that are not groups."""
        if not self.members:
            return [self]
        return [leaf for member in self.members for leaf in member._leaves()]

    def _omitted(self) -> int:
        return self.omitted + sum(member._omitted() for member in self.members)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One failed attempt of an activity: its number from 1, its end (aware, UTC), and its error."""

    number: int
    ended_at: datetime
    error: ErrorInfo


class OrchestraError(Portable, Exception):
    """The root of all errors of this library."""


# --- registration -----------------------------------------------------------------------------


class RegistrationError(OrchestraError):
    """The registrations do not make a valid registry."""


class DuplicateVersion(RegistrationError):
    """A name has two functions under one version."""


class InvalidVersion(RegistrationError, ValueError):
    """A version is not semver (``MAJOR.MINOR.PATCH[-pre][+build]``)."""


class InvalidRange(RegistrationError, ValueError):
    """A range of versions is not one (``^1.2``, ``~1.2``, ``>=1.2,<2``), or no version can lie in
    it.
    """


class InvalidFunction(RegistrationError, TypeError):
    """A function does not have the signature that its role needs."""


class UnresolvableAnnotation(RegistrationError, TypeError):
    """An annotation names a type that is not found or has no JSON form."""


class UnknownOrchestration(OrchestraError, LookupError):
    """No living node has registered this orchestration."""

    def __init__(self, message: str, *, name: str) -> None:
        super().__init__(message)
        self.name = name


class UnknownVersion(UnknownOrchestration):
    """Living nodes have this orchestration, but not this version of it."""

    def __init__(self, message: str, *, name: str, version: str) -> None:
        super().__init__(message, name=name)
        self.version = version


class NoVersionInRange(UnknownOrchestration):
    """Living nodes have this orchestration, but no version in the range of its policy.

    ``range`` is the range's text. ``registered`` are the versions that they have, the lowest first.
    """

    def __init__(self, message: str, *, name: str, range: str, registered: Sequence[str]) -> None:  # noqa: A002 - the attribute's name
        super().__init__(message, name=name)
        self.range = range
        self.registered: tuple[str, ...] = tuple(registered)


class UnreadablePolicy(OrchestraError):
    """A newer library set the version policy of a name, and this one cannot read it.

    ``value`` is the policy's stored text.
    """

    def __init__(self, message: str, *, name: str, value: str) -> None:
        super().__init__(message)
        self.name = name
        self.value = value


class PolicyChangedMeanwhile(OrchestraError):
    """The version policy of a name has another revision than the caller expected. Nothing was
    changed.

    ``revision`` is its present revision; 0: it was never set.
    """

    def __init__(self, message: str, *, name: str, revision: int) -> None:
        super().__init__(message)
        self.name = name
        self.revision = revision


class InvalidArgument(OrchestraError, ValueError):
    """An argument is not a valid id, label, page or limit. The store was not asked."""


class InvalidSchedule(InvalidArgument):
    """A spec, an action or an option of a schedule is not valid, or two of them do not go together."""


class UnknownZone(InvalidSchedule):
    """The host's zone database has no time zone of this name; ``zone`` is the name."""

    def __init__(self, message: str, *, zone: str) -> None:
        super().__init__(message)
        self.zone = zone


# --- schedules --------------------------------------------------------------------------------


class ScheduleError(OrchestraError):
    """An error about one schedule."""

    def __init__(self, message: str, *, schedule_id: str) -> None:
        super().__init__(message)
        self.schedule_id = schedule_id


class ScheduleNotFound(ScheduleError, LookupError):
    """There is no schedule with this id."""


class ScheduleExists(ScheduleError):
    """A schedule with this id exists already. Nothing was changed."""


class ScheduleChangedMeanwhile(ScheduleError):
    """The schedule has another revision than the caller expected. Nothing was changed.

    ``revision`` is its present revision.
    """

    def __init__(self, message: str, *, schedule_id: str, revision: int) -> None:
        super().__init__(message, schedule_id=schedule_id)
        self.revision = revision


class ScheduleUnreadable(ScheduleError):
    """A newer library, or one with another zone database, has written the schedule. Nodes that read
    it tick it.
    """


# --- instances --------------------------------------------------------------------------------


class InstanceError(OrchestraError):
    """An error about one instance."""

    def __init__(self, message: str, *, instance_id: str) -> None:
        super().__init__(message)
        self.instance_id = instance_id


class InstanceNotFound(InstanceError, LookupError):
    """There is no instance with this id."""


class InstanceExists(InstanceError):
    """Another start has taken the id."""


class InstanceCompleted(InstanceError):
    """The instance has ended: it accepts no messages."""


class AlreadyCompleted(InstanceCompleted):
    """The instance had ended before the cancel or terminate."""


class InstanceStillOpen(InstanceError):
    """The instance has not ended. Terminate it before you delete it."""


class InstanceNotHeld(InstanceError):
    """The instance has no stored hold to release."""


class InboxFull(InstanceError):
    """The instance's inbox is full; this event was not stored.

    ``bound`` is the exceeded bound, ``"messages"`` or ``"bytes"``, and ``limit`` its value. ``name``
    is the event's name if that name's share is full; events of other names are still accepted.
    ``name`` is ``None`` if the whole inbox is full.
    """

    def __init__(
        self,
        message: str,
        *,
        instance_id: str,
        name: str | None,
        bound: Literal["messages", "bytes"],
        limit: int,
    ) -> None:
        super().__init__(message, instance_id=instance_id)
        self.name = name
        self.bound: Literal["messages", "bytes"] = bound
        self.limit = limit


class NewerLibraryNeeded(InstanceError):
    """The instance has kinds of rows that only a newer library knows. Nothing was changed."""


class RequestRejected(InstanceError):
    """The instance's code has rejected the request, or an operator has dropped it. ``reason`` says
    why; the same ``request_id`` gets the same answer.
    """

    def __init__(self, message: str, *, instance_id: str, request_id: str, reason: str) -> None:
        super().__init__(message, instance_id=instance_id)
        self.request_id = request_id
        self.reason = reason


class InstanceFailed(InstanceError):
    """The instance failed; ``error`` says why."""

    def __init__(self, message: str, *, instance_id: str, error: ErrorInfo | None) -> None:
        super().__init__(message, instance_id=instance_id)
        self.error = error


class StreamTruncated(InstanceError):
    """The items that were asked for have been cut from the stream. ``first_offset`` is the first one
    that is kept: read with ``after=first_offset - 1``.
    """

    def __init__(self, message: str, *, instance_id: str, stream: str, first_offset: int) -> None:
        super().__init__(message, instance_id=instance_id)
        self.stream = stream
        self.first_offset = first_offset


class StaleAttempt(InstanceError):
    """An attempt of an activity is no longer current: its time is up, its result is not needed, or
    another attempt has begun. Nothing was stored. ``activity`` and ``attempt`` name it.
    """

    def __init__(self, message: str, *, instance_id: str, activity: str, attempt: int) -> None:
        super().__init__(message, instance_id=instance_id)
        self.activity = activity
        self.attempt = attempt


class WaitTimeout(OrchestraError, TimeoutError):
    """The wait ended before the awaited thing happened. Waiting changed nothing.

    ``request_id``: of a request that has not been answered in time. It stays open; asking again
    with this id waits for the same answer.
    """

    request_id: str | None = None


class InstanceHeld(WaitTimeout, InstanceFailed):
    """A wait for the instance's end found it held: its code raised no declared failure.

    The instance has not ended. Changed code, or ``client.release``, lets it go on; then wait for its
    result again. So this is a :class:`WaitTimeout`. It is an :class:`InstanceFailed` too, for
    callers that only ask whether there is a result. Catch it before these if the difference
    matters. ``error`` is the exception that the code raised.
    """


class InstanceCancelled(InstanceError):
    """The instance was cancelled."""


class InstanceTerminated(InstanceError):
    """The instance was terminated."""


# --- payloads ---------------------------------------------------------------------------------


class PayloadError(OrchestraError):
    """A value cannot be stored or read. ``subject`` names the value, ``field`` the place inside it."""

    def __init__(self, message: str, *, subject: str, field: str = "") -> None:
        super().__init__(message)
        self.subject = subject
        self.field = field


class EncodeError(PayloadError, TypeError):
    """A value has no JSON form (NaN, an infinity, an unsupported type), or would come back as another
    one.
    """


class DecodeError(PayloadError, ValueError):
    """Stored bytes do not fit the annotation."""


class PayloadUnreadable(DecodeError):
    """A sealed value does not open here: there is no pipeline, or the value was changed, moved to
    another place, or sealed with another key of the same id. ``key_id`` is the id of its key, if it
    is encrypted.

    It holds the instance whose code must read it, until a node can. ``tried`` names what did not
    open it.
    """

    def __init__(
        self, message: str, *, subject: str, key_id: str | None = None, tried: str = ""
    ) -> None:
        super().__init__(message, subject=subject)
        self.key_id = key_id
        self.tried = tried


class KeyMissing(PayloadUnreadable):
    """The pipeline has no key with the id under which a value is sealed: ``key_id``."""


class MigrationFailed(OrchestraError):
    """A state does not migrate. ``step`` is the version of the migration, or the version that the
    state does not fit; ``field`` the field, where one is at fault.
    """

    def __init__(self, message: str, *, name: str, step: str, field: str = "") -> None:
        super().__init__(message)
        self.name = name
        self.step = step
        self.field = field


class PayloadTooLarge(PayloadError, ValueError):
    """A value is larger than the limit; ``size`` and ``limit`` are in bytes."""

    def __init__(self, message: str, *, subject: str, size: int, limit: int) -> None:
        super().__init__(message, subject=subject)
        self.size = size
        self.limit = limit


# --- orchestrations ---------------------------------------------------------------------------


class Failure(OrchestraError):
    """Raise it, or a subclass, in orchestration code to end the instance as failed.

    An exception of another class holds the instance, unless the registration names the class
    (``register(..., failures=(PaymentRefused,))``). An activity may raise it too; the runtime
    retries the activity as after any other error.

    Args:
        message: why the instance fails.
        details: a value with a JSON form. The parent reads it from ``ChildFailed.cause.details``, a
            client from ``InstanceFailed.error.details``.
    """

    def __init__(self, message: str = "", *, details: Any = None) -> None:
        super().__init__(message)
        self.details: Any = details


class OrchestrationError(OrchestraError):
    """Raised inside orchestration code, or about it."""


class ActivityFailed(OrchestrationError):
    """An activity has failed for good; ``cause`` is the last error.

    ``tries`` counts its attempts; ``attempts`` holds the last 20 of them.
    """

    def __init__(
        self,
        activity: str,
        cause: ErrorInfo,
        attempts: Sequence[Attempt],
        reason: str,
        tries: int | None = None,
    ) -> None:
        tries = len(attempts) if tries is None else tries
        super().__init__(
            f"activity {activity!r} failed after {tries} attempt{'' if tries == 1 else 's'} "
            f"({reason}): {cause}"
        )
        self.activity = activity
        self.cause = cause
        self.attempts: tuple[Attempt, ...] = tuple(attempts)
        self.reason = reason
        self.tries = tries


class ChildFailed(OrchestrationError):
    """A child orchestration did not complete.

    ``status`` is its end: ``failed``, ``cancelled`` or ``terminated``; ``cause`` is its error. A
    child that could not be started has ``failed`` too. The type of its cause is then
    ``orchestra.errors.InstanceExists`` (another instance has the id, and goes on untouched) or
    ``orchestra.errors.UnknownOrchestration``.
    """

    def __init__(self, orchestration: str, child_id: str, status: str, cause: ErrorInfo) -> None:
        super().__init__(
            f"child {child_id!r} ({orchestration}) {_PAST.get(status, status)}: {cause}"
        )
        self.orchestration = orchestration
        self.child_id = child_id
        self.status = status
        self.cause = cause


_PAST = {"failed": "failed", "cancelled": "was cancelled", "terminated": "was terminated"}


class StaleChildHandle(OrchestrationError):
    """The handle of a background child was awaited where its end does not come: by another instance
    than its parent, or in a later life of it (a restart, a rewind after the end). The child itself
    may still run.

    ``orchestration`` and ``child_id`` name the child, ``link`` the command that has started it.
    """

    def __init__(self, orchestration: str, child_id: str, link: str) -> None:
        super().__init__(
            f"the end of child {child_id!r} ({orchestration}) does not come here: another life of "
            f"an instance has started it ({link}). Await a handle in the life that has started its "
            "child; to stop the child, use ctx.cancel(handle.instance_id)"
        )
        self.orchestration = orchestration
        self.child_id = child_id
        self.link = link


class ChildEndForgotten(OrchestrationError):
    """The end of a background child was received by an earlier lap, or dropped by an operator, and
    the child itself has been deleted since.

    ``orchestration`` and ``child_id`` name the child, ``link`` the command that has started it.
    """

    def __init__(self, orchestration: str, child_id: str, link: str) -> None:
        super().__init__(
            f"the end of child {child_id!r} ({orchestration}) is not known any more: an earlier lap "
            "has received it, or an operator has dropped it, and the child has been deleted since. "
            "Keep a child's result in the state, and drop its handle"
        )
        self.orchestration = orchestration
        self.child_id = child_id
        self.link = link


class EventTimeout(OrchestrationError, TimeoutError):
    """The awaited event or request did not come in time. The wait has ended: it takes no later
    one. ``event`` is its name.
    """

    def __init__(self, event: str, timeout: timedelta, what: str = "event") -> None:
        super().__init__(f"no {what} {event!r} has come within {timeout.total_seconds():g} s")
        self.event = event
        self.timeout = timeout


class SessionLost(OrchestrationError):
    """The node of a session has died, or has left. Its activities are not tried elsewhere: what
    they have left on that node is gone.

    ``node_id`` is the node. ``activity`` is the activity that was asked for; it may have run. Open
    a new session to do the work again.
    """

    def __init__(self, activity: str, node_id: str) -> None:
        super().__init__(
            f"activity {activity!r} is lost with its session: node {node_id} has died, or has "
            "left; open a new session (ctx.session) and repeat what was done in this one"
        )
        self.activity = activity
        self.node_id = node_id


class SessionTimeout(OrchestrationError, TimeoutError):
    """No node has taken the session in time. ``activities`` are those that a node must have."""

    def __init__(self, activities: Sequence[str], timeout: timedelta) -> None:
        super().__init__(
            f"no node has taken a session of {', '.join(map(repr, activities))} within "
            f"{timeout.total_seconds():g} s; it takes one that has all of them, serves the queue "
            "and has room (Runtime(activities=..., queues=..., max_sessions=...))"
        )
        self.activities: tuple[str, ...] = tuple(activities)
        self.timeout = timeout


class Deadlock(OrchestrationError):
    """The branches of an execution wait for each other, so none can go on."""


class OperationCancelled(OrchestrationError):
    """Code awaited a durable future after it had been cancelled."""


class ForeignAwait(OrchestrationError):
    """Orchestration code awaited something that is not durable (a sleep, a socket, a lock)."""


class ContinueAsNewSwallowed(OrchestrationError):
    """Code called ``continue_as_new``, and then ended the orchestration in another way."""


class ExecutionLimitExceeded(OrchestrationError):
    """An execution has more events or bytes than the limits allow. It is held (``limit``) until the
    limits are raised.
    """


class NondeterminismError(OrchestrationError):
    """Code and history differ. ``event_id`` is the event, ``line`` the line of code."""

    def __init__(
        self, message: str, *, event_id: int | None = None, line: str | None = None
    ) -> None:
        super().__init__(message)
        self.event_id = event_id
        self.line = line


class HistoryCorrupt(OrchestrationError):
    """No execution can have written this history. ``event_id`` is the first wrong event."""

    def __init__(self, message: str, *, event_id: int | None = None) -> None:
        super().__init__(message)
        self.event_id = event_id


class ActivityContextMissing(OrchestraError, LookupError):
    """Code outside an activity asked for the activity context."""


class RuntimeClosed(OrchestraError):
    """The runtime or client is not running (not entered yet, stopping, or stopped)."""


class WrongEventLoop(OrchestraError, RuntimeError):
    """The call would wait for ever, because it blocks the loop or thread that must act."""


class ProviderInUse(OrchestraError):
    """Another runtime uses this provider object. Give each runtime its own; they may share a store."""


# --- the store --------------------------------------------------------------------------------


class StartRefused(OrchestraError):
    """A runtime does not start: it would strand instances. It ran nothing.

    ``findings`` holds the :class:`~orchestra.PreflightFinding` values.
    """

    def __init__(self, message: str, *, findings: tuple[Any, ...]) -> None:
        super().__init__(message)
        self.findings = findings


class CodeChanged(StartRefused):
    """A strict runtime does not start: open executions, or living nodes, have other code for a
    version of its registry. ``name`` and ``version`` are the first of ``findings``.

    Register changed code under a new version. Another minor version of Python counts as changed
    code, too: start without ``strict`` after such an upgrade.
    """

    def __init__(self, message: str, *, findings: tuple[Any, ...], name: str, version: str) -> None:
        super().__init__(message, findings=findings)
        self.name = name
        self.version = version


class StoreError(OrchestraError):
    """The store refused a call or failed. ``retryable``: the same call may succeed later."""

    retryable = False


class StoreBusy(StoreError):
    """Another writer held the store for the whole bounded wait."""

    retryable = True


class StoreUnavailable(StoreError):
    """The store cannot be reached now. Nothing was written."""

    retryable = True


class StorageUnavailable(StoreUnavailable):
    """The external storage of large values did not take a value, or did not return it."""


class StoreFull(StoreUnavailable):
    """The disk of the store is full. Nothing was written."""


class StoreReadOnly(StoreUnavailable):
    """The store can be read but not written."""


class StoreReplaced(StoreUnavailable):
    """The server may continue from an earlier moment: a standby took over, or a backup was restored.

    Acknowledged commits may be gone. The node must drop its memory and join under a new id. Until
    then it refuses calls; nothing was written.
    """


class StoreAliased(StoreUnavailable):
    """The store's file has a second name: a hard link, or a mount of the file alone. Nothing was
    read or written.

    SQLite's log and this library's locks lie beside the file, under its name. A file with two names
    would have two of each, and be damaged. Symbolic links do no harm: they are followed.
    """

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path


class NetworkFileSystem(StoreError):
    """The store's file lies on a network file system, where locks and the log's shared memory are
    not reliable.
    """

    def __init__(self, message: str, *, mount_point: str, file_system: str) -> None:
        super().__init__(message)
        self.mount_point = mount_point
        self.file_system = file_system


class StoreForked(StoreError):
    """The parent process (``opened_by``) opened the provider before the fork. Nothing was done.

    Make a new provider in the child process.
    """

    def __init__(self, store: str, *, opened_by: int) -> None:
        super().__init__(
            f"{store}: opened by process {opened_by}, which has forked this one; a connection "
            "does not survive a fork: make a new provider in the child, and open that"
        )
        self.opened_by = opened_by


class StoreEmpty(StoreError):
    """The file or schema exists, but holds no store yet. A runtime that opens it makes one."""


class StoreCorrupt(StoreError):
    """The store's file is damaged, or is not a store."""


class SchemaMismatch(StoreError):
    """The schema is newer than this library, or older and migration is switched off."""


class LibraryTooOld(SchemaMismatch):
    """The store refuses libraries below level ``lowest_reader``; this one reads up to ``level``."""

    def __init__(self, message: str, *, level: int, lowest_reader: int) -> None:
        super().__init__(message)
        self.level = level
        self.lowest_reader = lowest_reader


class LevelTooLow(StoreError):
    """The change needs a kind of row above the store's write level. Nothing was written."""


class NodeBuried(StoreError):
    """Other nodes declared this node dead and own its instances. It must join under a new id."""


class OutcomeUnknown(StoreError):
    """The reply to a commit was lost: the change may or may not be stored. Retry with the same id."""

    retryable = True


# --- unwinding --------------------------------------------------------------------------------


class Unwind(Portable, BaseException):
    """Leaves orchestration code: no ``except Exception`` catches it."""


class Cancelled(Unwind):
    """The orchestration, or this branch of it, is cancelled.

    ``finally`` bodies run and may await activities. Then let the exception pass.
    """

    waits: bool = False
    """Whether the instance was cancelled. The awaited activity then ends first, unless its options
    say otherwise.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class ContinueAsNew(Unwind):
    """Raised by ``ctx.continue_as_new``: the execution ends, and the next one begins."""


class Evicted(Unwind):
    """The execution leaves memory. Its ``finally`` bodies decide nothing."""
