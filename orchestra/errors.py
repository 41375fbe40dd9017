"""Every error that the library raises, in one tree. All of them can be pickled and copied, and so
can subclasses of users.

::

    OrchestraError
    ├── RegistrationError                 the registry cannot be built
    │   ├── DuplicateVersion
    │   ├── InvalidVersion
    │   ├── InvalidFunction
    │   └── UnresolvableAnnotation
    ├── UnknownOrchestration              no living node has the name
    │   └── UnknownVersion                ... the name, but not the version
    ├── UnreadablePolicy                  a newer library has set the version policy of the name; ``.name``, ``.value``
    ├── InvalidArgument                   an id, label, page or limit that cannot be one
    ├── InstanceError                     about one instance; ``.instance_id``
    │   ├── InstanceNotFound
    │   ├── InstanceExists
    │   ├── InstanceCompleted             it has ended; nothing can be sent to it
    │   │   └── AlreadyCompleted          ... nor can it be cancelled or terminated
    │   ├── InstanceStillOpen             it has not ended; it cannot be deleted
    │   ├── InstanceNotHeld                   nothing holds it; there is nothing to release
    │   ├── InboxFull
    │   ├── NewerLibraryNeeded            it holds what only a newer library knows; this one leaves it alone
    │   ├── InstanceFailed                raised by ``Handle.result``
    │   │   └── InstanceHeld              its code has raised an error, and it waits for other code; also a WaitTimeout
    │   ├── InstanceCancelled
    │   └── InstanceTerminated
    ├── WaitTimeout
    ├── PayloadError                      ``.subject``, ``.field``
    │   ├── EncodeError
    │   ├── DecodeError
    │   └── PayloadTooLarge
    ├── Failure                           raised by users to end an instance as failed; ``.details``
    ├── OrchestrationError                raised inside orchestration code, or about it
    │   ├── ActivityFailed                ``.tries``, ``.attempts``, ``.cause``
    │   ├── ChildFailed                   ``.child_id``, ``.status``, ``.cause``
    │   ├── EventTimeout                  ``.event``, ``.timeout``: the event has not come in time
    │   ├── Deadlock                      each branch waits for another one
    │   ├── OperationCancelled            a durable future that was cancelled is awaited
    │   ├── ForeignAwait
    │   ├── ContinueAsNewSwallowed
    │   ├── ExecutionLimitExceeded        holds the instance
    │   ├── NondeterminismError           holds the instance
    │   └── HistoryCorrupt                holds the instance
    ├── ActivityContextMissing
    ├── RuntimeClosed
    ├── WrongEventLoop                    the call would wait for what it blocks itself
    ├── ProviderInUse                     another runtime runs on the same provider object
    └── StoreError
        ├── StoreBusy                     another writer holds the store; try again
        ├── StoreUnavailable              it cannot be reached now; ``.retryable``
        │   ├── StoreFull
        │   ├── StoreReadOnly
        │   ├── StoreReplaced             what answers now may have lost commits; who has memory of them must forget it
        │   └── StoreAliased              the file has a second name, by which others could open it; ``.path``
        ├── NetworkFileSystem             SQLite's log does not work there; ``.mount_point``, ``.file_system``
        ├── StoreForked                   opened before this process was forked; make a new provider in it
        ├── StoreEmpty                    the file or schema is there, but no store has been made in it yet
        ├── StoreCorrupt
        ├── SchemaMismatch                newer than this library, or older and not to be migrated
        │   └── LibraryTooOld             no library as old as this one may work on the store; ``.lowest_reader``
        ├── LevelTooLow                   a new kind is not written yet: older nodes live that could not read it
        ├── NodeBuried                    this node was declared dead; what it owned is gone
        └── OutcomeUnknown                the reply to a commit was lost

    BaseException
    └── Unwind                            not caught by ``except Exception``
        ├── Cancelled                     delivered at the await of a cancelled orchestration or branch
        ├── ContinueAsNew                 leaves the execution for the next one
        └── Evicted                       the execution leaves memory; nothing is decided by it
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
    "ChildFailed",
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
    "InvalidVersion",
    "LevelTooLow",
    "LibraryTooOld",
    "NetworkFileSystem",
    "NewerLibraryNeeded",
    "NodeBuried",
    "NondeterminismError",
    "OperationCancelled",
    "OrchestraError",
    "OrchestrationError",
    "OutcomeUnknown",
    "PayloadError",
    "PayloadTooLarge",
    "ProviderInUse",
    "RegistrationError",
    "RuntimeClosed",
    "SchemaMismatch",
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
    "UnknownOrchestration",
    "UnknownVersion",
    "UnreadablePolicy",
    "UnresolvableAnnotation",
    "Unwind",
    "WaitTimeout",
    "WrongEventLoop",
]


_LINE: Final = 2_000
"""Characters of an error that is told in one line."""

_NOTE: Final = re.compile(r"\.\.\. \([\d,]+ characters in all\)$")

_SHOWN_LEAVES: Final = 5
_SHOWN_CAUSES: Final = 4


def shortened(text: str, most: int) -> str:
    """Return a text of at most ``most`` characters. Of a longer one the beginning stays, with a
    note of how long it is.
    """
    if len(text) <= most:
        return text
    told = _NOTE.search(
        text, max(0, len(text) - 60)
    )  # it was shortened before: its true length is in the note
    note = told.group() if told else f"... ({len(text):,} characters in all)"
    return f"{text[: max(0, most - len(note))]}{note}"


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """What is kept of an exception: its type's qualified name, its message, its traceback as text,
    and what hangs below it.

    All of it is bounded: messages and tracebacks are cut, and at most 16 nested errors are kept.
    ``str()`` gives one line that names the errors of a group and the causes as well.
    """

    type: str
    message: str
    traceback: str | None = None
    cause: ErrorInfo | None = None
    """What it was raised from (``raise ... from``)."""
    context: ErrorInfo | None = None
    """What was being handled when it was raised; ``None`` where there is a cause, or ``from None``
    was written.
    """
    members: tuple[ErrorInfo, ...] = ()
    """The errors of an exception group."""
    omitted: int = 0
    """How many errors of the group are not among ``members``."""
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
                break  # ActivityFailed tells its cause in its own message
            # The rest of the chain follows by itself.
            alone = ErrorInfo(
                below.type, below.message, members=below.members, omitted=below.omitted
            )
            parts.append(f"({how} {shortened(alone._line(), nested)})")
            error = below
        return " ".join(parts)

    def _leaves(self) -> list[ErrorInfo]:
        """Return the errors of a group that are no groups themselves."""
        if not self.members:
            return [self]
        return [leaf for member in self.members for leaf in member._leaves()]

    def _omitted(self) -> int:
        return self.omitted + sum(member._omitted() for member in self.members)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One failed try of an activity: its number from 1, when it ended (aware, UTC), and why."""

    number: int
    ended_at: datetime
    error: ErrorInfo


