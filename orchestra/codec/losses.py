"""Which field of a stored value a type would drop."""

from __future__ import annotations

from typing import Any, cast

import orjson

from orchestra.codec.decoding import PLAIN, Decoder
from orchestra.codec.payloads import Payload
from orchestra.codec.wire import TYPE, VALUE

__all__ = ["lost_field"]

_MARKS = frozenset({TYPE, VALUE})


def lost_field(stored: Payload, decoder: Decoder[Any], value: Any) -> str | None:
    """Return the path of a field that is stored and that the decoded value has lost; ``None``:
    nothing is lost.

    Args:
        value: what the decoder has made of the payload.
    """
    if decoder is PLAIN:
        return None
    written = decoder.encode(value, subject="what was decoded", exact=False)
    return _lost(orjson.loads(stored.data), orjson.loads(written.data))


def _lost(stored: Any, written: Any) -> str | None:
    if isinstance(stored, dict) and isinstance(written, dict):
        kept = cast("dict[str, Any]", written)
        for key, part in cast("dict[str, Any]", stored).items():
            if key in _MARKS:
                continue
            if key not in kept:
                return f".{key}"
            inner = _lost(part, kept[key])
            if inner is not None:
                return f".{key}{inner}"
        return None
    if isinstance(stored, list) and isinstance(written, list):
        before, after = cast("list[Any]", stored), cast("list[Any]", written)
        if len(before) != len(after):
            return None  # a set of equal values, say
        for number, part in enumerate(before):
            # A set has no order: the part is lost only if no part of the other list has it whole.
            inner = _lost(part, after[number])
            if inner is not None and all(_lost(part, other) is not None for other in after):
                return f"[{number}]{inner}"
    return None
