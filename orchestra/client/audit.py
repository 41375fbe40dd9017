"""Read the audit: what operators did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestra.client.access import Access
from orchestra.client.arguments import check_limit, check_text, read_page
from orchestra.clock import from_micros
from orchestra.store.audit import OperationQuery, OperationRow

__all__ = ["Audit", "OperationInfo", "OperationPage"]


@dataclass(frozen=True, slots=True)
class OperationInfo:
    """What an operator did: when, who, and to what. ``subject`` is the id of an instance or, for a
    policy, the name of an orchestration.

    ``details`` has the ``reason`` that was given, and what else the act was done with.
    """

    at: datetime
    by: str
    action: str
    subject: str
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class OperationPage:
    """A page of the audit. Give ``next_page`` back to get older entries; ``None``: there are
    none.
    """

    items: tuple[OperationInfo, ...]
    next_page: str | None


class Audit:
    """Lists what operators did."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def list(
        self, subject: str | None, action: str | None, by: str | None, limit: int, page: str | None
    ) -> OperationPage:
        """Return entries of the audit; see :meth:`Client.list_operations`."""
        check_text(subject, "a subject")
        check_text(action, "an action")
        check_text(by, "an author")
        check_limit(limit)
        query = OperationQuery(subject, action, by, limit + 1, read_page(page))
        rows = await self._access.read(lambda directory: directory.operations(query))
        items = tuple(
            OperationInfo(from_micros(row.at), row.by, row.action, row.subject, _details(row))
            for row in rows[:limit]
        )
        last = rows[limit - 1] if len(rows) > limit else None
        return OperationPage(items, None if last is None else f"{last.at}:{last.number}")


def _details(row: OperationRow) -> Mapping[str, Any]:
    return {**row.detail, "reason": row.detail.get("reason", row.reason)}
