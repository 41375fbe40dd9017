"""How code has failed: a declared failure ends its instance, any other error holds it."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from typing import Final, cast

from orchestra.errors import ActivityFailed, Cancelled, ChildFailed, DecodeError, ErrorInfo, Failure
from orchestra.frames import is_user, place
from orchestra.replay.turns import TurnHeld
from orchestra.store.kinds import HoldKind
from orchestra.store.messages import MessageRow

__all__ = ["held_by", "is_declared", "place_of"]

_DECLARED: Final = (Failure, ActivityFailed, ChildFailed, Cancelled)


def is_declared(error: BaseException, failures: tuple[type[BaseException], ...]) -> bool:
    """Return whether an error ends its instance as failed. A group does if all its errors do."""
    declared = (*_DECLARED, *failures)
    return isinstance(error, declared) or all(isinstance(leaf, declared) for leaf in _leaves(error))


def held_by(
    error: BaseException,
    info: ErrorInfo,
    where: str,
    version: str,
    unreadable: Mapping[BaseException, MessageRow],
) -> TurnHeld:
    """Return the hold for an error that is no declared failure.

    Args:
        error: the error.
        info: what the hold keeps of it.
        where: the line of code that raised it.
        version: the version of the code.
        unreadable: the messages of this turn that do not decode, by their errors.
    """
    leaves = list(_leaves(error))
    kind = (
        HoldKind.STATE if all(isinstance(leaf, DecodeError) for leaf in leaves) else HoldKind.ERROR
    )
    messages = [unreadable[leaf] for leaf in leaves if leaf in unreadable]
    sent = "".join(f"message {message.sequence} from {message.sender!r}, " for message in messages)
    return TurnHeld(kind, f"{info} ({sent}at {where}, version {version})", info)


def place_of(error: BaseException | None) -> str | None:
    """Return the last line of user code that an error has passed; of a group, that of its first
    error.
    """
    if error is None:
        return None
    first = next(_leaves(error), error)
    if first is not error and (inner := place_of(first)) is not None:
        return inner
    trace = traceback.walk_tb(error.__traceback__)
    lines = [place(frame, line) for frame, line in trace if is_user(frame)]
    return lines[-1] if lines else None


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors of a group, and of groups in it; any other error itself."""
    pending = [error]
    seen: set[int] = set()
    while pending:
        current = pending.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, BaseExceptionGroup):
            pending.extend(reversed(cast("BaseExceptionGroup[BaseException]", current).exceptions))
        else:
            yield current
