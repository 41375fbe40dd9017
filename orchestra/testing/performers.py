"""Runs the activities of a test: fakes at once, real functions to their end, and nothing on a
thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

import anyio
import anyio.lowlevel

from orchestra.activities import Activity
from orchestra.clock import Clock
from orchestra.engine.messages import (
    STOPPED,
    AbortActivity,
    ActivityEnded,
    ActivityKey,
    ItemsStored,
    RunActivity,
    StopActivity,
    ToEngine,
)
from orchestra.errors import OrchestraError
from orchestra.runtime.activities import ActivityRunner, Beaten, Cut, Finished, failure_of
from orchestra.runtime.alarms import Alarm, Alarms
from orchestra.runtime.arguments import ArgumentsUnread, read_arguments
from orchestra.runtime.attempts import time_out_failure
from orchestra.store.port import Directory
from orchestra.testing.fakes import NEVER, After, Call, Fake, FakeUnfit, Given, is_error
from orchestra.testing.waiting import NothingHappens

__all__ = ["ActivityDoesNotEnd", "Performers"]

_PASSES: Final = 20
"""How often other tasks run before an activity that has not ended is taken to wait."""


class ActivityDoesNotEnd(AssertionError):
    """A real activity waits for what does not come; virtual time stands still meanwhile."""


class _Inline:
    """Runs ``def`` activities where they are begun."""

    def run(self, name: str, function: Callable[[], None]) -> None:  # noqa: ARG002
        function()

    def stop(self) -> None: ...


class _HeldAlarms(Alarms):
    """Alarms of virtual time: whoever moves the clock calls what is due."""

    async def run(self) -> None: ...


@dataclass(slots=True)
class _Faked:
    """An attempt that a fake has answered, and that has not ended yet."""

    fake: Fake
    given: Given
    alarm: Alarm | None = None


class Performers:
    """The activities of one node.

    Args:
        report: receives ends and heartbeats.
        problems: receives what makes the test fail.
        patience: how long real activities may wait, in real time.
    """

    def __init__(
        self,
        activities: Mapping[str, Activity[..., Any]],
        fakes: Mapping[str, Fake],
        report: Callable[[ToEngine], None],
        clock: Clock,
        problems: list[BaseException],
        *,
        patience: timedelta,
        payload_limit: int,
        level: Callable[[], int],
        directory: Directory,
    ) -> None:
        self._activities = dict(activities)
        self._fakes = fakes
        self._report = report
        self._clock = clock
        self._problems = problems
        self._patience = patience.total_seconds()
        self._payload_limit = payload_limit
        self.alarms: Alarms = _HeldAlarms(clock)
        self._waiting: dict[ActivityKey, RunActivity] = {}
        self._asked: dict[ActivityKey, RunActivity] = {}
        """What fakes are to answer."""
        self._faked: dict[ActivityKey, _Faked] = {}
        self._reported: list[tuple[Fake, Given]] = []
        """What fakes have answered, and what no commit has recorded yet."""
        self._news = anyio.Event()
        self._is_dead = False
        """Whether its process has died: what runs is cancelled, and reports to no engine."""
        self._runner = ActivityRunner(
            self._activities,
            self._reports,
            self._hear_runner,
            clock,
            limit=10_000,
            threads=10_000,
            payload_limit=payload_limit,
            pool=_Inline(),
            alarms=self.alarms,
            level=level,
            directory=directory,
        )

    # --- what the engine asks ---

    def hear(self, message: RunActivity | AbortActivity | StopActivity) -> None:
        """Take what the engine asks for."""
        key = message.key
        match message:
            case RunActivity():
                fake = self._fakes.get(message.name)
                if fake is None or fake.is_async:
                    self._begin(message, fake)
                else:
                    self._asked[key] = message
            case AbortActivity():
                self._waiting.pop(key, None)
                self._asked.pop(key, None)
                if self._forget(key) is None:
                    self._runner.abort(key)
            case StopActivity():
                request = self._waiting.pop(key, None) or self._asked.pop(key, None)
                if request is not None or self._forget(key) is not None:
                    self._reports(
                        ActivityEnded(key, 1 if request is None else request.attempt, STOPPED)
                    )
                else:
                    self._runner.stop(key)

    def _begin(self, request: RunActivity, fake: Fake | None) -> None:
        if fake is not None:  # an async function stands in: it runs as the real one would
            real = self._activities[request.name]
            self._activities[request.name] = replace(real, function=fake.stand_in(self._problems))
        self._waiting[request.key] = request

    @property
    def has_work(self) -> bool:
        """Whether a real activity waits to begin, or runs."""
        return bool(self._waiting) or not self._runner.is_idle

    async def perform(self, pump: Callable[[], None]) -> None:
        """Run real activities, one after the other, until none is left. ``pump`` has the engine
        take what they report.

        Raises:
            ActivityDoesNotEnd: one waits in vain.
            NothingHappens: an instance runs without end.
        """
        stuck = False
        spins: NothingHappens | None = None
        running: tuple[RunActivity, ...] = ()
        async with anyio.create_task_group() as group:
            self._runner.start(group)
            while self.has_work and not stuck and spins is None and not self._is_dead:
                while self._waiting:
                    key = next(iter(self._waiting))
                    self._news = anyio.Event()
                    self._runner.begin(self._waiting.pop(key))
                    await self._let_run()
                try:
                    pump()
                except NothingHappens as error:  # not in the group that a task group raises
                    spins = error
                    break
                if not (self._waiting or self._runner.is_idle or self._is_dead):
                    stuck = not await self._wait_for_news()
            running = self._runner.running
            if stuck or spins is not None:
                self._runner.abort_all()
        if spins is not None:
            raise spins
        if stuck:
            named = ", ".join(repr(request.name) for request in running)
            raise ActivityDoesNotEnd(
                f"activity {named} has not ended within {self._patience:g} s, and virtual time "
                "stands still while one runs; let a fake stand in for it: env.fake(...). A fake "
                "takes virtual time with after(...), and not with sleep()"
            )

    async def _let_run(self) -> None:
        for _ in range(_PASSES):
            await anyio.lowlevel.checkpoint()
            if self._news.is_set():
                return

    async def _wait_for_news(self) -> bool:
        if self._news.is_set():
            self._news = anyio.Event()
            return True
        with anyio.move_on_after(self._patience):
            await self._news.wait()
        arrived = self._news.is_set()
        self._news = anyio.Event()
        return arrived

    def _hear_runner(self, news: Beaten | Cut | Finished) -> None:
        self._runner.hear(news)
        self._news.set()

    def _reports(self, message: ToEngine) -> None:
        self._report(message)
        self._news.set()

    def stored(self, message: ItemsStored) -> None:
        """Take in that items of an activity are stored."""
        self._runner.stored(message)
        self._news.set()

    # --- fakes ---

    def answer_fakes(self) -> bool:
        """Have the fakes answer what they were asked. Return whether there was anything."""
        asked, self._asked = self._asked, {}
        for request in asked.values():
            self._answer(self._fakes[request.name], request)
        return bool(asked)

    def _answer(self, fake: Fake, request: RunActivity) -> None:
        activity = self._activities[request.name]
        subject = f"activity {request.name!r} of {request.key.instance_id!r}"
        try:
            args, kwargs = read_arguments(activity, request, subject)
            given = fake.answer(Call(args, kwargs, request.key.instance_id, request.attempt))
        except ArgumentsUnread as unread:
            self._reports(ActivityEnded(request.key, request.attempt, unread.failure))
            return
        except BaseException as problem:  # noqa: BLE001 - it fails the test
            self._problems.append(problem)
            return
        self._faked[request.key] = entry = _Faked(fake, given)
        delay, outcome = 0.0, given.outcome
        while isinstance(outcome, After):
            delay, outcome = delay + outcome.duration.total_seconds(), outcome.outcome
        # What takes its time sends heartbeats; what never ends sends none.
        limits = (request.timeout, request.heartbeat_timeout if outcome is NEVER else None)
        limit = min((limit / 1e6 for limit in limits if limit), default=None)
        now = self._clock.monotonic()
        if limit is not None and (outcome is NEVER or delay > limit):
            entry.alarm = self.alarms.at(now + limit, lambda: self._time_out(request, now))
        elif outcome is not NEVER and delay > 0:
            entry.alarm = self.alarms.at(now + delay, lambda: self._end(request, outcome))
        elif outcome is not NEVER:
            self._end(request, outcome)

    def _end(self, request: RunActivity, outcome: Any) -> None:
        entry = self._faked.pop(request.key)
        self._reported.append((entry.fake, entry.given))
        if is_error(outcome):
            error = outcome() if isinstance(outcome, type) else outcome
            self._reports(ActivityEnded(request.key, request.attempt, failure_of(error)))
            return
        try:
            result = self._activities[request.name].result.encode(
                outcome,
                subject=f"result of the fake of {request.name!r}",
                limit=self._payload_limit,
            )
        except OrchestraError as error:
            problem = FakeUnfit(f"the fake of {request.name!r} gives {outcome!r}: {error}")
            problem.__cause__ = error
            self._problems.append(problem)
        else:
            self._reports(ActivityEnded(request.key, request.attempt, result))

    def _time_out(self, request: RunActivity, began: float) -> None:
        entry = self._faked.pop(request.key)
        self._reported.append((entry.fake, entry.given))
        failure = time_out_failure(request, self._clock.monotonic() - began)
        self._reports(ActivityEnded(request.key, request.attempt, failure))

    def _forget(self, key: ActivityKey) -> _Faked | None:
        entry = self._faked.pop(key, None)
        if entry is not None and entry.alarm is not None:
            self.alarms.stop_alarm(entry.alarm)
        return entry

    # --- commits and crashes ---

    def recorded(self) -> None:
        """All that was reported stands in the store."""
        self._reported.clear()

    def die(self) -> None:
        """End with the process: what no commit has recorded is lost, and is done once more."""
        self._is_dead = True
        self._news.set()
        self._runner.abort_all()
        self._waiting.clear()
        self._asked.clear()
        lost = [*self._reported, *((entry.fake, entry.given) for entry in self._faked.values())]
        for key in list(self._faked):
            self._forget(key)
        for fake, given in reversed(lost):
            fake.put_back(given)
        self._reported.clear()
