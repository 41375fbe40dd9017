"""The parameters and results of registered functions: behind decorators, in methods, in the scope
of other functions.
"""

from __future__ import annotations

import ast
import functools
import inspect
import sys
import textwrap
import typing
from collections.abc import Callable, Iterable, Iterator
from types import CodeType, FrameType
from typing import Any, cast

from orchestra.codec import Decoder, decoder
from orchestra.errors import InvalidFunction, UnresolvableAnnotation

__all__ = [
    "annotation_decoder",
    "awaits",
    "called",
    "names_around",
    "plain_function",
    "typed_signature",
    "wrapped_by",
]

_REST = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_SIGNATURE = "give the decorator's function a `__signature__` that says what it takes"


# --- which functions --------------------------------------------------------------------------


def plain_function(candidate: object, role: str) -> Callable[..., Any]:
    """Return a function or bound method; of a ``staticmethod`` the function inside.

    Raises:
        InvalidFunction: it is something else, or a generator. The message names what to give
            instead.
    """
    if isinstance(candidate, staticmethod):
        candidate = cast("Any", candidate).__func__
    if not (inspect.isfunction(candidate) or inspect.ismethod(candidate)):
        raise InvalidFunction(f"{_shown(candidate)} cannot be {role}: {_remedy(candidate)}")
    if inspect.isgeneratorfunction(candidate) or inspect.isasyncgenfunction(candidate):
        raise InvalidFunction(
            f"{candidate.__qualname__!r} cannot be {role}: it is a generator; write a `def` or "
            "`async def` that returns a value"
        )
    return candidate


def _shown(candidate: object) -> str:
    return (
        f"the coroutine {called(candidate)!r}"
        if inspect.iscoroutine(candidate)
        else repr(candidate)
    )


def _remedy(candidate: object) -> str:
    """Return advice for an object that is no function."""
    if inspect.iscoroutine(candidate):
        candidate.close()  # it is never awaited, and this message says so
        return "it is a call. Give the function itself, without calling it"
    if isinstance(candidate, str):
        return "it is a name; give the function that has it"
    if isinstance(candidate, classmethod):
        return (
            "a class method needs its class; give it as `Class.method`, from outside of the class"
        )
    if isinstance(candidate, functools.partial):
        return "a partial has no name and no annotations; write a function that calls it"
    if isinstance(candidate, type):
        return "it is a class; give a `def` or `async def` function"
    if callable(candidate):
        return "it is an object; give a `def` or `async def` function, or a method of the object"
    return "give a `def` or `async def` function"


def called(function: object) -> str:
    """Return the name of a function in its source, for messages."""
    return str(getattr(function, "__qualname__", None) or repr(function))


def wrapped_by(function: object) -> Iterator[object]:
    """Yield a function, and then the one that it wraps (``functools.wraps``), and so on."""
    for _ in range(100):
        yield function
        if not hasattr(function, "__wrapped__"):
            return
        function = cast("Any", function).__wrapped__


def _innermost(function: object) -> Any:
    """Return the innermost wrapped function."""
    *_, inner = wrapped_by(function)
    return inner


def awaits(function: object) -> bool:
    """Return whether a call's result must be awaited: it is ``async def``, or wraps one."""
    return any(inspect.iscoroutinefunction(one) for one in wrapped_by(function))


# --- names in annotations ---------------------------------------------------------------------


def names_around(function: Any) -> dict[str, Any]:
    """Return the names that a function's annotations may use besides its module's: names of
    enclosing functions and classes.

    Under ``from __future__ import annotations`` they are texts, and the function keeps no reference
    to such names. They are in the enclosing function's frame while that runs.
    """
    inner: Any = _innermost(function)
    parts = str(getattr(inner, "__qualname__", "")).split(".")[:-1]
    if not parts:
        return {}
    scopes = [
        ".".join(parts[: place + 1]) for place, part in enumerate(parts) if part != "<locals>"
    ]
    home = getattr(inner, "__globals__", {})
    frames = _frames(scopes, home)
    names: dict[str, Any] = {}
    for scope in scopes:
        if scope in frames:
            names.update(frames[scope].f_locals)
        else:
            owner = names.get(scope.rpartition(".")[2], home.get(scope))
            names.update(vars(owner) if isinstance(owner, type) else {})
    names.update(_captured(inner))
    return names


def _frames(scopes: list[str], home: Any) -> dict[str, FrameType]:
    found: dict[str, FrameType] = {}
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and len(found) < len(scopes):
        name = frame.f_code.co_qualname
        if name in scopes and frame.f_globals is home:
            found.setdefault(name, frame)
        frame = frame.f_back
    return found


def _captured(function: Any) -> dict[str, Any]:
    """Return the names of enclosing functions that a function's code uses."""
    code: CodeType | None = getattr(function, "__code__", None)
    cells = (
        zip(code.co_freevars, getattr(function, "__closure__", None) or (), strict=False)
        if code
        else ()
    )
    names: dict[str, Any] = {}
    for name, cell in cells:
        try:
            names[name] = cell.cell_contents
        except ValueError:  # not bound yet: a function that calls itself
            continue
    return names


