"""What a process asks of the machine for its store, counted, and made to fail at a chosen call.

SQLite reaches files through a table of functions, its VFS, which this module puts itself before:
every write, sync, truncation and removal that SQLite asks for passes through here, one call each.
The library's own lock files are seen by audit events. That needs no compiler, no privileges and no
tracer, only a Python whose SQLite is a shared library, as nearly all are.

For processes that are going to die of it: nothing here can be taken back.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

WRITE, SYNC, TRUNCATE, DELETE = "write", "sync", "truncate", "delete"
LOCK, OPEN, REMOVE = "lock", "open", "remove"
DEVICE_CALLS = (WRITE, SYNC, TRUNCATE, DELETE)
LOCK_FILE_CALLS = (LOCK, OPEN, REMOVE)

_AUDITED = {"fcntl.flock": LOCK, "open": OPEN, "os.remove": REMOVE}

_OK = 0
_FULL = 13
_IO_ERRORS = {WRITE: 10 | 3 << 8, SYNC: 10 | 4 << 8, TRUNCATE: 10 | 6 << 8, DELETE: 10 | 10 << 8}

_Pointer = ctypes.c_void_p
_XOpen = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, _Pointer, _Pointer, ctypes.c_int, _Pointer)
_XDelete = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, ctypes.c_char_p, ctypes.c_int)
_XWrite = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, _Pointer, ctypes.c_int, ctypes.c_int64)
_XTruncate = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, ctypes.c_int64)
_XSync = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, ctypes.c_int)


class _Vfs(ctypes.Structure):
    """``sqlite3_vfs``, as far as it is needed."""

    _fields_ = [
        ("version", ctypes.c_int),
        ("file_size", ctypes.c_int),
        ("longest_path", ctypes.c_int),
        ("next", _Pointer),
        ("name", ctypes.c_char_p),
        ("data", _Pointer),
        ("open", _XOpen),
        ("delete", _XDelete),
    ]


class _Methods(ctypes.Structure):
    """``sqlite3_io_methods`` up to its third version; those that nothing stands before are passed
    on as they are.
    """

    _fields_ = [
        ("version", ctypes.c_int),
        ("close", _Pointer),
        ("read", _Pointer),
        ("write", _XWrite),
        ("truncate", _XTruncate),
        ("sync", _XSync),
        ("others", _Pointer * 13),
    ]


@dataclass(frozen=True)
class Fault:
    """What becomes of the ``nth`` call of a kind.

    ``action``: ``kill`` and ``stop`` the process before the call, ``torn``: kill it when half of a
    write is done; ``io`` and ``full``: the call fails, and so do all that follow for ``seconds``,
    or as many as ``calls``.
    """

    kind: str
    nth: int
    action: str
    calls: int = 1
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.kind}:{self.nth}:{self.action}:{self.calls}:{self.seconds:g}"

    @classmethod
    def parse(cls, text: str) -> Fault:
        kind, nth, action, calls, seconds = text.split(":")
        return cls(kind, int(nth), action, int(calls), float(seconds))


@cache
def missing() -> str | None:
    """Return why nothing can be put before SQLite in this Python, or ``None`` if it can."""
    try:
        _library().sqlite3_vfs_find  # noqa: B018 - whether it is there is the question
    except (OSError, AttributeError) as error:
        return f"this Python's SQLite is no shared library: {error}"
    return None


@cache
def _library() -> ctypes.CDLL:
    # The extension's own dependency, not whatever lies in the library path: it must be the very
    # SQLite that is in use.
    library = ctypes.CDLL(getattr(_sqlite3, "__file__", None))
    library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
    return library


class Device:
    """Stands between this process's SQLite and the files. One in a process."""

    def __init__(self, store: os.PathLike[str] | str, note: Callable[..., None]) -> None:
        self.counts: Counter[str] = Counter()
        self._prefix = os.fspath(store)
        self._note = note
        self._fault: Fault | None = None
        self._due = 0
        self._failing_since: float | None = None
        self._failed = 0
        self._kept: list[Any] = []  # callbacks that SQLite calls must not be collected
        self._methods: dict[int, int] = {}
        sys.addaudithook(self._hear)
        if missing() is None:
            self._stand_before(_library().sqlite3_vfs_find(None).contents)

    def arm(self, fault: Fault) -> None:
        """Let a fault happen, counted from now on."""
        self._due = self.counts[fault.kind] + fault.nth
        self._failed, self._failing_since = 0, None
        self._fault = fault

    # --- the lock files ---

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        kind = _AUDITED.get(event)
        if kind is None:
            return
        if kind is LOCK or (
            isinstance(arguments[0], (str, os.PathLike))
            and os.fspath(arguments[0]).startswith(self._prefix)
        ):
            self._reach(kind)

    # --- SQLite ---

    def _stand_before(self, vfs: _Vfs) -> None:
        open_file, delete_file = (
            _XOpen.from_buffer_copy(vfs.open),
            _XDelete.from_buffer_copy(vfs.delete),
        )

        def open_(vfs_: int, name: int, file: int, flags: int, out: int) -> int:
            code = open_file(vfs_, name, file, flags, out)
            methods = ctypes.cast(file, ctypes.POINTER(ctypes.c_void_p))
            if code == _OK and methods[0]:
                methods[0] = self._methods.get(methods[0]) or self._standing_before(methods[0])
            return code

        def delete(vfs_: int, name: bytes, sync: int) -> int:
            return _IO_ERRORS[DELETE] if self._reach(DELETE) else delete_file(vfs_, name, sync)

        vfs.open, vfs.delete = self._keep(_XOpen(open_)), self._keep(_XDelete(delete))

    def _standing_before(self, address: int) -> int:
        """Return the address of a table of a file's functions that passes through here."""
        original = ctypes.cast(address, ctypes.POINTER(_Methods)).contents
        version = original.version
        size = ctypes.sizeof(_Methods) - (0 if version >= 3 else 16 if version == 2 else 48)
        mine = _Methods()
        ctypes.memmove(ctypes.byref(mine), address, size)
        write_file = _XWrite.from_buffer_copy(original.write)
        truncate_file = _XTruncate.from_buffer_copy(original.truncate)
        sync_file = _XSync.from_buffer_copy(original.sync)

        def write(file: int, data: int, amount: int, offset: int) -> int:
            failing = self._reach(WRITE, lambda: write_file(file, data, amount // 2, offset))
            if failing is None:
                return write_file(file, data, amount, offset)
            return _FULL if failing == "full" else _IO_ERRORS[WRITE]

        def truncate(file: int, length: int) -> int:
            return _IO_ERRORS[TRUNCATE] if self._reach(TRUNCATE) else truncate_file(file, length)

        def sync(file: int, flags: int) -> int:
            return _IO_ERRORS[SYNC] if self._reach(SYNC) else sync_file(file, flags)

        mine.write, mine.truncate, mine.sync = (
            self._keep(_XWrite(write)),
            self._keep(_XTruncate(truncate)),
            self._keep(_XSync(sync)),
        )
        self._methods[address] = ctypes.addressof(self._keep(mine))
        return self._methods[address]

    def _keep(self, thing: Any) -> Any:
        self._kept.append(thing)
        return thing

    # --- the fault ---

    def _reach(self, kind: str, half: Callable[[], Any] | None = None) -> str | None:
        """Count a call. Return how it is to fail, or ``None`` if it is to go on."""
        self.counts[kind] += 1
        fault = self._fault
        if fault is None:
            return None
        if self._failing_since is None:
            if kind != fault.kind or self.counts[kind] != self._due:
                return None
            if fault.action in ("kill", "torn", "stop"):
                self._fault = None
                if fault.action == "torn" and half is not None:
                    half()
                # To this very thread: a signal to the process may be taken by another one, while
                # this one goes on.
                signal.pthread_kill(
                    threading.get_ident(),
                    signal.SIGSTOP if fault.action == "stop" else signal.SIGKILL,
                )
                return None
            self._failing_since = time.monotonic()
        return self._fail(kind, fault, half)

    def _fail(self, kind: str, fault: Fault, half: Callable[[], Any] | None) -> str | None:
        assert self._failing_since is not None
        if time.monotonic() > self._failing_since + fault.seconds and self._failed >= fault.calls:
            self._fault, self._failing_since = None, None
            self._note("mended", self._failed)
            return None
        if kind not in DEVICE_CALLS or (
            fault.calls > 0 and not fault.seconds and kind != fault.kind
        ):
            return None
        self._failed += 1
        if half is not None and self._failed % 2:
            half()  # a device that fails may have done some of it
        return fault.action
