"""Encrypt values by AES-256-GCM, under keys with ids."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from orchestra.codec import load_json
from orchestra.codec.sealed import LONGEST_KEY_ID
from orchestra.errors import InvalidArgument

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["AES_256_GCM", "KEY_BYTES", "NONCE", "Encrypt", "KeyRing", "Keys"]

AES_256_GCM: Final = 1
KEY_BYTES: Final = 32
NONCE: Final = 12
"""The length of a nonce in bytes; it stands before the ciphertext."""

_KEPT: Final = 4_096
"""The ciphers of how many instances are kept ready."""

_ID: Final = re.compile(r"[A-Za-z0-9._-]+")


class KeyRing(NamedTuple):
    """The keys at one moment. ``marks`` tell keys with one id apart, and nothing of the keys."""

    current: str
    keys: Mapping[str, bytes]
    marks: Mapping[str, str]


class Keys:
    """Keys by their ids, one of which is current: it writes. The others read older values.

    They may change while runtimes and clients use them, from any thread: :meth:`add`, :meth:`use`,
    :meth:`remove`, :meth:`reload`. An instance that is held for a key goes on soon after the key
    has come back.

    Args:
        keys: 32 random bytes each, such as :meth:`generate` makes. An id has 1 to 16 letters,
            digits, points, dashes and underscores. It is stored with each value, in clear.
        current: the id of the key that writes; by default the only one.

    Raises:
        InvalidArgument: a key or an id cannot be one, or ``current`` names none of them.
    """

    def __init__(self, keys: Mapping[str, bytes], current: str | None = None) -> None:
        self._guard = threading.Lock()
        self._path: Path | None = None
        self.ring: KeyRing = _ring(keys, current)
        """The keys as they are now. It is replaced as a whole."""

    @staticmethod
    def generate() -> bytes:
        """Return a new key: 32 bytes of the operating system's random source."""
        return os.urandom(KEY_BYTES)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Keys:
        """Return the keys in a JSON file: ``{"current": "k2", "keys": {"k1": "<base64>", ...}}``.

        Raises:
            InvalidArgument: the file does not hold keys.
            OSError: it cannot be read.
        """
        keys = cls.__new__(cls)
        keys._guard = threading.Lock()
        keys._path = Path(path)
        keys.ring = _read(keys._path)
        return keys

    def __repr__(self) -> str:
        ring = self.ring
        return f"Keys({', '.join(map(repr, sorted(ring.keys)))}; current {ring.current!r})"

    @property
    def current(self) -> str:
        """The id of the key that writes."""
        return self.ring.current

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all keys, in order."""
        return tuple(sorted(self.ring.keys))

    def add(self, key_id: str, key: bytes) -> None:
        """Add a key for reading.

        Raises:
            InvalidArgument: it cannot be one, or another key has the id.
        """
        with self._guard:
            ring = self.ring
            if ring.keys.get(key_id, key) != key:
                raise InvalidArgument(f"another key has the id {key_id!r}; give it a new id")
            self.ring = _ring({**ring.keys, key_id: key}, ring.current)

    def use(self, key_id: str) -> None:
        """Write with this key from now on.

        Raises:
            InvalidArgument: there is no key with this id.
        """
        with self._guard:
            self.ring = _ring(self.ring.keys, key_id)

    def remove(self, key_id: str) -> None:
        """Forget a key. What it has sealed no longer opens here.

        Raises:
            InvalidArgument: it is the current one.
        """
        with self._guard:
            ring = self.ring
            self.ring = _ring(
                {name: key for name, key in ring.keys.items() if name != key_id}, ring.current
            )

    def reload(self) -> None:
        """Read the file again from which they came.

        Raises:
            InvalidArgument: they came from no file, or it does not hold keys.
            OSError: it cannot be read.
        """
        if self._path is None:
            raise InvalidArgument("these keys came from no file; use Keys.from_file(path)")
        ring = _read(self._path)
        with self._guard:
            self.ring = ring


class Encrypt:
    """Encrypts every value by AES-256-GCM, and binds it to its place.

    Each instance has keys of its own, made from the current key and the instance's id. So the bound
    of 2**32 values under one key with random nonces counts for each instance, not for the store.

    Args:
        keys: the keys.
        plain: what happens to stored values that are not encrypted. ``"read"`` them, as a store
            needs that has existed before. ``"refuse"`` them once all are encrypted: then who can
            write to the database cannot put plain values of his own in the place of encrypted ones.

    Raises:
        InvalidArgument: ``keys`` are none, or the package is missing.
    """

    def __init__(self, keys: Keys, *, plain: str = "read") -> None:
        if not isinstance(keys, Keys):  # pyright: ignore[reportUnnecessaryIsInstance] - users
            raise InvalidArgument(
                f"keys is {type(keys).__name__}; give Keys({{'2026-03': key}}), where a key is 32 "
                "bytes of Keys.generate()"
            )
        if plain not in {"read", "refuse"}:
            raise InvalidArgument(f'plain is "read" or "refuse", not {plain!r}')
        self.keys: Keys = keys
        self.refuses_plain: bool = plain == "refuse"
        self._cipher_class = _aes_gcm()
        self._ciphers: OrderedDict[tuple[str, str, str], AESGCM] = OrderedDict()
        self._guard = threading.Lock()

    def __repr__(self) -> str:
        return f"Encrypt({self.keys!r})"

    def seal(self, ring: KeyRing, data: bytes, bound: bytes, instance: str) -> bytes:
        """Return the nonce and the ciphertext of a value under the current key."""
        nonce = os.urandom(NONCE)
        return nonce + self._cipher(ring, ring.current, instance).encrypt(nonce, data, bound)

    def open(self, ring: KeyRing, key_id: str, body: bytes, bound: bytes, instance: str) -> bytes:
        """Return the value.

        Raises:
            KeyError: there is no key with this id.
            ValueError: the bytes do not open with it at this place.
        """
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - an extra

        cipher = self._cipher(ring, key_id, instance)
        try:
            return cipher.decrypt(body[:NONCE], body[NONCE:], bound)
        except (InvalidTag, ValueError) as error:
            raise ValueError("it does not open") from error

    def _cipher(self, ring: KeyRing, key_id: str, instance: str) -> AESGCM:
        name = key_id, ring.marks[key_id], instance
        with self._guard:
            found = self._ciphers.get(name)
            if found is not None:
                self._ciphers.move_to_end(name)
                return found
        secret = hmac.digest(
            ring.keys[key_id], b"orchestra payload\0" + instance.encode(), "sha256"
        )
        found = self._cipher_class(secret)
        with self._guard:
            self._ciphers[name] = found
            if len(self._ciphers) > _KEPT:
                self._ciphers.popitem(last=False)
        return found


def _aes_gcm() -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise InvalidArgument(
            "encryption needs the package cryptography: install orchestra-runtime[crypto]"
        ) from error
    return AESGCM


def _ring(keys: Mapping[str, bytes], current: str | None) -> KeyRing:
    if not isinstance(keys, Mapping) or not keys:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidArgument("keys are a mapping of ids to keys of 32 bytes, with at least one")
    for key_id, key in keys.items():
        if not isinstance(key_id, str) or len(key_id) > LONGEST_KEY_ID or not _ID.fullmatch(key_id):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgument(
                f"the id of a key has 1 to {LONGEST_KEY_ID} letters, digits, points, dashes and "
                f"underscores, which {key_id!r} has not"
            )
        if not isinstance(key, bytes) or len(key) != KEY_BYTES:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgument(
                f"key {key_id!r} does not have {KEY_BYTES} bytes; make one with Keys.generate()"
            )
    if current is None and len(keys) == 1:
        current = next(iter(keys))
    if current is None or current not in keys:
        raise InvalidArgument(
            f"current is {current!r}; name the key that writes: {', '.join(sorted(keys))}"
        )
    marks = {
        key_id: hashlib.sha256(b"orchestra key mark\0" + key).hexdigest()[:8]
        for key_id, key in keys.items()
    }
    return KeyRing(current, dict(keys), marks)


def _read(path: Path) -> KeyRing:
    try:
        stored = load_json(path.read_bytes())
        keys = {
            key_id: base64.b64decode(key, validate=True)
            for key_id, key in cast("dict[str, str]", stored["keys"]).items()
        }
        return _ring(keys, stored.get("current"))
    except (ValueError, TypeError, KeyError, AttributeError, binascii.Error) as error:
        if isinstance(error, InvalidArgument):
            raise
        raise InvalidArgument(
            f'{path} holds no keys; write {{"current": "k1", "keys": {{"k1": "<base64 of 32 '
            'bytes>"}}'
        ) from error
