"""Errors as ``application/problem+json`` (RFC 9457): the typed error's name, and what it says."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from orchestra.client.jsonable import jsonable
from orchestra.errors import (
    AlreadyCompleted,
    InboxFull,
    InstanceCompleted,
    InstanceExists,
    InstanceNotFound,
    InstanceNotHeld,
    InstanceStillOpen,
    InvalidArgument,
    LevelTooLow,
    NewerLibraryNeeded,
    OrchestraError,
    OutcomeUnknown,
    PayloadError,
    PayloadTooLarge,
    PolicyChangedMeanwhile,
    RegistrationError,
    RequestRejected,
    ScheduleChangedMeanwhile,
    ScheduleError,
    ScheduleExists,
    ScheduleNotFound,
    StoreBusy,
    StoreError,
    StreamTruncated,
    UnknownOrchestration,
    WaitTimeout,
)

__all__ = ["MEDIA_TYPE", "SCHEMA", "problem", "problem_of", "register"]

MEDIA_TYPE: Final = "application/problem+json"

SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string", "description": "the name of the typed error"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "what is wrong, with which thing"},
        "remedy": {"type": "string", "description": "what to do next"},
        "instance_id": {"type": "string"},
        "request_id": {"type": "string"},
    },
    "required": ["type", "title", "status", "detail", "remedy"],
}

_CHANGE: Final = "Change the request: the detail says what does not fit."
_READ_AGAIN: Final = "Read it again, and repeat the act with its new ETag if it still makes sense."
_AGAIN: Final = "Repeat the request, with the same request_id where it takes one."

_KINDS: Final[tuple[tuple[type[OrchestraError], HTTPStatus, str], ...]] = (
    (
        InstanceNotFound,
        HTTPStatus.NOT_FOUND,
        "Look for it with POST /api/v1/instances/search, by id_prefix; it may have been deleted.",
    ),
    (
        UnknownOrchestration,
        HTTPStatus.NOT_FOUND,
        "See GET /api/v1/versions for what is registered; allow_unregistered starts it all the "
        "same.",
    ),
    (
        InstanceExists,
        HTTPStatus.CONFLICT,
        "Choose another id, or say what happens then: if_running, if_ended.",
    ),
    (AlreadyCompleted, HTTPStatus.CONFLICT, "Nothing is left to do; rewind or rerun it instead."),
    (InstanceCompleted, HTTPStatus.CONFLICT, "Rewind or rerun it, or start another one."),
    (InstanceStillOpen, HTTPStatus.CONFLICT, "Terminate it first, or wait for its end."),
    (InstanceNotHeld, HTTPStatus.CONFLICT, "Nothing is left to release: read the instance."),
    (NewerLibraryNeeded, HTTPStatus.CONFLICT, "Use a service with the library of the nodes."),
    (PolicyChangedMeanwhile, HTTPStatus.PRECONDITION_FAILED, _READ_AGAIN),
    (
        ScheduleNotFound,
        HTTPStatus.NOT_FOUND,
        "See GET /api/v1/schedules for the schedules that there are.",
    ),
    (ScheduleExists, HTTPStatus.CONFLICT, "Change it with PUT, or choose another id."),
    (ScheduleChangedMeanwhile, HTTPStatus.PRECONDITION_FAILED, _READ_AGAIN),
    (ScheduleError, HTTPStatus.CONFLICT, _CHANGE),
    (StreamTruncated, HTTPStatus.GONE, "Read on from the first item that is kept."),
    (InboxFull, HTTPStatus.TOO_MANY_REQUESTS, "Wait until it has read some, or drop messages."),
    (PayloadTooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Store it elsewhere; send its key."),
    (PayloadError, HTTPStatus.UNPROCESSABLE_ENTITY, _CHANGE),
    (InvalidArgument, HTTPStatus.UNPROCESSABLE_ENTITY, _CHANGE),
    (RegistrationError, HTTPStatus.UNPROCESSABLE_ENTITY, _CHANGE),
    (RequestRejected, HTTPStatus.UNPROCESSABLE_ENTITY, "The instance's code has refused it."),
    (WaitTimeout, HTTPStatus.GATEWAY_TIMEOUT, "Nothing was taken back. " + _AGAIN),
    (LevelTooLow, HTTPStatus.CONFLICT, "Upgrade the nodes that have an older library."),
    (StoreBusy, HTTPStatus.SERVICE_UNAVAILABLE, _AGAIN),
    (OutcomeUnknown, HTTPStatus.SERVICE_UNAVAILABLE, _AGAIN),
    (StoreError, HTTPStatus.SERVICE_UNAVAILABLE, "Run `orchestra doctor` on the store."),
)
_REMEDIES: Final = {
    HTTPStatus.UNAUTHORIZED: "Send the credentials of an operator.",
    HTTPStatus.FORBIDDEN: "Ask for the role that the detail names, or act from this site.",
    HTTPStatus.NOT_FOUND: "See /openapi.json for the paths that there are.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "Send less.",
    HTTPStatus.PRECONDITION_FAILED: _READ_AGAIN,
}


def problem(
    status: int, title: str, detail: str, remedy: str | None = None, **more: Any
) -> JSONResponse:
    """Return a problem."""
    body = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "remedy": remedy or _REMEDIES.get(HTTPStatus(status), _CHANGE),
        **more,
    }
    headers = {"Retry-After": "1"} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    return JSONResponse(body, status, headers, MEDIA_TYPE)


def problem_of(error: OrchestraError) -> JSONResponse:
    """Return the problem of a typed error: its name, its text, and the id that it names."""
    status, remedy = next(
        ((status, remedy) for kind, status, remedy in _KINDS if isinstance(error, kind)),
        (HTTPStatus.INTERNAL_SERVER_ERROR, "See the log of the service."),
    )
    named = {
        name: jsonable(value)
        for name in ("instance_id", "name", "version", "revision", "request_id")
        if isinstance(value := getattr(error, name, None), str | int)
    }
    return problem(status, type(error).__name__, str(error), remedy, **named)


async def _typed(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, OrchestraError)
    return problem_of(error)


async def _http(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    answer = problem(error.status_code, HTTPStatus(error.status_code).phrase, str(error.detail))
    answer.headers.update(error.headers or {})  # such as the scheme by which to sign in
    return answer


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = [
        f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()
    ]
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "InvalidRequest", "; ".join(found))


def register(app: Any) -> None:
    """Let an application answer errors with problems."""
    app.add_exception_handler(OrchestraError, _typed)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
