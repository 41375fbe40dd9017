"""What requests bring: plain dataclasses, in which a misspelt name is an error.

A selection with a misspelt condition would select everything.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final, TypeVar

from orchestra.client.selections import Selection
from orchestra.codec import Payload, decoder

__all__ = ["Conditions", "conditions_from_text", "strict"]

C = TypeVar("C", bound=type)


def strict(known: C) -> C:
    """Refuse names that a dataclass does not have."""
    bare: Any = known
    bare.__pydantic_config__ = {"extra": "forbid"}
    return known


@strict
@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions(Selection):
    """A selection as a request brings it; see ``Selection``."""

    def selection(self) -> Selection:
        """Return the plain selection."""
        return Selection(**{one.name: getattr(self, one.name) for one in fields(Selection)})


_CONDITIONS: Final = decoder(Conditions)


def conditions_from_text(text: str) -> Selection:
    """Return the selection of a JSON text.

    Raises:
        DecodeError: it is none. Names the field.
    """
    found: Conditions = _CONDITIONS.decode(Payload(text.encode()), subject="selection")
    return found.selection()
