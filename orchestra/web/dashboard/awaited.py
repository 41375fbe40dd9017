"""Which events and requests code waits for, and of which types: read from its source, for forms.

Nothing is run. A type is looked up by its name, where the function itself would find it; what no
plain name tells is filled in as JSON.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from orchestra.codec import decoder
from orchestra.errors import OrchestraError

__all__ = ["awaited_by"]

_WAITS: Final = {"wait_for_event": "event", "wait_for_request": "request"}
_TYPE: Final = 1
"""The place of the type among the arguments."""


@lru_cache(maxsize=1_000)
def awaited_by(function: Callable[..., Any]) -> Mapping[tuple[str, str], Any]:
    """Return the JSON Schemas of what a function waits for, by kind (event, request) and name, in
    the order of its code. ``None``: its type is not known, or takes any JSON.
    """
    function = inspect.unwrap(function)
    found: dict[tuple[str, str], Any] = {}
    for kind, call in _calls(function):
        name = _name(call)
        if name is not None and found.get((kind, name)) is None:
            found[kind, name] = _schema(function, _argument(call))
    return found


def _calls(function: Callable[..., Any]) -> Iterator[tuple[str, ast.Call]]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return  # its source is not here
    calls = [
        (_WAITS[node.func.attr], node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in _WAITS
    ]
    yield from sorted(calls, key=lambda one: (one[1].lineno, one[1].col_offset))


def _name(call: ast.Call) -> str | None:
    named = call.args[0] if call.args else _keyword(call, "name")
    value = named.value if isinstance(named, ast.Constant) else None
    return value if isinstance(value, str) else None


def _argument(call: ast.Call) -> ast.expr | None:
    return call.args[_TYPE] if len(call.args) > _TYPE else _keyword(call, "type")


def _keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((one.value for one in call.keywords if one.arg == name), None)


def _schema(function: Callable[..., Any], annotation: ast.expr | None) -> Any:
    try:
        return None if annotation is None else decoder(_read(function, annotation)).json_schema()
    except (LookupError, TypeError, ValueError, OrchestraError):
        return None


def _read(function: Callable[..., Any], node: ast.expr) -> Any:
    """Return the type that an expression names.

    Raises:
        LookupError, TypeError, ValueError: it names none.
    """
    match node:
        case ast.Name(id=name):
            scopes = inspect.getclosurevars(function)
            for scope in (scopes.nonlocals, getattr(function, "__globals__", {}), vars(builtins)):
                if name in scope:
                    return scope[name]
        case ast.Attribute(value=owner, attr=name):
            return inspect.getattr_static(_read(function, owner), name)
        case ast.Constant(value=None):
            return None
        case ast.Subscript(value=generic, slice=ast.Tuple(elts=arguments)):
            return _read(function, generic)[tuple(_read(function, one) for one in arguments)]
        case ast.Subscript(value=generic, slice=argument):
            return _read(function, generic)[_read(function, argument)]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _read(function, left) | _read(function, right)
        case _:
            pass
    raise LookupError(ast.dump(node))
