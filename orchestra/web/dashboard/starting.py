"""The page that starts an instance, with a form made from the schema of its input."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from orchestra.client import Client
from orchestra.clock import new_id
from orchestra.errors import InvalidArgument, OrchestraError
from orchestra.registry import OrchestrationRegistry
from orchestra.web.access import CurrentClient, CurrentPrincipal, Principal
from orchestra.web.dashboard.fields import Field, fields_of, value_of
from orchestra.web.dashboard.rendering import Page, base_of, render

__all__ = ["pages", "schema_of"]

pages: APIRouter = APIRouter(include_in_schema=False)


@pages.get("/start")
async def choose(request: Request, client: CurrentClient, principal: CurrentPrincipal) -> Response:
    """Show the form of an orchestration's input."""
    return await _shown(request, client, principal, dict(request.query_params))


@pages.post("/start")
async def start(request: Request, client: CurrentClient, principal: CurrentPrincipal) -> Response:
    """Start an instance, and show it."""
    form = {key: str(value) for key, value in (await request.form()).items()}
    try:
        handle = await client.start(
            form.get("name", ""),
            value_of(form, _fields(request, form)),
            instance_id=form.get("instance_id") or None,
            version=form.get("version") or None,
            labels=_labels(form.get("labels", "")),
            request_id=form.get("request_id") or None,
        )
    except OrchestraError as error:
        return await _shown(request, client, principal, form, error)
    path = f"{base_of(request)}/instances/{quote(handle.instance_id, safe='')}"
    return RedirectResponse(f"{path}?said=start", 303)


async def _shown(
    request: Request,
    client: Client,
    principal: Principal,
    form: dict[str, str],
    error: OrchestraError | None = None,
) -> Response:
    at, report = await client.now(), await client.version_report()
    versions: dict[str, list[str]] = {}
    for one in report:
        if one.nodes:
            versions.setdefault(one.name, []).append(one.version)
    name = form.get("name", "")
    chosen = form.get("version") or next(
        (one.version for one in report if one.name == name and one.is_target), ""
    )
    values: dict[str, Any] = {
        "versions": versions,
        "name": name,
        "chosen": chosen,
        "fields": _fields(request, {"name": name, "version": chosen}),
        "form": form,
        "request_id": form.get("request_id") or new_id(),
    }
    data = {"versions": versions, "schema": schema_of(request, name, chosen)}
    return render(request, principal, Page("start.html", at, values, data, error=error))


def schema_of(request: Request, name: str, version: str) -> Any:
    """Return the JSON Schema of a version's input, where this service has its code."""
    registry: OrchestrationRegistry | None = request.app.state.registry
    if registry is None or name not in registry.names:
        return None
    chosen = version or registry.resolve(name)
    found = registry.find(name, chosen)
    return None if found is None else found.state.json_schema()


def _fields(request: Request, form: dict[str, str]) -> tuple[Field, ...] | None:
    return fields_of(schema_of(request, form.get("name", ""), form.get("version", "")))


def _labels(words: str) -> dict[str, str] | None:
    labels: dict[str, str] = {}
    for line in words.replace(",", "\n").splitlines():
        if not line.strip():
            continue
        key, separator, value = line.strip().partition("=")
        if not separator:
            raise InvalidArgument(f"{line.strip()!r} is no label; write key=value")
        labels[key.strip()] = value.strip()
    return labels or None
