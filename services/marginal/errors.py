"""Everything that can go wrong, in our own words; statuses are given in `transport/statuses.py`.

MarginalError
├── InvalidRequest        the caller's mistake, names the field
├── ModelFault            a language model did not do its part
│   ├── TierUnavailable   it cannot be reached, or failed before its first token
│   ├── Overloaded        it has no room now
│   ├── StreamInterrupted it failed after part of the answer had been sent
│   └── BackendProtocol   its engine answered something that cannot be understood
├── DeadlineExceeded      time ran out on the way
└── ConfigurationError    the operator's mistake, names the setting and the fix
    └── ModelNotFetched   a model file could not be had
"""


class MarginalError(Exception):
    """The root; its text may be shown to a caller, so it never holds a prompt, a key or a URL with secrets."""


class InvalidRequest(MarginalError):
    """The request cannot be served as it is; `field` names the part to change."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class ModelFault(MarginalError):
    """A language model failed to answer."""


class TierUnavailable(ModelFault):
    """The model cannot be reached, or failed before its first token."""


class Overloaded(ModelFault):
    """The model is up but takes no further request now; `retry_seconds` is when it will, if it says so."""

    def __init__(self, text: str, *, retry_seconds: float | None = None) -> None:
        super().__init__(text)
        self.retry_seconds = retry_seconds


class StreamInterrupted(ModelFault):
    """The model failed after part of its answer had been sent on."""


class BackendProtocol(ModelFault):
    """The engine's answer cannot be understood."""


class DeadlineExceeded(MarginalError):
    """The deadline passed before the answer was complete."""


class ConfigurationError(MarginalError):
    """A setting, a policy file or a model name is wrong; the text names it and the fix."""


class ModelNotFetched(ConfigurationError):
    """A model file is neither here nor to be had."""
