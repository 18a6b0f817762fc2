"""What an engine's refusal means, by its HTTP status or by an error object in its stream, in words of our own.

An engine's words may hold the prompt, the template or a key: they are searched for counts and field names, never shown.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from marginal.errors import (
    BackendProtocol,
    InvalidRequest,
    MarginalError,
    Overloaded,
    StreamInterrupted,
    TierUnavailable,
)

MOST_WORDS = 4096
"""Characters of an engine's words that are searched."""

OVERLOADED = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE, 529)
CALLERS = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY)
_OPERATORS = {
    HTTPStatus.UNAUTHORIZED: "check its API key",
    HTTPStatus.PAYMENT_REQUIRED: "check its account",
    HTTPStatus.FORBIDDEN: "check what its API key may do",
    HTTPStatus.NOT_FOUND: "check its URL, the route and the model's name",
    HTTPStatus.METHOD_NOT_ALLOWED: "check its URL and the route",
}
_TOO_LONG_KINDS = ("exceed_context_size_error", "context_length_exceeded")
_LIMIT = re.compile(r"context (?:length|size|window)[^0-9]{0,24}(\d{1,9})|must (?:be <=|have less than) (\d{1,9})")
_PROMPT = (
    re.compile(r"(\d{1,9}) input tokens"),
    re.compile(r"(\d{1,9}) tokens from the input"),
    re.compile(r"(\d{1,9}) in the (?:messages|prompt)"),
    re.compile(r"(?:input|request|prompt) \((\d{1,9}) tokens\)"),
    re.compile(r"Given: (\d{1,9})"),
    re.compile(r"(?:resulted in|requested|has) (\d{1,9}) tokens"),
)


@dataclass(frozen=True, slots=True)
class Complaint:
    """Why an engine did not answer: its status if it gave one, and the token counts it named.

    `words` are the engine's own, for finding the names of fields in them.
    """

    status: int | None
    kind: str = ""
    words: str = ""
    prompt_tokens: int | None = None
    context_tokens: int | None = None
    retry_seconds: float | None = None

    @property
    def told(self) -> bool:
        """Whether the engine said anything that was understood as a complaint."""
        return bool(self.kind or self.words)

    @property
    def room(self) -> int | None:
        """Tokens left for an answer, when it was the answer that did not fit; None when that was not it."""
        if self.prompt_tokens is None or self.context_tokens is None or self.prompt_tokens >= self.context_tokens:
            return None
        return self.context_tokens - self.prompt_tokens

    def error(self, *, begun: bool = False) -> MarginalError:
        """The domain error; `begun` says that part of the answer had come."""
        if self.kind in _TOO_LONG_KINDS or (self.context_tokens is not None and self.status in (None, *CALLERS)):
            return InvalidRequest("messages", self._too_long())
        if begun:
            return StreamInterrupted(f"the engine failed{self._with_code()}")
        if self.status in OVERLOADED or self.kind == "overloaded":
            return Overloaded("the engine has no room now, retry shortly", retry_seconds=self.retry_seconds)
        if self.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return InvalidRequest("messages", "the conversation is larger than the engine takes")
        if self.status in CALLERS:
            return InvalidRequest("messages", "the engine or its chat template takes no such conversation")
        for status, remedy in _OPERATORS.items():
            if self.status == status:
                return TierUnavailable(f"the engine refused the call with status {status.value}: {remedy}")
        return TierUnavailable(f"the engine failed{self._with_code()}")

    def _too_long(self) -> str:
        if self.prompt_tokens is None or self.context_tokens is None:
            return "the prompt has more tokens than the model holds"
        return f"the prompt has {self.prompt_tokens} tokens, the model holds {self.context_tokens}"

    def _with_code(self) -> str:
        return "" if self.status is None else f" with code {self.status}"


def complaint(error: object, *, status: int | None = None, retry_after: str | None = None) -> Complaint:
    """Reads an error body or object of any engine; a `status` given goes over the one written in it."""
    outer = error if isinstance(error, Mapping) else {"error": error}
    inner, outer_kind = outer.get("error") or outer, outer.get("error_type")
    wait = retry_seconds(retry_after)
    if not isinstance(inner, Mapping):
        inner = {"message": inner, "type": outer_kind}
    code, kind = inner.get("code"), inner.get("type")
    if status is None:
        status = _whole(code)
    kind = code if code in _TOO_LONG_KINDS else kind if isinstance(kind, str) else ""
    found = Complaint(status, str(kind), _words(inner), retry_seconds=wait)
    told = _whole(inner.get("n_prompt_tokens")), _whole(inner.get("n_ctx"))
    if None not in told:
        return Complaint(status, found.kind, found.words, *told, wait)
    return _counted(found)


def fault(event: Mapping[str, object], *, begun: bool) -> MarginalError:
    """The domain error for an event of a stream that holds an error."""
    if not isinstance(event.get("error", event), Mapping) and not event.get("error_type"):
        return BackendProtocol("the engine failed without saying how")
    return complaint(event).error(begun=begun)


def retry_seconds(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks to wait, at least 0; None without one that can be read."""
    if not header:
        return None
    try:
        return min(max(0.0, float(int(header))), 86_400.0)
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _words(inner: Mapping[object, object]) -> str:
    """Where an engine names fields: the parameter, the message, and the places of a validation error."""
    detail = inner.get("detail")
    places = (
        [place.get("loc") for place in detail if isinstance(place, Mapping)] if isinstance(detail, list) else detail
    )
    return " ".join(str(part) for part in (inner.get("param"), inner.get("message"), places) if part)[:MOST_WORDS]


def _counted(found: Complaint) -> Complaint:
    limit = _LIMIT.search(found.words)
    if limit is None:
        return found
    prompt = next((int(hit[1]) for pattern in _PROMPT if (hit := pattern.search(found.words))), None)
    context = int(limit[1] or limit[2])
    return Complaint(found.status, found.kind, found.words, prompt, context, found.retry_seconds)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None