def annotation_decoder(annotation: Any, what: str, *, decorated: bool = False) -> Decoder[Any]:
    """Return the decoder of an annotation; ``what`` names it, ``decorated``: a decorator may supply
    it.

    Raises:
        UnresolvableAnnotation: it names no type that can be read from JSON.
    """
    try:
        return decoder(annotation)
    except UnresolvableAnnotation as error:
        hint = f". If a decorator gives it, {_SIGNATURE}" if decorated else ""
        raise UnresolvableAnnotation(f"{what}: {error}{hint}") from error


# --- parameters and results -------------------------------------------------------


def typed_signature(
    function: Callable[..., Any], names: dict[str, Any], *, untyped: int = 0
) -> tuple[inspect.Signature, dict[str, Any]]:
    """Return the signature for a function's callers, and the types: by parameter, and of the result
    under ``return``.

    Behind a decorator that takes anything (``*args, **kwargs``) the wrapped function's signature
    counts, without the arguments that the decorator supplies. A decorator with its own parameters
    has its own signature.

    Args:
        names: the result of :func:`names_around`.
        untyped: the number of first parameters whose types are not needed.

    Raises:
        UnresolvableAnnotation: an annotation names nothing that can be found.
        InvalidFunction: the parameters of a decorator are unknown.
    """
    parameters, returns = _parameters(function)
    written = {parameter.name: parameter.annotation for parameter in parameters[untyped:]}
    annotations = {name: one for name, one in written.items() if one is not inspect.Parameter.empty}
    if returns is not inspect.Signature.empty:
        annotations["return"] = returns
    types = _resolved(function, annotations, names)
    _resolve_fields(types.values(), names)
    try:
        return inspect.Signature(parameters), types
    except ValueError as error:
        raise InvalidFunction(
            f"{called(function)!r} has a decorator that supplies its arguments ({error}); "
            f"{_SIGNATURE}"
        ) from error


def _parameters(function: Any) -> tuple[list[inspect.Parameter], Any]:
    """Return a function's parameters for its callers, and the annotation of its result, both as
    written.
    """
    if inspect.ismethod(function):
        parameters, returns = _parameters(function.__func__)
        bound = parameters[:1] and parameters[0].kind is not inspect.Parameter.VAR_POSITIONAL
        return (parameters[1:] if bound else parameters), returns
    own = inspect.signature(function, follow_wrapped=False)
    parameters = list(own.parameters.values())
    takes_rest = any(parameter.kind in _REST for parameter in parameters)
    if "__signature__" in vars(function) or not hasattr(function, "__wrapped__"):
        return parameters, own.return_annotation
    wrapped, returns = _parameters(function.__wrapped__)
    return (_passed_on if takes_rest else _given_by_name)(function, parameters, wrapped), returns


def _given_by_name(
    function: Any, own: list[inspect.Parameter], wrapped: list[inspect.Parameter]
) -> list[inspect.Parameter]:
    """Return the parameters of a decorator's function, with the annotations of the parameters to
    which it passes them.

    ``functools.wraps`` has replaced its annotations with the wrapped function's.
    """
    calls = _calls(function) or []
    if not calls or any(call != calls[0] for call in calls):
        return own
    meant = {
        name: parameter.annotation
        for name, parameter in zip(calls[0][0], wrapped, strict=False)
        if name is not None
    }
    return [
        parameter.replace(annotation=meant.get(parameter.name, parameter.annotation))
        for parameter in own
    ]


def _passed_on(
    function: Any, own: list[inspect.Parameter], wrapped: list[inspect.Parameter]
) -> list[inspect.Parameter]:
    """Return the parameters that a decorator's function passes on to the function it wraps."""
    leading = [parameter.name for parameter in own if parameter.kind not in _REST]
    found = _calls(function)
    calls = [] if found is None else found
    if not calls or any(call != calls[0] for call in calls):
        if leading == [parameter.name for parameter in wrapped[: len(leading)]]:
            return wrapped
        raise InvalidFunction(
            f"{called(function)!r} has a decorator that takes {', '.join(map(repr, leading))} "
            f"beside what it gives on; which arguments those are cannot be told; {_SIGNATURE}"
        )
    first, keywords = calls[0]
    given = {
        name: parameter for name, parameter in zip(first, wrapped, strict=False) if name in leading
    }
    rest = list(_without(wrapped[len(first) :], keywords))
    before = [
        parameter.replace(annotation=given[parameter.name].annotation)
        if parameter.name in given
        else parameter
        for parameter in own
        if parameter.kind not in _REST
    ]
    return sorted([*before, *rest], key=lambda parameter: parameter.kind)


def _without(
    parameters: list[inspect.Parameter], keywords: frozenset[str]
) -> Iterator[inspect.Parameter]:
    """Yield parameters without those that a decorator supplies by keyword. Parameters after such a
    one become keyword-only.
    """
    displaced = False
    for parameter in parameters:
        if parameter.name in keywords and parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            displaced = True
        elif displaced and parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
            yield parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        elif not (displaced and parameter.kind is inspect.Parameter.VAR_POSITIONAL):
            yield parameter


