"""Convert exceptions to stored errors of bounded size, whatever user code raises.

A driver quotes a statement of four megabytes. A task group collects ten thousand errors. A handler
raises in a handler. Each stored error, attempt and log line still stays small.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final, cast

from orchestra.codec import Payload, encode, plain
from orchestra.errors import (
    ActivityFailed,
    Attempt,
    ChildFailed,
    ErrorInfo,
    Failure,
    PayloadError,
    shortened,
)
from orchestra.retry import NonRetryable, type_name

__all__ = [
    "brief_attempts",
    "class_names",
    "encoded_details",
    "error_info",
    "is_non_retryable",
    "leaves",
    "storable",
]

_MESSAGE: Final = 4_000
"""The most characters of the error's own message."""

_NESTED_MESSAGE: Final = 1_000
"""The most characters of the message of a cause, a context or a member."""

_TRACEBACK: Final = 8_000
"""The most characters of a traceback, counted from its end."""

_NESTED_TRACEBACK: Final = 1_500

_NESTED: Final = 16
"""The most causes, contexts and members of one error, on all levels together."""

_MEMBERS: Final = 10
"""The most members of one group."""

_DEPTH: Final = 8
"""How many levels of causes, contexts and groups are read."""

_BRIEF_MESSAGE: Final = 500
_BRIEF_TRACEBACK: Final = 1_000

MOST_DETAILS: Final = 64 * 1024
"""The most bytes of a failure's details."""

_LEAVES: Final = 1_000
"""How many leaves of a group decide whether to try again."""


def error_info(error: BaseException) -> ErrorInfo:
    """Return the stored form of an exception, with its cause or context, and the members of a
    group.

    Tracebacks omit this library's own frames. Each text has its bound, and at most 16 nested errors
    are kept.
    """
    return _Keeper(_NESTED).keep(error, 0)


class _Keeper:
    """Converts one error and its nested errors, within one budget."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._seen: set[int] = set()

    def keep(self, error: BaseException, depth: int) -> ErrorInfo:
        self._seen.add(id(error))
        nested = depth > 0
        message = storable(_message(error), _NESTED_MESSAGE if nested else _MESSAGE)
        details, note = _details(error)
        message += note
        trace = _traceback(error, _NESTED_TRACEBACK if nested else _TRACEBACK)
        members = _members(error)
        cause = self._told(_told_cause(error), depth) or self._nested(error.__cause__, depth)
        kept = tuple(
            info
            for member in members[:_MEMBERS]
            if (info := self._nested(member, depth)) is not None
        )
        suppressed = error.__cause__ is not None or error.__suppress_context__
        context = None if suppressed else self._nested(error.__context__, depth)
        return ErrorInfo(
            type_name(type(error)),
            message,
            trace,
            cause,
            context,
            kept,
            len(members) - len(kept),
            details,
        )

    def _nested(self, error: BaseException | None, depth: int) -> ErrorInfo | None:
        if error is None or id(error) in self._seen or depth >= _DEPTH or self._budget <= 0:
            return None
        self._budget -= 1
        return self.keep(error, depth + 1)

    def _told(self, error: ErrorInfo | None, depth: int) -> ErrorInfo | None:
        """Return the stored form of an error that another execution, or an activity, reported."""
        if error is None or depth >= _DEPTH or self._budget <= 0:
            return None
        self._budget -= 1
        cause, context = self._told(error.cause, depth + 1), self._told(error.context, depth + 1)
        kept = tuple(
            info for member in error.members if (info := self._told(member, depth + 1)) is not None
        )
        return replace(
            error,
            message=shortened(error.message, _NESTED_MESSAGE),
            traceback=None if error.traceback is None else error.traceback[-_NESTED_TRACEBACK:],
            cause=cause,
            context=context,
            members=kept,
            omitted=error.omitted + len(error.members) - len(kept),
        )


def brief_attempts(attempts: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
    """Return attempts; all but the last keep only a short message and the traceback's end."""
    return (
        *(replace(attempt, error=_brief(attempt.error)) for attempt in attempts[:-1]),
        *attempts[-1:],
    )


