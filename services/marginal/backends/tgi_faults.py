"""What it means when Hugging Face's client raises, in our own errors; the engine's words are never told."""

from collections.abc import Mapping

import httpx2
from huggingface_hub.errors import (
    GenerationError,
    HfHubHTTPError,
    IncompleteGenerationError,
    InferenceTimeoutError,
    OverloadedError,
    TextGenerationError,
    ValidationError,
)

from marginal.backends.engine_errors import Complaint, complaint
from marginal.backends.tgi_connection import NoEvents, TooLong
from marginal.errors import BackendProtocol, MarginalError, StreamInterrupted, TierUnavailable

NOT_UNDERSTOOD = "the engine sent an event that cannot be understood"

_KINDS = {
    OverloadedError: ("overloaded", 429),
    ValidationError: ("validation", 422),
    GenerationError: ("generation", 424),
    IncompleteGenerationError: ("incomplete_generation", 500),
}
"""The engine's names for what happened, and the status it gives them outside of streams."""


class Raised(Exception):
    """The client raised `error`."""

    def __init__(self, error: Exception) -> None:
        super().__init__(type(error).__name__)
        self.error = error


def complained(error: Exception) -> Complaint | None:
    """What the engine says of a request in its stream or by HTTP; None for what it did not say."""
    error = error.__cause__ if isinstance(error.__cause__, HfHubHTTPError) else error
    if isinstance(error, HfHubHTTPError):
        response = error.response
        return complaint(_body(response), status=response.status_code, retry_after=response.headers.get("Retry-After"))
    if not isinstance(error, TextGenerationError):
        return None
    said: object = error.args[0] if error.args else ""
    if type(error) in _KINDS:
        kind, status = _KINDS[type(error)]
        return complaint({"message": said, "type": kind}, status=status)
    if isinstance(said, Mapping):  # the chat route's form, which the client hands on as it is
        code = said.get("http_status_code")
        return complaint(said, status=code if isinstance(code, int) else None)
    return complaint(said)


def fault(error: Exception, *, begun: bool) -> MarginalError:
    """One of our errors for anything the client raises, `begun` after the first token."""
    if isinstance(error, MarginalError):
        return error
    said, broken = complained(error), StreamInterrupted if begun else TierUnavailable
    if said is not None:
        return said.error(begun=begun)
    if isinstance(error, TooLong):
        return BackendProtocol("the engine sent an event that is too large")
    if isinstance(error, NoEvents):
        return BackendProtocol("what answers there is no engine: it sends pages for people")
    if isinstance(error, InferenceTimeoutError | httpx2.TimeoutException):
        return broken("the engine does not answer")
    if isinstance(error, httpx2.HTTPError | httpx2.StreamError | OSError):
        return broken("the connection to the engine was lost" if begun else "the engine cannot be reached")
    return BackendProtocol(NOT_UNDERSTOOD)


def _body(response: httpx2.Response) -> object:
    try:
        body: object = response.json()
    except (ValueError, httpx2.StreamError):
        return None
    return body
