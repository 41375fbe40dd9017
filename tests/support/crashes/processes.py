"""Workers as processes: kept ready, let go, killed, stopped, sent home."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.to_thread

from tests.support.crashes.stores import Store, arguments_of, folder_of

PATIENCE = 60.0
"""Seconds after which a wait is taken for a hang."""

NAP = 0.01


async def until(look: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Look again and again until what comes is true; return it."""
    with anyio.move_on_after(seconds):
        while True:
            found = look()
            if found:
                return found
            await anyio.sleep(NAP)
    raise TimeoutError(f"not within {seconds:g} s: {what}")


def read_lines(path: Path) -> Iterator[list[Any]]:
    """Yield the values of a file of JSON lines. Its writer's death may have cut the last one
    off.
    """
    if path.exists():
        for line in path.read_bytes().split(b"\n")[:-1]:
            yield json.loads(line)


class Nursery:
    """A process that has imported everything and forks workers and operators."""

    def __init__(self, hash_seed: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.crashes.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={
                **os.environ,
                "PYTHONPATH": str(Path(__file__).parents[3]),
                "PYTHONHASHSEED": str(hash_seed),
            },
        )

    async def fork(self, arguments: list[str]) -> int:
        """Return the process id of a new worker or operator."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(arguments).encode() + b"\n")
        stdin.flush()
        return int(await anyio.to_thread.run_sync(stdout.readline))

    def close(self) -> None:
        """End it, and all that it has forked."""
        self._process.communicate()


_FAILED_ATTEMPT = re.compile(r"activity '\w+', attempt \d+ failed")


class Worker:
    """One worker, as others see it."""

    def __init__(self, folder: Path, name: str, pid: int) -> None:
        self.name = name
        self.pid = pid
        self.writes = folder / f"writes-{name}"
        self.acknowledged = folder / f"acknowledged-{name}"
        self._errors = folder / f"errors-{name}"
        self._status = folder / f"status-{name}"

    @property
    def is_alive(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    @property
    def errors(self) -> str:
        """What it has logged, and what came out of it beside that."""
        return self._errors.read_text(errors="replace") if self._errors.exists() else ""

    @property
    def complaints(self) -> list[str]:
        """The warnings and errors that it has logged, but for failed attempts. Its activities fail now
        and then by themselves.
        """
        lines = self.errors.splitlines()
        return [
            line
            for line in lines
            if (" WARNING " in line or " ERROR " in line) and not _FAILED_ATTEMPT.search(line)
        ]

    @property
    def processor_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def has_come_to(self, word: str) -> bool:
        return self.said(word) is not None

    def said(self, word: str) -> list[Any] | None:
        """Return what its status says last of a word; ``None`` where that has not come."""
        return next(
            (line[1:] for line in reversed(list(read_lines(self._status))) if line[0] == word), None
        )

    @property
    def claimed(self) -> set[tuple[str, str]]:
        """The names and versions of what it has ever claimed."""
        return {(line[1], line[2]) for line in read_lines(self._status) if line[0] == "claimed"}

    async def ready(self) -> None:
        """Wait until its runtime runs."""
        await until(
            lambda: self.has_come_to("ready") or not self.is_alive, f"worker {self.name} begins"
        )
        if not self.has_come_to("ready"):
            raise RuntimeError(f"worker {self.name} did not begin: {self.errors}")

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    @property
    def is_stopped(self) -> bool:
        """Whether a SIGSTOP has taken effect."""
        status = Path(f"/proc/{self.pid}/stat").read_text()
        return status.rpartition(")")[2].split()[0] == "T"

    @property
    def refusals(self) -> list[str]:
        """The names of the errors that its own client was given."""
        return [name for what, name in read_lines(self.acknowledged) if what == "refused"]

    @property
    def has_ended_intake(self) -> bool:
        return ["end", None] in read_lines(self.acknowledged)

    @property
    def granted(self) -> int:
        """How many of its writes were granted."""
        return sum(1 for line in read_lines(self.writes) if line[4])

    async def kill(self) -> None:
        """``kill -9``, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        await until(lambda: not self.is_alive, f"worker {self.name} is gone")

    async def go_home(self) -> bool:
        """Ask it to stop in order; return whether it has."""
        self.signal(signal.SIGTERM)
        await until(lambda: not self.is_alive, f"worker {self.name} stops")
        return self.has_come_to("ended")


class Workforce:
    """All the workers of one store. Leaving it leaves none behind.

    Two nurseries take turns, so that histories are replayed under another ``PYTHONHASHSEED`` than
    that of their writer (I10).
    """

    def __init__(self, store: Store, **options: Any) -> None:
        self.store = store
        self._arguments: list[str] = []
        for option, value in options.items():
            flag = f"--{option.replace('_', '-')}"
            self._arguments += [flag] if value is True else [flag, str(value)]
        self._nurseries: list[Nursery] = []
        self.has_intake = bool(options.get("intake"))
        self.all: list[Worker] = []
        self.operators: list[Worker] = []

    def __enter__(self) -> Self:
        self._nurseries = [Nursery(1), Nursery(2)]
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        for nursery in self._nurseries:
            nursery.close()

    def move_to(self, store: Store) -> None:
        """Forget the workers there were, and go on with another store."""
        assert not self.living
        self.store = store
        self.all = []

    @property
    def living(self) -> list[Worker]:
        return [worker for worker in self.all if worker.is_alive]

    async def begin(self, *more: str) -> Worker:
        """Return a worker that has just been started."""
        name = str(len(self.all) + 1)
        nursery = self._nurseries[len(self.all) % 2]
        pid = await nursery.fork(
            ["worker", *arguments_of(self.store), "--name", name, *self._arguments, *more]
        )
        self.all.append(Worker(folder_of(self.store), name, pid))
        return self.all[-1]

    async def begin_operator(self, *more: str) -> Worker:
        """Return an operator that has just been started. It goes on where the one before broke
        off.
        """
        name = f"operator-{len(self.operators) + 1}"
        nursery = self._nurseries[len(self.operators) % 2]
        pid = await nursery.fork(["operator", *arguments_of(self.store), "--name", name, *more])
        self.operators.append(Worker(folder_of(self.store), name, pid))
        return self.operators[-1]
