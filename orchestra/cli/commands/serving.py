"""``serve``: the HTTP API of a store, alone."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import anyio
import click

from orchestra.cli.work import Work, on_store
from orchestra.client import Client
from orchestra.errors import InvalidArgument

if TYPE_CHECKING:
    from fastapi import Request

__all__ = ["serve"]

_NEAR = frozenset({"127.0.0.1", "::1", "localhost"})


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to serve at.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True)
@click.option(
    "--token",
    envvar="ORCHESTRA_TOKEN",
    show_envvar=True,
    help="Requests must bring it: Authorization: Bearer TOKEN. Best in the environment.",
)
@on_store
def serve(work: Work, host: str, port: int, token: str | None) -> None:
    """Serve the HTTP API of a store.

    /openapi.json describes it. Without a token it serves this machine alone.
    """
    import uvicorn  # noqa: PLC0415 - an extra, which the other commands do not need

    from orchestra.web import Auth, Principal, Role, create_app  # noqa: PLC0415 - an extra

    if token is None and host not in _NEAR:
        raise InvalidArgument(
            f"at {host} other machines would reach the store; give a --token, or serve at 127.0.0.1"
        )

    def who(request: Request) -> Principal | None:
        given = request.headers.get("authorization", "")
        right = secrets.compare_digest(given.encode(), f"Bearer {token}".encode())
        return Principal("token", frozenset(Role)) if right else None

    auth: Auth | None = None if token is None else who
    provider = work.provider()

    async def run() -> None:
        async with Client(provider) as client:
            config = uvicorn.Config(create_app(client, auth=auth), host=host, port=port)
            await uvicorn.Server(config).serve()

    anyio.run(run)
