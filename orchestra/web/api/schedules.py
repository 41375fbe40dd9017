"""Schedules: look, pause, resume, trigger, backfill, delete."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import Header, Query
from fastapi.responses import JSONResponse, Response

from orchestra.client.schedules import BackfillReport, SchedulePage
from orchestra.schedules import Overlap, ScheduleInfo, SlotOutcome
from orchestra.web.access import CurrentClient, Operator
from orchestra.web.answers import Routes, answer, revision_of
from orchestra.web.paths import Id, id_of

__all__ = ["routes"]

routes: Routes = Routes("schedules")

Revision = Annotated[str | None, Header(alias="If-Match", description='"REVISION", quoted')]


@dataclass
class Pause:
    """Why a schedule is paused, and until when; without an end until it is resumed."""

    reason: str = ""
    until: datetime | None = None


@dataclass
class Resume:
    """Whether the slots of the pause count as missed ones, which are caught up."""

    catch_up: bool = False
    reason: str = ""


@dataclass
class Trigger:
    """How a run that is open is dealt with; by default as the schedule says."""

    overlap: Overlap | None = None
    reason: str = ""


@dataclass
class Backfill:
    """The past interval whose slots run, both ends within."""

    start: datetime
    end: datetime
    dry_run: bool = True
    overlap: Overlap = "buffer_all"
    reason: str = ""


def _shown(info: ScheduleInfo) -> JSONResponse:
    return answer(info, headers={"ETag": f'"{info.revision}"'})


@routes.route("GET", "/schedules", SchedulePage)
async def list_schedules(
    client: CurrentClient,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    page: str | None = None,
) -> JSONResponse:
    """Return schedules in the order of their ids."""
    return answer(await client.schedules.list(limit=limit, page=page))


@routes.route("GET", "/schedules/{schedule_id}", ScheduleInfo)
async def get_schedule(schedule_id: Id, client: CurrentClient) -> JSONResponse:
    """Return a schedule, and how it does. Its revision is the ETag."""
    return _shown(await client.schedules.get(id_of(schedule_id)))


@routes.route("GET", "/schedules/{schedule_id}/preview", tuple[datetime, ...])
async def preview_schedule(
    schedule_id: Id, client: CurrentClient, count: Annotated[int, Query(ge=1, le=1000)] = 10
) -> JSONResponse:
    """Return the next slots of a schedule."""
    return answer(await client.schedules.preview(id_of(schedule_id), count))


@routes.route("POST", "/schedules/{schedule_id}/pause", ScheduleInfo)
async def pause_schedule(
    schedule_id: Id,
    client: CurrentClient,
    by: Operator,
    body: Pause,
    if_match: Revision = None,
) -> JSONResponse:
    """Pause a schedule. Its runs go on."""
    info = await client.schedules.pause(
        id_of(schedule_id),
        body.reason,
        body.until,
        by=by,
        expected_revision=revision_of(if_match),
    )
    return _shown(info)


@routes.route("POST", "/schedules/{schedule_id}/resume", ScheduleInfo)
async def resume_schedule(
    schedule_id: Id,
    client: CurrentClient,
    by: Operator,
    body: Resume,
    if_match: Revision = None,
) -> JSONResponse:
    """End the pause of a schedule."""
    info = await client.schedules.resume(
        id_of(schedule_id),
        catch_up=body.catch_up,
        reason=body.reason,
        by=by,
        expected_revision=revision_of(if_match),
    )
    return _shown(info)


@routes.route("POST", "/schedules/{schedule_id}/trigger", SlotOutcome | None)
async def trigger_schedule(
    schedule_id: Id, client: CurrentClient, by: Operator, body: Trigger
) -> JSONResponse:
    """Do now what the schedule does at a slot. ``null``: it waits for the end of another run."""
    outcome = await client.schedules.trigger(
        id_of(schedule_id), overlap=body.overlap, reason=body.reason, by=by
    )
    return answer(outcome)


@routes.route("POST", "/schedules/{schedule_id}/backfill", BackfillReport)
async def backfill_schedule(
    schedule_id: Id, client: CurrentClient, by: Operator, body: Backfill
) -> JSONResponse:
    """Run the slots of a past interval. By default it only says which."""
    report = await client.schedules.backfill(
        id_of(schedule_id),
        body.start,
        body.end,
        dry_run=body.dry_run,
        overlap=body.overlap,
        reason=body.reason,
        by=by,
    )
    return answer(report)


@routes.route("DELETE", "/schedules/{schedule_id}", None, 204)
async def delete_schedule(
    schedule_id: Id,
    client: CurrentClient,
    by: Operator,
    reason: str = "",
    if_match: Revision = None,
) -> Response:
    """Delete a schedule. Its runs go on."""
    await client.schedules.delete(
        id_of(schedule_id), expected_revision=revision_of(if_match), reason=reason, by=by
    )
    return Response(status_code=204)
