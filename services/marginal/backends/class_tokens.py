"""The tokens that the classes of a declared set begin with, for engines that report chosen candidates (vLLM)."""

from typing import Any

from marginal.backends.http_calls import HttpCalls
from marginal.errors import MarginalError
from marginal.policy.evidence import MOST_ALTERNATIVES
from marginal.policy.scores import SCORES
from marginal.tokens import Generation

SETS_REMEMBERED = 256


class ClassTokens:
    """Asks the engine's tokenizer once per class set; an engine that has none like vLLM's is not asked again."""

    def __init__(self, calls: HttpCalls) -> None:
        self._calls = calls
        self._known: dict[tuple[str, ...], tuple[int, ...]] = {}
        self._absent = False

    async def of(self, generation: Generation, model: str) -> tuple[int, ...]:
        """The first tokens of every class in its usual spellings; empty where the best candidates serve better.

        vLLM reports chosen candidates instead of the best, at every position: they are asked for only when nothing but
        the first token is judged. More than 20 ids are too many for its defaults. With them every class is listed, and
        no score over the set is `bounded`.
        """
        classes = generation.choices
        if self._absent or not classes or not generation.alternatives or not _judges_one_token(generation):
            return ()
        if classes not in self._known:
            try:
                found = await self._asked(classes, model)
            except MarginalError:
                return ()
            if len(self._known) >= SETS_REMEMBERED:
                self._known.clear()
            self._known[classes] = found
        return self._known[classes]

    async def _asked(self, classes: tuple[str, ...], model: str) -> tuple[int, ...]:
        ids: list[int] = []
        for name in classes:
            for spelling in dict.fromkeys((name, name.capitalize(), f" {name}", f" {name.capitalize()}")):
                body = {"model": model, "prompt": spelling, "add_special_tokens": False}
                first = _first(await self._calls.ask("/tokenize", body))
                if first is None:
                    self._absent = True
                    return ()
                ids.append(first)
                if len(set(ids)) > MOST_ALTERNATIVES:
                    return ()
        return tuple(dict.fromkeys(ids))


def _judges_one_token(generation: Generation) -> bool:
    rule = generation.early_stop
    if rule is None or rule.score not in SCORES:
        return False
    return rule.window == 1 or SCORES[rule.score].one_token


def _first(answer: tuple[int, Any]) -> int | None:
    """The first id as vLLM tells it, with the length that the model holds; None from other engines."""
    status, body = answer
    tokens = body.get("tokens") if status == 200 and isinstance(body, dict) and "max_model_len" in body else None
    first = tokens[0] if isinstance(tokens, list) and tokens else None
    return first if isinstance(first, int) else None
