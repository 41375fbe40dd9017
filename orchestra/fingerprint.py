"""A short text that changes when a function's code does, and not when its comments, lines or file name do."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any

__all__ = ["fingerprint"]


def fingerprint(function: Callable[..., Any], *also: bytes) -> str:
    """Return 16 hexadecimal digits over a function's normalised code, the functions of its package that it names, and ``also``.

    Helpers count because a repair is as likely in a helper as in the orchestration itself.
    """
    digest = hashlib.sha256()
    seen: set[int] = set()
    package = function.__module__.partition(".")[0]
    pending: list[Any] = [function]
    while pending:
        current = pending.pop(0)
        if not isinstance(current, FunctionType) or id(current) in seen or current.__module__.partition(".")[0] != package:
            continue
        seen.add(id(current))
        digest.update(_normalised(current.__code__).encode())
        digest.update(repr(current.__defaults__).encode() if _is_plain(current.__defaults__) else b"")
        pending.extend(current.__globals__.get(name) for name in _names(current.__code__))
        pending.extend(cell.cell_contents for cell in current.__closure__ or () if _filled(cell))
    for part in also:
        digest.update(part)
    return digest.hexdigest()[:16]


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # not bound yet: a recursive inner function
        return False


def _is_plain(values: tuple[Any, ...] | None) -> bool:
    return all(isinstance(value, (int, float, str, bytes, bool, type(None))) for value in values or ())


def _names(code: CodeType) -> list[str]:
    names = list(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names.extend(_names(constant))
    return names


def _normalised(code: CodeType) -> str:
    """Return code as text without file names, lines and docstrings."""
    first = 1 if code.co_consts and isinstance(code.co_consts[0], str) else 0  # a docstring stands first, else None does
    constants = [_constant(constant) for constant in code.co_consts[first:]]
    parts = [code.co_name, code.co_code.hex(), str(code.co_names), str(code.co_varnames), str(code.co_freevars)]
    return "|".join([*parts, *constants])


def _constant(constant: object) -> str:
    if isinstance(constant, CodeType):
        return _normalised(constant)
    if isinstance(constant, frozenset):  # its order differs from process to process
        return repr(sorted(map(repr, constant)))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return repr(constant)
