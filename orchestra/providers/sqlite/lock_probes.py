"""Look at locks without taking them: a node's lock, and the lock of the writers."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from orchestra.store.diagnosis import NodeLockState

__all__ = ["KERNEL_LOCKS", "holds", "probe", "read_pid"]

KERNEL_LOCKS: Final = Path("/proc/locks")


def probe(path: Path) -> NodeLockState:
    """Return the state of a node's lock.

    It never creates the file, and asks for a shared lock, so two probes do not collide. The node
    itself took its lock before it had a row. Neighbours that meet the probe look again shortly.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return NodeLockState.MISSING
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return NodeLockState.HELD
    finally:
        os.close(descriptor)  # unlocks as well
    return NodeLockState.FREE


def read_pid(path: Path) -> int | None:
    """Return the process that a lock file names, or ``None``."""
    try:
        with path.open("rb") as file:
            return int(file.read(16))
    except (OSError, ValueError):
        return None


def holds(path: Path, pid: int) -> bool:
    """Return whether the kernel lists the process as the lock's holder."""
    try:
        inode = path.stat().st_ino
        lines = KERNEL_LOCKS.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return False
    # The inode alone could belong to another file system; the pid in the file excludes that.
    return any(_is_lock(line.split(), inode, pid) for line in lines)


def _is_lock(words: list[str], inode: int, pid: int) -> bool:
    match words:
        case [_, "FLOCK", _, "WRITE", holder, place, *_]:
            return holder == str(pid) and place.rpartition(":")[2] == str(inode)
        case _:
            return False
