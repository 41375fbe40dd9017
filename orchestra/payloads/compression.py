"""Compress large values."""

from __future__ import annotations

import zlib
from typing import Any, Final, Literal

from orchestra.errors import InvalidArgument

__all__ = ["NONE", "Compress", "decompress"]

NONE: Final = 0
_ZLIB: Final = 1
_ZSTANDARD: Final = 2


class Compress:
    """Compresses values of at least ``over`` bytes, if they get smaller by that.

    Args:
        over: values below this length stay as they are.
        method: ``"zlib"`` needs no package. ``"zstd"`` is faster and smaller, and needs the extra
            ``zstd`` in every process that reads the values.
        level: how hard to try; by default 6 of zlib, 3 of zstd.

    Raises:
        InvalidArgument: another method, a level that it does not have, or the package is missing.
    """

    def __init__(
        self,
        over: int = 1024,
        *,
        method: Literal["zlib", "zstd"] = "zlib",
        level: int | None = None,
    ) -> None:
        if not isinstance(over, int) or isinstance(over, bool) or over < 0:
            raise InvalidArgument(f"over is a number of bytes, not {over!r}")
        methods = {"zlib": (_ZLIB, 6, range(1, 10)), "zstd": (_ZSTANDARD, 3, range(1, 23))}
        if method not in methods:
            raise InvalidArgument(f'method is "zlib" or "zstd", not {method!r}')
        number, usual, levels = methods[method]
        self.method: int = number
        self.level: int = usual if level is None else level
        if self.level not in levels:
            raise InvalidArgument(f"level of {method} is one of 1 to {levels[-1]}, not {level!r}")
        if self.method == _ZSTANDARD:
            _zstandard()
        self.over: int = over

    def __repr__(self) -> str:
        name = "zlib" if self.method == _ZLIB else "zstd"
        return f"Compress({self.over}, method={name!r}, level={self.level})"

    def apply(self, data: bytes) -> bytes | None:
        """Return the compressed bytes; ``None``: the value stays as it is."""
        if len(data) < self.over:
            return None
        if self.method == _ZLIB:
            smaller = zlib.compress(data, self.level)
        else:
            smaller = _zstandard().ZstdCompressor(level=self.level).compress(data)
        return smaller if len(smaller) < len(data) else None


def decompress(data: bytes, method: int, size: int) -> bytes:
    """Return the ``size`` bytes that were compressed.

    Raises:
        ValueError: they were not compressed to these bytes.
        ImportError: the method needs a package that is not there.
    """
    try:
        if method == NONE:
            plain = data
        elif method == _ZLIB:
            reader = zlib.decompressobj()
            plain = reader.decompress(data, size + 1)  # no more memory than the header says
            if not reader.eof or reader.unused_data:
                raise ValueError("it is cut off, or has another length than its header says")
        elif method == _ZSTANDARD:
            plain = _zstandard().ZstdDecompressor().decompress(data, max_output_size=size)
        else:
            raise ValueError(f"it is compressed by method {method}, which this library lacks")
    except (ImportError, InvalidArgument, ValueError):
        raise
    except Exception as error:  # the packages have errors of their own
        raise ValueError(f"it does not decompress: {error}") from error
    if len(plain) != size:
        raise ValueError(f"it has {len(plain)} bytes, and its header says {size}")
    return plain


def _zstandard() -> Any:
    try:
        import zstandard  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise InvalidArgument(
            'method "zstd" needs the package zstandard: install orchestra-runtime[zstd]'
        ) from error
    return zstandard
