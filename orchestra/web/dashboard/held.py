"""What is held, by its cause, with what releases it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from orchestra.client.info import InstanceInfo
from orchestra.client.selections import OrderBy, Selection
from orchestra.operations.holds import releases_when
from orchestra.store.kinds import HoldKind
from orchestra.web.access import CurrentClient, CurrentPrincipal
from orchestra.web.dashboard.rendering import Page, render

__all__ = ["MEANINGS", "HeldGroup", "pages"]

_SHOWN: Final = 10

MEANINGS: Final[dict[HoldKind, str]] = {
    HoldKind.ERROR: "The code raised an exception that is no declared failure.",
    HoldKind.LIMIT: "The lap is over its limits.",
    HoldKind.NONDETERMINISM: "The code decides differently from what its history records.",
    HoldKind.HISTORY: "The history cannot be read.",
    HoldKind.STATE: "A stored value does not decode: the state, or a message.",
    HoldKind.MIGRATION: "The state does not migrate to the version that opens it.",
    HoldKind.PAYLOAD: "A sealed value does not open: a key is missing, or it was changed or moved.",
    HoldKind.STORE: "The store refused what the lap wrote.",
    HoldKind.INTERNAL: "The engine has met an error of its own.",
    HoldKind.OPERATOR: "An operator has paused it, or a boundary that was due has.",
    HoldKind.VERSION_MISSING: "No living node has its version.",
    HoldKind.CRASHING: "Nodes were lost while they ran it, several in a row.",
    HoldKind.ACTIVITY_MISSING: "It waits for an activity that no living node takes.",
}


@dataclass(frozen=True, slots=True)
class HeldGroup:
    """The held instances of one cause: how many, and the newest of them."""

    kind: HoldKind
    count: int
    meaning: str
    releases_when: str
    first: Sequence[InstanceInfo]


pages: APIRouter = APIRouter(include_in_schema=False)


@pages.get("/held")
async def held(request: Request, client: CurrentClient, principal: CurrentPrincipal) -> Response:
    """Show what is held, by its cause."""
    summary = await client.summarize_store()
    groups: list[HeldGroup] = []
    for kind in HoldKind:
        if count := summary.held_by_kind.get(kind.value, 0):
            page = await client.list_instances(
                Selection(held=kind), order_by=OrderBy.NEWEST, limit=_SHOWN
            )
            groups.append(HeldGroup(kind, count, MEANINGS[kind], releases_when(kind), page.items))
    groups.sort(key=lambda one: -one.count)
    return render(
        request,
        principal,
        Page(
            "held.html",
            summary.at,
            {"groups": groups, "total": summary.held},
            {"held": groups},
            ("held",),
        ),
    )
