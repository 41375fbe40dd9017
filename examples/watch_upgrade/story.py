"""What happens in the demo, step by step. It looks at the store as a dashboard would, from a
process without orchestrations.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
from stage import Server, Worker
from view import View, attempt, seconds
from watches import NAME, NEW, OLD, Watch

from orchestra import Client, InstanceInfo

SLOW = "watch-3"
FAILING = "watch-4"
PATIENCE = 20.0


class DemoFailed(Exception):
    """Something that the demo claims did not happen."""


@dataclass(frozen=True)
class Pace:
    """How fast the demo goes: seconds, and how many laps or tries to wait for."""

    delays: Mapping[str, float]
    pause: float
    laps_before: int
    dead_time: float
    laps_after: int
    tries: int


NORMAL = Pace(
    {"watch-1": 0.05, "watch-2": 0.2, SLOW: 0.9, FAILING: 0.1},
    pause=1.2,
    laps_before=3,
    dead_time=2.0,
    laps_after=2,
    tries=4,
)
FAST = Pace(
    {"watch-1": 0.05, "watch-2": 0.1, SLOW: 0.5, FAILING: 0.1},
    pause=0.3,
    laps_before=2,
    dead_time=0.8,
    laps_after=1,
    tries=3,
)


@dataclass(frozen=True)
class Kill:
    """The kill: when it was, when the next worker was started, and what was under way."""

    at: datetime
    restarted_at: datetime
    laps: Mapping[str, int]
    in_flight: str


@dataclass(frozen=True)
class Outage:
    """The lap in which a server failed, and how many tries it should have taken at least."""

    instance_id: str
    lap: int
    tries: int


class Story:
    """Tells the demo over one store."""

    def __init__(self, client: Client, view: View, pace: Pace, database: Path, log: Path) -> None:
        self._client = client
        self._view = view
        self._pace = pace
        self._database = database
        self._log = log
        self._worker: Worker | None = None
        self._workers = 0
        self._instances: dict[str, InstanceInfo] = {}
        self.servers = {instance_id: Server(delay) for instance_id, delay in pace.delays.items()}

    def close(self) -> None:
        """Stop what still runs."""
        if self._worker is not None:
            self._worker.stop()
        for server in self.servers.values():
            server.close()

    async def tell(self) -> tuple[Kill, Outage]:
        """Tell it to its end.

        Raises:
            DemoFailed: something did not happen in time.
        """
        worker = await self._start_worker([OLD])
        await self._start_instances()
        await self._run_laps(
            self._pace.laps_before, f"{worker.title} runs: every lap is a continue-as-new"
        )
        kill = await self._kill_and_restart(worker)
        await self._upgrade(kill)
        outage = await self._fail_and_recover()
        await self._run_laps(self._pace.laps_after, f"all go on with {NEW}")
        await self._stop_instances()
        return kill, outage

    # --- the steps ---

    async def _start_worker(self, versions: list[str]) -> Worker:
        self._workers += 1
        self._worker = worker = Worker(self._workers, versions, self._database, self._log)
        self._view.headline(f"{worker.title} starts, pid {worker.pid}")
        await self._until(f"the start of {worker.title}", lambda: worker.is_ready, look=False)
        return worker

    async def _start_instances(self) -> None:
        for instance_id, server in self.servers.items():
            state = Watch(server.url, timedelta(seconds=self._pace.pause))
            await self._client.start(NAME, state, instance_id=instance_id)
        await self._look()

    async def _run_laps(self, count: int, headline: str) -> None:
        """Let every instance pass this many boundaries."""
        self._view.headline(headline)
        begun = self._laps()
        await self._until(
            f"{count} more laps",
            lambda: self._all(lambda info: info.execution_id >= begun[info.instance_id] + count),
        )

    async def _kill_and_restart(self, worker: Worker) -> Kill:
        """Kill the worker while a probe waits for its answer. Start another one, which has the new
        version too.
        """
        await self._until(f"a probe of {SLOW} under way", self._slow_probe_is_under_way)
        is_open = self.servers[SLOW].open_requests > 0
        worker.kill()
        killed_at = datetime.now(UTC)
        await self._look()  # nobody writes now: this is what the worker has left
        slow = self._instances[SLOW]
        if not (is_open and slow.pending_activities):
            raise DemoFailed(f"the kill missed the probe of {SLOW}; run the demo again")
        laps = {info.instance_id: _lap_under_way(info) for info in self._instances.values()}
        in_flight = (
            f"lap {slow.execution_id} of {SLOW}, its probe without an answer for "
            f"{seconds(killed_at, slow.updated_at)}"
        )
        self._view.headline(
            f"killed -9 in the middle of lap {slow.execution_id} of {SLOW}; no worker runs"
        )
        self._view.note(f"in flight: {in_flight}")
        await anyio.sleep(self._pace.dead_time)
        restarted_at = datetime.now(UTC)
        await self._start_worker([OLD, NEW])
        return Kill(killed_at, restarted_at, laps, in_flight)

    async def _upgrade(self, kill: Kill) -> None:
        """Wait until every instance has ended the lap that was under way, and has passed one
        boundary on the new version.
        """
        self._view.headline(f"each instance ends its lap on {OLD} and goes on with {NEW}")
        await self._until(
            f"two laps of every instance on {NEW}",
            lambda: self._all(
                lambda info: (
                    info.version == NEW and info.execution_id >= kill.laps[info.instance_id] + 2
                )
            ),
        )

    async def _fail_and_recover(self) -> Outage:
        """Let a server answer 503 until its probe was tried a few times, then 200 again."""
        server = self.servers[FAILING]
        server.failing = True
        self._view.headline(f"the server of {FAILING} answers 503 now")
        await self._until(
            f"try {self._pace.tries} of a probe of {FAILING}",
            lambda: self._tries(FAILING) >= self._pace.tries,
        )
        outage = Outage(FAILING, self._instances[FAILING].execution_id, self._pace.tries)
        server.failing = False
        self._view.headline(f"the server of {FAILING} answers 200 again")
        await self._until(f"the recovery of {FAILING}", lambda: self._tries(FAILING) == 1)
        return outage

    async def _stop_instances(self) -> None:
        """Let every instance end at its next wait."""
        self._view.headline('every instance gets the event "stop"')
        for instance_id in self.servers:
            await self._client.raise_event(instance_id, "stop")
        await self._until(
            "the end of every instance", lambda: self._all(lambda info: info.status.is_final)
        )
        self._view.headline("all instances have ended")

    # --- looking at the store ---

    async def _until(self, what: str, condition: Callable[[], bool], *, look: bool = True) -> None:
        """Look and show until a condition holds. While no worker runs the store does not change,
        and nothing is to be seen.

        Raises:
            DemoFailed: it does not hold in time, or the worker has ended by itself.
        """
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if self._worker is not None and self._worker.exit_code is not None:
                raise DemoFailed(
                    f"{self._worker.title} has ended with code {self._worker.exit_code}; its log: "
                    f"{self._log}"
                )
            if time.monotonic() > deadline:
                raise DemoFailed(
                    f"waited {PATIENCE:g} s in vain for {what}; the worker's log: {self._log}"
                )
            await anyio.sleep(0.05)
            if look:
                await self._look()

    async def _look(self) -> None:
        page = await self._client.list_instances(name=NAME)
        for info in sorted(page.items, key=lambda info: info.instance_id):
            before = self._instances.get(info.instance_id)
            self._instances[info.instance_id] = info
            if before is not None:
                self._note_change(before, info)
        self._view.show(tuple(self._instances.values()))

    def _note_change(self, before: InstanceInfo, info: InstanceInfo) -> None:
        if info.version != before.version:
            self._view.note(f"{info.instance_id} begins lap {info.execution_id} on {info.version}")
        for pending in info.pending_activities:
            if pending.attempt > attempt(before):
                error = re.sub(
                    r"^[\w.]*\.", "", pending.last_error or ""
                )  # the exception's name without its module
                self._view.note(
                    f"{info.instance_id} lap {info.execution_id}: try {pending.attempt - 1} "
                    f"failed ({error})"
                )

    def _all(self, condition: Callable[[InstanceInfo], bool]) -> bool:
        return all(condition(info) for info in self._instances.values())

    def _laps(self) -> dict[str, int]:
        return {info.instance_id: info.execution_id for info in self._instances.values()}

    def _tries(self, instance_id: str) -> int:
        return attempt(self._instances[instance_id])

    def _slow_probe_is_under_way(self) -> bool:
        """Whether the slow server has had a request for about a third of the time that it takes."""
        slow, delay = self._instances[SLOW], self._pace.delays[SLOW]
        if not slow.pending_activities:
            return False
        waited = (datetime.now(UTC) - slow.pending_activities[0].since).total_seconds()
        return self.servers[SLOW].open_requests > 0 and 0.3 * delay < waited < 0.6 * delay


def _lap_under_way(info: InstanceInfo) -> int:
    """Return the last lap that had begun. One that waits to be opened has no code yet, so it may
    still get a newer version.
    """
    return info.execution_id if info.execution_started_at is not None else info.execution_id - 1
