"""Probes a model as far as it lets itself be: what an operator wants to know of an engine before it becomes a tier."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import fmean, median

from marginal.errors import MarginalError
from marginal.policy.evidence import MOST_ALTERNATIVES
from marginal.routing.evidence import PROBE_SECONDS, QUESTION, Heard, Lack, before_sampling, hear, judged, lack
from marginal.routing.ports import LanguageModel
from marginal.tokens import Evidence, Generation, Message, ModelDescription, Role, Sampling

TIMES = 3
"""First tokens that are timed."""

LONG = Generation(
    messages=(Message(Role.USER, "count from one to fifty"),),
    sampling=Sampling(max_tokens=64),
    alternatives=QUESTION.alternatives,
)
MANY = replace(QUESTION, alternatives=MOST_ALTERNATIVES)
STEPS = TIMES + 4

Tell = Callable[[str], None]
"""Is told of each step what it finds out."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What was seen of a model; None could not be seen.

    `evidence` is what the start-up probe would report. `alternatives` are those given of MOST_ALTERNATIVES asked.
    `lack` is what is wrong with its log-probabilities. Chunks are counted in tokens over an answer of 64 at most.
    """

    description: ModelDescription | None
    evidence: Evidence
    lack: Lack | None = None
    fault: str | None = None
    alternatives: int = 0
    largest_chunk: int = 0
    mean_chunk: float = 0.0
    first_token_ms: float | None = None
    tokens_per_second: float | None = None

    @property
    def answers(self) -> bool:
        """Whether text came: what a large tier must do."""
        return self.fault is None and self.lack is not Lack.NO_TEXT


async def examine(model: LanguageModel, *, tell: Tell = lambda _: None, timeout: float = PROBE_SECONDS) -> Findings:
    """Asks the model a handful of small questions, one after the other; never raises what a model raises.

    `timeout` is in seconds, for each question.
    """
    tell("its model")
    description = await _description(model)
    short: list[Heard] = []
    for _ in range(TIMES):
        tell("its log-probabilities")
        short.append(await hear(model, QUESTION, timeout=timeout))
        if short[0].fault is not None:
            return Findings(description, judged(short[0]), fault=short[0].fault)
    tell("sampling")
    evidence, found = judged(short[0]), lack(short[0].tokens)
    if evidence.proven:
        evidence = replace(evidence, before_sampling=await before_sampling(model, short[0], timeout=timeout))
    tell("its pace")
    long = await hear(model, LONG, timeout=timeout)
    tell("its alternatives")
    # the last question: an engine that refuses this many may be asked for none from then on
    many = await hear(model, MANY, timeout=timeout)
    sizes = [len(chunk) for chunk in (long if long.chunks else short[0]).chunks]
    firsts = [one.first_token_seconds for one in short if one.first_token_seconds is not None]
    return Findings(
        description,
        evidence,
        lack=found[0] if found else None,
        alternatives=max(evidence.alternatives, many.fewest_alternatives),
        largest_chunk=max(sizes, default=0),
        mean_chunk=fmean(sizes) if sizes else 0.0,
        first_token_ms=1_000 * median(firsts) if firsts else None,
        tokens_per_second=_pace(long),
    )


async def _description(model: LanguageModel) -> ModelDescription | None:
    try:
        return await model.describe()
    except MarginalError:
        return None


def _pace(heard: Heard) -> float | None:
    """Tokens per second after the first chunk; None when there was no more than that."""
    if heard.first_token_seconds is None or len(heard.chunks) < 2 or heard.seconds <= heard.first_token_seconds:
        return None
    later = len(heard.tokens) - len(heard.chunks[0])
    return later / (heard.seconds - heard.first_token_seconds)
