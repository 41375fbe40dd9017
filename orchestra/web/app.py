"""The application: the operations, their errors, who may use them, and the OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

from fastapi import Depends, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.staticfiles import StaticFiles

from orchestra.client import Client
from orchestra.errors import InvalidArgument
from orchestra.operations.bulk import Bulk
from orchestra.options import check_count
from orchestra.registry import OrchestrationRegistry
from orchestra.telemetry import library_version
from orchestra.web import problems
from orchestra.web.access import Auth, CurrentPrincipal, Role, permit
from orchestra.web.answers import Routes
from orchestra.web.api import acts, deploying, instances, schedules, store, streams
from orchestra.web.bodies import BoundedBodies
from orchestra.web.csrf import check_token
from orchestra.web.dashboard import PAGES, STATIC
from orchestra.web.event_streams import STREAMS, OpenStreams
from orchestra.web.headers import SafeHeaders
from orchestra.web.paths import WholeSegments
from orchestra.web.schemas import Schemas

__all__ = ["Auth", "create_app"]

PREFIX: Final = "/api/v1"
BODY_LIMIT: Final = 4 * 1024 * 1024
"""Twice what one value may have by default: JSON may escape it."""

_GROUPS: Final[tuple[Routes, ...]] = (
    instances.routes,
    acts.routes,
    deploying.routes,
    schedules.routes,
    streams.routes,
    store.routes,
)


_ON_DEMAND: Final = frozenset({"history", "input", "output", "state"})
_OPERATORS_ACTS: Final = frozenset(Bulk) - {Bulk.DELETE} | {
    "backfill", "event", "labels", "pause", "request", "resume", "start", "trigger",
}  # fmt: skip
"""The acts of forms that need no admin."""


def create_app(
    client: Client,
    *,
    registry: OrchestrationRegistry | None = None,
    auth: Auth | None = None,
    base_path: str = "",
    body_limit: int = BODY_LIMIT,
    event_streams: int = STREAMS,
    trace_url: str | None = None,
) -> FastAPI:
    """Return an ASGI application over a client: the dashboard at ``/``, and the API at
    ``/api/v1/...``, with ``/openapi.json``.

    It may run alone, or be mounted in FastAPI or Starlette: ``app.mount("/orchestra", ...)``. The
    client must be entered while it serves; it neither enters nor leaves it.

    Args:
        registry: the code of this service, for ``/preflight``.
        auth: returns who asks, as a :class:`Principal` with roles, or ``None`` to refuse the
            request. Without it the application answers this machine alone, with all roles.
        base_path: where a proxy publishes it, if the proxy strips that from paths.
        body_limit: bytes that the body of a request may have; more is refused with 413.
        event_streams: how many readers may follow event streams at once, pages of the dashboard
            among them; one more is refused with 503, and its page looks for changes by itself.
        trace_url: where the traces of a lap are shown, for a link: an http address in which
            ``{instance_id}``, ``{execution_id}``, ``{name}``, ``{version}``, ``{from_ms}`` and
            ``{to_ms}`` stand for those of the lap.

    Raises:
        InvalidArgument: a limit is no whole number, or less than 1; or the address is none.
    """
    check_count(body_limit, "body_limit")
    check_count(event_streams, "event_streams")
    if trace_url is not None and not trace_url.startswith(("https://", "http://")):
        raise InvalidArgument(
            f"trace_url is {trace_url!r}; give an address with https:// or http://"
        )
    app = FastAPI(
        title="orchestra",
        version=library_version(),
        root_path=base_path,
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.client, app.state.auth, app.state.registry = client, auth, registry
    app.state.trace_url = trace_url
    app.state.event_streams = OpenStreams(event_streams)
    app.add_middleware(WholeSegments)
    problems.register(app)
    for group in _GROUPS:
        app.include_router(group.router, prefix=PREFIX)
    app.include_router(store.health.router)
    for pages in PAGES:
        app.include_router(pages, dependencies=[Depends(_may_use_pages), Depends(check_token)])
    app.mount("/static", StaticFiles(directory=STATIC))
    app.add_middleware(BoundedBodies, limit=body_limit)
    app.add_middleware(SafeHeaders)
    app.openapi = lambda: _openapi(app)
    return app


async def _may_use_pages(request: Request, principal: CurrentPrincipal) -> None:
    """Refuse pages to principals who may not look, and their forms to those who may not act."""
    if request.method in {"GET", "HEAD"}:
        permit(principal, Role.VIEW)
        return
    act = (await request.form()).get("act")
    permit(principal, Role.OPERATE if act in _OPERATORS_ACTS else Role.ADMIN)


def _openapi(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, with the schemas of what the operations return."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        schemas = Schemas()
        groups = {name: group for group in (*_GROUPS, store.health) for name in group.returns}
        for operations in document["paths"].values():
            for operation in operations.values():
                name = operation["operationId"]
                operation["responses"] = _responses(schemas, groups[name], name)
                role = groups[name].roles[name]
                if role is not None:
                    operation["x-role"] = role.value
        components = document.setdefault("components", {}).setdefault("schemas", {})
        components.update(schemas.components)
        components["Problem"] = problems.SCHEMA
        for name in ("InstanceInfo", "WholeInstance"):  # left out unless they are asked for
            required = components[name]["required"]
            components[name]["required"] = [one for one in required if one not in _ON_DEMAND]
        app.openapi_schema = document
    return app.openapi_schema


def _responses(schemas: Schemas, group: Routes, name: str) -> dict[str, Any]:
    answers = {group.statuses[name]: ("done", group.returns[name])}
    if name in group.dry_runs:
        answers[200] = ("what it would do", group.dry_runs[name])
    responses: dict[str, Any] = {}
    for status, (words, annotation) in answers.items():
        responses[str(status)] = {"description": words}
        if annotation is not None:
            media_type = "text/event-stream" if annotation is str else "application/json"
            content = {media_type: {"schema": schemas.of(annotation)}}
            responses[str(status)]["content"] = content
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    responses["default"] = {
        "description": "a problem: the typed error's name, and what it says",
        "content": {problems.MEDIA_TYPE: problem},
    }
    return responses
