"""Ways to say whether an answer is right, by their names: each takes the answer's text and what was expected."""

import math
import re
import string
from collections.abc import Callable, Mapping

from marginal.errors import ConfigurationError

Grader = Callable[[str, str], bool]
"""Whether a text is the expected answer."""

TOLERANCE = 1e-6
"""The relative difference within which two numbers are the same."""

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_LABEL_FIRST = re.compile(r"[\s*(\[\"]*([A-Za-z0-9])\s*(?:[])*\".:,]|$)", re.MULTILINE)
_LABEL_ANNOUNCED = re.compile(
    r"\b(?i:answer|option|choice)\b\s*(?:is\b)?\s*[:=]?\s*(?i:option\b)?[\s*(\[\"]*(?:([A-Z0-9])\b|([a-z])\b(?!\s+\w))"
)
_LABEL_BEFORE_WORDS = re.compile(r"\s*([A-Z0-9])\s")
_NUMBER = re.compile(
    r"(?:(?<![\w.)])[-+])?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?(\s*%)?"
)


def exact(text: str, expected: str) -> bool:
    """The same text, white space around it aside."""
    return text.strip() == expected.strip()


def normalised(text: str, expected: str) -> bool:
    """The same words: case, articles, punctuation and white space aside, as SQuAD compares."""
    return _words(text) == _words(expected)


def choice(text: str, expected: str) -> bool:
    """The same option: its label, as in "B", "(b)", "B. Paris", "Answer: B"; without a label its words come first."""
    label = _label(expected, _LABEL_FIRST, _LABEL_ANNOUNCED)
    if label is not None:
        return _label(text, _LABEL_FIRST, _LABEL_ANNOUNCED, _LABEL_BEFORE_WORDS) == label
    said, wanted = _words(text), _words(expected)
    return bool(wanted) and said[: len(wanted)] == wanted


def numeric(text: str, expected: str) -> bool:
    """The same last number, thousands separators aside; where only one is a percentage, 50% is 50 as well as 0.5."""
    said, wanted = _last_number(text), _last_number(expected)
    if said is None or wanted is None:
        return False
    (one, one_in_percent), (other, other_in_percent) = said, wanted
    if _same(one, other):
        return True
    if one_in_percent == other_in_percent:
        return False
    return _same(one / 100 if one_in_percent else one, other / 100 if other_in_percent else other)


GRADERS: Mapping[str, Grader] = {"exact": exact, "normalised": normalised, "choice": choice, "numeric": numeric}
"""Every grader by its name."""


def grader(name: str) -> Grader:
    """The grader of that name. Raises ConfigurationError naming the known ones."""
    if name not in GRADERS:
        raise ConfigurationError(f"grader: {name} is not known, there are {', '.join(GRADERS)}")
    return GRADERS[name]


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.casefold().translate(_PUNCTUATION)).split()


def _label(text: str, *forms: re.Pattern[str]) -> str | None:
    """An option's label in lower case: where the text begins with one, else the last that it announces."""
    for form in forms:
        found = [form.match(text)] if form is not _LABEL_ANNOUNCED else [*form.finditer(text)]
        if found and found[-1]:
            return next(group for group in found[-1].groups() if group).casefold()
    return None


def _last_number(text: str) -> tuple[float, bool] | None:
    """The last number of a text, and whether it is a percentage."""
    numbers = [*_NUMBER.finditer(text.replace("\N{MINUS SIGN}", "-"))]
    if not numbers:
        return None
    last = numbers[-1]
    return float(last[0].rstrip("% \t\n").replace(",", "")), last[1] is not None


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=TOLERANCE)
