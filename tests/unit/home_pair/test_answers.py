"""Every answer can be worked out again from its request or its fact."""

import re
from fractions import Fraction
from itertools import islice
from random import Random

import pytest

from home_pair import vocabulary
from home_pair.arithmetic import add, convert, times
from home_pair.elsewhere import ANSWER
from home_pair.order import calendar, compare, sort
from home_pair.phrasing import clock, in_words
from home_pair.requests import draw
from home_pair.tasks import Fact, Task

VALUES = {in_words(number): number for number in range(1000)}
UNITS = {"grams": 1, "kilos": 1000, "minutes": 1, "hours": 60, "g": 1, "kg": 1000, "min": 1}


def facts(task: Task, count: int = 400) -> list[Fact]:
    rng = Random(7)  # noqa: S311
    return [task.draw_fact(rng) for _ in range(count)]


def test_sums_and_differences_are_right() -> None:
    for fact in facts(add):
        first, second = int(fact.slots["a"]), int(fact.slots["b"])
        assert int(fact.answer) == (first + second if fact.form == "plus" else first - second) >= 0


def test_products_are_right() -> None:
    for fact in facts(times):
        assert int(fact.answer) == int(fact.slots["a"]) * int(fact.slots["b"])


def test_conversions_are_right() -> None:
    scales = {"kilos": 1000, "liters": 1000, "hours": 60, "minutes": 60}
    for fact in facts(convert):
        if fact.form == "scale":
            exact = Fraction(str(fact.slots["n"])) * scales[str(fact.slots["long"])]
            assert Fraction(fact.answer.split()[0]) == exact
        else:
            assert (
                Fraction(fact.answer) / Fraction(str(fact.slots["cups"]))
                == {"double": 2, "half": Fraction(1, 2)}[fact.form]
            )


def test_the_larger_or_smaller_quantity_is_picked() -> None:
    def size(quantity: str) -> int:
        amount, unit = quantity.split()
        return int(amount) * UNITS[unit]

    for fact in facts(compare):
        sizes = [size(str(fact.slots[name])) for name in "ab"]
        assert sizes[0] != sizes[1]
        assert size(fact.answer) == (max(sizes) if fact.form == "more" else min(sizes))


def test_numbers_are_sorted_the_way_that_was_asked() -> None:
    for fact in facts(sort):
        numbers = [int(n) for n in fact.answer.split()]
        assert numbers == sorted((int(n) for n in fact.slots.values()), reverse=fact.form == "down")


def test_days_and_months_are_counted_round_the_calendar() -> None:
    year = [
        f"{d} {m}" for m, n in zip(vocabulary.MONTHS, vocabulary.MONTH_LENGTHS, strict=True) for d in range(1, n + 1)
    ]
    for fact in facts(calendar):
        ring = next(r for r in (vocabulary.DAYS, vocabulary.MONTHS, year) if fact.slots["start"] in r)
        count = int(fact.slots["n"]) * (1 if fact.form == "after" else -1)
        assert fact.answer == ring[(ring.index(str(fact.slots["start"])) + count) % len(ring)]


@pytest.mark.parametrize("task", ["timer", "light", "heat", "shopping", "play"])
def test_what_an_answer_names_was_said_in_the_request(task: str) -> None:
    told = {
        "timer",
        "light",
        "heat",
        "add",
        "drop",
        "play",
        "volume",
        "by",
        "on",
        "off",
        "min",
        "sec",
        "hours",
        "pause",
        "next",
    }
    for example in (e for e in islice(draw("train", 5), 4000) if e.task == task):
        for word in re.findall(r"[a-z]+", example.answer):
            assert word in told or word in example.request, example


def test_a_spoken_time_means_the_time_that_was_meant() -> None:
    for minutes in range(0, 24 * 60, 5):
        for seed in range(8):
            said = clock(minutes, Random(seed))  # noqa: S311
            assert _understood(said) == minutes, said


def _understood(said: str) -> int:
    if re.fullmatch(r"\d\d:\d\d", said):
        return int(said[:2]) * 60 + int(said[3:])
    if found := re.fullmatch(r"(\d+)(?::(\d\d))? (am|pm)", said):
        hour, minute, half = int(found[1]), int(found[2] or 0), found[3]
    else:
        body, part = re.split(r" in the ", said)
        half = "am" if part == "morning" else "pm"
        words = body.split()
        if words[:2] == ["quarter", "to"]:
            late = _number(" ".join(words[2:])) % 12 * 60 - 15
            return late % 720 + (720 if half == "pm" else 0)
        if words[1:2] == ["past"]:
            hour, minute = _number(" ".join(words[2:])), {"quarter": 15, "half": 30}[words[0]]
        else:
            hour, minute = _number(words[0]), _number(" ".join(words[1:])) if words[1:] else 0
    return hour % 12 * 60 + minute + (720 if half == "pm" else 0)


def _number(said: str) -> int:
    return int(said) if said.isdigit() else VALUES[said]


def test_everything_else_is_answered_unknown() -> None:
    for example in islice(draw("test", 5), 400):
        assert (example.task == "unknown") == (example.answer == ANSWER)


def test_two_commands_in_one_breath_get_two_answers_or_a_delay() -> None:
    for example in islice(draw("train", 5, {"compound": 1}), 500):
        assert "; " in example.answer or re.match(r"in \d+ min ", example.answer)