def _calls(function: Any) -> list[tuple[tuple[str | None, ...], frozenset[str]]] | None:
    """Return the calls of a wrapped function in a decorator's function, as far as its source shows
    them.

    Each call has the arguments before ``*args`` (a name, or ``None`` for anything else) and the
    keywords that it adds.
    """
    wrapped = function.__wrapped__
    names = {name for name, value in _captured(function).items() if value is wrapped}
    tree = _tree(function.__code__, _Source(function)) if names else None
    if tree is None:
        return None
    rest = tree.args.vararg.arg if tree.args.vararg else None
    named = tree.args.kwarg.arg if tree.args.kwarg else None
    added = frozenset(_added(tree, named))
    calls: list[tuple[tuple[str | None, ...], frozenset[str]]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
            call = _call(node, rest, named, added)
            if call is None:
                return None
            calls.append(call)
    return calls


def _call(
    node: ast.Call, rest: str | None, named: str | None, added: frozenset[str]
) -> tuple[tuple[str | None, ...], frozenset[str]] | None:
    first: list[str | None] = []
    for argument in node.args:
        if isinstance(argument, ast.Starred):
            if (
                not (isinstance(argument.value, ast.Name) and argument.value.id == rest)
                or argument is not node.args[-1]
            ):
                return None
        else:
            first.append(argument.id if isinstance(argument, ast.Name) else None)
    keywords: set[str] = set()
    for keyword in node.keywords:
        if keyword.arg is not None:
            keywords.add(keyword.arg)
        elif isinstance(keyword.value, ast.Dict):
            keywords.update(_keys(keyword.value))
        elif not (isinstance(keyword.value, ast.Name) and keyword.value.id == named):
            return None
    return tuple(first), added | keywords


def _added(tree: ast.AST, named: str | None) -> Iterator[str]:
    """Yield keywords that the code adds to those it passes on: ``kwargs["session"] = ...``, and the
    like.
    """
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=targets):
                for target in targets:
                    match target:
                        case ast.Subscript(
                            value=ast.Name(id=name), slice=ast.Constant(value=str(key))
                        ) if name == named:
                            yield key
                        case _:
                            pass
            case ast.AugAssign(target=ast.Name(id=name), value=ast.Dict() as value) if (
                name == named
            ):
                yield from _keys(value)
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=name), attr="setdefault"),
                args=[ast.Constant(value=str(key)), _],
            ):
                if name == named:
                    yield key
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=name), attr="update"), keywords=keywords
            ) if name == named:
                yield from (keyword.arg for keyword in keywords if keyword.arg is not None)
                yield from (
                    key for one in node.args if isinstance(one, ast.Dict) for key in _keys(one)
                )
            case _:
                pass


def _keys(node: ast.Dict) -> Iterator[str]:
    for key in node.keys:
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            yield key.value


class _Source:
    """The function that a code object belongs to; all functions of one code have one source."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __eq__(self, _other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


@functools.lru_cache(maxsize=256)
def _tree(_code: CodeType, source: _Source) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    try:
        parsed = ast.parse(textwrap.dedent(inspect.getsource(source.function.__code__)))
    except (OSError, TypeError, SyntaxError, IndentationError):
        return None  # no source, or none that parses alone
    first = parsed.body[0] if parsed.body else None
    return first if isinstance(first, (ast.FunctionDef, ast.AsyncFunctionDef)) else None


def _resolved(
    function: Callable[..., Any], annotations: dict[str, Any], names: dict[str, Any]
) -> dict[str, Any]:
    """Return annotations as types."""
    inner: Any = _innermost(function)

    def carrier() -> None: ...

    carrier.__annotations__ = annotations
    try:
        return typing.get_type_hints(
            carrier, getattr(inner, "__globals__", {}), names, include_extras=True
        )
    except (NameError, TypeError, AttributeError, SyntaxError) as error:
        raise UnresolvableAnnotation(
            f"the annotations of {called(function)!r} cannot be resolved: {error}. Define the "
            "type, or import it, at module level, and not only under TYPE_CHECKING"
        ) from error


def _resolve_fields(types: Iterable[Any], names: dict[str, Any]) -> None:
    """Resolve the annotations of classes that are defined inside functions, in place.

    Their fields may name classes of the same function. Only here are those names still known: later
    decoders do not see that function's frame.
    """
    pending = list(types)
    seen: set[int] = set()
    while pending:
        current = pending.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        pending.extend(typing.get_args(current))
        if not isinstance(current, type) or "<locals>" not in current.__qualname__:
            continue
        written = vars(current).get("__annotations__", {})
        if any(isinstance(one, (str, typing.ForwardRef)) for one in written.values()):
            try:
                hints = typing.get_type_hints(current, localns=names, include_extras=True)
            except (NameError, TypeError, AttributeError, SyntaxError):
                continue  # the reader of the class reports it
            written.update({name: hints[name] for name in written if name in hints})
            for field in getattr(current, "__dataclass_fields__", {}).values():
                field.type = hints.get(field.name, field.type)
        pending.extend(written.values())
