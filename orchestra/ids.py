"""Check ids and names, and make ids."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Final, cast

from orchestra.errors import InvalidArgument, OrchestraError

__all__ = [
    "MOST_LABELS",
    "RESERVED_ACTIVITIES",
    "check_label_changes",
    "check_labels",
    "check_name",
    "check_stream",
    "check_text",
    "child_id",
    "digest",
]

_LONGEST: Final = 1024
MOST_LABELS: Final = 64
"""How many labels a start may give, a lap's code may set, and an operator may leave."""
_SHOWN_OF_INCARNATION: Final = 8
RESERVED_ACTIVITIES: Final = "orchestra.session."
"""The beginning of names of activities that the library has itself."""


def check_text(text: object, what: str) -> None:
    """Check an optional name or id: ``None`` is valid.

    Raises:
        InvalidArgument: it is not text of 1 to 1,024 characters that every store can hold (no NUL,
            no half surrogate pair).
    """
    if text is not None:
        check_name(text, what)


def check_name(text: object, what: str, error: type[OrchestraError] = InvalidArgument) -> None:
    """Check a required name or id.

    Raises:
        InvalidArgument: (or the error given) it is not text of 1 to 1,024 characters that every
            store can hold (no NUL, no half surrogate pair).
    """
    if not isinstance(text, str):
        raise error(f"{what} must be text, not {type(text).__name__}")
    if not text:
        raise error(f"{what} must not be empty")
    if len(text) > _LONGEST:
        raise error(f"{what} must have at most {_LONGEST} characters, not {len(text)}")
    if "\0" in text or (
        not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)
    ):
        raise error(f"{what} must not hold NUL or half a surrogate pair: {text!r}")


def check_label_changes(labels: object) -> dict[str, str | None]:
    """Check labels to set, and to remove (``None``), and return them.

    Raises:
        InvalidArgument: they are no mapping, or more than 64; a key is not text of 1 to 1,024
            characters; or a value is neither ``None`` nor text of at most 1,024 characters.
    """
    if not isinstance(labels, Mapping):
        raise InvalidArgument(
            f"labels takes a mapping of texts, not {labels!r}; write {{'plan': 'pro', 'trial': "
            "None}, where None removes a label"
        )
    changes = dict(cast("Mapping[str, str | None]", labels))
    if len(changes) > MOST_LABELS:
        raise InvalidArgument(f"{len(changes)} labels were given at once; {MOST_LABELS} may be")
    for key, value in changes.items():
        check_name(key, "a label")
        if value is not None:
            check_name(value or " ", f"the value of label {key!r}")
    return changes


def child_id(parent_id: str, incarnation: str, execution: int, event_id: int) -> str:
    """Return the id of a child without a given one. It differs for each command, execution and life
    of its parent.

    It begins with the parent's id, so a family sorts together. If generations have made that too
    long, it is a digest.
    """
    plain = f"{parent_id}.{incarnation[:_SHOWN_OF_INCARNATION]}.{execution}.{event_id}"
    return plain if len(plain) <= _LONGEST else digest(plain)


def digest(text: str) -> str:
    """Return 32 hexadecimal digits for a text."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def check_stream(name: object) -> None:
    """Check the name of a stream.

    Raises:
        InvalidArgument: it is not text of 1 to 1,024 characters, or begins with "orchestra:".
    """
    check_name(name, "a stream")
    if isinstance(name, str) and name.startswith("orchestra:"):
        raise InvalidArgument(
            f"a stream cannot have the name {name!r}: names that begin with 'orchestra:' are the "
            "library's own"
        )


def check_labels(labels: object) -> None:
    """Check optional labels.

    Raises:
        InvalidArgument: they are no mapping, or a label is not text of 1 to 1,024 characters (its
            value may be empty).
    """
    if labels is None:
        return
    if not isinstance(labels, Mapping):
        raise InvalidArgument(
            f"labels takes a mapping of texts, not {labels!r}; write {{'team': 'payments'}}"
        )
    for key, value in cast("Mapping[object, object]", labels).items():
        check_name(key, "a label")
        check_name(" " if value == "" else value, f"the value of label {key!r}")
