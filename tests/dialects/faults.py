"""The faults a dialect server can be told to show, named as in the catalogue of faults F4 to F20.

F4 and F5 differ only in what the router had released when the engine died, F13 at this level is F12.
"""

import re
from dataclasses import dataclass

VARIANTS: dict[str, tuple[str, ...]] = {
    "F4": ("reset", "close"),
    "F5": ("reset", "close"),
    "F6": ("close",),
    "F7": ("error",),
    "F8": ("429", "503", "stream"),
    "F9": ("500",),
    "F10": ("silent",),
    "F11": ("stall",),
    "F12": ("frozen",),
    "F13": ("frozen",),
    "F14": ("trickle", "crawl"),
    "F15": ("reset",),
    "F16": ("missing",),
    "F17": ("nan", "inf", "above", "null", "length", "clamp", "string"),
    "F18": ("missing", "zero", "contradictory"),
    "F19": ("json", "utf8", "long", "html"),
    "F20": ("deaf",),
}
"""Every fault and its variants, the first of them the default."""

_KEYWORD = re.compile(r"FAULT:(F\d+)(?:/(\w+))?(?::(\d+))?")

LONG_LINE_BYTES = 10 * 1024 * 1024
RETRY_AFTER_SECONDS = 7


@dataclass(frozen=True)
class Fault:
    """A fault, which of its variants, and after how many tokens it shows."""

    name: str
    variant: str
    at: int = 3


def fault(name: str, variant: str = "", at: int | None = None) -> Fault:
    """Makes a fault by its name; raises KeyError or ValueError for one that is not in the table."""
    variants = VARIANTS[name]
    if variant and variant not in variants:
        raise ValueError(f"{name} knows {', '.join(variants)}")
    return Fault(name, variant or variants[0], 3 if at is None else at)


def asked_for(question: str) -> Fault | None:
    """The fault that a question names, as in FAULT:F11:3 or FAULT:F17/nan:0."""
    found = _KEYWORD.search(question)
    if found is None:
        return None
    name, variant, at = found.groups()
    return fault(name, variant or "", None if at is None else int(at))
