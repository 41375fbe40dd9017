"""Opaque cursors: where a page of a list ends, as a text whose inside is the library's own."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode

from orchestra.errors import InvalidArgument

__all__ = ["cursor_of", "page_of"]


def cursor_of(page: str | None) -> str | None:
    """Return the cursor of a page."""
    return None if page is None else urlsafe_b64encode(page.encode()).decode().rstrip("=")


def page_of(cursor: str | None) -> str | None:
    """Return the page of a cursor.

    Raises:
        InvalidArgument: it is none.
    """
    if cursor is None:
        return None
    try:
        raw = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        return raw.decode()
    except ValueError as error:
        raise InvalidArgument(
            f"{cursor!r} is no cursor; give back `next_page` of the page before"
        ) from error
