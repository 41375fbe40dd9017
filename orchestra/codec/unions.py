"""Shapes of unions: the name of the type is written if the members could be confused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, cast

import orjson

from orchestra.codec.leaves import LEAVES
from orchestra.codec.sameness import difference
from orchestra.codec.secrets import SECRET, Secret, is_secret_node
from orchestra.codec.shapes import READING_ERRORS, Node, Shape, ShapeBuilder, Unfit, mismatch
from orchestra.codec.wire import (
    TYPE,
    VALUE,
    Misfit,
    Refused,
    base64_form,
    tagged,
    unwrapped_secret,
)

__all__ = ["choices_of", "union_shape"]

_FORMS: Final[dict[str, str]] = {
    "none": "null",
    "bool": "bool",
    "int": "int",
    "float": "float",
    "list": "array",
    "tuple": "array",
    "set": "array",
    "frozenset": "array",
    "deque": "array",
    "named-tuple": "array",
    "dict": "object",
    "ordered-dict": "object",
    "counter": "object",
    "typed-dict": "object",
    "dataclass": "object",
    "model": "object",
    **dict.fromkeys(
        ("str", "date", "datetime", "time", "timedelta", "uuid", "decimal", "url"), "text"
    ),
}
"""The form of a kind's JSON; two members of one form could be confused."""


@dataclass(slots=True, eq=False)
class _Member:
    label: str
    kind: str
    shape: Shape
    form: str | None
    cls: type | None
    """The class of its objects, if it has one."""
    literals: dict[str, set[Any]]
    """The fields with a few possible values."""


def choices_of(schema: Any) -> list[Any]:
    """Return the nodes of a union's members; some have names."""
    choices: list[Any] = schema["choices"]
    return [choice if isinstance(choice, dict) else choice[0] for choice in choices]


def union_shape(builder: ShapeBuilder, schema: Any, choices: list[Any]) -> Shape:
    """Return the shape of a union.

    Raises:
        Unfit: two different members have one name.
    """
    secrets = [choice for choice in choices if is_secret_node(builder.resolved(choice))]
    if secrets:
        others = [choice for choice in choices if choice not in secrets]
        return _with_secrets(builder, secrets, others)
    node = builder.node(schema)
    members = [_member(builder, choice) for choice in choices]
    _check_names(members)
    _number(members)
    objects = [member for member in members if member.form in {"object", None}]
    marks = len(objects) > 1 and not _are_discriminated(objects)
    apart = (
        _are_apart([member.form for member in members if member.form != "object"])
        and not _take_numbers_of_enums(members)
        and (len(objects) < 2 or not marks or all(member.cls for member in objects))
    )
    by_label: dict[str, list[_Member]] = {}
    for member in members:
        by_label.setdefault(member.label, []).append(member)

    def write(value: Any) -> Any:
        chosen, written = _choose(members, value)
        if type(value) is bytes:
            return (
                base64_form(value)
                if type(written) is str and not _comes_back(value, written, read)
                else written
            )
        if marks and chosen.cls is not None:
            written = tagged(chosen.label, written)
            if len(by_label[chosen.label]) == 1:
                return written
        elif apart or _comes_back(value, written, read):
            return written
        else:
            written = tagged(chosen.label, written)
        if len(by_label[chosen.label]) > 1 and not _comes_back(value, written, read):
            raise Refused(
                f"{value!r} would come back as something else: members of the union are alike; "
                "make them differ"
            )
        return written

    def read(written: Any) -> Any:
        if type(written) is dict and TYPE in written:
            content = cast("dict[str, Any]", written)
            named = by_label.get(content[TYPE])
            if named is None and len(objects) > 1 and marks:
                raise Misfit(f"it is a {content[TYPE]!r}, which is none of {', '.join(by_label)}")
            if named is not None:
                return _first(
                    named,
                    content[VALUE] if VALUE in content and content[TYPE] != "bytes" else content,
                )
            written = {key: item for key, item in content.items() if key != TYPE}
        return _first(_as_before(node, members, written), written)

    types = [member.shape.types for member in members]
    known = frozenset[type]().union(*(found for found in types if found is not None))
    return Shape(write, read, known if None not in types else None)


def _union_of(builder: ShapeBuilder, choices: list[Any]) -> Shape:
    if len(choices) == 1:
        return builder.shape(choices[0])
    return union_shape(builder, {"type": "union", "choices": choices}, choices)


def _with_secrets(builder: ShapeBuilder, secrets: list[Any], others: list[Any]) -> Shape:
    """Return the shape of a union with secrets. They name their type, so none is taken for another
    member.
    """
    builder.native = False
    inner = _union_of(builder, [builder.resolved(choice)["schema"] for choice in secrets])
    rest = _union_of(builder, others) if others else None

    def write(value: Any) -> Any:
        if isinstance(value, Secret):
            return {TYPE: SECRET, VALUE: inner.write(cast("Secret[Any]", value).reveal())}
        if rest is None:
            raise mismatch(value, Secret)
        return rest.write(value)

    def read(written: Any) -> Any:
        is_secret = type(written) is dict and cast("Any", written).get(TYPE) == SECRET
        if is_secret or rest is None:
            return Secret(inner.read(unwrapped_secret(written)))
        return rest.read(written)

    types = frozenset({Secret})
    if rest is not None:
        types = None if rest.types is None else types | rest.types
    return Shape(write, read, types)


