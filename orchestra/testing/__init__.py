"""What services test with: a runtime on virtual time, and checks of code and of stores.

::

    async with TestRuntime(registry, activities=[probe]) as env:
        env.fake(probe, [TimeoutError(), 503, 200])
        handle = await env.client.start("watch", Watch("http://..."))
        await env.advance(timedelta(days=30))

:func:`crash_everywhere` kills a scenario at each of its commits, :func:`check_determinism` replays
its turns, :func:`replay_history` replays what production has written, and :func:`rehearse` lets a
copy of a store go on under new code. :func:`check_store` checks a store.

A PostgreSQL server for tests is started by :func:`orchestra.testing.postgres.postgres_server`.
"""

from __future__ import annotations

from orchestra.providers.memory import Database, MemoryProvider
from orchestra.testing.checker import (
    InvariantsViolated,
    Report,
    StoredDrift,
    Violation,
    check_store,
)
from orchestra.testing.clock import ManualClock
from orchestra.testing.determinism import check_determinism
from orchestra.testing.fakes import NEVER, Call, Fake, FakeExhausted, FakeUnfit, after
from orchestra.testing.performers import ActivityDoesNotEnd
from orchestra.testing.rehearsal import Finding, Move, Rehearsal, rehearse
from orchestra.testing.replaying import ReplayDiffers, Replayed, replay_history
from orchestra.testing.runtime import TestRuntime
from orchestra.testing.scenarios import CrashReport, ScenarioFails, crash_everywhere
from orchestra.testing.shapes import check_migrations, check_shapes
from orchestra.testing.waiting import NothingHappens

__all__ = [
    "NEVER",
    "ActivityDoesNotEnd",
    "Call",
    "CrashReport",
    "Database",
    "Fake",
    "FakeExhausted",
    "FakeUnfit",
    "Finding",
    "InvariantsViolated",
    "ManualClock",
    "MemoryProvider",
    "Move",
    "NothingHappens",
    "Rehearsal",
    "ReplayDiffers",
    "Replayed",
    "Report",
    "ScenarioFails",
    "StoredDrift",
    "TestRuntime",
    "Violation",
    "after",
    "check_determinism",
    "check_migrations",
    "check_shapes",
    "check_store",
    "crash_everywhere",
    "rehearse",
    "replay_history",
]
