"""The stored forms of specs: plain JSON values.

A form that this library cannot read wholly (another kind, one more field, a zone that the host does
not have) becomes an :class:`UnknownSpec`. It is shown and left alone, never misread (protocol rule
37).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any, Final, cast

from orchestra.errors import InvalidArgument
from orchestra.levels import BASE_LEVEL, Kinds, Unknown
from orchestra.schedules.specs import (
    AnyOf,
    At,
    Cron,
    Daily,
    Every,
    Except,
    Monthly,
    Spec,
    Weekly,
)

__all__ = ["SPECS", "SpecKinds", "UnknownSpec", "spec_from_json", "spec_to_json"]

_DEEPEST: Final = 20
_MICROSECOND: Final = timedelta(microseconds=1)

Json = dict[str, Any]
SpecKinds = Kinds[type[Spec]]

SPECS: Final[SpecKinds] = Kinds(
    "schedule spec",
    {
        "cron": Cron,
        "every": Every,
        "daily": Daily,
        "weekly": Weekly,
        "monthly": Monthly,
        "at": At,
        "any_of": AnyOf,
        "except": Except,
    },
)
"""Specs, by the word of their stored form. A new one gets a line, with its level."""


@dataclass(frozen=True, slots=True)
class UnknownSpec:
    """A stored spec that this library or host cannot read. ``form`` is its stored form, ``reason``
    says what is unknown.

    This library evaluates no slots of its schedule. Nodes that read it do.
    """

    form: Any
    reason: str

    def __hash__(self) -> int:
        return hash(self.reason)


def spec_to_json(spec: Spec, kinds: SpecKinds = SPECS, level: int = BASE_LEVEL) -> Json:
    """Return the stored form of a spec at a write level.

    Raises:
        LevelTooLow: it may not be written yet.
    """
    kind = kinds.at(level)[type(spec)]
    match spec:
        case Cron(expression, zone, dst):
            fields: Json = {"expression": expression, "zone": zone, "dst": dst}
            if spec.seconds:
                fields["seconds"] = True
        case Every(period, anchor):
            fields = {"period": period // _MICROSECOND}
            if anchor is not None:
                fields["anchor"] = anchor.isoformat()
        case Daily(at, zone):
            fields = {"time": at.isoformat(), "zone": zone}
        case Weekly(weekday, at, zone):
            fields = {"weekday": weekday, "time": at.isoformat(), "zone": zone}
        case Monthly(day, at, zone):
            fields = {"day": day, "time": at.isoformat(), "zone": zone}
        case At(instants):
            fields = {"instants": [instant.isoformat() for instant in instants]}
        case AnyOf(specs):
            fields = {"specs": [spec_to_json(one, kinds, level) for one in specs]}
        case Except(base, days, specs):
            fields = {"spec": spec_to_json(base, kinds, level)}
            if days:
                fields["days"] = [day.isoformat() for day in sorted(days)]
            if specs:
                fields["specs"] = [spec_to_json(one, kinds, level) for one in specs]
        case _:
            raise TypeError(f"{spec!r} has no stored form")
    return {"kind": kind, **fields}


class _Unreadable(Exception):
    """A part of a form is unknown here."""


def spec_from_json(form: object, kinds: SpecKinds = SPECS) -> Spec | UnknownSpec:
    """Return the spec that :func:`spec_to_json` wrote. An unreadable one is never read as another:
    it becomes an :class:`UnknownSpec`.
    """
    try:
        return _read(form, kinds, 0)
    except (_Unreadable, InvalidArgument, ValueError, TypeError, OverflowError) as error:
        return UnknownSpec(form, str(error))


def _read(form: object, kinds: SpecKinds, depth: int) -> Spec:
    if not isinstance(form, Mapping) or depth > _DEEPEST:
        raise _Unreadable("it is no spec, or too deep")
    fields = dict(cast("Mapping[str, Any]", form))
    word: object = fields.pop("kind", None)
    if not isinstance(word, str):
        raise _Unreadable("it has no kind")
    kind = kinds.read(word)
    if isinstance(kind, Unknown) or kind not in _READERS:
        raise _Unreadable(f"its kind {word!r} is unknown")
    known, needed, read = _READERS[kind]
    if not needed <= set(fields) <= known:
        raise _Unreadable(
            f"a {word} has the fields {sorted(fields)}; this library reads {sorted(known)}"
        )
    return read(fields, lambda part: _read(part, kinds, depth + 1))


_Read = Callable[[object], Spec]
_Reader = tuple[frozenset[str], frozenset[str], Callable[[Json, _Read], Spec]]


def _reader(needed: str, optional: str, read: Callable[[Json, _Read], Spec]) -> _Reader:
    return frozenset((needed + " " + optional).split()), frozenset(needed.split()), read


def _flag(value: object) -> bool:
    if value is not True:
        raise _Unreadable(f"seconds is {value!r}")
    return True


def _days(values: object) -> frozenset[date]:
    return frozenset(date.fromisoformat(day) for day in cast("list[str]", values))


def _except(form: Json, read: _Read) -> Spec:
    return Except(
        read(form["spec"]), _days(form.get("days", ())), tuple(map(read, form.get("specs", ())))
    )


def _at(text: object) -> time:
    return time.fromisoformat(cast("str", text))


_READERS: Final[dict[type[Spec], _Reader]] = {
    Cron: _reader(
        "expression zone dst",
        "seconds",
        lambda form, _: Cron(
            form["expression"],
            form["zone"],
            form["dst"],
            seconds="seconds" in form and _flag(form["seconds"]),
        ),
    ),
    Every: _reader(
        "period",
        "anchor",
        lambda form, _: Every(
            form["period"] * _MICROSECOND,
            datetime.fromisoformat(form["anchor"]) if "anchor" in form else None,
        ),
    ),
    Daily: _reader("time zone", "", lambda form, _: Daily(_at(form["time"]), form["zone"])),
    Weekly: _reader(
        "weekday time zone",
        "",
        lambda form, _: Weekly(form["weekday"], _at(form["time"]), form["zone"]),
    ),
    Monthly: _reader(
        "day time zone",
        "",
        lambda form, _: Monthly(form["day"], _at(form["time"]), form["zone"]),
    ),
    At: _reader("instants", "", lambda form, _: At(*map(datetime.fromisoformat, form["instants"]))),
    AnyOf: _reader("specs", "", lambda form, read: AnyOf(*map(read, form["specs"]))),
    Except: _reader("spec", "days specs", _except),
}
"""Of each spec: its fields, those that it must have, and how it is read."""
