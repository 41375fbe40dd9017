"""What may be an id, a label, a page and a limit: checked before anything is asked of the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from orchestra.client.info import InstanceStatus
from orchestra.errors import InvalidArgument
from orchestra.ids import check_text
from orchestra.versions import Exact, Latest

__all__ = [
    "check_choice",
    "check_limit",
    "check_number",
    "check_policy",
    "check_reason",
    "check_start",
    "check_text",
    "read_page",
    "read_statuses",
]

_HIGHEST: Final = 2**62
"""No store counts further than 64 bits."""


def check_start(instance_id: str | None, request_id: str | None, labels: Mapping[str, str] | None) -> None:
    """Check what a start is called by.

    Raises:
        InvalidArgument: an id or a label is not text of 1 to 1,024 characters (a label's value may be empty).
    """
    check_text(instance_id, "an instance id")
    check_text(request_id, "a request id")
    for key, value in (labels or {}).items():
        check_text(key, "a label")
        check_text(value or " ", f"the value of label {key!r}")


def check_choice(value: object, what: str, choices: Sequence[str]) -> None:
    """Check one of a few words.

    Raises:
        InvalidArgument: it is none of them.
    """
    if value not in choices:
        raise InvalidArgument(f"{what} must be one of {', '.join(map(repr, choices))}, not {value!r}")


def check_reason(reason: object) -> None:
    """Check why something is done; it may be empty.

    Raises:
        InvalidArgument: it is not text of at most 1,024 characters that every store can hold.
    """
    check_text(" " if reason == "" or reason is None else reason, "a reason")


def check_policy(policy: object) -> None:
    """Check a version policy. A bare version would otherwise be stored as text, and read back as ``Latest()``.

    Raises:
        InvalidArgument: it is none.
    """
    if not isinstance(policy, (Latest, Exact)):
        raise InvalidArgument(f"{policy!r} is no version policy; give Latest() or Exact('1.2.0')")


def check_limit(limit: int) -> None:
    """Check how many are asked for.

    Raises:
        InvalidArgument: none, or more than can be counted.
    """
    if not 1 <= limit < _HIGHEST:
        raise InvalidArgument(f"a limit of {limit} is not possible; it must be 1 or more")


def check_number(number: int, what: str) -> None:
    """Check a number that something begins behind.

    Raises:
        InvalidArgument: it is larger than can be counted.
    """
    if abs(number) >= _HIGHEST:
        raise InvalidArgument(f"{what} is {number}; no number is as large")


def read_statuses(status: InstanceStatus | Sequence[InstanceStatus] | None) -> tuple[InstanceStatus, ...] | None:
    """Return the statuses that are asked for, ``None`` for any; their texts do as well.

    Raises:
        InvalidArgument: one of them is none.
    """
    if status is None:
        return None
    try:
        return tuple(map(InstanceStatus, (status,) if isinstance(status, str) else status))
    except (ValueError, TypeError):
        known = ", ".join(InstanceStatus)
        raise InvalidArgument(f"{status!r} is no status; give one or several of {known}") from None


def read_page(page: str | None) -> tuple[int, str] | None:
    """Return where a page begins.

    Raises:
        InvalidArgument: it is not what a list has given back.
    """
    if page is None:
        return None
    created_at, separator, instance_id = page.partition(":")
    if not separator or not (created_at.isascii() and created_at.isdecimal()) or int(created_at) >= _HIGHEST:
        raise InvalidArgument(f"{page!r} is no page; give back `next_page` of the page before")
    return int(created_at), instance_id
