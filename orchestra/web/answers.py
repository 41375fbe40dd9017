"""Answers: a value in its JSON form, and the schema that says so in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fastapi import APIRouter, HTTPException
from fastapi.responses import JSONResponse

from orchestra.client.jsonable import jsonable

__all__ = ["Routes", "answer", "revision_of"]

F = TypeVar("F", bound=Callable[..., Any])


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return a value as JSON."""
    return JSONResponse(jsonable(value), status, dict(headers or {}))


def revision_of(quoted: str | None) -> int | None:
    """Return the revision that an If-Match header names.

    Raises:
        HTTPException: 412, it names none.
    """
    if quoted is None:
        return None
    words = quoted.strip().strip('"')
    if not words.isdecimal():
        raise HTTPException(412, f"{quoted} is no revision; send the ETag of what you have read")
    return int(words)


class Routes:
    """Routes of one group, each with the annotation of what it returns.

    FastAPI itself reads only the parameters: what is returned has the JSON form of the library.
    """

    def __init__(self, tag: str) -> None:
        self.router: APIRouter = APIRouter(tags=[tag])
        self.returns: dict[str, Any] = {}
        """The annotation of each operation's answer, by the operation's id; ``None``: it has no
        body.
        """
        self.statuses: dict[str, int] = {}

    def route(
        self, method: str, path: str, returns: Any = None, status: int = 200
    ) -> Callable[[F], F]:
        """Add an operation, under the name of its function."""

        def add(function: F) -> F:
            name = function.__name__
            self.returns[name], self.statuses[name] = returns, status
            self.router.add_api_route(
                path,
                function,
                methods=[method],
                status_code=status,
                operation_id=name,
                response_model=None,
            )
            return function

        return add
