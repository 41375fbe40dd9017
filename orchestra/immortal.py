"""Keeps a suspended coroutine from being finalised: for code that cannot be closed."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Final

__all__ = ["keep_for_ever"]

_kept: Final[list[object]] = []


def keep_for_ever(value: object) -> None:
    """Keep an object alive until the process is gone, the interpreter's own end included.

    A coroutine that catches ``GeneratorExit`` in a loop is closed by the interpreter when it is
    collected, at the latest at the interpreter's end. There is no event loop any more then, each
    await fails at once, and the loop never ends.
    """
    _kept.append(value)
    with suppress(
        AttributeError
    ):  # another implementation than CPython; it finalises nothing at its end
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))
