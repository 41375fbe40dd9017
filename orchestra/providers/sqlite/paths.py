"""Resolve a path to a file once, and check that SQLite may use the file.

SQLite's log, its shared memory and the lock files lie beside the database; their names derive from
its name. A file with two names would have two logs and two locks, and be damaged. So paths are
followed to the file's own name, and a file with a second name is refused.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from orchestra.errors import InvalidArgument, StoreAliased, StoreUnavailable
from orchestra.providers.sqlite.mounts import is_mount_point

__all__ = ["require_one_name", "require_shared_directory", "resolve"]

_URL: Final = re.compile(r"(file|sqlite3?)(\+\w+)?:", re.IGNORECASE)


def resolve(path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> Path:
    """Return the absolute path of the file that a path names now, with all symbolic links followed.

    The file and its directory need not exist yet. ``~`` is not expanded.

    Raises:
        InvalidArgument: it is no path, names no file, is a URL, or begins with a ``~`` that a shell
            expands.
        StoreUnavailable: it is relative, and the working directory does not exist.
    """
    try:
        text = os.fsdecode(path)
    except TypeError:
        raise InvalidArgument(
            f"the path of a store is {path!r}; give a str, bytes or a pathlib.Path"
        ) from None
    if text in ("", ":memory:"):
        raise InvalidArgument(f"{text!r} names no file; a durable store needs one")
    if "\0" in text:
        raise InvalidArgument(
            f"the path {text!r} holds a NUL character; no file can have this name"
        )
    if _URL.match(text):
        raise InvalidArgument(
            f"{text!r} is a URL; give the path of the file. A file of this name is './{text}'"
        )
    if os.path.expanduser(text) != text:  # noqa: PTH111 - pathlib raises for a name that only looks like a home
        raise InvalidArgument(
            f"{text!r} begins with a '~', which is not expanded here; give "
            f"pathlib.Path({text!r}).expanduser(). A file in a directory of this name is "
            f"'./{text}'"
        )
    try:
        return Path(os.path.realpath(text))
    except OSError as error:
        raise StoreUnavailable(
            f"{text}: {error.strerror}; the working directory may be gone"
        ) from error


def require_one_name(path: Path) -> None:
    """Check that a resolved path leads to no file, or to a file without a second name.

    Raises:
        StoreAliased: it has hard links, or its path leads over a symbolic link by now.
    """
    real = os.path.realpath(path)
    if real != str(path):
        raise StoreAliased(
            f"{path} has become a symbolic link, or lies below one: it leads to {real} now. "
            "Remove the link, or open the store again by a path that leads to it",
            path=str(path),
        )
    try:
        links = path.lstat().st_nlink
    except OSError:
        return  # whether it can be reached is asked, and answered, elsewhere
    if links > 1 and path.is_file():
        raise StoreAliased(
            f"{path} has {links} names (hard links). SQLite would keep a log and a lock for "
            "each of them, and the store would be damaged. Remove the others (`find -samefile` "
            "names them), or make copies with `orchestra backup`",
            path=str(path),
        )


def require_shared_directory(path: Path) -> None:
    """Check that every process with the file also sees the log and the locks beside it.

    Raises:
        StoreAliased: the file is mounted by itself.
    """
    if is_mount_point(path):
        raise StoreAliased(
            f"{path} is mounted by itself, and has another name where it comes from. SQLite "
            "would keep a log and a lock for each of them, and the store would be damaged. "
            "Mount the directory that the file lies in",
            path=str(path),
        )