def _brief(error: ErrorInfo) -> ErrorInfo:
    is_plain = (
        error.cause is None
        and error.context is None
        and not error.members
        and error.details is None
    )
    if (
        is_plain
        and len(error.message) <= _BRIEF_MESSAGE
        and len(error.traceback or "") <= _BRIEF_TRACEBACK
    ):
        return error
    # One line with causes and members is enough for an attempt that was followed by another one.
    text = error.message if is_plain else str(error).removeprefix(f"{error.type}: ")
    return ErrorInfo(
        error.type,
        shortened(text, _BRIEF_MESSAGE),
        (error.traceback or "")[-_BRIEF_TRACEBACK:] or None,
    )


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Return the errors of a group, at any level, or the error itself if it is no group."""
    left = [error]
    seen: set[int] = set()
    count = 0
    while left and count < _LEAVES:
        candidate = left.pop()
        if id(candidate) in seen:
            continue
        seen.add(id(candidate))
        count += 1
        if members := _members(candidate):
            left.extend(reversed(members))
        else:
            yield candidate


def class_names(error: BaseException) -> tuple[str, ...]:
    """Return the names of an exception's class and of its bases, and those of a group's errors."""
    errors = (error, *leaves(error)) if _members(error) else (error,)
    names = (
        type_name(cls)
        for each in errors
        for cls in type(each).__mro__
        if issubclass(cls, BaseException)
    )
    return tuple(dict.fromkeys(names))


def is_non_retryable(error: BaseException) -> bool:
    """Return whether another attempt is useless: the activity says so, or a value cannot be
    stored.

    One such error in a group counts for the whole group.
    """
    return any(isinstance(each, (NonRetryable, PayloadError)) for each in (error, *leaves(error)))


def storable(text: str, most: int) -> str:
    """Return a text that every store accepts, cut to ``most`` characters."""
    # Lone surrogates (they come from undecodable file names) have no UTF-8 form.
    return shortened(text, most).encode("utf-8", "backslashreplace").decode()


def _members(error: BaseException) -> tuple[BaseException, ...]:
    """Return the errors of a group; a group is never empty."""
    return (
        cast("BaseExceptionGroup[BaseException]", error).exceptions
        if isinstance(error, BaseExceptionGroup)
        else ()
    )


def _told_cause(error: BaseException) -> ErrorInfo | None:
    """Return the stored error of an activity or a child; its exception object is not known here."""
    return error.cause if isinstance(error, (ActivityFailed, ChildFailed)) else None


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a user's __str__ may be broken; the failure must still be recorded
        return "<its message cannot be read>"


def encoded_details(failure: Failure) -> Payload:
    """Return the details of a failure in their JSON form.

    Raises:
        EncodeError, PayloadTooLarge: they have no JSON form, or a too large one.
    """
    return encode(
        failure.details, subject=f"details of {type(failure).__name__}", limit=MOST_DETAILS
    )


def _details(error: BaseException) -> tuple[Any, str]:
    """Return the details of a failure as JSON values, and a note if they cannot be kept."""
    if not isinstance(error, Failure) or error.details is None:
        return None, ""
    try:
        return plain(encoded_details(error)), ""
    except PayloadError as fault:
        return None, storable(f" (its details are not kept: {fault})", _NESTED_MESSAGE)


def _traceback(error: BaseException, most: int) -> str | None:
    frames = (
        entry
        for entry in traceback.walk_tb(error.__traceback__)
        if str(entry[0].f_globals.get("__name__", "")).partition(".")[0] != "orchestra"
    )
    lines = "".join(traceback.StackSummary.extract(frames).format())
    # The frames are more useful than a long text, which the message already holds.
    tail = shortened("".join(_only(error)), most // 2)
    return storable_tail(lines, most - len(tail)) + storable(tail, most)


def _only(error: BaseException) -> list[str]:
    try:
        if _members(error):  # its members have entries of their own
            return [f"{type_name(type(error))}: {_message(error)}\n"]
        return traceback.format_exception_only(error)
    except Exception:  # noqa: BLE001 - as above
        return [f"{type_name(type(error))}\n"]


def storable_tail(text: str, most: int) -> str:
    """Return the end of a text in a form that every store accepts."""
    return text[-most:].encode("utf-8", "backslashreplace").decode()
