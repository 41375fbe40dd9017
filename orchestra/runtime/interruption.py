"""Looks into threads that run orchestration code, and stops code there that is of no use any
more.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final, cast

from orchestra.errors import Evicted
from orchestra.frames import is_own, place, users_own
from orchestra.futures import Seal
from orchestra.scheduler import Scheduler, Task
from orchestra.unwinding import BOUNDARIES

__all__ = ["UNKNOWN", "Sample", "interrupt", "sample"]

UNKNOWN: Final = "an unknown place"
"""No line of user code."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Where a thread is: the user's line that runs, and which step of its execution that is."""

    line: str
    execution: int | None
    steps: int


def sample(thread_id: int) -> Sample:
    """Look where a thread is now."""
    frames, owner = _frames(thread_id)
    if owner is None:  # code that no coroutine runs, a validator of a state for example
        inner = next((at for at, frame in enumerate(frames) if is_own(frame)), len(frames))
        frames = frames[:inner]
    users = users_own(frames[::-1])
    scheduler = owner if owner is None or isinstance(owner, Scheduler) else owner._scheduler
    line = place(users[-1]) if users else UNKNOWN
    return Sample(
        line,
        None if scheduler is None else id(scheduler),
        0 if scheduler is None else scheduler.steps,
    )


def interrupt(thread_id: int) -> bool:
    """Unwind the orchestration code that a thread runs, whose execution is dropped. Return whether
    there was such code.

    The code must be of no use to anybody: the engine has gone on without its thread. Code that
    waits in a call of C, a sleep for example, is unwound when that returns; it burns no processor
    until then.
    """
    _, owner = _frames(thread_id)
    if owner is None:
        return False
    seal = owner.seal
    seal.closed = True
    # The interpreter makes the exception in the thread that it is for, and there the lines are to
    # be traced.
    error = type("Interrupted", (_Interrupted,), {"seal": seal})
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), ctypes.py_object(error))
    return True


class _Interrupted(Evicted):
    seal: Seal | None = None

    def __init__(self, *args: object) -> None:
        super().__init__(*args or ("this execution was dropped while its code ran",))
        if self.seal is not None:
            self.seal.unwind()


def _frames(thread_id: int) -> tuple[list[FrameType], Task[Any] | Scheduler | None]:
    """Return the frames of the user's code in a thread, innermost first, and what runs it."""
    frames: list[FrameType] = []
    frame: FrameType | None = sys._current_frames().get(thread_id)
    while frame is not None:
        if frame.f_code in BOUNDARIES:
            owner = frame.f_locals.get("self")
            if isinstance(owner, (Task, Scheduler)):
                return frames, cast("Task[Any] | Scheduler", owner)
            return frames, None
        frames.append(frame)
        frame = frame.f_back
    return frames, None