class OrchestraError(Portable, Exception):
    """The root of all errors of this library."""


# --- registration -----------------------------------------------------------------------------


class RegistrationError(OrchestraError):
    """A registry cannot be built from what was registered."""


class DuplicateVersion(RegistrationError):
    """One name has two functions under one version."""


class InvalidVersion(RegistrationError, ValueError):
    """A version is not semver (``MAJOR.MINOR.PATCH[-pre][+build]``)."""


class InvalidFunction(RegistrationError, TypeError):
    """A function has not the shape that its role asks for."""


class UnresolvableAnnotation(RegistrationError, TypeError):
    """An annotation names a type that cannot be found, or that has no JSON form."""


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


class UnreadablePolicy(OrchestraError):
    """The version policy of a name was set by a newer library, and this one cannot read it.
    ``value`` is its stored text.
    """

    def __init__(self, message: str, *, name: str, value: str) -> None:
        super().__init__(message)
        self.name = name
        self.value = value


class InvalidArgument(OrchestraError, ValueError):
    """What was given cannot be an id, a label, a page or a limit. Nothing was asked of the
    store.
    """


# --- instances --------------------------------------------------------------------------------


class InstanceError(OrchestraError):
    """Something about one instance."""

    def __init__(self, message: str, *, instance_id: str) -> None:
        super().__init__(message)
        self.instance_id = instance_id


class InstanceNotFound(InstanceError, LookupError):
    """There is no instance with this id."""


class InstanceExists(InstanceError):
    """The id is taken, by a start that was not this one."""


class InstanceCompleted(InstanceError):
    """The instance has ended and takes nothing any more."""


class AlreadyCompleted(InstanceCompleted):
    """The instance had ended before it could be cancelled or terminated."""


class InstanceStillOpen(InstanceError):
    """The instance has not ended; terminate it before it is deleted."""


class InstanceNotHeld(InstanceError):
    """The instance has no stored hold that could be released."""


