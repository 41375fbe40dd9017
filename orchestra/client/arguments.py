"""Checks of the client's arguments: ids, labels, pages, limits. No call reaches the store with a
wrong one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Final, cast

from orchestra.client.info import InstanceStatus
from orchestra.errors import InvalidArgument
from orchestra.ids import MOST_LABELS, check_labels, check_name, check_text
from orchestra.options import check_count
from orchestra.registry import OrchestrationRegistry, RegistryBuilder
from orchestra.store.port import Provider
from orchestra.versions import Exact, Latest, Range

__all__ = [
    "check_author",
    "check_choice",
    "check_events",
    "check_filters",
    "check_id",
    "check_labels",
    "check_limit",
    "check_name",
    "check_number",
    "check_policy",
    "check_provider",
    "check_reason",
    "check_registry",
    "check_revision",
    "check_start",
    "check_text",
    "read_page",
    "read_statuses",
]

_HIGHEST: Final = 2**62
"""No store counts further than 64 bits."""


def check_provider(provider: object) -> None:
    """Check a store.

    Raises:
        InvalidArgument: it is something else. The message says what to write instead.
    """
    if isinstance(provider, Provider):
        return
    if isinstance(provider, (str, PurePath)):
        text = str(provider)
        if "://" in text or "dbname=" in text:  # it may hold a password
            raise InvalidArgument(
                "the provider is the text of a connection; write PostgresProvider(...) around it"
            )
        raise InvalidArgument(f"the provider is {provider!r}; write SqliteProvider({text!r})")
    if isinstance(provider, OrchestrationRegistry):
        raise InvalidArgument(
            "the provider is a registry; the provider comes first: "
            "Runtime(SqliteProvider('app.db'), registry)"
        )
    raise InvalidArgument(
        f"the provider is {provider!r}; give SqliteProvider('app.db'), or another provider's object"
    )


def check_events(events: object) -> None:
    """Check the events of a start.

    Raises:
        InvalidArgument: they are no sequence of pairs of a name and a payload.
    """
    if isinstance(events, (str, bytes)) or not isinstance(events, Sequence):
        raise InvalidArgument(
            f"events is {events!r}; give a list of (name, payload), such as [('check', 1)]"
        )
    for event in cast("Sequence[object]", events):
        pair = cast("tuple[object, ...]", event if isinstance(event, tuple) else ())
        if len(pair) != 2:
            raise InvalidArgument(
                f"events has {event!r}; each event is a pair (name, payload), such as ('check', 1)"
            )
        check_name(pair[0], "an event's name")


def check_registry(registry: object) -> None:
    """Check a registry.

    Raises:
        InvalidArgument: it is something else. The message says what to write instead.
    """
    if isinstance(registry, RegistryBuilder):
        raise InvalidArgument(
            "the registry is a builder that was not built; call its build(): "
            "`builder.register(...).build()`"
        )
    if not isinstance(registry, OrchestrationRegistry):
        raise InvalidArgument(
            f"the registry is {registry!r}; give "
            "OrchestrationRegistry.builder().register('watch', watch).build()"
        )


def check_start(
    instance_id: str | None, request_id: str | None, labels: Mapping[str, str] | None
) -> None:
    """Check the ids and labels of a start.

    Raises:
        InvalidArgument: an id or a label is not text of 1 to 1,024 characters (a label's value may
            be empty).
    """
    if instance_id is not None:
        check_name(instance_id, "an instance id")
    if request_id is not None:
        check_name(request_id, "a request id")
    if labels is not None:
        check_labels(labels)
        if len(labels) > MOST_LABELS:
            raise InvalidArgument(f"a start gives {len(labels)} labels; {MOST_LABELS} may be")


def check_id(instance_id: object) -> None:
    """Check the id of an instance.

    Raises:
        InvalidArgument: it is not text of 1 to 1,024 characters.
    """
    check_name(instance_id, "an instance id")


def check_filters(
    *,
    name: object,
    version: object,
    queue: object,
    id_prefix: object,
    parent: object,
    labels: Mapping[str, str] | None,
) -> None:
    """Check the optional conditions of a list.

    Raises:
        InvalidArgument: one of them cannot be an id, a name, a version, a queue or a label. A
            prefix may be empty.
    """
    check_text(name, "a name")
    check_text(version, "a version")
    check_text(queue, "a queue")
    check_text(None if id_prefix == "" else id_prefix, "the prefix of an instance id")
    check_text(parent, "a parent's id")
    check_labels(labels)


def check_choice(value: object, what: str, choices: Sequence[str]) -> None:
    """Check a choice among a few words.

    Raises:
        InvalidArgument: it is none of them.
    """
    if value not in choices:
        raise InvalidArgument(
            f"{what} must be one of {', '.join(map(repr, choices))}, not {value!r}"
        )


def check_reason(reason: object) -> None:
    """Check an operator's reason; it may be empty.

    Raises:
        InvalidArgument: it is not text of at most 1,024 characters that every store can hold.
    """
    check_text(" " if reason == "" or reason is None else reason, "a reason")


def check_author(by: object) -> None:
    """Check an operator's name; it may be empty.

    Raises:
        InvalidArgument: it is not text of at most 1,024 characters that every store can hold.
    """
    check_text(" " if by == "" else by, "an author")


def check_revision(revision: object) -> None:
    """Check the expected revision of a policy; ``None``: any.

    Raises:
        InvalidArgument: it is no whole number from 0 on.
    """
    if revision is None or (type(revision) is int and 0 <= revision < 2**62):
        return
    raise InvalidArgument(
        f"expected_revision is {revision!r}; give the revision that get_version_policy returned, 0 "
        "for none, or None"
    )


def check_policy(policy: object) -> None:
    """Check a version policy. A bare version would otherwise be stored as text, and read back as
    ``Latest()``.

    Raises:
        InvalidArgument: it is no version policy.
    """
    if not isinstance(policy, (Latest, Exact, Range)):
        raise InvalidArgument(
            f"{policy!r} is no version policy; give Latest(), Exact('1.2.0') or Range('^1.2')"
        )


def check_limit(limit: int) -> None:
    """Check how many items a list may return.

    Raises:
        InvalidArgument: it is no whole number, less than 1, or more than can be counted.
    """
    check_count(limit, "a limit")


def check_number(number: int, what: str) -> None:
    """Check the number of an execution.

    Raises:
        InvalidArgument: it is no whole number, or larger than can be counted.
    """
    check_count(number, what, least=1 - _HIGHEST)


def read_statuses(
    status: InstanceStatus | Sequence[InstanceStatus] | None,
) -> tuple[InstanceStatus, ...] | None:
    """Return the statuses of a condition, given as values or as their texts; ``None`` for any.

    Raises:
        InvalidArgument: one of them is no status.
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
        InvalidArgument: it is not the ``next_page`` of a page.
    """
    if page is None:
        return None
    created_at, separator, instance_id = (
        page.partition(":") if isinstance(page, str) else ("", "", "")
    )
    if (
        not separator
        or not (created_at.isascii() and created_at.isdecimal())
        or not _is_count(created_at)
    ):
        raise InvalidArgument(f"{page!r} is no page; give back `next_page` of the page before")
    check_name(instance_id, "the instance id in a page")
    return int(created_at), instance_id


def _is_count(digits: str) -> bool:
    # Python refuses to read numbers of thousands of digits.
    return len(digits) <= len(str(_HIGHEST)) and int(digits) < _HIGHEST
