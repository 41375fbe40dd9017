"""Who may use the API, and in whose name it acts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Annotated, Final

from fastapi import Depends, HTTPException, Request

from orchestra.client import Client

__all__ = ["Auth", "CurrentClient", "Operator", "client_of", "operator_of", "refuse_strangers"]

Auth = Callable[[Request], Awaitable[str | None]]
"""Returns the name of who asks, for the audit; ``None`` refuses the request."""

_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})


def client_of(request: Request) -> Client:
    """Return the client that the application was made with."""
    client: Client = request.app.state.client
    return client


async def operator_of(request: Request) -> str:
    """Return who asks.

    Raises:
        HTTPException: 401 where the application's ``auth`` refuses the request; 403 where there is
            none, and the request does not come from this machine.
    """
    auth: Auth | None = request.app.state.auth
    if auth is None:
        refuse_strangers(request)
        return "localhost"
    operator = await auth(request)
    if operator is None:
        raise HTTPException(401, "who asks is not known here")
    return operator


def refuse_strangers(request: Request) -> None:
    """Raise unless a request comes from this machine, and from no page of another site.

    A page of another site may send requests here through the operator's browser: it then names
    its own origin, or has given its own name the address of this machine.
    """
    peer = request.client
    try:
        is_near = peer is not None and ip_address(peer.host).is_loopback
    except ValueError:  # a Unix socket
        is_near = True
    host = request.url.hostname or ""
    origin = request.headers.get("origin")
    same = origin is None or origin == f"{request.url.scheme}://{request.url.netloc}"
    if not (is_near and host in _NAMES and same):
        raise HTTPException(
            403, "without auth= the API answers this machine alone; give create_app an auth"
        )


CurrentClient = Annotated[Client, Depends(client_of)]
Operator = Annotated[str, Depends(operator_of)]
