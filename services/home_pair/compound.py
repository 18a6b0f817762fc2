"""The task `compound`: two commands in one breath, or one command put off by some minutes."""

from random import Random
from typing import Final

from home_pair import phrasing
from home_pair.appliances import heat, light, play
from home_pair.groceries import shopping
from home_pair.moments import timer
from home_pair.tasks import Split, Task

_CLAUSES: Final = (timer, light, heat, shopping, play)
_FORMS: Final = {
    "then": (
        "{one} and then {two}",
        "{one} , then {two}",
        "first {one} , then {two}",
        "first {one} and then {two}",
    ),
    "and": ("{one} and {two}", "{one} and also {two}", "{one} , and {two}"),
    "later": (
        "in {n} minutes {one}",
        "{one} in {n} minutes",
        "{n} minutes from now {one}",
        "{one} , but in {n} minutes",
    ),
}
_IMPERATIVES: Final = (
    "add", "buy", "count", "cross", "delete", "dim", "drop", "get", "heat", "make", "pause", "play", "put",
    "remove", "replace", "set", "skip", "start", "stop", "swap", "switch", "take", "turn", "warm",
)  # fmt: skip


class Compound(Task):
    """Joins clauses of other tasks; what is held out is what those tasks hold out."""

    def draw(self, split: Split, rng: Random) -> tuple[str, str]:
        """Draws one request of a split and its answer."""
        form = rng.choices(("then", "and", "later"), (40, 30, 30))[0]
        first_task, second_task = rng.sample(_CLAUSES, 2)
        if form == "later" and first_task is timer:
            first_task = light
        one, first_answer = _clause(first_task, split, rng)
        pattern = rng.choice(_FORMS[form])
        if form == "later":
            minutes = rng.randrange(2, 60)
            body = pattern.format(one=one, n=phrasing.spoken(minutes, rng))
            answer = f"in {minutes} min {first_answer}"
        else:
            two, second_answer = _clause(second_task, split, rng)
            body, answer = pattern.format(one=one, two=two), f"{first_answer}; {second_answer}"
        return phrasing.polite(phrasing.tidy(body), False, rng), answer


def _clause(task: Task, split: Split, rng: Random) -> tuple[str, str]:
    while True:
        fact, wording, said = task.draw_clause(split, rng)
        if wording.split(" ", 1)[0] in _IMPERATIVES and ";" not in fact.answer and " , " not in wording:
            return phrasing.tidy(wording.format_map(said)), fact.answer


compound = Compound("compound", lambda rng: timer.draw_fact(rng), {})
