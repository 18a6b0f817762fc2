"""Reads the head of a GGUF file: what the model is, and which texts of its vocabulary are control tokens.

The `gguf` package makes arrays of every string and takes ten seconds on a vocabulary of 150,000; this reader skips what
it is not asked for. Format: ggml-org/ggml, docs/gguf.md, versions 2 and 3, little-endian.
"""

import mmap
import struct
from collections.abc import Collection
from pathlib import Path

from marginal.errors import ConfigurationError

MAGIC = b"GGUF"
VERSIONS = (2, 3)

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING = 8
_ARRAY = 9

Value = bool | int | float | str | list[bool] | list[int] | list[float] | list[str]


def read_header(path: Path, *, keys: Collection[str]) -> dict[str, Value]:
    """Gives the metadata whose key, or the part of it after the first dot, is in `keys`.

    Raises ConfigurationError when the file is not a GGUF file or ends before its head does.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Header(data).read(keys)
    except (struct.error, ValueError, KeyError, IndexError) as error:
        raise ConfigurationError(f"model: {path.name} is not a whole GGUF file, fetch it again") from error
    except OSError as error:
        raise ConfigurationError(f"model: {path.name} cannot be read: {error.strerror}") from error


class _Header:
    """A cursor over the head of the file."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 0

    def read(self, keys: Collection[str]) -> dict[str, Value]:
        if self._data[:4] != MAGIC:
            raise ValueError
        self._at = 4
        if self._scalar("<I") not in VERSIONS:
            raise ValueError
        self._scalar("<Q")
        found: dict[str, Value] = {}
        for _ in range(int(self._scalar("<Q"))):
            key = self._string()
            kind = int(self._scalar("<I"))
            if key in keys or key.partition(".")[2] in keys:
                found[key] = self._value(kind)
            else:
                self._skip(kind)
        return found

    def _scalar(self, layout: str) -> int | float | bool:
        value: int | float | bool = struct.unpack_from(layout, self._data, self._at)[0]
        self._at += struct.calcsize(layout)
        return value

    def _string(self) -> str:
        start, self._at = self._span()
        return self._data[start : self._at].decode("utf-8", errors="replace")

    def _span(self) -> tuple[int, int]:
        length: int = struct.unpack_from("<Q", self._data, self._at)[0]
        start = self._at + 8
        if start + length > len(self._data):
            raise ValueError
        return start, start + length

    def _value(self, kind: int) -> Value:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._scalar(_SCALARS[kind])
        inner, count = int(self._scalar("<I")), int(self._scalar("<Q"))
        if inner == _STRING:
            return [self._string() for _ in range(count)]
        layout = f"<{count}{_SCALARS[inner][1]}"
        values = list(struct.unpack_from(layout, self._data, self._at))
        self._at += struct.calcsize(layout)
        return values

    def _skip(self, kind: int) -> None:
        if kind == _STRING:
            self._at = self._span()[1]
        elif kind == _ARRAY:
            inner, count = int(self._scalar("<I")), int(self._scalar("<Q"))
            if inner in _SCALARS:
                self._at += count * struct.calcsize(_SCALARS[inner])
            else:
                for _ in range(count):
                    self._skip(inner)
        else:
            self._at += struct.calcsize(_SCALARS[kind])
