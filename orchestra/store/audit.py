"""The audit: what operators did, when and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from orchestra.codec import UserText
from orchestra.frozen import frozen

__all__ = ["KEPT_OPERATIONS", "OperationQuery", "OperationRow", "Record"]

KEPT_OPERATIONS: Final = 100_000
"""How many entries are kept: an act on many instances leaves one for each."""


_NONE: Final = UserText("")


@frozen
class Record:
    """An operator's act. The change that carries it leaves it in the audit, in its transaction, if
    it is granted and has changed something. ``reason`` is why; it may quote users.
    """

    by: str
    action: str
    subject: str
    detail: Mapping[str, Any] = field(default_factory=dict[str, Any])
    reason: UserText = _NONE


@dataclass(frozen=True, slots=True)
class OperationRow:
    """An entry of the audit. ``number`` orders entries of one instant; it is the store's own."""

    at: int
    by: str
    action: str
    subject: str
    detail: Mapping[str, Any]
    number: str
    reason: UserText = _NONE


@dataclass(frozen=True, slots=True)
class OperationQuery:
    """Which entries to list, the newest first. ``after`` is the instant and the number of the last
    one of the previous page.
    """

    subject: str | None = None
    action: str | None = None
    by: str | None = None
    limit: int = 100
    after: tuple[int, str] | None = None
