"""Ids in paths: an encoded slash stays part of its segment."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import unquote

from fastapi import Path
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Id", "Name", "WholeSegments", "id_of"]

_SLASH: Final = "\0"
"""Stands for a slash within a segment. No id holds it."""


class WholeSegments:
    """Middleware that decodes each segment of a path alone: ``a%2Fb`` is one, and not two."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with its path decoded by segments."""
        raw: bytes | None = scope.get("raw_path")
        if scope["type"] == "http" and raw is not None and b"%2f" in raw.lower():
            encoded = raw.partition(b"?")[0].decode("ascii", "replace").split("/")
            path = "/".join(unquote(one).replace("/", _SLASH) for one in encoded)
            scope = {**scope, "path": path}
        await self._app(scope, receive, send)


def id_of(segment: str) -> str:
    """Return the id that a segment stands for."""
    return segment.replace(_SLASH, "/")


Id = Annotated[str, Path(description="the id of an instance, percent-encoded")]
Name = Annotated[str, Path(description="the name of an orchestration, percent-encoded")]
