"""Who may use the application, what they may do, and in whose name it acts."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_address
from typing import Annotated, Final, cast
from urllib.parse import urlsplit

from fastapi import Depends, HTTPException, Request

from orchestra.client import Client
from orchestra.errors import InvalidArgument
from orchestra.web.masking import MaskedClient

__all__ = [
    "Auth",
    "CurrentClient",
    "CurrentPrincipal",
    "Operator",
    "Principal",
    "Role",
    "client_of",
    "needs",
    "operator_of",
    "permit",
    "principal_of",
    "refuse_foreign_pages",
    "refuse_strangers",
]


class Role(StrEnum):
    """What a principal may do."""

    VIEW = "view"
    """Look at everything but the values that users store."""
    REVEAL = "reveal"
    """See these values: inputs, outputs, states, payloads, and the messages of errors."""
    OPERATE = "operate"
    """Start and send; hold, cancel and do what else can be done to instances and schedules."""
    ADMIN = "admin"
    """Delete, drop messages, set version policies, and define schedules."""


_IMPLIED: Final = {
    Role.VIEW: frozenset({Role.VIEW}),
    Role.REVEAL: frozenset({Role.REVEAL, Role.VIEW}),
    Role.OPERATE: frozenset({Role.OPERATE, Role.VIEW}),
    Role.ADMIN: frozenset({Role.ADMIN, Role.OPERATE, Role.VIEW}),
}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: a name for the audit, and roles.

    ``admin`` includes ``operate``, and each role includes ``view``. Only ``reveal`` shows values of
    users.

    Raises:
        InvalidArgument: the name is no text of 1 to 1,024 characters, or a role is none.
    """

    name: str
    roles: Collection[Role | str]
    granted: frozenset[Role] = field(init=False, repr=False, compare=False)
    """The roles, and those that they include."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not 0 < len(self.name) <= 1024:  # pyright: ignore[reportUnnecessaryIsInstance] - users' code makes it
            raise InvalidArgument("a principal's name is text of 1 to 1,024 characters")
        named = [self.roles] if isinstance(self.roles, str) else self.roles
        try:
            granted = frozenset[Role]().union(*(_IMPLIED[Role(one)] for one in named))
        except ValueError as error:
            raise InvalidArgument(f"{error}; the roles are {', '.join(Role)}") from None
        object.__setattr__(self, "granted", granted)

    def may(self, role: Role) -> bool:
        """Whether it has a role, or one that includes it."""
        return role in self.granted


Auth = Callable[[Request], Awaitable[Principal | None] | Principal | None]
"""Returns who asks; ``None`` refuses the request. It may be a coroutine function or a plain one,
which must not block.
"""

_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_LOCAL: Final = Principal("localhost", frozenset(Role))


async def principal_of(request: Request) -> Principal:
    """Return who asks.

    Raises:
        HTTPException: 401 where the application's ``auth`` refuses the request; 403 where there is
            none, and the request does not come from this machine.
    """
    auth: Auth | None = request.app.state.auth
    if auth is None:
        refuse_strangers(request)
        return _LOCAL
    refuse_foreign_pages(request)
    answer = auth(request)
    found = await answer if inspect.isawaitable(answer) else answer
    if found is None:
        raise HTTPException(401, "who asks is not known here; send the credentials of an operator")
    if not isinstance(found, Principal):  # pyright: ignore[reportUnnecessaryIsInstance] - users' code returns it
        raise TypeError(
            f"auth returned a {type(found).__name__}; return Principal(name, roles) or None"
        )
    return found


CurrentPrincipal = Annotated[Principal, Depends(principal_of)]


def operator_of(principal: CurrentPrincipal) -> str:
    """Return the name under which acts are recorded."""
    return principal.name


def client_of(request: Request, principal: CurrentPrincipal) -> Client:
    """Return the client that the application was made with. For a principal who may not see the
    values of users it hides them.
    """
    client: Client = request.app.state.client
    return client if principal.may(Role.REVEAL) else cast("Client", MaskedClient(client))


def needs(role: Role) -> Callable[[Principal], None]:
    """Return a dependency that refuses principals without a role."""

    def check(principal: CurrentPrincipal) -> None:
        permit(principal, role)

    return check


def permit(principal: Principal, role: Role) -> None:
    """Raise unless a principal has a role.

    Raises:
        HTTPException: 403.
    """
    if not principal.may(role):
        raise HTTPException(403, f"{principal.name} needs the role {role.value!r} for this")


def refuse_strangers(request: Request) -> None:
    """Raise unless a request comes from this machine, and from no page of another site.

    A page of another site may send requests here through the operator's browser: it then names
    its own origin, or has given its own name the address of this machine (DNS rebinding).
    """
    peer = request.client
    try:
        is_near = peer is not None and ip_address(peer.host).is_loopback
    except ValueError:  # a Unix socket
        is_near = True
    host = request.url.hostname or ""
    if not (is_near and host in _NAMES and _is_of_same_origin(request)):
        raise HTTPException(
            403, "without auth= the API answers this machine alone; give create_app an auth"
        )


def refuse_foreign_pages(request: Request) -> None:
    """Raise if a page of another site asks for a change through the operator's browser, which adds
    the operator's cookies.
    """
    if request.method in _SAFE:
        return
    if not _is_of_same_origin(request):
        raise HTTPException(403, "a page of another site may not act here; act on this site's own")


def _is_of_same_origin(request: Request) -> bool:
    """Whether no page of another site has sent a request. Programs name no origin.

    The browser itself says so, where it does; it compares what it has asked for, also behind a
    proxy that rewrites the host.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None and request.app.state.auth is not None:
        return site in {"same-origin", "none"}
    origin = request.headers.get("origin")
    if origin is None:
        return site in {None, "same-origin", "none"} or request.method in _SAFE
    # The host alone: a proxy may have ended TLS.
    return urlsplit(origin).netloc == request.url.netloc


CurrentClient = Annotated[Client, Depends(client_of)]
Operator = Annotated[str, Depends(operator_of)]
