"""The pure core: a synchronous state machine that runs orchestration code on events, and repeats it
on its history.

It knows no clock, no random source, no async library and no database. The same code runs and
replays. Each word is a module::

       ends of activities        messages                history
                │                   │                       │
                ▼                   ▼                       ▼
             inputs ◄──────── inbox, mail               journal
                │ the next event                            │ the recorded event
                ▼                                           ▼
    ┌─ execution ──────────────────────────────────────────────────┐
    │  the coroutine runs until it waits, or has ended             │
    └──────┬─────────────────────────┬─────────────────────────────┘
           │ asks, by its context    │ ends
           ▼                         ▼
        commands ──► gathered     endings, failing
                        │
                        ▼
                      turns

- ``execution``: the live coroutine, and what drives it.
- ``inputs``: which event comes next, and which future gets it. ``inbox`` has the messages in
  memory, and ``mail`` finds the next awaited one.
- ``commands``: what code asks for; ``journal`` compares it with history. ``timers``: its clock.
  ``boundary``: the request to reach the boundary.
- ``gathered``: what a turn has decided so far; ``turns``: what goes into a turn and comes out.
- ``endings``: how code has ended; ``failing``: by a declared failure, or by what holds it.
"""

from orchestra.replay.execution import Execution
from orchestra.replay.inbox import Inbox
from orchestra.replay.journal import Drift
from orchestra.replay.turns import (
    ACTIVITY_CANCELLED,
    NO_EXTRAS,
    SESSION_LOST,
    ActivityDied,
    ActivityDone,
    Identity,
    Input,
    LogEntry,
    SetAside,
    Turn,
    TurnExtras,
    TurnHeld,
)

__all__ = [
    "ACTIVITY_CANCELLED",
    "NO_EXTRAS",
    "SESSION_LOST",
    "ActivityDied",
    "ActivityDone",
    "Drift",
    "Execution",
    "Identity",
    "Inbox",
    "Input",
    "LogEntry",
    "SetAside",
    "Turn",
    "TurnExtras",
    "TurnHeld",
]
