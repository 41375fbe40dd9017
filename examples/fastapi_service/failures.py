"""The library's typed errors as HTTP answers."""

from __future__ import annotations

import logging
from typing import Final

from fastapi import Request
from fastapi.responses import JSONResponse

from orchestra import InvalidArgument, OrchestraError
from orchestra.errors import (
    AlreadyCompleted,
    InboxFull,
    InstanceCompleted,
    InstanceExists,
    InstanceNotFound,
    InstanceStillOpen,
    InvalidVersion,
    OrchestrationError,
    OutcomeUnknown,
    PayloadError,
    PayloadTooLarge,
    RuntimeClosed,
    StoreBusy,
    StoreError,
    StoreUnavailable,
    UnknownOrchestration,
)

STATUSES: Final[dict[type[Exception], int]] = {
    InstanceNotFound: 404,
    InstanceExists: 409,
    InstanceStillOpen: 409,  # it cannot be deleted yet
    AlreadyCompleted: 409,  # it cannot be cancelled any more
    InstanceCompleted: 410,  # nothing can be sent to it any more
    PayloadTooLarge: 413,
    PayloadError: 422,
    InvalidVersion: 422,
    UnknownOrchestration: 422,  # also UnknownVersion: the body names the missing version
    InboxFull: 429,
    StoreBusy: 503,
    StoreUnavailable: 503,
    OutcomeUnknown: 503,  # retry with the same Idempotency-Key
    RuntimeClosed: 503,
    StoreError: 500,
    OrchestrationError: 500,
    InvalidArgument: 422,
    OrchestraError: 500,
}

logger = logging.getLogger("uvicorn.error")


async def answer_failure(request: Request, error: Exception) -> JSONResponse:
    """Answer with the status of the nearest class. Errors that are not the caller's are logged
    here, and not shown outside.
    """
    status = next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
    detail = str(error)
    if status >= 500:
        logger.warning(
            "%s %s: %s",
            request.method,
            request.url.path,
            error,
            exc_info=error if status == 500 else None,
        )
        detail = "try again later" if status == 503 else "the service has failed"
    headers = {"Retry-After": "1"} if status in {429, 503} else None
    return JSONResponse({"error": type(error).__name__, "detail": detail}, status, headers)
