"""Processes of this machine: whether one runs, and in which space its number means it."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["boot_id", "process_space", "runs"]


def boot_id() -> str:
    """Return what names this boot of the machine. Empty where it is not known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def process_space() -> str:
    """Return the boot and the namespace in which the number of a process means it. Empty where one
    of them is not known.
    """
    try:
        namespace = Path("/proc/self/ns/pid").readlink()
    except OSError:
        return ""
    return f"{boot} {namespace}" if (boot := boot_id()) else ""


def runs(pid: int) -> bool:
    """Return whether there is a process with this number in this space. It may be another one by
    now, or one that has ended and whose parent has not heard of it.
    """
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
