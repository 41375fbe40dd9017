"""What the machine is, and what it does just now, apart from any system."""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

LOOPS = 1_000_000
WRITES = 100


def loop_ms() -> float:
    """Return the milliseconds of a fixed loop in Python."""
    begun = time.perf_counter()
    total = 0
    for number in range(LOOPS):
        total += number & 7
    return (time.perf_counter() - begun) * 1000


def syncs(directory: Path) -> float:
    """Return how often a second a page can be appended and synced."""
    with tempfile.TemporaryFile(dir=directory) as file:
        begun = time.perf_counter()
        for _ in range(WRITES):
            os.write(file.fileno(), bytes(4096))
            os.fdatasync(file.fileno())
        return WRITES / (time.perf_counter() - begun)


def processor(root: int) -> float:
    """Return the processor seconds of a process, its children, and theirs, ended ones included."""
    children: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for path in Path("/proc").iterdir():
        if not path.name.isdigit():
            continue
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        children.setdefault(int(fields[1]), []).append(int(path.name))
        ticks[int(path.name)] = sum(map(int, fields[11:15]))
    found, total = [root], 0
    while found:
        one = found.pop()
        total += ticks.get(one, 0)
        found += children.get(one, [])
    return total / os.sysconf("SC_CLK_TCK")


def busy() -> float:
    """Return the processor seconds that all programs have used since the start."""
    with Path("/proc/stat").open(encoding="utf-8") as file:
        user, nice, system, _idle, _wait, irq, softirq, steal = map(
            int, file.readline().split()[1:9]
        )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


class Watch:
    """How many processors programs other than this one use."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._others = busy() - processor(os.getpid())

    def others(self) -> float:
        """Return it, from the start of the watch until now."""
        seconds = time.monotonic() - self._begun
        return max(0.0, (busy() - processor(os.getpid()) - self._others) / seconds)


def describe(directory: Path) -> dict[str, str]:
    """Return what this runs on, without its name."""
    with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    system = subprocess.run(
        ["stat", "-f", "-c", "%T", str(directory)], capture_output=True, text=True, check=False
    )
    return {
        "processors": f"{os.cpu_count()} processors ({models[0] if models else platform.machine()})",
        "system": f"{platform.system()} {platform.release()}",
        "file system": system.stdout.strip(),
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
    }
