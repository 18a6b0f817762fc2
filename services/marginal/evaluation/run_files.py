"""The lines of a file of JSON objects, compressed when its name ends in .gz; one that was cut is read up to the cut."""

import zlib
from dataclasses import dataclass
from pathlib import Path

from marginal.errors import ConfigurationError

ENDINGS = (".gz", ".jsonl", ".json")
_GZIP_FORMAT = 31


@dataclass(frozen=True, slots=True)
class Content:
    """What is in a file: the lines that end, what follows the last of them, and whether the compression was cut."""

    lines: tuple[bytes, ...]
    rest: bytes
    cut: bool


def read_content(path: Path) -> Content:
    """Reads a file. Raises ConfigurationError when it cannot be read or unpacked."""
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read, {(error.strerror or 'no reason').lower()}") from None
    try:
        plain, cut = _unpacked(packed) if compressed(path) else (packed, False)
    except zlib.error:
        raise ConfigurationError(f"{path}: is no gzip file, or is damaged: only such a file may end in .gz") from None
    *lines, rest = plain.split(b"\n")
    return Content(tuple(lines), rest, cut)


def compressed(path: Path) -> bool:
    """Whether a file of that name holds gzip data."""
    return path.suffix == ".gz"


def stem(path: Path) -> str:
    """A file's name without its endings."""
    name = path.name
    for ending in ENDINGS:
        name = name.removesuffix(ending)
    return name


def _unpacked(packed: bytes) -> tuple[bytes, bool]:
    """Every member of gzip data, one after the other, and whether the last of them was cut. Raises zlib.error."""
    pieces = []
    while packed:
        member = zlib.decompressobj(_GZIP_FORMAT)
        pieces.append(member.decompress(packed))
        if not member.eof:
            return b"".join(pieces), True
        packed = member.unused_data
    return b"".join(pieces), False
