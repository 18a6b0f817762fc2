"""What an operator can do about each thing that a probe found lacking: the engine's own flag, where there is one.

Read in the engines' sources and manuals: vLLM 0.33, SGLang 0.5, llama.cpp's server of November 2026, TGI 3.3.
"""

from collections.abc import Mapping
from enum import Enum

from marginal.backends.engine_facts import Dialect


class Shortfall(Enum):
    """What may lack; the value is what people call it."""

    UNREACHABLE = "no answer"
    NO_LOGPROBS = "log-probabilities are missing"
    IMPROPER = "log-probabilities that are none"
    FEW = "too few alternatives"
    FEWER = "fewer alternatives than scores over a set of choices look at"
    AFTER_SAMPLING = "log-probabilities change with the temperature"
    UNCOUNTED = "the engine does not count tokens"
    UNCACHED = "cached input is not told apart"
    DEAF = "a cancel does not stop the engine"
    UNSEEN = "a cancel cannot be seen"


_VLLM, _SGLANG, _LLAMA, _TGI = Dialect.VLLM, Dialect.SGLANG, Dialect.LLAMA_SERVER, Dialect.TGI
_NOT_AFTER = "leave post_sampling_probs out of --extra-body"

FLAGS: Mapping[tuple[Shortfall, Dialect], str] = {
    (Shortfall.NO_LOGPROBS, _VLLM): "start vLLM with --max-logprobs 20",
    (Shortfall.FEW, _VLLM): "start vLLM with --max-logprobs 20",
    (Shortfall.FEWER, _VLLM): "start vLLM with --max-logprobs 20",
    (Shortfall.IMPROPER, _VLLM): "start vLLM with --logprobs-mode raw_logprobs",
    (Shortfall.AFTER_SAMPLING, _VLLM): "start vLLM with --logprobs-mode raw_logprobs",
    (Shortfall.UNCACHED, _VLLM): "start vLLM with --enable-prompt-tokens-details",
    (Shortfall.UNSEEN, _VLLM): "start vLLM without --disable-log-stats",
    (Shortfall.AFTER_SAMPLING, _SGLANG): "start SGLang with SGLANG_RETURN_ORIGINAL_LOGPROB=1 in its environment",
    (Shortfall.UNCACHED, _SGLANG): "start SGLang with --enable-cache-report",
    (Shortfall.UNSEEN, _SGLANG): "start SGLang with --enable-metrics",
    (Shortfall.NO_LOGPROBS, _LLAMA): _NOT_AFTER,
    (Shortfall.AFTER_SAMPLING, _LLAMA): _NOT_AFTER,
    (Shortfall.UNSEEN, _LLAMA): "start llama-server with --metrics",
    (Shortfall.FEW, _TGI): "start TGI with --max-top-n-tokens 20",
    (Shortfall.FEWER, _TGI): "start TGI with --max-top-n-tokens 20",
    (Shortfall.AFTER_SAMPLING, _TGI): "TGI has no flag for it: ask the small tier at temperature 0",
}
"""The remedy of an engine."""

ANYWHERE: Mapping[Shortfall, str] = {
    Shortfall.UNREACHABLE: "check that it runs, its address, and --api-key-file",
    Shortfall.NO_LOGPROBS: "an API that gives none can only be the large tier",
    Shortfall.FEW: "an API that gives no more can only be the large tier",
    Shortfall.AFTER_SAMPLING: "ask the small tier at the temperature its policy was calibrated at",
    Shortfall.UNCOUNTED: "its tokens are counted as they come and its prompts estimated: costs are near, not exact",
    Shortfall.DEAF: "an engine that goes on costs what deferring was to save: look for what holds its connections",
}
"""The remedy where an engine has none of its own."""


def remedy(shortfall: Shortfall, dialect: Dialect) -> str | None:
    """What to do, None when nothing is known that helps."""
    return FLAGS.get((shortfall, dialect)) or ANYWHERE.get(shortfall)
