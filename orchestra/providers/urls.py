"""Where a store is: the text that names it, for settings and command lines."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from orchestra.errors import InvalidArgument, StoreUnavailable
from orchestra.providers.sqlite import SqliteProvider
from orchestra.store.port import Provider

__all__ = ["Address", "FileAddress", "ServerAddress", "from_url", "parse_url", "without_secrets"]

_SCHEME: Final = "sqlite:///"
_SERVER_SCHEMES: Final = ("postgresql://", "postgres://")
_KEYWORDS: Final = re.compile(
    r"\s*(host|hostaddr|port|dbname|user|password|passfile|service|sslmode)\s*="
)
"""How a DSN of keywords begins. It may hold a password, so it must not be shown as a path."""
_SECRETS: Final = re.compile(r"(\w://)[^\s/]\S*|(\b\w*password\s*=).*", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class FileAddress:
    """A store in a file."""

    path: Path


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A store on PostgreSQL. The DSN may hold a password, and is never shown."""

    dsn: str = field(repr=False)


Address = FileAddress | ServerAddress


def parse_url(text: str) -> Address:
    """Return what a text names: a path, ``sqlite:///relative.db``, ``sqlite:////absolute.db``, or
    a DSN as libpq takes it.

    Raises:
        InvalidArgument: it names no store. The message holds no password.
    """
    if text.startswith(_SERVER_SCHEMES) or _KEYWORDS.match(text):
        return ServerAddress(text)
    path = text.removeprefix(_SCHEME)
    if not path or (path == text and "://" in text):
        raise InvalidArgument(
            f"{without_secrets(text)!r} is neither the path of a file nor {_SCHEME}PATH, nor a URL "
            f"that begins with {' or '.join(_SERVER_SCHEMES)}"
        )
    if "\0" in path:
        raise InvalidArgument("a path holds no NUL")
    return FileAddress(Path(path))


def from_url(url: str, *, schema: str | None = None, migrate: bool = True) -> Provider:
    """Return the provider of the store that a text names; see :func:`parse_url`.

    Args:
        schema: where on PostgreSQL the store is; by default ``orchestra``.
        migrate: whether opening may make the store, or bring it to this library's schema. Without
            it a file that is not there is an error at once.

    Raises:
        InvalidArgument: the text names no store, or a schema is given for a file.
        StoreUnavailable: there is no such file, and it may not be made.
        ModuleNotFoundError: a DSN needs the extra ``postgres``.
    """
    match parse_url(url):
        case FileAddress(path):
            if schema is not None:
                raise InvalidArgument("a schema is for a store on PostgreSQL")
            if not migrate and not _is_file(path):
                raise StoreUnavailable(f"{path}: there is no such file")
            return SqliteProvider(path, migrate=migrate)
        case ServerAddress(dsn):
            from orchestra.providers.postgres import PostgresProvider  # noqa: PLC0415 - an extra

            if schema is None:
                return PostgresProvider(dsn, migrate=migrate)
            return PostgresProvider(dsn, schema, migrate=migrate)


def without_secrets(text: str) -> str:
    """Return a text without what may be a password in it."""
    return _SECRETS.sub(r"\1\2***", text)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False
