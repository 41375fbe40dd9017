"""SQLite's errors as the library's: classified by code, never by text, and kept as
``__cause__``.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from orchestra.errors import (
    OutcomeUnknown,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)

__all__ = ["translate", "translated", "translated_commit"]

_ERRORS: Final[dict[int, type[StoreError]]] = {
    sqlite3.SQLITE_BUSY: StoreBusy,
    sqlite3.SQLITE_LOCKED: StoreBusy,
    sqlite3.SQLITE_PROTOCOL: StoreBusy,
    sqlite3.SQLITE_FULL: StoreFull,
    sqlite3.SQLITE_READONLY: StoreReadOnly,
    sqlite3.SQLITE_PERM: StoreReadOnly,
    sqlite3.SQLITE_CANTOPEN: StoreUnavailable,
    sqlite3.SQLITE_IOERR: StoreUnavailable,
    sqlite3.SQLITE_NOMEM: StoreUnavailable,
    sqlite3.SQLITE_CORRUPT: StoreCorrupt,
    sqlite3.SQLITE_NOTADB: StoreCorrupt,
}

_DRIVER_ERRORS: Final = (sqlite3.Error, ValueError, OverflowError)
"""``ValueError`` and ``OverflowError``: values that no database can hold (lone surrogates, integers
beyond 64 bits).
"""


def translate(error: Exception, path: Path) -> StoreError:
    """Translate an error of the driver. Unknown errors are not retryable."""
    code = primary_code(error)
    kind = StoreError if code is None else _ERRORS.get(code, StoreError)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    return kind(f"{path}: {error} ({name})")


def primary_code(error: Exception) -> int | None:
    """Return SQLite's primary result code, if the error has one."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


class translated:  # noqa: N801 - used as a context manager, named like contextlib's
    """Raise the driver's errors as the library's. A class is faster, and this surrounds every
    statement of the hot path.
    """

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, _DRIVER_ERRORS):
            raise self._translate(error) from error

    def _translate(self, error: Exception) -> StoreError:
        return translate(error, self._path)


class translated_commit(translated):  # noqa: N801
    """Do the same around a COMMIT. If the device fails there, the log may or may not hold the
    commit.
    """

    __slots__ = ()

    def _translate(self, error: Exception) -> StoreError:
        if primary_code(error) == sqlite3.SQLITE_IOERR:
            return OutcomeUnknown(f"{self._path}: {error}")
        return translate(error, self._path)
