"""Turns patterns into free English: alternatives, spoken numbers, clock times, politeness, typing errors."""

import re
from random import Random

_ALTERNATIVES = re.compile(r"\[([^\]]*)\]")
_GAPS = re.compile(r" +")
_TYPEABLE = re.compile(r"(?<![\w{])[a-z]{5,}(?![\w}])")
_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_NEIGHBOURS = {
    **dict(zip("qwertyuiop", ("wa", "qe", "wr", "et", "ry", "tu", "yi", "uo", "ip", "ol"), strict=True)),
    **dict(zip("asdfghjkl", ("qs", "ad", "sf", "dg", "fh", "gj", "hk", "jl", "ko"), strict=True)),
    **dict(zip("zxcvbnm", ("xa", "zc", "xv", "cb", "vn", "bm", "nk"), strict=True)),
}
_ONSETS = (
    "b",
    "br",
    "d",
    "dr",
    "f",
    "g",
    "gl",
    "h",
    "j",
    "k",
    "kr",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "t",
    "v",
    "z",
)
_VOWELS = ("a", "e", "i", "o", "u")
_CODAS = ("", "", "", "l", "n", "r", "m", "x")
_OPENERS = (
    "please ", "could you ", "can you ", "hey ", "would you ", "hi, ", "okay ", "i need you to ",
    "can you please ", "hey, could you ", "quick one: ", "now ", "please could you ",
)  # fmt: skip
_CLOSERS = (
    " please", " thanks", ", thank you", " for me", " if you can", ", please", " now", " when you can",
    " for me please",
)  # fmt: skip
_QUESTION_OPENERS = ("hey, ", "tell me, ", "quick question, ", "hi, ", "okay, ", "so ", "please tell me, ")
_QUESTION_CLOSERS = ("?", "?", "?", " please", " please?", ", thanks", ", do you know?")


def choose(pattern: str, rng: Random) -> str:
    """Settles every `[a|b]` of a pattern; the `{slots}` stay."""
    return _ALTERNATIVES.sub(lambda found: rng.choice(found.group(1).split("|")), pattern)


def tidy(text: str) -> str:
    """Closes the gaps that empty alternatives and commas leave."""
    return _GAPS.sub(" ", text).replace(" ,", ",").strip()


def in_words(number: int) -> str:
    """Spells a number from 0 to 999."""
    if number < 20:
        return _ONES[number]
    if number < 100:
        return _TENS[number // 10] + (f" {_ONES[number % 10]}" if number % 10 else "")
    rest = f" and {in_words(number % 100)}" if number % 100 else ""
    return f"{_ONES[number // 100]} hundred{rest}"


def spoken(number: int, rng: Random) -> str:
    """Says a number as digits or, up to 99, as often in words."""
    return in_words(number) if number < 100 and rng.random() < 0.5 else str(number)


def clock(minutes: int, rng: Random) -> str:
    """Says a time of day, given in minutes after midnight, on the 24 or the 12 hour clock."""
    hour, minute = divmod(minutes, 60)
    if rng.random() < 0.35:
        return f"{hour:02d}:{minute:02d}"
    half = "am" if hour < 12 else "pm"
    twelve = hour % 12 or 12
    if rng.random() < 0.45:
        return f"{twelve} {half}" if minute == 0 else f"{twelve}:{minute:02d} {half}"
    part = "morning" if hour < 12 else "afternoon" if hour < 18 else "evening"
    when = f" in the {part}"
    name = _ONES[twelve] if rng.random() < 0.5 else str(twelve)
    words = {0: name, 15: f"quarter past {name}", 30: f"half past {name}"}
    if minute in words:
        return words[minute] + when
    if minute == 45:
        return f"quarter to {_ONES[(hour + 1) % 12 or 12]}" + when
    return f"{name} {in_words(minute)}" + when


def invented_word(rng: Random) -> str:
    """Makes up a name that nothing but copying can reproduce."""
    return "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(rng.choice((2, 2, 3))))


def mistyped(wording: str, rng: Random) -> str:
    """Misspells one or two longer words of a wording, never inside a slot."""
    places = [found.span() for found in _TYPEABLE.finditer(wording)]
    for start, end in sorted(rng.sample(places, min(len(places), rng.choice((1, 1, 2)))), reverse=True):
        wording = wording[:start] + _misspelt(wording[start:end], rng) + wording[end:]
    return wording


def _misspelt(word: str, rng: Random) -> str:
    at = rng.randrange(1, len(word) - 1)
    kind = rng.randrange(4)
    if kind == 0:
        return word[:at] + word[at + 1 :]
    if kind == 1:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == 2:
        return word[:at] + word[at] + word[at:]
    return word[:at] + rng.choice(_NEIGHBOURS[word[at]]) + word[at + 1 :]


def polite(body: str, is_question: bool, rng: Random) -> str:
    """Wraps a request in courtesies: half the requests stay bare."""
    openers, closers = (_QUESTION_OPENERS, _QUESTION_CLOSERS) if is_question else (_OPENERS, _CLOSERS)
    roll = rng.random()
    if roll < 0.5:
        return body
    opener = rng.choice(openers) if roll < 0.85 else ""
    closer = rng.choice(closers) if roll > 0.75 else ""
    return opener + body + closer
