"""Bounded request bodies."""

from __future__ import annotations

from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestra.web.problems import problem

__all__ = ["BoundedBodies"]


class BoundedBodies:
    """Middleware that refuses a larger body with 413: by its announced length, or, where it comes
    in chunks, as soon as it has passed the limit. It never holds more than the limit in memory.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._announced(scope) > self._limit:
            refusal = problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "BodyTooLarge", self._detail)
            await refusal(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._limit:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._detail)
            return message

        await self._app(scope, counted, send)

    @property
    def _detail(self) -> str:
        return (
            f"the body has more than {self._limit:,} bytes; send less, or raise create_app's "
            "body_limit"
        )

    @staticmethod
    def _announced(scope: Scope) -> int:
        for name, value in scope["headers"]:
            if name.lower() == b"content-length" and value.isdigit():
                return int(value)
        return 0
