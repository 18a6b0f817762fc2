"""Finds the line of a field in a TOML text, for complaints; the parsers in use do not keep it."""

import re
from collections.abc import Sequence

_HEADER = re.compile(r"\s*\[\[?\s*(?P<keys>[^\[\]]+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(r"\s*(?P<key>\"[^\"]*\"|'[^']*'|[A-Za-z0-9_-]+(\s*\.\s*[A-Za-z0-9_-]+)*)\s*=")
_QUOTES = "\"'"


def line_of(field: Sequence[str], text: str) -> int | None:
    """The line, counted from 1, where a field is set, or else the closest table around it; None when none is there.

    Inline tables are found by the line of the key that holds them.
    """
    best, found, table = 0, None, tuple[str, ...]()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table = place = _split(header["keys"])
        elif key := _KEY.match(line):
            place = table + _split(key["key"])
        else:
            continue
        if len(place) > best and place == tuple(field[: len(place)]):
            best, found = len(place), number
    return found


def _split(keys: str) -> tuple[str, ...]:
    return tuple(key.strip().strip(_QUOTES) for key in keys.split("."))
