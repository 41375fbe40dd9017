"""Faults by ``strace``: the kernel itself refuses a call, or kills the process at its entrance.

The same moments as in ``device``, one floor below. Not every machine has ``strace`` or lets it
trace; :func:`missing` says why.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import cache
from pathlib import Path

from tests.support.crashes.device import Fault
from tests.support.crashes.processes import Worker, until

SYSTEM_CALLS = ("pwrite64", "fdatasync", "fsync", "ftruncate", "unlink", "flock")
FAILING_CALLS = {"pwrite64": ("EIO", "ENOSPC"), "fdatasync": ("EIO",), "ftruncate": ("EIO",)}

_ANYBODY = ctypes.c_ulong(-1)
_PR_SET_PTRACER = 0x59616D61


def allow_tracing() -> None:
    """Let any process of this user trace this one, also where only parents may."""
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANYBODY, 0, 0, 0)


def wait_for_tracer() -> None:
    """Stand still until a tracer has come and lets this process go on."""
    allow_tracing()
    os.kill(os.getpid(), signal.SIGSTOP)


@cache
def missing() -> str | None:
    """Return why nothing can be traced here, or ``None`` if it can. Found out by doing it."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    program = (
        "import sys; from tests.support.crashes import tracer; tracer.allow_tracing(); print(flush=True); "
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        tracer = subprocess.Popen(
            [
                "strace",
                "-f",
                "-p",
                str(process.pid),
                "-o",
                "/dev/null",
                "-e",
                "inject=fsync:error=EIO:when=1..2",
            ],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        until_when = time.monotonic() + 5
        while (
            not _is_traced(process.pid) and tracer.poll() is None and time.monotonic() < until_when
        ):
            time.sleep(0.005)
        traced = _is_traced(process.pid)
        tracer.send_signal(signal.SIGINT)
        said = tracer.communicate()[1]
        process.kill()
    return None if traced else f"strace may not trace here: {said.strip()}"


def _is_traced(pid: int) -> bool:
    found = re.search(r"TracerPid:\s*(\d+)", Path(f"/proc/{pid}/status").read_text())
    return found is not None and found[1] != "0"


class Tracer:
    """One ``strace``, tied to one worker that waits for it (``--traced``), until that worker is
    gone.
    """

    def __init__(self, store: Path, worker: Worker, fault: Fault | None, log: Path) -> None:
        self._worker = worker
        self._log = log
        self._command = ["strace", "-f", "-p", str(worker.pid), "-o", str(log)]
        store = store.parent.resolve() / store.name  # as the kernel names it
        for suffix in ("", "-wal", "-shm", "-journal", ".lock", ".lock-gate"):
            self._command += ["-P", f"{store}{suffix}"]
        self._command += ["-e", "signal=none", "-e", f"trace={','.join(SYSTEM_CALLS)}"]
        if fault is not None:
            last = fault.nth + fault.calls - 1
            how = (
                f"signal=KILL:when={fault.nth}"
                if fault.action == "kill"
                else f"error={fault.action}:when={fault.nth}..{last}"
            )
            self._command += ["-e", f"inject={fault.kind}:{how}"]

    async def attach(self) -> None:
        """Trace the worker from here on, and let it go on."""
        await until(
            lambda: self._worker.is_stopped, f"worker {self._worker.name} waits for its tracer"
        )
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        await until(
            lambda: _is_traced(self._worker.pid) or self._process.poll() is not None,
            "strace is attached",
        )
        if self._process.poll() is not None:
            raise RuntimeError(f"strace does not trace: {self._process.communicate()[1]}")
        self._worker.signal(signal.SIGCONT)

    def finish(self) -> Counter[str]:
        """Wait for its end, once the worker is gone. Return how often the busiest thread made each
        call.
        """
        self._process.communicate(timeout=30)
        by_thread = Counter(
            re.findall(r"^(\d+) +(\w+)\(", self._log.read_text(errors="replace"), re.MULTILINE)
        )
        counts = Counter[str]()
        for (_, call), number in by_thread.items():
            counts[call] = max(counts[call], number)
        return counts

    @property
    def injected(self) -> int:
        """How many calls were made to fail."""
        return self._log.read_text(errors="replace").count("(INJECTED)")
