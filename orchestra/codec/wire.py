"""The additions of the wire form to JSON: the type of an ambiguous value, and the zone of a
time.

- ``{"orchestra:type": "Paid", "order": "o-1"}`` is the object of a class; ``{"orchestra:type":
  "datetime", "orchestra:value": "..."}`` is any other value. Readers without types get the value
  without these keys.
- ``2026-03-27T09:00:00+01:00[Europe/Berlin]`` is a time with its zone, as RFC 9557 writes it.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from typing import Any, Final, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import orjson
import pydantic
import pydantic_core

from orchestra.codec.secrets import MASK, SECRET, Secret

__all__ = [
    "MARK",
    "MAX_DEPTH",
    "SECRET_MARK",
    "TYPE",
    "VALUE",
    "ZONE_MARK",
    "Misfit",
    "Refused",
    "base64_form",
    "depth_of",
    "is_secret",
    "masked",
    "number_text",
    "read_bytes",
    "read_zoned",
    "stripped",
    "tagged",
    "time_text",
    "unwrapped",
    "unwrapped_secret",
    "write_bytes",
]

TYPE: Final = "orchestra:type"
VALUE: Final = "orchestra:value"

MARK: Final = b'"orchestra:type":'
"""A mark in every payload that names a type. Inside a text its quotes would be escaped."""

SECRET_MARK: Final = b'"orchestra:type":"secret"'
"""A mark in every payload that holds a secret."""

ZONE_MARK: Final = b']"'
"""A mark in every payload that names a zone."""

MAX_DEPTH: Final = 190
"""The deepest nesting of arrays and objects. Written values must be readable, and pydantic reads
200 levels.
"""


class Refused(Exception):
    """A value cannot be written. ``steps`` lead to the faulty part, innermost first."""

    def __init__(self, reason: str, *steps: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.steps: list[str] = list(steps)

    @property
    def path(self) -> str:
        """The path in the value: ``.orders[3].price``."""
        return "".join(reversed(self.steps))


class Misfit(Exception):
    """A written value does not fit its reader. ``steps`` lead to the part, innermost first."""

    def __init__(self, reason: str, *steps: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.steps: list[str] = list(steps)

    @property
    def path(self) -> str:
        """The path in the value."""
        return "".join(reversed(self.steps))

    @staticmethod
    def of(error: Exception, *steps: str) -> Misfit:
        """Return a reading error as a misfit, with further steps."""
        if isinstance(error, Misfit):
            error.steps.extend(steps)
            return error
        if isinstance(error, pydantic.ValidationError):
            first = error.errors(include_url=False, include_input=False)[0]
            more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
            inner = [
                f"[{part}]" if isinstance(part, int) else f".{part}"
                for part in reversed(first["loc"])
            ]
            return Misfit(f"{first['msg']}{more}", *inner, *steps)
        return Misfit(repr(error), *steps)


def tagged(label: str, written: Any) -> dict[str, Any]:
    """Return a written value with the name of its type."""
    if isinstance(written, dict) and TYPE not in written:
        return {TYPE: label, **cast("dict[str, Any]", written)}
    return {TYPE: label, VALUE: written}


def stripped(written: Any, *, masks: bool = False) -> Any:
    """Return a written value as plain JSON, without the names of types.

    Args:
        masks: whether secrets are masked, for people. Code gets them as what they are.
    """
    if isinstance(written, list):
        return [stripped(item, masks=masks) for item in cast("list[Any]", written)]
    if isinstance(written, dict):
        parts = cast("dict[str, Any]", written)
        if VALUE in parts and TYPE in parts:
            if parts[TYPE] != SECRET:
                return stripped(parts[VALUE], masks=masks)
            return MASK if masks else Secret(stripped(unwrapped_secret(parts)))
        return {key: stripped(item, masks=masks) for key, item in parts.items() if key != TYPE}
    return written


def unwrapped_secret(written: Any) -> Any:
    """Return what a written secret holds; a union may have named its type twice. Any other value is
    returned as it is.
    """
    while isinstance(written, dict):
        parts = cast("dict[str, Any]", written)
        if parts.get(TYPE) != SECRET or VALUE not in parts:
            break
        written = parts[VALUE]
    return cast("Any", written)


def masked(written: Any) -> Any:
    """Return a written value whose secrets hold masks of the same JSON types."""
    if isinstance(written, list):
        return [masked(item) for item in cast("list[Any]", written)]
    if isinstance(written, dict):
        parts = cast("dict[str, Any]", written)
        if parts.get(TYPE) == SECRET and VALUE in parts:
            return {TYPE: SECRET, VALUE: _mask_of(parts[VALUE])}
        return {key: masked(item) for key, item in parts.items()}
    return written


def _mask_of(written: Any) -> Any:
    match written:
        case bool():
            return False
        case int() | float():
            return 0
        case str():
            return MASK
        case list():
            return []
        case dict():
            parts = cast("dict[str, Any]", written)
            return {key: part if key == TYPE else _mask_of(part) for key, part in parts.items()}
        case _:
            return written


def unwrapped(written: Any) -> Any:
    """Return a written value without the name of its type, if it is no object."""
    if type(written) is dict and VALUE in written and TYPE in written:
        return cast("dict[str, Any]", written)[VALUE]
    return cast("Any", written)


def depth_of(data: bytes) -> int:
    """Return the nesting of arrays and objects in JSON. It may be too low if it is at most
    ``MAX_DEPTH``.
    """
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return 0
    deepest, level = 0, [orjson.loads(data)]
    while level:
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(cast("dict[str, Any]", item).values())
            elif isinstance(item, list):
                below.extend(cast("list[Any]", item))
        deepest += any(isinstance(item, (dict, list)) for item in level)
        level = below
    return deepest


def is_secret(value: object) -> bool:
    """Return whether a value shows only a mask of itself."""
    return isinstance(value, (pydantic.SecretStr, pydantic.SecretBytes, pydantic.Secret))


# --- times ------------------------------------------------------------------------------------


def time_text(value: Any, *, exact: bool) -> str:
    """Return the text of a datetime, date, time or timedelta.

    Args:
        exact: whether the classes of zones must come back as well.

    Raises:
        Refused: its zone has no name to write.
    """
    if isinstance(value, datetime):
        return _moment_text(value, exact=exact)
    if isinstance(value, time):
        zone = value.tzinfo
        if zone is None and value.fold:
            raise Refused("a time without a zone cannot have a fold; write replace(fold=0)")
        if zone is not None:
            _check_fixed(
                zone,
                zone.utcoffset(None),
                "store a datetime, or the zone's key in a field of its own",
            )
        return value.isoformat()
    if isinstance(value, date):
        return value.isoformat()
    text: str = pydantic_core.to_jsonable_python(value)
    return text


def _moment_text(value: datetime, *, exact: bool) -> str:
    zone = value.tzinfo
    if zone is None:
        if value.fold:
            raise Refused(
                "a datetime without a zone cannot have a fold; give it its zone: "
                "replace(tzinfo=ZoneInfo(...))"
            )
        return value.isoformat()
    if isinstance(zone, ZoneInfo):
        if exact and type(zone) is not ZoneInfo:
            raise Refused(
                f"its zone is a {type(zone).__qualname__} and would come back as a ZoneInfo; use "
                "zoneinfo.ZoneInfo"
            )
        if not zone.key:
            raise Refused("its ZoneInfo has no key; make it by its key: ZoneInfo('Europe/Berlin')")
        return f"{value.isoformat()}[{zone.key}]"
    _check_fixed(zone, value.utcoffset(), "use zoneinfo.ZoneInfo, or UTC: value.astimezone(UTC)")
    return value.isoformat()


def _check_fixed(zone: Any, offset: timedelta | None, remedy: str) -> None:
    """Check that a zone is only an offset."""
    if not isinstance(zone, (timezone, pydantic_core.TzInfo)):
        raise Refused(
            f"its zone {zone!r} is neither UTC, a fixed offset nor a ZoneInfo with a key; {remedy}"
        )
    if offset is not None and offset % timedelta(minutes=1):
        raise Refused(f"its offset {offset} is no whole number of minutes; {remedy}")


def read_zoned(text: str) -> datetime | None:
    """Return the datetime of a text that names a zone; ``None`` for any other text.

    If the zone's rules have changed since, the time of day counts.

    Raises:
        Misfit: the zone is unknown here.
    """
    if not text.endswith("]") or "[" not in text:
        return None
    written, _, key = text[:-1].partition("[")
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        return None
    try:
        zone = ZoneInfo(key)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise Misfit(
            f"the zone {key!r} is not known on this machine; install the package tzdata ({error})"
        ) from error
    local = moment.replace(tzinfo=zone, fold=0)
    later = local.replace(fold=1)
    return later if local.utcoffset() != moment.utcoffset() == later.utcoffset() else local


# --- bytes and numbers ------------------------------------------------------------------------


def write_bytes(value: bytes) -> Any:
    """Return bytes as text if they are UTF-8, otherwise as tagged base64."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64_form(value)


def base64_form(value: bytes) -> dict[str, Any]:
    """Return bytes as tagged base64."""
    return tagged("bytes", base64.b64encode(value).decode())


def read_bytes(written: Any) -> Any:
    """Return the bytes that :func:`write_bytes` wrote; other values unchanged."""
    if isinstance(written, str):
        return written.encode()
    if isinstance(written, dict) and cast("dict[str, Any]", written).get(TYPE) == "bytes":
        try:
            return base64.b64decode(cast("dict[str, Any]", written)[VALUE], validate=True)
        except (KeyError, TypeError, binascii.Error) as error:
            raise Misfit(f"it is no base64: {error}") from error
    return cast("Any", written)


def number_text(value: float, write: Callable[[float], str] = repr) -> str:
    """Return the text of a numeric key.

    Raises:
        Refused: it is NaN or an infinity.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise Refused(f"{value!r} has no JSON form; use None or a string")
    return write(value)
