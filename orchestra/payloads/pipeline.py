"""A pipeline: plain values to sealed ones, and back."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from orchestra.codec import JSON, SEALED, Packed, Payload, Unopened, is_sealed
from orchestra.codec.sealed import (
    FORM,
    HEADER,
    LONGEST_KEY_ID,
    SEAL,
    Header,
    UnopenedFacts,
    read_header,
    require_opened,
    sealed_text,
    text_seal,
)
from orchestra.errors import EncodeError, InvalidArgument, StorageUnavailable
from orchestra.payloads.compression import NONE, Compress, decompress
from orchestra.payloads.encryption import AES_256_GCM, NONCE, Encrypt
from orchestra.payloads.storage import EXTERNAL, INLINE, External, digest_of, key_of
from orchestra.store.values import Place
from orchestra.summary import with_texts

__all__ = ["OPENS_AGAIN", "Opening", "Pipeline", "Problem", "Sealing"]

_TAG: Final = 16
_SALT: Final = 16
_PLAIN_OF_STORE: Final = (b"", b"null", b"{}")
"""What the store itself writes in the place of values."""

_ANYWHERE: Final = Place("", ("text",))
"""The place of a text about many instances."""

_REFUSED: Final = SEAL + b"\0"
"""Stands before plain facts that are refused, so that no reader takes them for good."""

OPENS_AGAIN: Final = "storage"
"""What was tried where an external storage did not answer: it is worth to try again."""

_THREADS: Final = 8


class Problem(Exception):
    """A sealed value does not open. ``tried`` names what was missing."""

    def __init__(
        self, why: str, tried: str, key_id: str | None = None, *, is_missing: bool = False
    ) -> None:
        super().__init__(why)
        self.tried = tried
        self.key_id = key_id
        self.is_missing = is_missing

    def unopened(self, data: bytes, place: Place) -> Unopened:
        """Return the sealed value with what is known of it."""
        why = str(self)
        return Unopened(data, SEALED, place.name, why, self.tried, self.key_id, self.is_missing)


_PLAIN: Final = Problem(
    'it is not encrypted, and Encrypt(plain="refuse") reads no such values', "plain"
)


class Pipeline:
    """What happens to values between the codec and the store, in this order.

    Give one of each kind at most: :class:`~orchestra.Compress`, :class:`~orchestra.Encrypt`,
    :class:`~orchestra.External`. Reading follows what stands with each value, so a value written
    by another pipeline opens as long as this one has its key, its storage and its method.

    It may be used by several runtimes and clients at once, from any thread.

    Raises:
        InvalidArgument: a part is none of these, stands twice, or in another order.
    """

    def __init__(self, *parts: Compress | Encrypt | External) -> None:
        order = [Compress, Encrypt, External]
        kinds = [type(part) for part in parts]
        for part in parts:
            if type(part) not in order:
                raise InvalidArgument(
                    f"{part!r} is no part of a pipeline; give Compress(...), Encrypt(...) or "
                    "External(...)"
                )
        if sorted(set(kinds), key=order.index) != kinds:
            raise InvalidArgument(
                "a pipeline has one part of each kind, in the order Compress, Encrypt, External: "
                "what is encrypted does not get smaller, and must not leave the database in clear"
            )
        self.compress: Compress | None = next((p for p in parts if isinstance(p, Compress)), None)
        self.encrypt: Encrypt | None = next((p for p in parts if isinstance(p, Encrypt)), None)
        self.external: External | None = next((p for p in parts if isinstance(p, External)), None)
        self._parts = parts

    def __repr__(self) -> str:
        return f"Pipeline({', '.join(map(repr, self._parts))})"

    # --- one value ---

    def seal(
        self, data: bytes, place: Place, put: Callable[[str, bytes], None] | None
    ) -> bytes | None:
        """Return the sealed form of a value; ``None``: it stays as it is.

        Args:
            put: stores a large body outside; ``None``: it stays inside.

        Raises:
            EncodeError: it is longer than a header can say.
        """
        compression, body = NONE, data
        if self.compress is not None and (smaller := self.compress.apply(data)) is not None:
            compression, body = self.compress.method, smaller
        encrypt, external = self.encrypt, self.external
        length = len(body) + (0 if encrypt is None else NONCE + _TAG)
        goes_out = external is not None and put is not None and length > external.over
        storage = EXTERNAL if goes_out else INLINE
        if encrypt is None and compression == NONE and storage == INLINE:
            return None
        if len(data) >= 1 << 32:
            raise EncodeError(f"a value has {len(data):,} bytes", subject="payload")
        if encrypt is None:
            head = _header(compression, NONE, storage, "", len(data))
        else:
            ring = encrypt.keys.ring
            head = _header(compression, AES_256_GCM, storage, ring.current, len(data))
            body = encrypt.seal(ring, body, _bound(head, place), place.instance)
        if put is not None and goes_out:
            if encrypt is None:
                # Each value has an object of its own, as encrypted ones have by their nonces. A
                # sweep then never deletes what another write is about to refer to.
                body = os.urandom(_SALT) + body
            digest = digest_of(body)
            put(key_of(digest), body)
            body = digest
        return head + body

    def open(self, data: bytes, place: Place, get: Callable[[str], bytes]) -> bytes:
        """Return the value of a sealed form.

        Raises:
            Problem: it does not open here.
        """
        header = read_header(data)
        if header is None:
            raise Problem("it has a form that this library does not know", "form")
        if header.storage not in {INLINE, EXTERNAL}:
            raise Problem("its header names a place that this library does not know", "form")
        if (header.encryption == NONE) != (not header.key_id):
            raise Problem("its header names a key and no encryption, or none and one", "damaged")
        if header.encryption == NONE and self.refuses_plain:
            raise _PLAIN
        body = data[HEADER:]
        if header.storage == EXTERNAL:
            body = self._fetched(body, header, get)
        if header.encryption != NONE:
            body = self._decrypted(body, header, _bound(data[:HEADER], place), place)
        elif header.storage == EXTERNAL:
            body = body[_SALT:]
        try:
            return decompress(body, header.compression, header.size)
        except (ValueError, ImportError) as error:
            raise Problem(str(error), "damaged", header.key_id or None) from error

    @property
    def refuses_plain(self) -> bool:
        """Whether values that are not encrypted are refused."""
        return self.encrypt is not None and self.encrypt.refuses_plain

    def _fetched(self, digest: bytes, header: Header, get: Callable[[str], bytes]) -> bytes:
        key = key_of(digest)
        if self.external is None:
            raise Problem(
                f"it is stored outside under {key}, and the pipeline has no External(...)",
                "no storage",
                header.key_id or None,
            )
        try:
            body = get(key)
        except KeyError:
            raise Problem(
                f"the external storage has no object {key}", OPENS_AGAIN, header.key_id or None
            ) from None
        except Exception as error:
            raise Problem(
                f"the external storage did not return {key}: {type(error).__name__}: {error}",
                OPENS_AGAIN,
                header.key_id or None,
            ) from error
        if digest_of(body) != digest:
            raise Problem(
                f"the external object {key} has other content", "damaged", header.key_id or None
            )
        return body

    def _decrypted(self, body: bytes, header: Header, bound: bytes, place: Place) -> bytes:
        key_id, encrypt = header.key_id, self.encrypt
        if encrypt is None:
            raise Problem(
                f"it is encrypted with key {key_id!r}, and the pipeline has no Encrypt(...)",
                f"key {key_id} none",
                key_id,
                is_missing=True,
            )
        if header.encryption != AES_256_GCM:
            raise Problem(f"it is encrypted by method {header.encryption}", "form", key_id)
        ring = encrypt.keys.ring
        try:
            return encrypt.open(ring, key_id, body, bound, place.instance)
        except KeyError:
            raise Problem(
                f"there is no key {key_id!r}; add it to the keys of the pipeline",
                f"key {key_id} none",
                key_id,
                is_missing=True,
            ) from None
        except ValueError as error:
            raise Problem(
                f"it does not open with key {key_id!r}: it was changed, it was moved here from "
                "another place, or another key has this id now",
                f"key {key_id} {ring.marks[key_id]}",
                key_id,
            ) from error

    # --- holds ---

    def may_open(self, tried: Collection[str]) -> bool:
        """Return whether it has a key that was missing when an instance was held."""
        if self.encrypt is None:
            return False
        marks = self.encrypt.keys.ring.marks
        for word in tried:
            what, _, rest = word.partition(" ")
            key_id, _, mark = rest.partition(" ")
            if what == "key" and marks.get(key_id, mark) != mark:
                return True
        return False

    # --- the external storage ---

    def run(self, tasks: Collection[Callable[[], None]]) -> None:
        """Run calls of the external storage, several at once; return when all have ended.

        Raises:
            Exception: that of the first one that has failed.
        """
        if len(tasks) == 1:
            next(iter(tasks))()
            return
        # A pool for each group of changes: a pipeline has no end at which to close a lasting one.
        with ThreadPoolExecutor(min(len(tasks), _THREADS), "orchestra-payloads") as pool:
            futures: list[Future[None]] = [pool.submit(task) for task in tasks]
        for future in futures:
            future.result()


def _header(compression: int, encryption: int, storage: int, key_id: str, size: int) -> bytes:
    kinds = bytes((FORM, compression, encryption, storage))
    key = key_id.encode("ascii").ljust(LONGEST_KEY_ID, b"\0")
    return b"".join((SEAL, kinds, key, size.to_bytes(4, "big")))


def _bound(head: bytes, place: Place) -> bytes:
    """Return what is authenticated with a value: its header, but for where its body is, and its
    place.
    """
    return head[:4] + b"\0" + head[5:HEADER] + place.name


class Sealing:
    """A codec that seals the values of one group of changes.

    Bodies for the external storage are gathered; :meth:`store` stores all of them.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._bodies: dict[str, bytes] = {}
        self.sealed: dict[bytes, Payload | bytes] = {}
        """The plain values by their sealed forms: the answer to a commit may bring some back."""

    def payload(self, payload: Payload, place: Place) -> Payload:
        """Seal a payload.

        Raises:
            PayloadUnreadable: it is a sealed one, and would not open at this place.
        """
        if payload.encoding != JSON:
            if not (isinstance(payload, Unopened) and payload.place == place.name):
                require_opened(payload, "a sealed value, which cannot be moved,")
            return payload if is_sealed(payload.data) else Payload(payload.data)
        data = self._pipeline.seal(payload.data, place, self._put)
        if data is None:
            return payload
        self.sealed[data] = payload
        return Payload(data, SEALED)

    def packed(self, data: bytes, place: Place) -> bytes:
        """Seal packed facts. Those that did not open stay as they are."""
        if not data:
            return data
        if is_sealed(data):
            return bytes(data).removeprefix(_REFUSED)
        # The error of a hold stands inside another value, where a sweep does not look for it.
        put = None if place.item == ("hold",) else self._put
        sealed = self._pipeline.seal(data, place, put)
        if sealed is None:
            return data
        self.sealed[sealed] = data
        return sealed

    def text(self, text: str, place: Place) -> str:
        """Seal a text."""
        if not text or self._pipeline.encrypt is None or text_seal(text) is not None:
            return text
        sealed = self._pipeline.seal(text.encode(), place, None)
        return text if sealed is None else sealed_text(sealed)

    def summary(self, data: bytes, place: Place) -> bytes:
        """Seal the errors that a summary quotes."""
        return with_texts(Packed(data), lambda text: self.text(text, place))

    def _put(self, key: str, data: bytes) -> None:
        self._bodies[key] = data

    def store(self) -> None:
        """Store what was gathered.

        Raises:
            StorageUnavailable: the external storage did not take a value. Nothing may be committed
                that refers to it.
        """
        if not self._bodies:
            return
        external = self._pipeline.external
        assert external is not None
        storage = external.storage

        def putting(key: str, data: bytes) -> Callable[[], None]:
            return lambda: storage.put(key, data)

        try:
            self._pipeline.run([putting(key, data) for key, data in self._bodies.items()])
        except Exception as error:
            raise StorageUnavailable(
                f"{storage!r} did not store a value: {type(error).__name__}: {error}"
            ) from error


