"""Inspects threads that run orchestration code, and unwinds code whose execution was dropped."""

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
"""The location of a thread that runs no user code."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The position of a thread: the running line of user code, and the step of its execution."""

    line: str
    execution: int | None
    steps: int


def sample(thread_id: int) -> Sample:
    """Return the position of a thread."""
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
    """Unwind the orchestration code in a thread. Return whether there was any. Its execution must
    have been dropped: the engine continues without this thread. Code that waits in a C call, such
    as a sleep, unwinds when the call returns; it burns no processor until then.
    """
    _, owner = _frames(thread_id)
    if owner is None:
        return False
    seal = owner.seal
    seal.closed = True
    # The interpreter creates the exception in the target thread, so the tracing must happen there.
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
