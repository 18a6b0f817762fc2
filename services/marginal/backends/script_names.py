"""Reads a scripted model from its name, e.g. `scripted:tokens=64,delay_ms=5`, so that a process can serve one.

| key | meaning | default |
|---|---|---|
| tokens | length of the answer | 16 |
| delay_ms | between tokens | 0 |
| first_delay_ms | before the first token | 0 |
| per_chunk | tokens per chunk | 1 |
| margin | p(top-1) - p(top-2) at every token, in [0, 1] | 0.9 |
| unsure | share of questions, picked by their text, that are answered with `unsure_margin` | 0 |
| unsure_margin | the margin at the first token of those | 0.05 |
| alternatives | candidates per token, 0 to 2; below 2 there is no evidence | 2 |
| fail_at | the token, counted from 0, instead of which it fails; -1 is never | -1 |
"""

import math
import zlib

from marginal.backends.scripted import Script, ScriptedModel
from marginal.errors import ConfigurationError, MarginalError, StreamInterrupted, TierUnavailable
from marginal.tokens import Alternative, Generation, Token

SCHEME = "scripted:"
LEAST_PROBABILITY = 1e-9

_DEFAULTS: dict[str, float] = {
    "tokens": 16,
    "delay_ms": 0,
    "first_delay_ms": 0,
    "per_chunk": 1,
    "margin": 0.9,
    "unsure": 0,
    "unsure_margin": 0.05,
    "alternatives": 2,
    "fail_at": -1,
}


def scripted_model(name: str) -> ScriptedModel:
    """Makes the model of a name that begins with `scripted:`. Raises ConfigurationError naming the known keys."""
    given = _DEFAULTS | _settings(name.removeprefix(SCHEME))
    sure = _script(given, first_margin=given["margin"])
    unsure = _script(given, first_margin=given["unsure_margin"])

    def script(generation: Generation) -> Script:
        return unsure if _share(generation) < given["unsure"] else sure

    return ScriptedModel(script, name=name)


def token_with_margin(text: str, margin: float, *, alternatives: int = 2) -> Token:
    """A token whose two candidates have probabilities that differ by `margin` in [0, 1] and sum to 1."""
    top, other = (1.0 + margin) / 2.0, max((1.0 - margin) / 2.0, LEAST_PROBABILITY)
    both = (Alternative(text, math.log(top), 1), Alternative("~", math.log(other), 2))
    return Token(text, math.log(top) if alternatives else None, both[:alternatives], 1)


def _settings(text: str) -> dict[str, float]:
    given: dict[str, float] = {}
    for item in filter(None, text.split(",")):
        key, _, value = item.partition("=")
        try:
            given[key] = float(value)
        except ValueError:
            raise ConfigurationError(f"model: {item} in a scripted model's name is no key=number") from None
        if key not in _DEFAULTS or not math.isfinite(given[key]):
            raise ConfigurationError(f"model: a scripted model takes no {item}, known are {', '.join(_DEFAULTS)}")
    return given


def _script(given: dict[str, float], *, first_margin: float) -> Script:
    alternatives = int(given["alternatives"])
    margins = [first_margin, *([given["margin"]] * (int(given["tokens"]) - 1))][: int(given["tokens"])]
    fail_at = int(given["fail_at"])
    return Script(
        tuple(token_with_margin(f"w{i} ", margin, alternatives=alternatives) for i, margin in enumerate(margins)),
        delay_seconds=given["delay_ms"] / 1000,
        first_delay_seconds=given["first_delay_ms"] / 1000,
        tokens_per_chunk=max(1, int(given["per_chunk"])),
        fault=None if fail_at < 0 else _fault(fail_at),
        fault_at=fail_at,
    )


def _fault(at: int) -> MarginalError:
    return StreamInterrupted("scripted to fail here") if at else TierUnavailable("scripted to fail at once")


def _share(generation: Generation) -> float:
    """Where a question lies in [0, 1), evenly spread and always the same."""
    return zlib.crc32(generation.messages[-1].text.encode()) / 2**32
