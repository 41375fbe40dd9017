"""One try: the processes of one contestant, one workload, one round."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ops.bench.peers.catalogue import Entry, Sizes, Workload
from ops.bench.peers.child import Order
from ops.bench.peers.interface import STEP
from ops.bench.peers.stores import Fresh, Stores

ROOT = Path(__file__).resolve().parents[3]
WORKERS = 3
FILLING = 900.0
"""More seconds for a try that first copies parked instances."""


class Failed(Exception):
    """A try has no figures; the message says why."""


@dataclass(frozen=True)
class Trial:
    """What one try needs."""

    entry: Entry
    workload: Workload
    sizes: Sizes
    stores: Stores
    python: Path

    def figures(self) -> dict[str, float]:
        """Run it."""
        if self.workload.key == "W7":
            with self.stores.fresh(self.entry.store) as fresh:
                return {"recovery": self._recovery(fresh)}
        if self.workload.key == "W8":
            figures: dict[str, float] = {}
            for workers in range(1, WORKERS + 1):
                with self.stores.fresh(self.entry.store) as fresh:
                    figures |= self._with_workers(fresh, workers)
            return figures
        with self.stores.fresh(self.entry.store) as fresh:
            return self._measure(self._order(fresh, roots=fresh.roots))

    def _order(self, fresh: Fresh, **more: Any) -> Order:
        return Order(self.entry.key, self.workload.key, fresh.url, sizes=self.sizes, **more)

    def _measure(self, order: Order) -> dict[str, float]:
        patience = self.sizes.patience + (FILLING if order.workload == "W9" else 0)
        with self._process(order) as process:
            return json.loads(process.answer("FIGURES ", patience))

    def _with_workers(self, fresh: Fresh, workers: int) -> dict[str, float]:
        with ExitStack() as stack:
            for node in range(workers):
                order = self._order(fresh, role="worker", node=node + 1)
                stack.enter_context(self._process(order)).answer("READY", self.sizes.patience)
            return self._measure(self._order(fresh, workers=workers))

    def _recovery(self, fresh: Fresh) -> float:
        """Return the seconds from the start of the next process until each chain has begun a step in it."""
        with tempfile.NamedTemporaryFile(suffix=".ledger") as ledger:
            path = Path(ledger.name)

            def begun(pid: int) -> dict[str, float]:
                first: dict[str, float] = {}
                for line in path.read_text(encoding="utf-8").splitlines():
                    number, moment, name = line.split()
                    if int(number) == pid:
                        first.setdefault(name, float(moment))
                return first

            def all_begun(process: Process) -> None:
                process.until(
                    lambda: len(begun(process.pid)) >= self.sizes.chains,
                    self.sizes.patience,
                    lambda: f"{len(begun(process.pid))} of {self.sizes.chains} chains have begun",
                )

            with self._process(self._order(fresh, role="first", ledger=ledger.name)) as victim:
                all_begun(victim)
                time.sleep(STEP * 2.5)
            started = time.time()
            with self._process(self._order(fresh, role="heir", ledger=ledger.name)) as heir:
                all_begun(heir)
            return max(begun(heir.pid).values()) - started

    @contextmanager
    def _process(self, order: Order) -> Generator[Process]:
        """Give a process for the body, and kill it after it."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            popen = subprocess.Popen(
                [str(self.python), "-m", "ops.bench.peers.child", json.dumps(asdict(order))],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
                start_new_session=True,
            )
            try:
                yield Process(popen, out.fileno(), err.fileno())
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(popen.pid, signal.SIGKILL)
                popen.wait()
                if popen.stdin is not None:
                    popen.stdin.close()


class Process:
    """A running process, and what it has said."""

    def __init__(self, popen: subprocess.Popen[bytes], out: int, err: int) -> None:
        self._popen = popen
        self._out = out
        self._err = err
        self.pid = popen.pid

    def answer(self, prefix: str, patience: float) -> str:
        """Return the rest of the line that begins so, once it is there."""

        def lines() -> list[str]:
            return [line for line in self._read(self._out).splitlines() if line.startswith(prefix)]

        self.until(lambda: bool(lines()), patience)
        return lines()[0].removeprefix(prefix)

    def until(
        self,
        condition: Callable[[], bool],
        patience: float,
        state: Callable[[], str] = lambda: "it has not ended",
    ) -> None:
        """Wait for something that the process does.

        Raises:
            Failed: it has ended before, or it takes too long.
        """
        begun = time.monotonic()
        while not condition():
            if self._popen.poll() is not None and not condition():
                raise Failed(self._last_words())
            if time.monotonic() - begun > patience:
                said = last_line(self._read(self._err))
                raise Failed(f"after {patience:g} s {state()}" + (f": {said}" if said else ""))
            time.sleep(0.02)

    def _last_words(self) -> str:
        failed = [
            line.removeprefix("FAILED ")[:300]
            for line in self._read(self._out).splitlines()
            if line.startswith("FAILED ")
        ]
        silent = "the process ended without a word"
        return failed[0] if failed else last_line(self._read(self._err)) or silent

    @staticmethod
    def _read(descriptor: int) -> str:
        size = os.fstat(descriptor).st_size
        return os.pread(descriptor, size, 0).decode(errors="replace")


def last_line(text: str) -> str:
    """Return the last line that says something, shortened."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
