"""Who takes part, with which settings; what is measured, and how large."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

Store = Literal["sqlite", "postgres", "restate"]


@dataclass(frozen=True)
class Entry:
    """A contestant: a system on a store.

    Args:
        key: its name on the command line and in the results.
        title: its name in the table.
        system: the module in ``contestants``, and its class.
        package: what the environment installs; nothing for orchestra.
        durability: what an acknowledged write has gone through.
        settings: what this bench sets. The rest is as the system has it.
    """

    key: str
    title: str
    system: tuple[str, str]
    store: Store
    package: str
    durability: str
    settings: str
    relaxed: bool = False


_ORCHESTRA: Final = ("orchestra", "Orchestra")
_DUROXIDE: Final = ("duroxide", "Duroxide")
_DBOS: Final = ("dbos", "Dbos")
_SERVER: Final = "fsync=on and synchronous_commit=on, the server's defaults"
_DUROXIDE_SETTINGS: Final = (
    "dispatcher_poll_interval_ms=10 (W6: 100, the default), orchestration_concurrency=4 and "
    "worker_concurrency=8 (defaults; W7: one for each chain), worker_lock_timeout_ms=10000, synchronous client"
)
_DBOS_SETTINGS: Final = (
    "started in the process that runs them; plain functions for W1, W3, W8, async ones for the "
    "others; "
    "notification_listener_polling_interval_sec=0.05 and a queue with polling_interval_sec=0.05 (W6: "
    "1.0, the default)"
)

ENTRIES: Final = (
    Entry(
        "orchestra-sqlite",
        "orchestra, SQLite",
        _ORCHESTRA,
        "sqlite",
        "",
        "WAL, synchronous=FULL: each group of commits is synced",
        "defaults; max_concurrent_activities raised to the chains of W7",
    ),
    Entry(
        "orchestra-relaxed",
        "orchestra, SQLite relaxed",
        _ORCHESTRA,
        "sqlite",
        "",
        "WAL, synchronous=NORMAL: survives a kill, not a power cut",
        'defaults with durability="relaxed"; max_concurrent_activities raised to the chains of W7',
        relaxed=True,
    ),
    Entry(
        "orchestra-postgres",
        "orchestra, PostgreSQL",
        _ORCHESTRA,
        "postgres",
        "",
        _SERVER,
        "defaults; max_concurrent_activities raised to the chains of W7",
    ),
    Entry(
        "duroxide-sqlite",
        "duroxide, SQLite",
        _DUROXIDE,
        "sqlite",
        "duroxide",
        "WAL, synchronous=NORMAL, as its provider has it: survives a kill, not a power cut",
        _DUROXIDE_SETTINGS,
    ),
    Entry(
        "duroxide-postgres",
        "duroxide, PostgreSQL",
        _DUROXIDE,
        "postgres",
        "duroxide",
        _SERVER,
        _DUROXIDE_SETTINGS,
    ),
    Entry(
        "dbos-sqlite",
        "DBOS, SQLite",
        _DBOS,
        "sqlite",
        "dbos",
        "SQLite's defaults: rollback journal, synchronous=FULL; its documentation advises "
        "PostgreSQL for production",
        _DBOS_SETTINGS,
    ),
    Entry("dbos-postgres", "DBOS, PostgreSQL", _DBOS, "postgres", "dbos", _SERVER, _DBOS_SETTINGS),
    Entry(
        "absurd-postgres",
        "Absurd, PostgreSQL",
        ("absurd", "AbsurdSystem"),
        "postgres",
        "absurd-sdk",
        _SERVER,
        "AsyncAbsurd, concurrency=100, poll_interval=0.01 (W6: 0.25, the default), claim_timeout=10 (default "
        "120); W7: the synchronous worker, concurrency: one for each chain",
    ),
    Entry(
        "restate",
        "Restate server",
        ("restate", "Restate"),
        "restate",
        "restate-sdk",
        "RocksDB with a synced write-ahead log, the server's default",
        "one node with the server's defaults; service (hypercorn) and client (httpx) in one process; "
        "inactivity_timeout=1 s; the client has 64 requests under way, W5 all at once",
    ),
)


@dataclass(frozen=True)
class Sizes:
    """How much of each workload."""

    warm: int = 20
    one: int = 200
    many: int = 1000
    fans: int = 20
    width: int = 50
    loops: int = 50
    laps: int = 40
    short: int = 500
    long: int = 2000
    timers: int = 1000
    parked: int = 2000
    settle: float = 5.0
    idle: float = 20.0
    chains: int = 500
    million: int = 1_000_000
    patience: float = 120.0
    """Seconds that one try may take."""


FULL: Final = Sizes()
BRIEF: Final = Sizes(
    one=40,
    many=300,
    fans=10,
    loops=10,
    laps=20,
    short=100,
    long=400,
    timers=300,
    parked=1000,
    settle=3.0,
    idle=5.0,
    chains=200,
    million=200_000,
    patience=60.0,
)
QUICK: Final = Sizes(
    warm=2,
    one=10,
    many=50,
    fans=2,
    width=5,
    loops=3,
    laps=3,
    short=20,
    long=50,
    timers=20,
    parked=20,
    settle=0.5,
    idle=1.0,
    chains=20,
    million=1000,
    patience=60.0,
)


@dataclass(frozen=True)
class Figure:
    """One number of a workload.

    Args:
        title, short: what the table and the picture call it; ``{many}`` stands for a size.
        better: which way is better.
    """

    key: str
    title: str
    short: str
    unit: str
    better: Literal["less", "more"]


@dataclass(frozen=True)
class Workload:
    """What is measured together, in one process on one fresh store.

    Args:
        once: one try is enough, whatever the number of rounds.
        only: the systems that can, or for which this is built; all, if empty.
        note: why the others have none.
    """

    key: str
    title: str
    figures: tuple[Figure, ...]
    once: bool = False
    only: tuple[str, ...] = ()
    note: str = ""
    stores: tuple[Store, ...] = field(default=("sqlite", "postgres", "restate"))


WORKLOADS: Final = (
    Workload(
        "W1",
        "hello: an instance of one activity",
        (
            Figure("one_ms", "one at a time, p50", "one call, p50", "ms", "less"),
            Figure("at_once", "{many:,} at once", "{many:,} calls at once", "per second", "more"),
        ),
    ),
    Workload(
        "W2",
        "fan-out: {fans} instances of {width} activities",
        (Figure("fan", "activities", "fan-out {fans} x {width}", "per second", "more"),),
    ),
    Workload(
        "W3",
        "{loops} loops x {laps} laps of one activity",
        (Figure("laps", "laps", "{loops} loops x {laps} laps", "per second", "more"),),
    ),
    Workload(
        "W4",
        "activities one after the other, in one instance",
        (
            Figure("step_short", "{short:,} steps", "a step of {short:,}", "ms a step", "less"),
            Figure("step_long", "{long:,} steps", "a step of {long:,}", "ms a step", "less"),
        ),
    ),
    Workload(
        "W5",
        "{timers:,} timers of 2 s, started at once",
        (
            Figure("late_p50", "lateness, p50", "timers late, p50", "ms", "less"),
            Figure("late_p99", "lateness, p99", "timers late, p99", "ms", "less"),
        ),
    ),
    Workload(
        "W6",
        "idle: processor time of all its processes",
        (
            Figure("idle", "nothing parked", "idle", "processor ms a second", "less"),
            Figure(
                "idle_parked",
                "{parked:,} parked",
                "idle, {parked:,} parked",
                "processor ms a second",
                "less",
            ),
        ),
    ),
    Workload(
        "W7",
        "kill -9 of the process, {chains} chains at work",
        (Figure("recovery", "until all go on", "after kill -9", "s", "less"),),
    ),
    Workload(
        "W8",
        "{many:,} hellos, started by another process",
        (
            Figure("workers_1", "one worker", "1 worker", "per second", "more"),
            Figure("workers_2", "two workers", "2 workers", "per second", "more"),
            Figure("workers_3", "three workers", "3 workers", "per second", "more"),
        ),
        stores=("postgres",),
        note="measured on PostgreSQL only",
    ),
    Workload(
        "W9",
        "W1 with {million:,} parked",
        (
            Figure(
                "million_ms", "one at a time, p50", "one call, {million:,} parked", "ms", "less"
            ),
            Figure(
                "million_at_once",
                "{many:,} at once",
                "{many:,} at once, {million:,} parked",
                "per second",
                "more",
            ),
        ),
        once=True,
        only=("orchestra",),
        note="the parked instances are copied with SQL, which is built for orchestra's tables only",
    ),
)


def why_not(entry: Entry, workload: Workload) -> str:
    """Return why a contestant has no figure for a workload, or nothing if it has."""
    if workload.only and entry.system[0] not in workload.only:
        return workload.note
    return "" if entry.store in workload.stores else workload.note
