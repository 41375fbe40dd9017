"""The application: the operations, their errors, who may use them, and the OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

from fastapi import Depends, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.staticfiles import StaticFiles

from orchestra.client import Client
from orchestra.registry import OrchestrationRegistry
from orchestra.telemetry import library_version
from orchestra.web import problems
from orchestra.web.access import Auth, operator_of
from orchestra.web.answers import Routes
from orchestra.web.api import acts, deploying, instances, schedules, store, streams
from orchestra.web.dashboard import PAGES, STATIC
from orchestra.web.headers import SafeHeaders
from orchestra.web.paths import WholeSegments
from orchestra.web.schemas import Schemas

__all__ = ["Auth", "create_app"]

PREFIX: Final = "/api/v1"

_GROUPS: Final[tuple[Routes, ...]] = (
    instances.routes,
    acts.routes,
    deploying.routes,
    schedules.routes,
    streams.routes,
    store.routes,
)


def create_app(
    client: Client,
    *,
    registry: OrchestrationRegistry | None = None,
    auth: Auth | None = None,
    base_path: str = "",
) -> FastAPI:
    """Return an ASGI application over a client: the dashboard at ``/``, and the API at
    ``/api/v1/...``, with ``/openapi.json``.

    It may run alone, or be mounted in FastAPI or Starlette: ``app.mount("/orchestra", ...)``. The
    client must be entered while it serves; it neither enters nor leaves it.

    Args:
        registry: the code of this service, for ``/preflight``.
        auth: returns the name of who asks, for the audit, or ``None`` to refuse the request.
            Without it the application answers this machine alone.
        base_path: where a proxy publishes it, if the proxy strips that from paths.
    """
    app = FastAPI(
        title="orchestra",
        version=library_version(),
        root_path=base_path,
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.client, app.state.auth, app.state.registry = client, auth, registry
    app.add_middleware(WholeSegments)
    problems.register(app)
    for group in _GROUPS:
        app.include_router(group.router, prefix=PREFIX, dependencies=[Depends(operator_of)])
    app.include_router(store.health.router)
    for pages in PAGES:
        app.include_router(pages, dependencies=[Depends(operator_of)])
    app.mount("/static", StaticFiles(directory=STATIC))
    app.add_middleware(SafeHeaders)
    app.openapi = lambda: _openapi(app)
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, with the schemas of what the operations return."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        schemas = Schemas()
        returns = {
            name: (annotation, group.statuses[name])
            for group in (*_GROUPS, store.health)
            for name, annotation in group.returns.items()
        }
        for operations in document["paths"].values():
            for operation in operations.values():
                annotation, status = returns[operation["operationId"]]
                operation["responses"] = _responses(schemas, annotation, status)
        components = document.setdefault("components", {}).setdefault("schemas", {})
        components.update(schemas.components)
        components["Problem"] = problems.SCHEMA
        for large in ("input", "output"):  # left out unless they are asked for
            components["InstanceInfo"]["required"].remove(large)
        app.openapi_schema = document
    return app.openapi_schema


def _responses(schemas: Schemas, annotation: Any, status: int) -> dict[str, Any]:
    done: dict[str, Any] = {"description": "done"}
    if annotation is not None:
        media_type = "text/event-stream" if annotation is str else "application/json"
        done["content"] = {media_type: {"schema": schemas.of(annotation)}}
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {
        str(status): done,
        "default": {
            "description": "a problem: the typed error's name, and what it says",
            "content": {problems.MEDIA_TYPE: problem},
        },
    }
