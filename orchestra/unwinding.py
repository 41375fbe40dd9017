"""Ends code that cannot be closed: code that catches everything around a wait, and goes on.

Code that has left memory gets an exception for every command. Code that swallows exceptions in a
loop would be refused for ever. After many refusals the :class:`Unwinder` raises at each further
line, in handlers as well. No loop survives that, so the code ends after as many exceptions as it
has nested handlers.

Python removes a trace function once it has raised. The unwinder sets it again when a profile event
shows that the code goes on, and when the raised exception is dropped: there a handler ends.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, Final

from orchestra.errors import Evicted
from orchestra.frames import await_chain, is_installed, is_own, is_user, place, users_own

__all__ = ["BOUNDARIES", "Unwinder"]

BOUNDARIES: Final[set[CodeType]] = set()
"""The functions of this library that run or close user code. The unwinder raises nothing in frames
above them.
"""
_RELENTLESS: Final = 200
"""Exceptions after which code of called packages is unwound as well: it may be the code that goes
on.
"""


class _Harder(Evicted):
    """Raised at a line, not at a call. When a handler drops it, the next one is raised."""

    def __del__(self) -> None:
        unwinder = getattr(sys.getprofile(), "__self__", None)  # of the thread that drops it
        if isinstance(unwinder, Unwinder):
            unwinder.go_on()


class Unwinder:
    """Raises at each line of the code of one execution, in this thread, from :meth:`arm` to
    :meth:`disarm`.
    """

    __slots__ = ("_before", "_raised", "armed", "caught")

    def __init__(self) -> None:
        self._before: tuple[Any, Any] = (None, None)
        self._raised = 0
        self.armed: bool = False
        self.caught: str | None = None
        """The line that went on after many refusals: the first line of a handler that catches too
        much.
        """

    def arm(self, coroutine: object = None) -> None:
        """Begin to raise: in the running code, or in a coroutine before it is closed."""
        if not self.armed:
            self.armed = True
            self._raised = 0
            self._before = sys.gettrace(), sys.getprofile()
        self._trace_frames(await_chain(coroutine))
        self.go_on()

    def disarm(self) -> None:
        """Stop raising, and restore the thread's former trace function."""
        if self.armed:
            self.armed = False
            trace, profile = self._before
            self._before = (None, None)
            sys.setprofile(profile)
            sys.settrace(trace)

    def go_on(self) -> None:
        """Raise at the next line, if needed."""
        if not self.armed:
            return
        frames: list[FrameType] = []
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code not in BOUNDARIES:
            frames.append(frame)
            frame = frame.f_back
        if frame is None:
            return  # not in the code that is unwound: another thread drops an exception
        self._trace_frames(frames)
        sys.setprofile(self._profile)
        sys.settrace(self._trace)

    def _trace_frames(self, frames: list[FrameType]) -> None:
        for frame in frames:
            if self._is_meant(frame):
                frame.f_trace = self._trace

    def _is_meant(self, frame: FrameType) -> bool:
        if is_own(frame):
            return False
        # Packages may hold locks of the whole program, such as a log's. So only user code is
        # interrupted while that suffices.
        return self._raised > _RELENTLESS or not is_installed(frame)

    def _trace(self, frame: FrameType, event: str, _argument: object) -> Callable[..., Any] | None:
        if not self.armed or not self._is_meant(frame):
            return None
        if event == "line":
            self._raised += 1
            if self.caught is None:
                self.caught = _place_of(frame)
            raise _Harder("this execution has left memory, and its code goes on nevertheless")
        return self._trace

    def _profile(self, frame: FrameType, _event: str, _argument: object) -> None:
        if self.armed and sys.gettrace() is None and not is_own(frame):
            self.go_on()


def _place_of(frame: FrameType) -> str:
    frames: list[FrameType] = []
    outer: FrameType | None = frame
    while outer is not None and outer.f_code not in BOUNDARIES:
        frames.append(outer)
        outer = outer.f_back
    own = users_own([each for each in reversed(frames) if is_user(each)])
    return place(own[-1] if own else frame)
