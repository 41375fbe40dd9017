"""The pure core: a synchronous state machine that runs orchestration code on events, and repeats it
on its history.

It knows no clock, no random source, no async library and no database. The same code runs and
replays.
"""

from orchestra.replay.execution import Execution
from orchestra.replay.inbox import Inbox
from orchestra.replay.journal import Drift
from orchestra.replay.turns import (
    ACTIVITY_CANCELLED,
    ActivityDied,
    ActivityDone,
    Identity,
    Input,
    LogEntry,
    Turn,
    TurnHeld,
)

__all__ = [
    "ACTIVITY_CANCELLED",
    "ActivityDied",
    "ActivityDone",
    "Drift",
    "Execution",
    "Identity",
    "Inbox",
    "Input",
    "LogEntry",
    "Turn",
    "TurnHeld",
]
