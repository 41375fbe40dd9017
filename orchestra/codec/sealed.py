"""Sealed values: what a pipeline has made of stored values, and what anyone can read of them.

A sealed value begins with a header that is never encrypted::

    byte    0       255: no JSON and no UTF-8 text begins with it
            1       the form: 1
            2       compression: 0 none, 1 zlib, 2 Zstandard
            3       encryption: 0 none, 1 AES-256-GCM
            4       place of the body: 0 here, 1 in an external storage
            5-20    the id of the key, filled up with zeros
            21-24   the length of the plain value, most significant byte first
            25-     the body; or its SHA-256 digest, if it is stored elsewhere

Everything but the place of the body is authenticated, where the value is encrypted.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final, NamedTuple

from orchestra.codec.payloads import JSON, Payload
from orchestra.errors import DecodeError, KeyMissing, PayloadUnreadable
from orchestra.frozen import frozen

__all__ = [
    "FORM",
    "HEADER",
    "KEY_END",
    "KEY_START",
    "LONGEST_KEY_ID",
    "SEAL",
    "SEALED",
    "Header",
    "Unopened",
    "UnopenedFacts",
    "as_payload",
    "is_sealed",
    "read_header",
    "require_opened",
    "require_opened_facts",
    "sealed_text",
    "text_seal",
    "unreadable",
]

SEALED: Final = 2
"""The encoding number of a sealed value."""

SEAL: Final = b"\xff"
"""The first byte of a sealed value."""

FORM: Final = 1
HEADER: Final = 25
"""The length of a header in bytes."""

KEY_START: Final = 5
KEY_END: Final = 21
LONGEST_KEY_ID: Final = KEY_END - KEY_START

_TEXT: Final = "[sealed with key "
"""How a sealed text begins; the key's id follows."""


class Header(NamedTuple):
    """What anyone can read of a sealed value. ``size`` is the length of the plain value."""

    compression: int
    encryption: int
    storage: int
    key_id: str
    size: int


@frozen
class Unopened(Payload):
    """A sealed payload that a pipeline could not open. ``place`` is where it was found.

    ``why`` says why, ``tried`` names what was missing, for the hold of an instance.
    """

    place: bytes = b""
    why: str = ""
    tried: str = ""
    key_id: str | None = None
    is_missing: bool = False


class UnopenedFacts(bytes):
    """Sealed facts that a pipeline could not open, and why."""

    unopened: Unopened


def is_sealed(data: bytes) -> bool:
    """Return whether bytes of a payload, or of packed facts, are sealed."""
    return data[:1] == SEAL


def read_header(data: bytes) -> Header | None:
    """Return the header of a sealed value; ``None``: it has none that this library knows."""
    if len(data) < HEADER or data[:1] != SEAL or data[1] != FORM:
        return None
    try:
        key_id = data[KEY_START:KEY_END].rstrip(b"\0").decode("ascii")
    except UnicodeDecodeError:
        return None
    return Header(data[2], data[3], data[4], key_id, int.from_bytes(data[KEY_END:HEADER], "big"))


def as_payload(data: bytes) -> Payload:
    """Return packed facts as a payload, under the encoding that they have."""
    if isinstance(data, UnopenedFacts):
        return data.unopened
    return Payload(data, SEALED if is_sealed(data) else JSON)


def unreadable(payload: Payload, subject: str) -> DecodeError:
    """Return the error for a payload whose encoding is not plain JSON."""
    if isinstance(payload, Unopened):
        kind = KeyMissing if payload.is_missing else PayloadUnreadable
        return kind(
            f"{subject} cannot be read: {payload.why}",
            subject=subject,
            key_id=payload.key_id,
            tried=payload.tried,
        )
    header = read_header(payload.data) if payload.encoding == SEALED else None
    if header is None:
        return DecodeError(
            f"{subject} is stored with encoding {payload.encoding}, which this version of "
            "orchestra cannot read",
            subject=subject,
        )
    how = f"sealed with key {header.key_id!r}" if header.key_id else "compressed or stored outside"
    return PayloadUnreadable(
        f"{subject} is {how}, and there is no pipeline here; give it as payloads= to the Runtime "
        "or the Client",
        subject=subject,
        key_id=header.key_id or None,
        tried=f"key {header.key_id} none",
    )


def require_opened(payload: Payload, subject: str) -> None:
    """Check that a payload is no sealed one: it would not open at another place.

    Raises:
        PayloadUnreadable: it is.
    """
    if payload.encoding == SEALED:
        raise unreadable(payload, subject)


def require_opened_facts(data: bytes, subject: str) -> None:
    """Check that packed facts are not sealed.

    Raises:
        PayloadUnreadable: they are.
    """
    if data[:1] == SEAL:
        raise unreadable(as_payload(data), subject)


def sealed_text(data: bytes) -> str:
    """Return a sealed value as a text. It names its key, for people who do not have it."""
    header = read_header(data)
    assert header is not None
    return f"{_TEXT}{header.key_id or '-'}] {base64.b64encode(data).decode()}"


def text_seal(text: str) -> bytes | None:
    """Return the sealed value of a sealed text; ``None``: it is a plain one."""
    if not text.startswith(_TEXT):
        return None
    try:
        data = base64.b64decode(text.partition("] ")[2].encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return None
    return data if read_header(data) is not None else None
