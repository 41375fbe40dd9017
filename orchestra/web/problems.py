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
        "detail": {"type": "string", "description": "what is wrong, and the remedy"},
        "instance_id": {"type": "string"},
        "request_id": {"type": "string"},
    },
    "required": ["type", "title", "status", "detail"],
}

_STATUSES: Final[tuple[tuple[type[OrchestraError], HTTPStatus], ...]] = (
    (InstanceNotFound, HTTPStatus.NOT_FOUND),
    (UnknownOrchestration, HTTPStatus.NOT_FOUND),
    (InstanceExists, HTTPStatus.CONFLICT),
    (AlreadyCompleted, HTTPStatus.CONFLICT),
    (InstanceCompleted, HTTPStatus.CONFLICT),
    (InstanceStillOpen, HTTPStatus.CONFLICT),
    (InstanceNotHeld, HTTPStatus.CONFLICT),
    (NewerLibraryNeeded, HTTPStatus.CONFLICT),
    (PolicyChangedMeanwhile, HTTPStatus.PRECONDITION_FAILED),
    (ScheduleNotFound, HTTPStatus.NOT_FOUND),
    (ScheduleChangedMeanwhile, HTTPStatus.PRECONDITION_FAILED),
    (ScheduleError, HTTPStatus.CONFLICT),
    (StreamTruncated, HTTPStatus.GONE),
    (InboxFull, HTTPStatus.TOO_MANY_REQUESTS),
    (PayloadTooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (PayloadError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (InvalidArgument, HTTPStatus.UNPROCESSABLE_ENTITY),
    (RegistrationError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (RequestRejected, HTTPStatus.UNPROCESSABLE_ENTITY),
    (WaitTimeout, HTTPStatus.GATEWAY_TIMEOUT),
    (LevelTooLow, HTTPStatus.CONFLICT),
    (StoreBusy, HTTPStatus.SERVICE_UNAVAILABLE),
    (OutcomeUnknown, HTTPStatus.SERVICE_UNAVAILABLE),
    (StoreError, HTTPStatus.SERVICE_UNAVAILABLE),
)


def problem(status: int, title: str, detail: str, **more: Any) -> JSONResponse:
    """Return a problem."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    headers = {"Retry-After": "1"} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    return JSONResponse(body, status, headers, MEDIA_TYPE)


def problem_of(error: OrchestraError) -> JSONResponse:
    """Return the problem of a typed error: its name, its text, and the id that it names."""
    status = next(
        (status for kind, status in _STATUSES if isinstance(error, kind)),
        HTTPStatus.INTERNAL_SERVER_ERROR,
    )
    named = {
        name: jsonable(value)
        for name in ("instance_id", "name", "version", "revision", "request_id")
        if isinstance(value := getattr(error, name, None), str | int)
    }
    return problem(status, type(error).__name__, str(error), **named)


async def _typed(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, OrchestraError)
    return problem_of(error)


async def _http(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, HTTPStatus(error.status_code).phrase, str(error.detail))


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
