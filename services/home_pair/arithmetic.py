"""Tasks to be calculated: add, times, convert."""

from fractions import Fraction
from random import Random

from home_pair.tasks import Fact, Task


def _add(rng: Random) -> Fact:
    first, second = rng.randrange(3, 50), rng.randrange(2, 16)
    if rng.random() < 0.5 or second > first:
        return Fact("plus", {"a": first, "b": second}, str(first + second))
    return Fact("minus", {"a": first, "b": second}, str(first - second))


add = Task(
    "add",
    _add,
    {
        "plus": (
            "what is {a} plus {b}",
            "how much is {a} plus {b}",
            "{a} plus {b}",
            "{a} + {b}",
            "add {b} to {a}",
            "what do {a} and {b} make",
            "what do {a} and {b} make together",
            "the sum of {a} and {b}",
            "what is the sum of {a} and {b}",
            "i have {a} [eggs|apples|lemons|plates] and get {b} more , how many are [there|that]",
            "there are {a} [eggs|apples|lemons|plates] and {b} more , how many together",
            "how many are {a} and {b}",
            "{a} and {b} more , how many is that",
            "how much is {a} and {b} together",
        ),
        "minus": (
            "what is {a} minus {b}",
            "how much is {a} minus {b}",
            "{a} minus {b}",
            "{a} - {b}",
            "take {b} from {a}",
            "take {b} away from {a}",
            "what is left of {a} without {b}",
            "i have {a} [eggs|apples|lemons|plates] and use {b} , how many are left",
            "there are {a} [eggs|apples|lemons|plates] and i take {b} , how many are left",
            "how many are left of {a} without {b}",
            "the difference of {a} and {b}",
            "what is the difference of {a} and {b}",
            "{a} take away {b}",
            "how much is {a} take away {b}",
        ),
    },
    split_by="wording",
    is_question=True,
)


def _times(rng: Random) -> Fact:
    first, second = rng.randrange(2, 10), rng.randrange(3, 13)
    return Fact("times", {"a": first, "b": second}, str(first * second))


times = Task(
    "times",
    _times,
    {
        "times": (
            "what is {a} times {b}",
            "how much is {a} times {b}",
            "{a} times {b}",
            "{a} x {b}",
            "{a} * {b}",
            "multiply {a} by {b}",
            "{a} [boxes|bags|trays] of {b} [eggs|apples|buns|plates] , how many is that",
            "how many [eggs|apples|buns|plates] are in {a} [boxes|bags|trays] of {b}",
            "i have {a} [boxes|bags|trays] with {b} [eggs|apples|buns|plates] each , how many is that",
            "the product of {a} and {b}",
            "what is the product of {a} and {b}",
            "{b} for each of {a} [people|guests] , how many is that",
            "what is {a} multiplied by {b}",
            "how many is {a} times {b}",
        )
    },
    split_by="wording",
    is_question=True,
)


_SCALES = (
    ("kilos", "grams", 1000, "g"),
    ("liters", "milliliters", 1000, "ml"),
    ("hours", "minutes", 60, "min"),
    ("minutes", "seconds", 60, "sec"),
)
_CUPS = (
    Fraction(1, 8),
    Fraction(1, 4),
    Fraction(3, 8),
    Fraction(1, 2),
    Fraction(3, 4),
    Fraction(1, 3),
    Fraction(2, 3),
)
_INGREDIENTS = ("sugar", "flour", "milk", "rice", "oats", "butter", "water", "honey")


def _convert(rng: Random) -> Fact:
    if rng.random() < 0.4:
        cups = rng.choice(_CUPS)
        form, factor = rng.choice((("double", 2), ("half", Fraction(1, 2))))
        return Fact(form, {"cups": str(cups), "what": rng.choice(_INGREDIENTS)}, str(cups * factor))
    long, short, scale, symbol = rng.choice(_SCALES)
    if scale == 60:
        amount: int | str = rng.randrange(2, 10)
        answer = str(int(amount) * scale)
    else:
        halves = rng.randrange(3, 20)
        amount = halves // 2 if halves % 2 == 0 else f"{halves // 2}.5"
        answer = str(halves * scale // 2)
    return Fact("scale", {"n": amount, "long": long, "short": short}, f"{answer} {symbol}")


convert = Task(
    "convert",
    _convert,
    {
        "scale": (
            "how many {short} are {n} {long}",
            "how many {short} are in {n} {long}",
            "how many {short} is {n} {long}",
            "what is {n} {long} in {short}",
            "what are {n} {long} in {short}",
            "{n} {long} in {short}",
            "convert {n} {long} to {short}",
            "{n} {long} to {short}",
            "turn {n} {long} into {short}",
            "i have {n} {long} , how many {short} is that",
            "how much is {n} {long} in {short}",
        ),
        "double": (
            "what is twice {cups} cup of {what}",
            "what is double {cups} cup of {what}",
            "double {cups} cup of {what}",
            "twice {cups} cup of {what}",
            "two times {cups} cup of {what}",
            "the recipe needs {cups} cup of {what} and i double it",
            "how much is twice {cups} cup of {what}",
            "how much {what} is twice {cups} cup",
            "i double {cups} cup of {what} , how much is that",
        ),
        "half": (
            "what is half of {cups} cup of {what}",
            "half of {cups} cup of {what}",
            "half {cups} cup of {what}",
            "the recipe needs {cups} cup of {what} and i make half of it",
            "the recipe needs {cups} cup of {what} and i want half",
            "how much is half of {cups} cup of {what}",
            "how much {what} is half of {cups} cup",
            "i make half of {cups} cup of {what} , how much is that",
        ),
    },
    split_by="wording",
    is_question=True,
)