class InboxFull(InstanceError):
    """As much waits in the instance's inbox as may; this event was not stored.

    ``bound`` is what there is too much of, ``"messages"`` or ``"bytes"``, and ``limit`` how much
    there may be. ``name`` is the event's name where that is the limit of one name, and then other
    events still get in; ``None``: of the whole inbox.
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
    """The instance holds kinds of rows that only a newer library knows. Nothing was changed."""


class InstanceFailed(InstanceError):
    """The instance ended in failure; ``error`` says why."""

    def __init__(self, message: str, *, instance_id: str, error: ErrorInfo | None) -> None:
        super().__init__(message, instance_id=instance_id)
        self.error = error


class WaitTimeout(OrchestraError, TimeoutError):
    """What was waited for has not come within the time given. Nothing was changed by waiting."""


class InstanceHeld(WaitTimeout, InstanceFailed):
    """The instance is held, because its code has raised what is no declared failure. A wait for its
    end has found that.

    It has not ended: code that differs, or ``client.release``, lets it go on, and its result can be
    waited for again. So it is a :class:`WaitTimeout`; and an :class:`InstanceFailed` for callers to
    whom it is all the same why there is no result. Catch it before these where the difference
    matters. ``error`` is what the code has raised.
    """


class InstanceCancelled(InstanceError):
    """The instance was cancelled."""


class InstanceTerminated(InstanceError):
    """The instance was terminated."""


# --- payloads ---------------------------------------------------------------------------------


class PayloadError(OrchestraError):
    """A value cannot travel. ``subject`` names whose value it is, ``field`` the place inside it."""

    def __init__(self, message: str, *, subject: str, field: str = "") -> None:
        super().__init__(message)
        self.subject = subject
        self.field = field


class EncodeError(PayloadError, TypeError):
    """A value has no JSON form (NaN, an infinity, an unsupported type), or would come back as
    something else.
    """


class DecodeError(PayloadError, ValueError):
    """Stored bytes do not fit the annotation."""


class PayloadTooLarge(PayloadError, ValueError):
    """A value is larger than the limit; ``size`` and ``limit`` are in bytes."""

    def __init__(self, message: str, *, subject: str, size: int, limit: int) -> None:
        super().__init__(message, subject=subject)
        self.size = size
        self.limit = limit


# --- orchestrations ---------------------------------------------------------------------------


class Failure(OrchestraError):
    """Raise it, or a subclass, in orchestration code to end the instance as failed.

    An exception of another class does not end the instance but holds it, unless the registration
    names it (``register(..., failures=(PaymentRefused,))``). An activity may raise it too, and is
    retried as after any other error.

    Args:
        message: why it has failed.
        details: a value with a JSON form. The parent reads it from ``ChildFailed.cause.details``, a
            client from ``InstanceFailed.error.details``.
    """

    def __init__(self, message: str = "", *, details: Any = None) -> None:
        super().__init__(message)
        self.details: Any = details


class OrchestrationError(OrchestraError):
    """Raised inside orchestration code, or about it."""


class ActivityFailed(OrchestrationError):
    """An activity has failed for good, after so many ``tries``; ``cause`` is the last error.

    ``attempts`` holds the last 20 tries, each with its number.
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
    """A child orchestration has not completed.

    ``status`` is how it ended: ``failed``, ``cancelled`` or ``terminated``; ``cause`` is its error.
    A child that could not be started has ``failed`` too: its cause then is of type
    ``orchestra.errors.InstanceExists`` (the id is somebody else's, who goes on untouched) or
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


class EventTimeout(OrchestrationError, TimeoutError):
    """The event that was waited for has not come within the time given. The wait is given up: it
    takes no later event.
    """

    def __init__(self, event: str, timeout: timedelta) -> None:
        super().__init__(f"no event {event!r} has come within {timeout.total_seconds():g} s")
        self.event = event
        self.timeout = timeout


class Deadlock(OrchestrationError):
    """The branches of an execution wait for each other, and for nothing that could happen."""


class OperationCancelled(OrchestrationError):
    """A durable future was awaited after it had been cancelled."""


class ForeignAwait(OrchestrationError):
    """Orchestration code awaited something that is not durable (a sleep, a socket, a lock)."""


class ContinueAsNewSwallowed(OrchestrationError):
    """``continue_as_new`` was called, and the orchestration then ended in another way."""


class ExecutionLimitExceeded(OrchestrationError):
    """One execution has grown over the hard limit of events or bytes. It is held (``limit``) until
    the limits are raised.
    """


class NondeterminismError(OrchestrationError):
    """Code and history disagree. ``event_id`` is the event, ``line`` the place in the code."""

    def __init__(
        self, message: str, *, event_id: int | None = None, line: str | None = None
    ) -> None:
        super().__init__(message)
        self.event_id = event_id
        self.line = line


class HistoryCorrupt(OrchestrationError):
    """A history is not what any execution can have written. ``event_id`` is where it goes wrong."""

    def __init__(self, message: str, *, event_id: int | None = None) -> None:
        super().__init__(message)
        self.event_id = event_id


class ActivityContextMissing(OrchestraError, LookupError):
    """The ambient activity context was asked for outside an activity."""


class RuntimeClosed(OrchestraError):
    """The runtime or client is not running (not entered yet, stopping, or stopped)."""


class WrongEventLoop(OrchestraError, RuntimeError):
    """The call would wait for ever: what it waits for can only happen in the loop or thread that
    the call itself blocks.
    """


class ProviderInUse(OrchestraError):
    """Another runtime runs on this provider object. Each runtime needs one of its own; they may
    share the store.
    """


# --- the store --------------------------------------------------------------------------------


class StoreError(OrchestraError):
    """The durable store refused or failed. ``retryable``: the same call may go through later."""

    retryable = False


class StoreBusy(StoreError):
    """Another writer held the store for the whole bounded wait."""

    retryable = True


class StoreUnavailable(StoreError):
    """The store cannot be reached now. Nothing was written."""

    retryable = True


class StoreFull(StoreUnavailable):
    """No space is left where the store lives. Nothing was written."""


class StoreReadOnly(StoreUnavailable):
    """The store can be read, but not written."""


class StoreReplaced(StoreUnavailable):
    """What answers now goes on from an earlier moment, perhaps: a standby took over, or a backup
    was restored.

    Commits that were acknowledged may be gone. A node must forget what it has in memory and join
    under a new id; whoever asks meanwhile is refused, and nothing was written.
    """


class StoreAliased(StoreUnavailable):
    """The store's file has a second name: a hard link, or a mount of the file alone. Nothing was
    read or written.

    SQLite keeps its log, and this library its locks, beside the file and under its name. A file
    with two names would have two of each, and be damaged. Symbolic links are followed, and do no
    harm.
    """

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path


class NetworkFileSystem(StoreError):
    """The store's file lies on a network file system, where neither locks nor the log's shared
    memory can be relied on.
    """

    def __init__(self, message: str, *, mount_point: str, file_system: str) -> None:
        super().__init__(message)
        self.mount_point = mount_point
        self.file_system = file_system


class StoreForked(StoreError):
    """The provider was opened by a process (``opened_by``) that has forked this one. Nothing was
    done, nor ever will be.
    """

    def __init__(self, store: str, *, opened_by: int) -> None:
        super().__init__(
            f"{store}: opened by process {opened_by}, which has forked this one; a connection "
            "does not survive a fork: make a new provider in the child, and open that"
        )
        self.opened_by = opened_by


class StoreEmpty(StoreError):
    """There is a place for a store, and nothing in it yet: a runtime that opens it makes one."""


class StoreCorrupt(StoreError):
    """The store's file is damaged, or is not a store."""


