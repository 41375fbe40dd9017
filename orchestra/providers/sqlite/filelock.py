"""File locks between processes. The kernel drops a lock when its process dies.

They are ``flock`` locks. ``fcntl`` locks belong to the process, and any close of the file drops
them. The database file itself is never locked: only SQLite opens it (protocol rule 26).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import weakref
from pathlib import Path
from time import sleep
from typing import Final

from orchestra.clock import SystemClock
from orchestra.errors import StoreBusy, StoreError, StoreFull, StoreReadOnly, StoreUnavailable

__all__ = ["FileLock", "NodeLock"]

_PATIENCE: Final = SystemClock()
"""Waiting for another process takes real time, also if the store's clock is virtual."""

_SHORTEST_NAP: Final = 0.00005
_LONGEST_NAP: Final = 0.002


class _LockFile:
    """An open descriptor that can be locked."""

    __slots__ = ("__weakref__", "_descriptor", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise _translate(error, path) from error
        _open_files.add(self)

    def try_lock(self) -> bool:
        """Take the lock if it is free."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EINTR):
                return False
            raise _translate(error, self.path) from error
        return True

    def unlock(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def write_pid(self) -> None:
        # The pid is for people who look for the holder. A full disk must not prevent locking. It is
        # written only if it changes: the next fsync would have to carry the touched file.
        with contextlib.suppress(OSError):
            mark = b"%-10d\n" % os.getpid()
            if os.pread(self._descriptor, len(mark), 0) != mark:
                os.pwrite(self._descriptor, mark, 0)

    def read_pid(self) -> str:
        return os.pread(self._descriptor, 16, 0).decode("ascii", "replace").strip()

    def close(self) -> None:
        """Close the descriptor. This unlocks, unless a parent process holds it too."""
        _open_files.discard(self)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class FileLock:
    """The lock that a writer holds from BEGIN to COMMIT.

    It is two files. Processes wait for the lock behind the *gate*. A busy writer that returns at
    once queues behind them, so no process starves (scenario 43).
    """

    def __init__(self, path: Path) -> None:
        self._lock = _LockFile(path)
        try:
            self._gate = _LockFile(path.with_name(path.name + "-gate"))
        except StoreError:
            self._lock.close()
            raise

    def acquire(self, timeout: float) -> None:
        """Take the lock.

        Raises:
            StoreBusy: others held it for all ``timeout`` seconds.
        """
        deadline: float | None = None
        for file in (self._gate, self._lock):
            nap = _SHORTEST_NAP
            while not file.try_lock():
                now = _PATIENCE.monotonic()
                if deadline is None:
                    deadline = now + timeout
                if now >= deadline:
                    self._give_up(file, timeout)
                sleep(nap)
                nap = min(nap * 2, _LONGEST_NAP)
        self._gate.unlock()
        self._lock.write_pid()

    def release(self) -> None:
        """Free the gate for the next process."""
        self._lock.unlock()

    def close(self) -> None:
        self._gate.close()
        self._lock.close()

    def _give_up(self, waited_for: _LockFile, timeout: float) -> None:
        if waited_for is self._lock:
            self._gate.unlock()
        holder = self._lock.read_pid() or "unknown"
        raise StoreBusy(f"{self._lock.path} was held for {timeout:g} s, last by process {holder}")


class NodeLock:
    """A node holds it from before its row exists until after the row is gone. So a free lock means
    a dead node.
    """

    def __init__(self, path: Path) -> None:
        self._file = _LockFile(path)
        if not self._file.try_lock():
            self._file.close()
            raise StoreError(f"another process is this node: it holds {path}")
        self._file.write_pid()

    def close(self) -> None:
        """Release it, as the death of the process does. The file stays."""
        self._file.close()

    def remove(self) -> None:
        """Release it and remove the file."""
        # Remove the file first: once the lock is free, others may probe it.
        with contextlib.suppress(OSError):
            self._file.path.unlink()
        self._file.close()

    @staticmethod
    def is_free(path: Path) -> bool:
        """Return whether the file exists and its lock is free: its node is then certainly gone."""
        lock = _probe(path)
        if lock is None:
            return False
        lock.close()
        return True

    @staticmethod
    def clear(path: Path) -> None:
        """Remove the file of a dead node, unless its process still holds it."""
        lock = _probe(path)
        if lock is not None:
            with contextlib.suppress(OSError):
                path.unlink()
            lock.close()


def _probe(path: Path) -> _LockFile | None:
    """Return the file, locked, if it exists and was free."""
    if not path.exists():
        return None
    try:
        file = _LockFile(path)
    except StoreError:
        return None  # a hint is all that this is for
    if file.try_lock():
        return file
    file.close()
    return None


def _translate(error: OSError, path: Path) -> StoreError:
    text = f"{path}: {error.strerror}"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StoreReadOnly(text)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(text)
    return StoreUnavailable(text)


_open_files: weakref.WeakSet[_LockFile] = weakref.WeakSet()
"""A forked child inherits descriptors, and so the locks. While it has them open, a dead parent
seems to live.
"""


def _close_in_child() -> None:
    # Closing keeps the parent's lock; unlocking would release it.
    for file in list(_open_files):
        with contextlib.suppress(OSError):
            file.close()


os.register_at_fork(after_in_child=_close_in_child)
