"""What operators do: to one instance, and to all of a selection.

Each act takes a ``reason``, and is recorded with who asked. With ``dry_run`` it only says what it
would do.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from fastapi.responses import JSONResponse, Response

from orchestra.client import Client
from orchestra.client.bulk import BulkReport
from orchestra.client.info import InstanceInfo, InstanceStatus, PurgeReport, RewindInfo
from orchestra.client.planning import PlannedAct, planned_act
from orchestra.operations.bulk import Bulk
from orchestra.web.access import CurrentClient, CurrentPrincipal, Operator, Role, permit
from orchestra.web.answers import Routes, answer
from orchestra.web.forms import Conditions, strict
from orchestra.web.paths import Id, id_of

__all__ = ["routes"]

routes: Routes = Routes("acts")


@strict
@dataclass
class Act:
    """Why something is done. ``dry_run``: only say what it would do."""

    reason: str = ""
    dry_run: bool = False


@strict
@dataclass
class Pin:
    """The version to pin an instance to."""

    version: str
    until: datetime | None = None
    reason: str = ""
    dry_run: bool = False


@strict
@dataclass
class Rewind:
    """Which lap begins again; see ``Client.rewind``."""

    execution_id: int
    version: str | None = None
    pin: bool = True
    children: Literal["abandon", "cancel"] = "abandon"
    reason: str = ""
    request_id: str | None = None
    dry_run: bool = False


@strict
@dataclass
class Rerun:
    """The new instance from the first input of another one."""

    version: str | None = None
    instance_id: str | None = None
    reason: str = ""
    dry_run: bool = False


@strict
@dataclass
class Labels:
    """Labels to set, and those that are null to remove."""

    labels: dict[str, str | None]
    reason: str = ""


@dataclass
class Nudged:
    """Whether this call has asked the execution; otherwise it was asked before."""

    asked: bool


@strict
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
    selection: Conditions
    dry_run: bool = True
    reason: str = ""
    version: str | None = None
    request_id: str | None = None


@strict
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
ANEW: Rerun = Rerun()


async def _planned(
    client: Client, act: Bulk, instance_id: str, version: str | None = None
) -> JSONResponse:
    return answer(planned_act(act, await client.get_instance_info(instance_id), version))


@routes.route("POST", "/instances/{instance_id}/cancel", None, 204, dry_run=PlannedAct)
async def cancel_instance(
    instance_id: Id, client: CurrentClient, by: Operator, body: Act = NONE
) -> Response:
    """Ask an instance to stop."""
    if body.dry_run:
        return await _planned(client, Bulk.CANCEL, id_of(instance_id))
    await client.cancel(id_of(instance_id), body.reason, by=by)
    return Response(status_code=204)


@routes.route("POST", "/instances/{instance_id}/terminate", None, 204, dry_run=PlannedAct)
async def terminate_instance(
    instance_id: Id, client: CurrentClient, by: Operator, body: Act = NONE
) -> Response:
    """End an instance at once."""
    if body.dry_run:
        return await _planned(client, Bulk.TERMINATE, id_of(instance_id))
    await client.terminate(id_of(instance_id), body.reason, by=by)
    return Response(status_code=204)


@routes.route("POST", "/instances/{instance_id}/hold", None, 204, dry_run=PlannedAct)
async def hold_instance(
    instance_id: Id, client: CurrentClient, by: Operator, body: Act = NONE
) -> Response:
    """Pause an instance until it is released."""
    if body.dry_run:
        return await _planned(client, Bulk.HOLD, id_of(instance_id))
    await client.hold(id_of(instance_id), reason=body.reason, by=by)
    return Response(status_code=204)


@routes.route("POST", "/instances/{instance_id}/release", None, 204, dry_run=PlannedAct)
async def release_instance(
    instance_id: Id, client: CurrentClient, by: Operator, body: Act = NONE
) -> Response:
    """End what holds an instance."""
    if body.dry_run:
        return await _planned(client, Bulk.RELEASE, id_of(instance_id))
    await client.release(id_of(instance_id), reason=body.reason, by=by)
    return Response(status_code=204)


@routes.route("POST", "/instances/{instance_id}/pin", None, 204, dry_run=PlannedAct)
async def pin_instance(instance_id: Id, body: Pin, client: CurrentClient, by: Operator) -> Response:
    """Pin an instance to a version."""
    if body.dry_run:
        return await _planned(client, Bulk.PIN, id_of(instance_id), body.version)
    await client.pin(id_of(instance_id), body.version, body.until, reason=body.reason, by=by)
    return Response(status_code=204)


@routes.route("POST", "/instances/{instance_id}/unpin", None, 204, dry_run=PlannedAct)
async def unpin_instance(
    instance_id: Id, client: CurrentClient, by: Operator, body: Act = NONE
) -> Response:
    """Let the policy choose again."""
    if body.dry_run:
        return await _planned(client, Bulk.UNPIN, id_of(instance_id))
    await client.unpin(id_of(instance_id), reason=body.reason, by=by)
    return Response(status_code=204)


@routes.route("POST", "/instances/{instance_id}/nudge", Nudged | PlannedAct)
async def nudge_instance(
    instance_id: Id, client: CurrentClient, by: Operator, body: Act = NONE
) -> JSONResponse:
    """Ask an instance to reach its boundary soon."""
    if body.dry_run:
        return await _planned(client, Bulk.NUDGE, id_of(instance_id))
    return answer(Nudged(await client.nudge(id_of(instance_id), reason=body.reason, by=by)))


@routes.route("POST", "/instances/{instance_id}/rewind", RewindInfo | PlannedAct)
async def rewind_instance(
    instance_id: Id, body: Rewind, client: CurrentClient, by: Operator
) -> JSONResponse:
    """Begin a former lap again."""
    if body.dry_run:
        return await _planned(client, Bulk.REWIND, id_of(instance_id))
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


@routes.route("POST", "/instances/{instance_id}/rerun", InstanceInfo, 201, dry_run=PlannedAct)
async def rerun_instance(
    instance_id: Id, client: CurrentClient, by: Operator, body: Rerun = ANEW
) -> JSONResponse:
    """Start a new instance from the first input of this one."""
    if body.dry_run:
        return await _planned(client, Bulk.RERUN, id_of(instance_id))
    handle = await client.rerun(
        id_of(instance_id),
        version=body.version,
        instance_id=body.instance_id,
        reason=body.reason,
        by=by,
    )
    return answer(await client.get_instance_info(handle.instance_id), 201)


@routes.route("POST", "/instances/{instance_id}/labels", dict[str, str])
async def set_labels(
    instance_id: Id, body: Labels, client: CurrentClient, by: Operator
) -> JSONResponse:
    """Set and remove labels. Return all that it has now."""
    return answer(
        await client.set_labels(id_of(instance_id), body.labels, reason=body.reason, by=by)
    )


@routes.route("DELETE", "/instances/{instance_id}", None, 204, role=Role.ADMIN, dry_run=PlannedAct)
async def delete_instance(
    instance_id: Id,
    client: CurrentClient,
    by: Operator,
    reason: str = "",
    *,
    dry_run: bool = False,
) -> Response:
    """Delete an ended instance."""
    if dry_run:
        return await _planned(client, Bulk.DELETE, id_of(instance_id))
    await client.delete(id_of(instance_id), reason=reason, by=by)
    return Response(status_code=204)


@routes.route("POST", "/bulk", BulkReport)
async def act_on_many(
    body: BulkAct, client: CurrentClient, principal: CurrentPrincipal
) -> JSONResponse:
    """Do something to all instances of a selection. By default it only says what that would be. To
    delete needs the role ``admin``.
    """
    permit(principal, Role.ADMIN if body.act == "delete" else Role.OPERATE)
    report = await client.bulk(
        Bulk(body.act),
        body.selection.selection(),
        dry_run=body.dry_run,
        reason=body.reason,
        by=principal.name,
        version=body.version,
        request_id=body.request_id,
    )
    return answer(report)


@routes.route("POST", "/purge", PurgeReport, role=Role.ADMIN)
async def purge_instances(body: Purge, client: CurrentClient, by: Operator) -> JSONResponse:
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
        by=by,
    )
    return answer(report)