class Opening:
    """A codec that opens sealed values. What does not open stays as it is, and can be told.

    Args:
        known: plain values by their sealed forms.
    """

    def __init__(
        self, pipeline: Pipeline, known: dict[bytes, Payload | bytes] | None = None
    ) -> None:
        self._pipeline = pipeline
        self._known = known or {}

    def payload(self, payload: Payload, place: Place) -> Payload:
        """Open a payload, or return an :class:`~orchestra.codec.Unopened` one."""
        data = payload.data
        if payload.encoding != SEALED and not is_sealed(data):
            if not self._pipeline.refuses_plain or _is_of_store(data, place):
                return payload
            return _PLAIN.unopened(data, place)
        known = self._known.get(data)
        if isinstance(known, Payload):
            return known
        if known is not None:
            return Payload(known)
        try:
            return Payload(self._open(data, place))
        except Problem as problem:
            return problem.unopened(data, place)

    def packed(self, data: bytes, place: Place) -> bytes:
        """Open packed facts."""
        if not is_sealed(data):
            if not self._pipeline.refuses_plain or _is_of_store(data, place):
                return data
            return _unopened_facts(_REFUSED + data, _PLAIN, place)
        if (known := self._known.get(data)) is not None and not isinstance(known, Payload):
            return known
        try:
            return self._open(data, place)
        except Problem as problem:
            return _unopened_facts(data, problem, place)

    def text(self, text: str, place: Place) -> str:
        """Open a text."""
        sealed = text_seal(text)
        if sealed is None:
            return text
        for where in (place, _ANYWHERE):
            try:
                return self._open(sealed, where).decode()
            except Problem:
                continue
        return text

    def summary(self, data: bytes, place: Place) -> bytes:
        """Open the errors that a summary quotes."""
        return with_texts(Packed(data), lambda text: self.text(text, place))

    def _open(self, data: bytes, place: Place) -> bytes:
        external = self._pipeline.external
        return self._pipeline.open(
            data, place, _nothing if external is None else external.storage.get
        )


def _unopened_facts(data: bytes, problem: Problem, place: Place) -> UnopenedFacts:
    facts = UnopenedFacts(data)
    facts.unopened = problem.unopened(data, place)
    return facts


def _nothing(key: str) -> bytes:
    raise KeyError(key)


def _is_of_store(data: bytes, place: Place) -> bool:
    """Return whether the store itself may have written a plain value: a receipt, or nothing."""
    return data in _PLAIN_OF_STORE or place.item[:1] == ("receipt",)
