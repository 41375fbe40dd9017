"""Store large values outside the database."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

from orchestra.clock import from_micros, new_id
from orchestra.errors import InvalidArgument

__all__ = [
    "DIGEST",
    "EXTERNAL",
    "INLINE",
    "DirectoryStorage",
    "External",
    "Storage",
    "Sweepable",
    "digest_of",
    "key_of",
]

INLINE: Final = 0
EXTERNAL: Final = 1
DIGEST: Final = 32


@runtime_checkable
class Storage(Protocol):
    """A storage of bytes by keys. Several threads call it at once; it may block.

    A key is 64 hexadecimal digits: the SHA-256 digest of the bytes. So the same key always has the
    same bytes, and a repeated :meth:`put` is harmless.
    """

    def put(self, key: str, data: bytes) -> None:
        """Store bytes durably. After any exception it is tried again."""
        ...

    def get(self, key: str) -> bytes:
        """Return the bytes.

        Raises:
            KeyError: there are none.
        """
        ...


@runtime_checkable
class Sweepable(Protocol):
    """A storage that can also be swept."""

    def objects(self) -> Iterator[tuple[str, datetime]]:
        """Yield the keys, each with the time (UTC) at which it was put last."""
        ...

    def delete(self, key: str) -> None:
        """Delete bytes. Harmless where there are none."""
        ...


class External:
    """Puts values of more than ``over`` bytes into a storage; the database keeps their digest.

    Length counts after compression and encryption, so what leaves the database is encrypted as
    well. A value is stored before the change that refers to it is committed. Deleting an instance
    deletes none: :func:`orchestra.payloads.sweeping.sweep` does, whenever an operator runs it.

    Args:
        storage: where to.
        over: the most bytes of a value that stays in the database.
    """

    def __init__(self, storage: Storage, *, over: int = 128 * 1024) -> None:
        if not isinstance(storage, Storage):  # pyright: ignore[reportUnnecessaryIsInstance] - users
            raise InvalidArgument(f"a storage has put(key, data) and get(key); {storage!r} has not")
        if not isinstance(over, int) or isinstance(over, bool) or over < DIGEST:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgument(f"over is a number of bytes of at least {DIGEST}, not {over!r}")
        self.storage = storage
        self.over = over

    def __repr__(self) -> str:
        return f"External({self.storage!r}, over={self.over})"


def key_of(digest: bytes) -> str:
    """Return the key of the bytes with a digest."""
    return digest.hex()


def digest_of(data: bytes) -> bytes:
    """Return the digest by which bytes are found."""
    return hashlib.sha256(data).digest()


class DirectoryStorage:
    """Stores values as files of a directory, which all nodes and clients must share.

    A file appears whole or not at all, and is on disk before :meth:`put` returns.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)

    def __repr__(self) -> str:
        return f"DirectoryStorage({str(self._path)!r})"

    def _file(self, key: str) -> Path:
        return self._path / key[:2] / key

    def put(self, key: str, data: bytes) -> None:
        """Write a file. Where it exists, only its time is renewed."""
        file = self._file(key)
        try:
            os.utime(file)
        except FileNotFoundError:
            pass
        else:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f".{key}.{new_id()}")
        try:
            with draft.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            draft.replace(file)
        finally:
            draft.unlink(missing_ok=True)
        for directory in (file.parent, self._path):
            handle = os.open(directory, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def get(self, key: str) -> bytes:
        """Return the content of a file."""
        try:
            return self._file(key).read_bytes()
        except FileNotFoundError as error:
            raise KeyError(key) from error

    def objects(self) -> Iterator[tuple[str, datetime]]:
        """Yield the files, each with its time."""
        for file in sorted(self._path.glob("[0-9a-f][0-9a-f]/*")):
            if not file.name.startswith("."):
                yield file.name, from_micros(file.stat().st_mtime_ns // 1000)

    def delete(self, key: str) -> None:
        """Delete a file."""
        self._file(key).unlink(missing_ok=True)
