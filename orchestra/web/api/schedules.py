"""Schedules: look, define, pause, resume, trigger, backfill, delete."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import Path, Query
from fastapi.responses import JSONResponse, Response

from orchestra.client.schedules import BackfillReport, SchedulePage
from orchestra.errors import InvalidArgument
from orchestra.schedules import (
    CatchUp,
    Event,
    Overlap,
    Schedule,
    ScheduleInfo,
    SlotOutcome,
    Start,
    UnknownSpec,
    spec_from_json,
)
from orchestra.web.access import CurrentClient, Operator, Role
from orchestra.web.answers import Revision, Routes, answer, revision_of
from orchestra.web.cursors import cursor_of, page_of
from orchestra.web.forms import strict
from orchestra.web.paths import id_of

__all__ = ["routes"]

routes: Routes = Routes("schedules")

ScheduleId = Annotated[str, Path(description="the id of a schedule, percent-encoded")]


@strict
@dataclass
class NewStart:
    """What a schedule starts at each slot."""

    name: str
    input: Any = None
    version: str | None = None
    labels: dict[str, str] | None = None
    queue: str | None = None
    kind: Literal["start"] = "start"


@strict
@dataclass
class NewTick:
    """The event that a schedule sends at each slot."""

    instance_id: str
    name: str
    payload: Any = None
    kind: Literal["event"] = "event"


@strict
@dataclass
class NewSchedule:
    """A schedule; see ``Schedule``. ``spec`` has the form that schedules are shown with; durations
    are seconds.
    """

    spec: dict[str, Any]
    action: NewStart | NewTick
    id: str | None = None
    overlap: Overlap = "skip"
    catch_up: CatchUp = "latest"
    catch_up_window: float = 86_400.0
    jitter: float = 0.0
    start_at: datetime | None = None
    end_at: datetime | None = None
    pause_after_failures: int | None = None
    reason: str = ""
    allow_unregistered: bool = False

    def schedule(self, schedule_id: str) -> Schedule:
        """Return the schedule that this defines.

        Raises:
            InvalidArgument: the spec cannot be read.
        """
        spec = spec_from_json(self.spec)
        if isinstance(spec, UnknownSpec):
            raise InvalidArgument(f"the spec cannot be read: {spec.reason}")
        action = self.action
        return Schedule(
            schedule_id,
            spec,
            Start(action.name, action.input, action.version, action.labels, action.queue)
            if isinstance(action, NewStart)
            else Event(action.instance_id, action.name, action.payload),
            overlap=self.overlap,
            catch_up=self.catch_up,
            catch_up_window=_duration(self.catch_up_window),
            jitter=_duration(self.jitter),
            start_at=self.start_at,
            end_at=self.end_at,
            pause_after_failures=self.pause_after_failures,
        )


def _duration(seconds: float) -> timedelta:
    try:
        return timedelta(seconds=seconds)
    except (OverflowError, ValueError) as error:
        raise InvalidArgument(f"{seconds} seconds are no duration") from error


@strict
@dataclass
class Pause:
    """Why a schedule is paused, and until when; without an end until it is resumed."""

    reason: str = ""
    until: datetime | None = None


@strict
@dataclass
class Resume:
    """Whether the slots of the pause count as missed ones, which are caught up."""

    catch_up: bool = False
    reason: str = ""


@strict
@dataclass
class Trigger:
    """How a run that is open is dealt with; by default as the schedule says."""

    overlap: Overlap | None = None
    reason: str = ""


@strict
@dataclass
class Backfill:
    """The past interval whose slots run, both ends within."""

    start: datetime
    end: datetime
    dry_run: bool = True
    overlap: Overlap = "buffer_all"
    reason: str = ""


def _shown(info: ScheduleInfo, status: int = 200) -> JSONResponse:
    return answer(info, status, {"ETag": f'"{info.revision}"'})


@routes.route("GET", "/schedules", SchedulePage)
async def list_schedules(
    client: CurrentClient,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    page: str | None = None,
) -> JSONResponse:
    """Return schedules in the order of their ids."""
    found = await client.schedules.list(limit=limit, page=page_of(page))
    return answer(replace(found, next_page=cursor_of(found.next_page)))


@routes.route("POST", "/schedules", ScheduleInfo, 201, role=Role.ADMIN)
async def create_schedule(body: NewSchedule, client: CurrentClient, by: Operator) -> JSONResponse:
    """Create a schedule. It has no slots before now."""
    if body.id is None:
        raise InvalidArgument("the schedule has no id; give one")
    info = await client.schedules.create(
        body.schedule(body.id),
        reason=body.reason,
        by=by,
        allow_unregistered=body.allow_unregistered,
    )
    return _shown(info, 201)


@routes.route("PUT", "/schedules/{schedule_id}", ScheduleInfo, role=Role.ADMIN)
async def update_schedule(
    schedule_id: ScheduleId,
    client: CurrentClient,
    by: Operator,
    body: NewSchedule,
    if_match: Revision = None,
) -> JSONResponse:
    """Replace a schedule; with If-Match only if it still has this revision. Its pause, its counters
    and its runs stay.
    """
    known = id_of(schedule_id)
    if body.id not in {None, known}:
        raise InvalidArgument(f"the path names {known!r}, and the body {body.id!r}; give one id")
    info = await client.schedules.update(
        body.schedule(known),
        expected_revision=revision_of(if_match),
        reason=body.reason,
        by=by,
        allow_unregistered=body.allow_unregistered,
    )
    return _shown(info)


@routes.route("GET", "/schedules/{schedule_id}", ScheduleInfo)
async def get_schedule(schedule_id: ScheduleId, client: CurrentClient) -> JSONResponse:
    """Return a schedule, and how it does. Its revision is the ETag."""
    return _shown(await client.schedules.get(id_of(schedule_id)))


@routes.route("GET", "/schedules/{schedule_id}/preview", tuple[datetime, ...])
async def preview_schedule(
    schedule_id: ScheduleId, client: CurrentClient, count: Annotated[int, Query(ge=1, le=1000)] = 10
) -> JSONResponse:
    """Return the next slots of a schedule."""
    return answer(await client.schedules.preview(id_of(schedule_id), count))


@routes.route("POST", "/schedules/{schedule_id}/pause", ScheduleInfo)
async def pause_schedule(
    schedule_id: ScheduleId,
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
    schedule_id: ScheduleId,
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
    schedule_id: ScheduleId, client: CurrentClient, by: Operator, body: Trigger
) -> JSONResponse:
    """Do now what the schedule does at a slot. ``null``: it waits for the end of another run."""
    outcome = await client.schedules.trigger(
        id_of(schedule_id), overlap=body.overlap, reason=body.reason, by=by
    )
    return answer(outcome)


@routes.route("POST", "/schedules/{schedule_id}/backfill", BackfillReport)
async def backfill_schedule(
    schedule_id: ScheduleId, client: CurrentClient, by: Operator, body: Backfill
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


@routes.route("DELETE", "/schedules/{schedule_id}", None, 204, role=Role.ADMIN)
async def delete_schedule(
    schedule_id: ScheduleId,
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
