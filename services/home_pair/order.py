"""Tasks about what comes first: compare, sort, calendar."""

from random import Random

from home_pair import vocabulary as words
from home_pair.tasks import Fact, Task

_PAIRS = (("kilos", "grams", "kg", "g", 1000), ("hours", "minutes", "hours", "min", 60))


def _compare(rng: Random) -> Fact:
    form = rng.choice(("more", "less"))
    long, short, long_symbol, short_symbol, scale = rng.choice(_PAIRS)
    if rng.random() < 0.5:
        first = rng.randrange(11, 100)
        second = rng.randrange(11, 100)
        while second == first:
            second = rng.randrange(11, 100)
        quantities = [(first, first, short, short_symbol), (second, second, short, short_symbol)]
    else:
        large = rng.randrange(2, 7)
        step = scale // 2
        halves = rng.choice([n for n in range(1, 14) if n != 2 * large])
        quantities = [
            (large * scale, large, long, long_symbol),
            (halves * step, halves * step, short, short_symbol),
        ]
        rng.shuffle(quantities)
    picked = max(quantities) if form == "more" else min(quantities)
    (_, a, unit_a, _), (_, b, unit_b, _) = quantities
    slots: dict[str, int | str] = {"a": f"{a} {unit_a}", "b": f"{b} {unit_b}"}
    return Fact(form, slots, f"{picked[1]} {picked[3]}")


compare = Task(
    "compare",
    _compare,
    {
        "more": (
            "which is more , {a} or {b}",
            "what is more , {a} or {b}",
            "is {a} or {b} more",
            "the larger of {a} and {b}",
            "which is larger , {a} or {b}",
            "{a} or {b} , which is more",
            "{a} or {b} , which is larger",
            "more , {a} or {b}",
            "what is larger , {a} or {b}",
        ),
        "less": (
            "which is less , {a} or {b}",
            "what is less , {a} or {b}",
            "is {a} or {b} less",
            "the smaller of {a} and {b}",
            "which is smaller , {a} or {b}",
            "{a} or {b} , which is less",
            "{a} or {b} , which is smaller",
            "less , {a} or {b}",
            "what is smaller , {a} or {b}",
        ),
    },
    split_by="wording",
    is_question=True,
)


def _sort(rng: Random) -> Fact:
    numbers = rng.sample(range(10, 60), 3)
    form = rng.choice(("down", "up"))
    ordered = sorted(numbers, reverse=form == "down")
    return Fact(form, dict(zip("abc", numbers, strict=True)), " ".join(map(str, ordered)))


sort = Task(
    "sort",
    _sort,
    {
        "down": (
            "sort {a} , {b} , {c} , largest first",
            "[sort|order] {a} {b} {c} from [large|high] to [small|low]",
            "put {a} , {b} and {c} in order , largest first",
            "[sort|order] {a} , {b} and {c} downwards",
            "largest first , {a} {b} {c}",
            "{a} {b} {c} from [large|high] to [small|low]",
            "[sort|order] {a} {b} {c} with the largest first",
            "{a} , {b} , {c} , largest first",
            "downwards , {a} {b} {c}",
        ),
        "up": (
            "sort {a} , {b} , {c} , smallest first",
            "[sort|order] {a} {b} {c} from [small|low] to [large|high]",
            "put {a} , {b} and {c} in order , smallest first",
            "[sort|order] {a} , {b} and {c} upwards",
            "smallest first , {a} {b} {c}",
            "{a} {b} {c} from [small|low] to [large|high]",
            "[sort|order] {a} {b} {c} with the smallest first",
            "{a} , {b} , {c} , smallest first",
            "upwards , {a} {b} {c}",
        ),
    },
)


def _calendar(rng: Random) -> Fact:
    form, sign = rng.choice((("after", 1), ("before", -1)))
    count = rng.randrange(1, 5)
    roll = rng.random()
    if roll < 0.35:
        at = rng.randrange(7)
        return _offset(form, "days", count, words.DAYS[at], words.DAYS[(at + sign * count) % 7])
    if roll < 0.65:
        at = rng.randrange(12)
        return _offset(form, "months", count, words.MONTHS[at], words.MONTHS[(at + sign * count) % 12])
    month = rng.randrange(12)
    day = rng.randrange(1, words.MONTH_LENGTHS[month] + 1)
    start = f"{day} {words.MONTHS[month]}"
    moved, last = day + sign * count, words.MONTH_LENGTHS[month]
    if moved < 1:
        month = (month - 1) % 12
        moved += words.MONTH_LENGTHS[month]
    elif moved > last:
        month = (month + 1) % 12
        moved -= last
    return _offset(form, "days", count, start, f"{moved} {words.MONTHS[month]}")


def _offset(form: str, unit: str, count: int, start: str, end: str) -> Fact:
    return Fact(form, {"n": count, "unit": unit if count > 1 else unit[:-1], "start": start}, end)


calendar = Task(
    "calendar",
    _calendar,
    {
        "after": (
            "what is {n} {unit} after {start}",
            "what comes {n} {unit} after {start}",
            "{n} {unit} after {start}",
            "which is {n} {unit} after {start}",
            "{start} plus {n} {unit}",
            "{n} {unit} later than {start}",
            "what is {n} {unit} later than {start}",
            "count {n} {unit} on from {start}",
            "which comes {n} {unit} after {start}",
        ),
        "before": (
            "what is {n} {unit} before {start}",
            "what comes {n} {unit} before {start}",
            "{n} {unit} before {start}",
            "which is {n} {unit} before {start}",
            "{start} minus {n} {unit}",
            "{n} {unit} earlier than {start}",
            "what is {n} {unit} earlier than {start}",
            "count {n} {unit} back from {start}",
            "which comes {n} {unit} before {start}",
        ),
    },
    split_by="wording",
    is_question=True,
)
