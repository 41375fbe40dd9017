"""What operators do: to one instance, and to all of a selection."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from fastapi.responses import JSONResponse, Response

from orchestra.client.bulk import BulkReport
from orchestra.client.info import InstanceInfo, InstanceStatus, PurgeReport, RewindInfo
from orchestra.client.selections import Selection
from orchestra.operations.bulk import Bulk
from orchestra.web.access import CurrentClient, Operator
from orchestra.web.answers import Routes, answer
from orchestra.web.paths import Id, id_of

__all__ = ["routes"]

routes: Routes = Routes("acts")


@dataclass
class Act:
    """Why something is done."""

    reason: str = ""


@dataclass
class Pin:
    """The version to pin an instance to."""

    version: str
    until: datetime | None = None
    reason: str = ""


@dataclass
class Rewind:
    """Which lap begins again; see ``Client.rewind``."""

    execution_id: int
    version: str | None = None
    pin: bool = True
    children: Literal["abandon", "cancel"] = "abandon"
    reason: str = ""
    request_id: str | None = None


@dataclass
class Rerun:
    """The new instance from the first input of another one."""

    version: str | None = None
    instance_id: str | None = None


@dataclass
class Labels:
    """Labels to set, and those that are null to remove."""

    labels: dict[str, str | None]
    reason: str = ""


@dataclass
class Nudged:
    """Whether this call has asked the execution; otherwise it was asked before."""

    asked: bool


@dataclass
class BulkAct:
    """What to do to all instances of a selection; see ``Client.bulk``."""

    act: Literal[
        "cancel",
        "terminate",
        "hold",
        "release",
        "pin",
        "unpin",
        "nudge",
        "rewind",
        "rerun",
        "delete",
    ]
    selection: Selection
    dry_run: bool = True
    reason: str = ""
    version: str | None = None
    request_id: str | None = None


@dataclass
class Purge:
    """Which ended instances to delete; see ``Client.purge``."""

    completed_before: datetime
    name: str | None = None
    status: list[InstanceStatus] | None = None
    id_prefix: str | None = None
    labels: dict[str, str] | None = None
    limit: int | None = None
    dry_run: bool = True
    reason: str = ""


NONE: Act = Act()


@routes.route("POST", "/instances/{instance_id}/cancel", None, 204)
async def cancel_instance(
    instance_id: Id, client: CurrentClient, by: Operator, body: Act = NONE
) -> Response:
    """Ask an instance to stop."""
    await client.cancel(id_of(instance_id), body.reason, by=by)
    return Response(status_code=204)


@routes.route("POST", "/instances/{instance_id}/terminate", None, 204)
async def terminate_instance(
    instance_id: Id, client: CurrentClient, by: Operator, body: Act = NONE
) -> Response:
    """End an instance at once."""
    await client.terminate(id_of(instance_id), body.reason, by=by)
    return Response(status_code=204)


@routes.route("POST", "/instances/{instance_id}/hold", None, 204)
async def hold_instance(
    instance_id: Id, client: CurrentClient, by: Operator, body: Act = NONE
) -> Response:
    """Pause an instance until it is released."""
    await client.hold(id_of(instance_id), reason=body.reason, by=by)
    return Response(status_code=204)


@routes.route("POST", "/instances/{instance_id}/release", None, 204)
async def release_instance(instance_id: Id, client: CurrentClient, by: Operator) -> Response:
    """End what holds an instance."""
    await client.release(id_of(instance_id), by=by)
    return Response(status_code=204)


@routes.route("POST", "/instances/{instance_id}/pin", None, 204)
async def pin_instance(instance_id: Id, body: Pin, client: CurrentClient, by: Operator) -> Response:
    """Pin an instance to a version."""
    await client.pin(id_of(instance_id), body.version, body.until, reason=body.reason, by=by)
    return Response(status_code=204)


@routes.route("POST", "/instances/{instance_id}/unpin", None, 204)
async def unpin_instance(
    instance_id: Id, client: CurrentClient, by: Operator, body: Act = NONE
) -> Response:
    """Let the policy choose again."""
    await client.unpin(id_of(instance_id), reason=body.reason, by=by)
    return Response(status_code=204)


@routes.route("POST", "/instances/{instance_id}/nudge", Nudged)
async def nudge_instance(
    instance_id: Id, client: CurrentClient, by: Operator, body: Act = NONE
) -> JSONResponse:
    """Ask an instance to reach its boundary soon."""
    return answer(Nudged(await client.nudge(id_of(instance_id), reason=body.reason, by=by)))


@routes.route("POST", "/instances/{instance_id}/rewind", RewindInfo)
async def rewind_instance(
    instance_id: Id, body: Rewind, client: CurrentClient, by: Operator
) -> JSONResponse:
    """Begin a former lap again."""
    info = await client.rewind(
        id_of(instance_id),
        body.execution_id,
        body.version,
        pin=body.pin,
        children=body.children,
        reason=body.reason,
        by=by,
        request_id=body.request_id,
    )
    return answer(info)


@routes.route("POST", "/instances/{instance_id}/rerun", InstanceInfo, 201)
async def rerun_instance(instance_id: Id, client: CurrentClient, body: Rerun) -> JSONResponse:
    """Start a new instance from the first input of this one."""
    handle = await client.rerun(
        id_of(instance_id), version=body.version, instance_id=body.instance_id
    )
    return answer(await handle.info(), 201)


@routes.route("POST", "/instances/{instance_id}/labels", dict[str, str])
async def set_labels(
    instance_id: Id, body: Labels, client: CurrentClient, by: Operator
) -> JSONResponse:
    """Set and remove labels. Return all that it has now."""
    return answer(
        await client.set_labels(id_of(instance_id), body.labels, reason=body.reason, by=by)
    )


@routes.route("DELETE", "/instances/{instance_id}", None, 204)
async def delete_instance(
    instance_id: Id, client: CurrentClient, by: Operator, reason: str = ""
) -> Response:
    """Delete an ended instance."""
    await client.delete(id_of(instance_id), reason=reason, by=by)
    return Response(status_code=204)


@routes.route("POST", "/bulk", BulkReport)
async def act_on_many(body: BulkAct, client: CurrentClient, by: Operator) -> JSONResponse:
    """Do something to all instances of a selection. By default it only says what that would be."""
    report = await client.bulk(
        Bulk(body.act),
        body.selection,
        dry_run=body.dry_run,
        reason=body.reason,
        by=by,
        version=body.version,
        request_id=body.request_id,
    )
    return answer(report)


@routes.route("POST", "/purge", PurgeReport)
async def purge_instances(body: Purge, client: CurrentClient) -> JSONResponse:
    """Delete instances that ended before a moment. By default it only says which."""
    report = await client.purge(
        completed_before=body.completed_before,
        name=body.name,
        status=body.status,
        id_prefix=body.id_prefix,
        labels=body.labels,
        limit=body.limit,
        dry_run=body.dry_run,
        reason=body.reason,
    )
    return answer(report)
