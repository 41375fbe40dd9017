"""A token in each form of the dashboard, so that no page of another site can send one.

The token is a random value in a cookie that only this site's requests carry, and again in the form.
It needs no state on the server: any replica of a service checks it.
"""

from __future__ import annotations

import re
import secrets
from typing import Final

from fastapi import HTTPException, Request
from fastapi.responses import HTMLResponse
from markupsafe import escape

__all__ = ["FIELD", "check_token", "page"]

FIELD: Final = "csrf_token"
"""The name of the form's field, and of the cookie."""

_FORM: Final = re.compile(r'<form\b[^>]*\bmethod="post"[^>]*>', re.IGNORECASE)
"""A form of a template. A form in a value of users is escaped, and is none."""
_TOKEN: Final = re.compile(r"[\w-]{43}")


def page(request: Request, body: str, status: int = 200) -> HTMLResponse:
    """Return a page whose forms carry the token, with the cookie that proves it."""
    known = request.cookies.get(FIELD, "")
    token = known if _TOKEN.fullmatch(known) else secrets.token_urlsafe(32)
    field = f'<input type="hidden" name="{FIELD}" value="{escape(token)}">'
    answer = HTMLResponse(_FORM.sub(lambda form: form[0] + field, body), status)
    if token != known:
        answer.set_cookie(
            FIELD,
            token,
            path=request.scope.get("root_path", "") or "/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
    return answer


async def check_token(request: Request) -> None:
    """Refuse a form without the token of a page of this site.

    Raises:
        HTTPException: 403.
    """
    if request.method != "POST":
        return
    known = request.cookies.get(FIELD, "")
    given = (await request.form()).get(FIELD)
    if (
        not _TOKEN.fullmatch(known)
        or not isinstance(given, str)
        or not secrets.compare_digest(given.encode(), known.encode())
    ):
        raise HTTPException(403, "the form has no token of this site; load its page again")