class SchemaMismatch(StoreError):
    """The schema is newer than this library, or older and must not be migrated here."""


class LibraryTooOld(SchemaMismatch):
    """The store holds what libraries below ``lowest_reader`` must not work on; ``level`` is what
    this one can read.
    """

    def __init__(self, message: str, *, level: int, lowest_reader: int) -> None:
        super().__init__(message)
        self.level = level
        self.lowest_reader = lowest_reader


class LevelTooLow(StoreError):
    """A kind of row that is newer than the store's write level was to be written. Nothing was."""


class NodeBuried(StoreError):
    """This node was declared dead. What it owned belongs to others; it must join under a new id."""


class OutcomeUnknown(StoreError):
    """The reply to a commit was lost: it may have happened, or not. Ask again with the same id."""

    retryable = True


# --- unwinding --------------------------------------------------------------------------------


class Unwind(Portable, BaseException):
    """Leaves orchestration code past every ``except Exception``."""


class Cancelled(Unwind):
    """The orchestration (or this branch of it) is cancelled.

    ``finally`` bodies run and may await activities. Let it pass when they are done.
    """

    waits: bool = False
    """Whether it comes from a cancel of the instance: the awaited activity ends first, unless it
    says otherwise.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class ContinueAsNew(Unwind):
    """Raised by ``ctx.continue_as_new``: the execution ends, and the next one begins."""


class Evicted(Unwind):
    """The execution leaves memory. Whatever its ``finally`` bodies ask for now is not done."""
