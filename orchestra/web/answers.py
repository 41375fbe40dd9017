"""Answers: a value in its JSON form, and the schema that says so in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Header, HTTPException
from fastapi.responses import JSONResponse

from orchestra.client.jsonable import jsonable
from orchestra.web.access import Role, needs

__all__ = ["Revision", "Routes", "answer", "revision_of"]

F = TypeVar("F", bound=Callable[..., Any])

Revision = Annotated[str | None, Header(alias="If-Match", description='"REVISION", quoted')]
"""Do it only if what is changed still has this revision."""


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return a value as JSON."""
    return JSONResponse(jsonable(value), status, dict(headers or {}))


def revision_of(quoted: str | None) -> int | None:
    """Return the revision that an If-Match header names.

    Raises:
        HTTPException: 412, it names none.
    """
    if quoted is None or quoted.strip() == "*":
        return None
    words = quoted.strip().strip('"')
    if not words.isdecimal():
        raise HTTPException(412, f"{quoted} is no revision; send the ETag of what you have read")
    return int(words)


class Routes:
    """Routes of one group, each with the annotation of what it returns.

    FastAPI itself reads only the parameters: what is returned has the JSON form of the library.
    """

    def __init__(self, tag: str, *, is_open: bool = False) -> None:
        self._is_open = is_open
        self.router: APIRouter = APIRouter(tags=[tag])
        self.returns: dict[str, Any] = {}
        """The annotation of each operation's answer, by the operation's id; ``None``: it has no
        body.
        """
        self.statuses: dict[str, int] = {}
        self.dry_runs: dict[str, Any] = {}
        """The annotation of what an operation answers, with 200, if it is a dry run."""
        self.roles: dict[str, Role | None] = {}
        """The role that an operation needs; ``None``: none."""

    def route(
        self,
        method: str,
        path: str,
        returns: Any = None,
        status: int = 200,
        *,
        role: Role | None = None,
        dry_run: Any = None,
    ) -> Callable[[F], F]:
        """Add an operation, under the name of its function.

        Args:
            role: who may do it; by default ``view`` for what only reads, else ``operate``.
            dry_run: the annotation of what a dry run answers.
        """
        needed = role or (Role.VIEW if method == "GET" else Role.OPERATE)

        def add(function: F) -> F:
            name = function.__name__
            self.returns[name], self.statuses[name] = returns, status
            self.roles[name] = None if self._is_open else needed
            if dry_run is not None:
                self.dry_runs[name] = dry_run
            self.router.add_api_route(
                path,
                function,
                methods=[method],
                status_code=status,
                operation_id=name,
                response_model=None,
                dependencies=[] if self._is_open else [Depends(needs(needed))],
            )
            return function

        return add
