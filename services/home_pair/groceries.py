"""The task `shopping`: what goes on the list and what comes off it."""

from random import Random

from home_pair import vocabulary as words
from home_pair.tasks import Fact, Task


def _shopping(rng: Random) -> Fact:
    roll = rng.random()
    first, second = words.grocery(rng), words.grocery(rng)
    while second == first:
        second = words.grocery(rng)
    count = rng.randrange(2, 13)
    if roll < 0.2:
        return Fact("add one", {"a": first}, f"add {first}")
    if roll < 0.4:
        return Fact("add count", {"a": first, "n": count}, f"add {count} {first}")
    if roll < 0.65:
        return Fact("add two", {"a": first, "b": second, "n": count}, f"add {first}, {count} {second}")
    if roll < 0.8:
        return Fact("drop", {"a": first}, f"drop {first}")
    return Fact("swap", {"a": first, "b": second}, f"drop {first}; add {second}")


_PLACES = "[the list|the shopping list|my list|my shopping list|the shopping]"
shopping = Task(
    "shopping",
    _shopping,
    {
        "add one": (
            f"[add|put] {{a}} [to|on] {_PLACES}",
            f"{{a}} on {_PLACES}",
            "we need [more|some] {a}",
            "[buy|get] [more|some] {a}",
            "we are out of {a}",
            "there is no {a} left",
            "i need to buy {a}",
            "we have no more {a}",
        ),
        "add count": (
            f"[add|put] {{n}} {{a}} [to|on] {_PLACES}",
            f"{{n}} {{a}} on {_PLACES}",
            "we need {n} {a}",
            "[buy|get] {n} {a}",
            "i need to buy {n} {a}",
            f"[add|put] {{a}} [to|on] {_PLACES} , {{n}} of them",
            "we need {a} , {n} of them",
        ),
        "add two": (
            f"[add|put] {{a}} and {{n}} {{b}} [to|on] {_PLACES}",
            f"{{a}} and {{n}} {{b}} on {_PLACES}",
            "we need {a} and {n} {b}",
            "[buy|get] [some|] {a} and {n} {b}",
            "i need to buy {a} and {n} {b}",
            "we are out of {a} and need {n} {b}",
            "there is no {a} left , and get {n} {b}",
        ),
        "drop": (
            f"[take|cross] {{a}} off {_PLACES}",
            f"[remove|drop|delete] {{a}} from {_PLACES}",
            "we [do not|don't] need {a} [any more|after all]",
            "no {a} after all",
            "[drop|remove] the {a}",
            "we have enough {a}",
            "do not buy {a}",
        ),
        "swap": (
            f"[replace|swap] {{a}} [with|for] {{b}} on {_PLACES}",
            "[buy|get] {b} instead of {a}",
            "we need {b} , not {a}",
            f"[take|cross] {{a}} off {_PLACES} and [add|put on] {{b}}",
            "[drop|remove] the {a} and add {b}",
            "not {a} , we need {b}",
            "instead of {a} get {b}",
            "no {a} after all , get {b}",
        ),
    },
)