def _member(builder: ShapeBuilder, choice: Any) -> _Member:
    inner = builder.resolved(choice)
    shape = builder.shape(choice)
    while (
        inner["type"] in {"function-after", "function-before", "function-wrap"}
        and "schema" in inner
    ):
        inner = builder.resolved(inner["schema"])  # validators of a class stand around it
    cls: Any = inner.get("cls")
    is_object = inner["type"] in {"dataclass", "model"} and not inner.get("root_model")
    form = _FORMS.get(inner["type"])
    if inner["type"] == "enum":
        values: set[Any] = {type(member.value) for member in inner["members"]}
        form = "text" if values == {str} else "int" if values == {int} else None
    elif inner["type"] == "literal":
        form = "text" if all(type(value) is str for value in inner["expected"]) else None
    elif inner.get("root_model"):
        form = None
    if isinstance(cls, type) and inner["type"] != "typed-dict":
        label = cls.__name__
    else:
        known = LEAVES.get(inner["type"])
        label = (
            known.__name__
            if known
            else str(inner.get("cls_name") or getattr(cls, "__name__", inner["type"]))
        )
    literals = _literals(builder, inner)
    return _Member(label, inner["type"], shape, form, cls if is_object else None, literals)


def _literals(builder: ShapeBuilder, inner: Any) -> dict[str, set[Any]]:
    core = inner
    while core["type"] not in {"dataclass-args", "model-fields", "typed-dict"}:
        if not isinstance(core.get("schema"), dict):
            return {}
        core = core["schema"]
    fields: Any = core["fields"]
    named: list[tuple[str, Any]] = (
        list(fields.items())
        if hasattr(fields, "items")
        else [(field["name"], field) for field in fields]
    )
    found: dict[str, set[Any]] = {}
    for name, field in named:
        kind = builder.resolved(field["schema"])
        if kind["type"] == "default":
            kind = builder.resolved(kind["schema"])
        if kind["type"] == "literal":
            found[name] = {repr(value) for value in kind["expected"]}
    return found


def _check_names(members: list[_Member]) -> None:
    classes: dict[str, type] = {}
    for member in members:
        if (
            member.cls is not None
            and classes.setdefault(member.label, member.cls) is not member.cls
        ):
            raise Unfit(
                f"two members of a union are called {member.label!r}, and values could not be "
                "told apart; rename one"
            )


def _number(members: list[_Member]) -> None:
    """Distinguish members of one name by their places, as in ``list[int] | list[str]``."""
    labels = [member.label for member in members]
    for index, member in enumerate(members):
        if member.cls is None and labels.count(member.label) > 1:
            member.label = f"{member.label}.{index}"


def _are_discriminated(members: list[_Member]) -> bool:
    """Return whether the members have a common field with different values in each."""
    for name in members[0].literals:
        found = [member.literals.get(name) for member in members]
        values = [value for one in found if one is not None for value in one]
        if None not in found and len(values) == len(set(values)):
            return True
    return False


def _are_apart(forms: list[str | None]) -> bool:
    return None not in forms and len(forms) == len(set(forms))


def _take_numbers_of_enums(members: list[_Member]) -> bool:
    """Return whether a member reads whole numbers, and another one is an enum that writes them."""
    kinds = {member.kind for member in members}
    numbers = any(member.kind == "enum" and member.form == "int" for member in members)
    return numbers and not kinds.isdisjoint({"float", "decimal"})


def _choose(members: list[_Member], value: Any) -> tuple[_Member, Any]:
    """Return the member that writes a value, and the written form."""
    cls = cast("Any", type(value))
    fitting = [member for member in members if member.cls is cls]
    fitting = fitting or [
        member for member in members if member.shape.types is not None and cls in member.shape.types
    ]
    fitting = fitting or [member for member in members if member.shape.types is None]
    # A whole number may be given for a float.
    fitting = fitting or [
        member for member in members if cls is int and float in (member.shape.types or ())
    ]
    refusals: list[Refused] = []
    for member in fitting:
        try:
            return member, member.shape.write(value)
        except Refused as refused:
            refusals.append(refused)
    if len(refusals) == 1:
        raise refusals[0]
    names = " | ".join(dict.fromkeys(member.label for member in members))
    if refusals:
        deepest = max(refusals, key=lambda refused: len(refused.steps))
        raise Refused(f"{deepest.reason} (it fits no member of {names})", *deepest.steps)
    for member in members:
        for known in member.shape.types or ():
            if isinstance(value, known) and known is not object:
                raise mismatch(value, known)
    raise Refused(
        f"it is a {cls.__qualname__}, which is no member of {names}; annotate it, or convert it"
    )


def _comes_back(value: Any, written: Any, read: Any) -> bool:
    try:
        return difference(value, read(orjson.loads(orjson.dumps(written)))) is None
    except READING_ERRORS:
        return False


def _as_before(node: Node, members: list[_Member], written: Any) -> list[_Member]:
    """Return the members in the order of trial for values without a type name: pydantic's choice
    first.
    """
    try:
        cls = cast("Any", type(node.read_json(written)))
    except READING_ERRORS:
        return members
    first = [member for member in members if cls in (member.shape.types or ())]
    return [*first, *(member for member in members if member not in first)]


def _first(members: list[_Member], written: Any) -> Any:
    misfits: list[Misfit] = []
    for member in members:
        try:
            return member.shape.read(written)
        except READING_ERRORS as error:
            misfits.append(Misfit.of(error))
    raise max(misfits, key=lambda misfit: len(misfit.steps))
