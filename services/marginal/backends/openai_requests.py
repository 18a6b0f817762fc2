"""What an engine is asked on OpenAI's routes, and how a request is changed when the engine does not know a field."""

import re
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from marginal.backends.control_tokens import JOINER
from marginal.backends.engine_errors import CALLERS, Complaint
from marginal.errors import InvalidRequest
from marginal.tokens import Generation, Message, Role

MAX_ALTERNATIVES = 20

CONTINUOUS = "continuous_usage_stats"
ANSWER_LENGTH = "max_tokens"
OPTIONAL = (
    CONTINUOUS,
    "include_usage",
    "stream_options",
    "timings_per_token",
    "top_k",
    "min_p",
    "seed",
    "logprob_token_ids",
    "top_logprobs",
    "logprobs",
    "temperature",
    "top_p",
    ANSWER_LENGTH,
)
"""Fields that an engine may refuse; it is asked again without the ones it names, or with their other name."""

_WORDS = re.compile(r"\w+")
_CONTROL = re.compile(r"<(?=[|\uff5c]|(?:start|end)_of_turn>|(?:EOT|eos|bos|s|/s)>)|\[(?=/?INST\])", re.IGNORECASE)


class Route(Enum):
    """Which of the two routes is asked."""

    CHAT = "chat"
    COMPLETIONS = "completions"

    @property
    def path(self) -> str:
        """Where it is, under the base URL."""
        return "/v1/chat/completions" if self is Route.CHAT else "/v1/completions"


def request(
    generation: Generation, *, model: str, route: Route, template: str, token_ids: tuple[int, ...] = ()
) -> dict[str, Any]:
    """The body that asks for a generation; `token_ids` are the candidates wanted instead of the best.

    Raises InvalidRequest for what the route cannot say.
    """
    if generation.alternatives > MAX_ALTERNATIVES:
        raise InvalidRequest("alternatives", f"{generation.alternatives} is more than {MAX_ALTERNATIVES}")
    sampling = generation.sampling
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "stream": True,
        "stream_options": {"include_usage": True, CONTINUOUS: True},
        "timings_per_token": True,
    }
    if sampling.temperature > 0:
        body |= {"top_k": 0, "min_p": 0.0}  # an engine's own defaults would narrow what was asked for
    if sampling.seed is not None:
        body["seed"] = sampling.seed % 2**32
    if route is Route.CHAT:
        body["messages"] = [
            {"role": message.role.value, "content": plain(message.text)} for message in generation.messages
        ]
        if generation.alternatives:
            body |= {"logprobs": True, "top_logprobs": generation.alternatives}
    else:
        body["prompt"] = prompt(generation.messages, template)
        if generation.alternatives:
            body["logprobs"] = generation.alternatives
    if token_ids:
        body["logprob_token_ids"] = list(token_ids)
    return body


def plain(text: str) -> str:
    """The text without anything that looks like a control token of a chat template.

    An engine's vocabulary is not known here. What has the form of one gets a U+2060 WORD JOINER after its first
    character, as in `control_tokens`: it still reads the same and is ordinary text to the tokenizer.
    """
    return _CONTROL.sub(lambda found: found[0] + JOINER, text)


def prompt(messages: tuple[Message, ...], template: str) -> str:
    """The one message of a user, set into the template. Raises InvalidRequest when there is more than that."""
    if len(messages) != 1 or messages[0].role is not Role.USER:
        raise InvalidRequest("messages", "the completions route takes one message of role user and no other")
    before, _, after = template.partition("{}")
    return f"{before}{plain(messages[0].text)}{after}"


def without(body: Mapping[str, Any], fields: Iterable[str]) -> dict[str, Any]:
    """A request without some of the optional fields; the answer's length goes by its newer name instead."""
    kept = dict(body)
    options = dict(kept.get("stream_options") or {})
    for field in fields:
        if field == ANSWER_LENGTH:
            kept["max_completion_tokens"] = kept.pop(field, None) or kept.get("max_completion_tokens")
        elif field in ("logprobs", "top_logprobs"):
            kept.pop("logprobs", None), kept.pop("top_logprobs", None)
        else:
            kept.pop(field, None)
            options.pop(field, None)
            if field == "include_usage":
                options.clear()
    if "stream_options" in kept:
        kept["stream_options"] = options
        if not options:
            del kept["stream_options"]
    return kept


def named(complaint: Complaint, body: Mapping[str, Any]) -> frozenset[str]:
    """The optional fields of a request that an engine names when it refuses it as the caller's mistake."""
    if complaint.status not in CALLERS:
        return frozenset()
    words = set(_WORDS.findall(complaint.words))
    sent = {*body, *(body.get("stream_options") or ())}
    found = [field for field in OPTIONAL if field in words and field in sent]
    return frozenset(found) - ({"stream_options"} if CONTINUOUS in found else frozenset())
