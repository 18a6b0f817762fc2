"""Finds the lines of fields in a TOML text, for complaints; the parsers in use do not keep them."""

import re
from collections.abc import Iterator, Sequence

_KEY = r"\"[^\"]*\"|'[^']*'|[A-Za-z0-9_-]+"
_KEYS = re.compile(rf"(?:{_KEY})(?:\s*\.\s*(?:{_KEY}))*")
_EACH = re.compile(_KEY)
_LONG = re.compile(r"\"\"\"|\'\'\'")
_QUOTES = "\"'"


class FieldLines:
    """The lines on which tables begin and keys are set; inline tables are where the key that holds them is."""

    def __init__(self, text: str) -> None:
        self._first: dict[tuple[str, ...], int] = {}
        for place, number in _places(text):
            self._first.setdefault(place, number)

    def of(self, field: Sequence[str]) -> int | None:
        """The line of a field, counted from 1, or of the closest table around it; None when none is there.

        A field whose names hold dots may have been split at them.
        """
        for count in range(len(field), 0, -1):
            wanted = ".".join(field[:count])
            for place, number in self._first.items():
                if ".".join(place) == wanted:
                    return number
        return None


def _places(text: str) -> Iterator[tuple[tuple[str, ...], int]]:
    table: tuple[str, ...] = ()
    inside_text = False
    for number, raw in enumerate(text.splitlines(), 1):
        line, within = raw.strip(), inside_text
        inside_text ^= len(_LONG.findall(line)) % 2 == 1
        if within:
            continue
        if line.startswith("["):
            keys = _KEYS.match(line.lstrip("[").lstrip())
            if keys:
                table = _split(keys[0])
                yield table, number
        elif (keys := _KEYS.match(line)) and line[keys.end() :].lstrip().startswith("="):
            yield table + _split(keys[0]), number


def _split(keys: str) -> tuple[str, ...]:
    return tuple(key.strip(_QUOTES) for key in _EACH.findall(keys))
