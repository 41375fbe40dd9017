"""What the options of several commands have in common: durations, instants, labels, selections."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, cast, get_args

import click

from orchestra.client.info import InstanceStatus
from orchestra.client.selections import Selection, WaitingFor, WaitKind
from orchestra.codec import load_json
from orchestra.store.kinds import HoldKind

__all__ = ["DURATION", "INSTANT", "JSON", "LABEL", "Ago", "selection_options"]

P = ParamSpec("P")
T = TypeVar("T")

_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?[smhdw])+")
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


class _Type(click.ParamType[T]):
    """A type of values whose text a function reads. It raises ``ValueError`` for what it cannot
    read.
    """

    def __init__(self, name: str, read: Callable[[str], T]) -> None:
        self.name = name
        self._read = read

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> T | Any:
        """Return what a text stands for."""
        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _duration(value: str) -> timedelta:
    if not _DURATION.fullmatch(value):
        raise ValueError(f"{value!r} is no duration; write 90s, 15m, 2h, 7d or 1h30m")
    parts = _PART.findall(value)
    return timedelta(seconds=sum(float(count) * _UNITS[unit] for count, unit in parts))


@dataclass(frozen=True, slots=True)
class Ago:
    """An instant so long before the store's time; a command settles it as it opens the store."""

    duration: timedelta


def _instant(value: str) -> datetime | Ago:
    """Read an instant in ISO 8601, or how long ago it was."""
    if _DURATION.fullmatch(value):
        return Ago(_duration(value))
    try:
        at = datetime.fromisoformat(value)
    except ValueError as error:
        raise ValueError(
            f"{value!r} is no instant; write 2026-03-01T09:00:00Z, or 2h for two hours ago"
        ) from error
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _label(value: str) -> tuple[str, str]:
    key, equals, label = value.partition("=")
    if not key or not equals:
        raise ValueError(f"{value!r} is no label; write KEY=VALUE")
    return key, label


def _json(value: str) -> Any:
    """Read JSON. What is none counts as a text, so that a plain word needs no quotes."""
    try:
        return load_json(value.encode())
    except ValueError:
        if value.lstrip()[:1] in {"{", "[", '"'}:
            raise ValueError(f"{value!r} begins like JSON, and is none") from None
        return value


def _held(value: str) -> HoldKind | bool:
    if value == "any":
        return True
    try:
        return HoldKind(value)
    except ValueError:
        known = ", ".join(kind.value for kind in HoldKind)
        raise ValueError(f"{value!r} is no kind of hold; write any, or one of {known}") from None


def _waiting(value: str) -> WaitingFor:
    kind, _, name = value.partition(":")
    if kind and kind not in get_args(WaitKind):
        known = ", ".join(get_args(WaitKind))
        raise ValueError(f"{kind!r} is nothing to wait for; write KIND:NAME with {known}")
    return WaitingFor(cast("WaitKind", kind) if kind else None, name or None)


DURATION: Final = _Type("duration", _duration)
INSTANT: Final = _Type("instant", _instant)
LABEL: Final = _Type("key=value", _label)
JSON: Final = _Type("json", _json)
HELD: Final = _Type("kind", _held)
WAITING: Final = _Type("kind:name", _waiting)

_OPTIONS: Final = (
    click.option("--name", help="The name of the orchestration."),
    click.option("--version", help="The version that runs, or ran last."),
    click.option("--target-version", help="The version of the next boundary."),
    click.option(
        "--drifting/--not-drifting", default=None, help="Whether the next version is another one."
    ),
    click.option(
        "--status",
        multiple=True,
        type=click.Choice([status.value for status in InstanceStatus]),
        help="May be repeated.",
    ),
    click.option(
        "--held", type=HELD, is_flag=False, flag_value="any", help="Held, for any cause or for one."
    ),
    click.option(
        "--waiting-on",
        type=WAITING,
        metavar="KIND:NAME",
        help="Waits for this: activity, timer, event, child or request, with or without a name.",
    ),
    click.option("--longer-than", type=DURATION, help="... for at least so long."),
    click.option("--overdue", is_flag=True, default=None, help="Its boundary is due."),
    click.option("--pinned/--not-pinned", default=None, help="Whether it has a pin."),
    click.option(
        "--label", "labels", multiple=True, type=LABEL, metavar="KEY=VALUE", help="May be repeated."
    ),
    click.option("--id-prefix", help="The beginning of the id."),
    click.option("--queue", help="The queue whose nodes run it."),
    click.option("--parent", help="Only children of this instance."),
    click.option("--created-after", type=INSTANT, help="An instant, or how long ago: 2h."),
    click.option("--created-before", type=INSTANT),
    click.option("--updated-after", type=INSTANT),
    click.option("--updated-before", type=INSTANT),
)


def selection_options(
    function: Callable[Concatenate[Selection, P], T],
) -> Callable[..., T]:
    """Give a command the instances that its options select, as its first argument."""

    @wraps(function)
    def with_selection(*arguments: Any, **options: Any) -> T:
        names = [option for option in Selection.__dataclass_fields__ if option in options]
        chosen: dict[str, Any] = {name: options.pop(name) for name in names}
        longer: timedelta | None = options.pop("longer_than")
        waiting: WaitingFor | None = chosen["waiting_on"]
        if longer is not None:
            waiting = waiting or WaitingFor()
            waiting = WaitingFor(waiting.kind, waiting.name, longer)
        statuses: Sequence[str] = chosen["status"]
        chosen["waiting_on"] = waiting
        chosen["status"] = [InstanceStatus(one) for one in statuses] or None
        chosen["labels"] = dict(chosen["labels"]) or None
        return function(Selection(**chosen), *arguments, **options)

    decorated: Callable[..., T] = with_selection
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated
