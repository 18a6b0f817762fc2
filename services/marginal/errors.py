"""Everything that can go wrong, in our own words; statuses are given in `transport/statuses.py`.

MarginalError
├── InvalidRequest        the caller's mistake, names the field
│   └── KeyReused         an idempotency key with another request than before
├── ModelFault            a language model did not do its part
│   ├── TierUnavailable   it cannot be reached, or failed before its first token
│   ├── Overloaded        it has no room now
│   ├── StreamInterrupted it failed after part of the answer had been sent
│   └── BackendProtocol   its engine answered something that cannot be understood
├── DeadlineExceeded      time ran out on the way
│   ├── DeadlineTooShort  there was too little of it to begin with
│   └── SlowConsumer      the caller did not take the answer
├── Refused               the caller may not, now or at all
│   ├── Unauthenticated   its API key is missing or not one of ours
│   ├── NotAllowed        its tenant may not use what it asked for
│   ├── RateLimited       its tenant asks too often, or too much at a time
│   ├── BudgetExceeded    its tenant has no money left in a window
│   └── CostLimited       the request may not cost what it would
├── Repeated              its idempotency key was seen before
│   ├── InProgress        the first request under it is still under way
│   └── AlreadyAnswered   the first request under it was answered
├── LedgerUnavailable     the store of budgets cannot be reached, and nothing may be spent without it
├── JournalFull           cost records cannot be written
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


class KeyReused(InvalidRequest):
    """An idempotency key came with another request than the first time."""


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


class DeadlineTooShort(DeadlineExceeded):
    """Not even the small tier could answer within the caller's deadline; nothing was begun."""


class SlowConsumer(DeadlineExceeded):
    """The caller did not take the answer for so long that it was given up."""


class Refused(MarginalError):
    """The caller may not be served; nothing was begun."""


class Unauthenticated(Refused):
    """There is no API key, or none of ours: which of both is not told."""


class NotAllowed(Refused):
    """The tenant may not use what the request names."""


class RateLimited(Refused):
    """The tenant asks too often or has too many requests under way; `retry_seconds` is when there will be room."""

    def __init__(self, text: str, *, retry_seconds: float) -> None:
        super().__init__(text)
        self.retry_seconds = retry_seconds


class BudgetExceeded(Refused):
    """The tenant's budget of a window does not cover the request; it begins anew in `reset_seconds`."""

    def __init__(self, window: str, *, reset_seconds: float) -> None:
        super().__init__(f"the tenant's budget for this {window} does not cover the request")
        self.window = window
        self.reset_seconds = reset_seconds


class CostLimited(Refused):
    """The request may not cost as much as it could at worst."""


class Repeated(MarginalError):
    """The caller's idempotency key was seen before; `request_id` is the request that came first."""

    def __init__(self, text: str, *, request_id: str) -> None:
        super().__init__(text)
        self.request_id = request_id


class InProgress(Repeated):
    """The first request under the key is still under way."""


class AlreadyAnswered(Repeated):
    """The first request under the key was answered; it is not charged again, and texts are not kept."""


class LedgerUnavailable(MarginalError):
    """The ledger's store cannot be reached, and the failure mode lets nothing be spent meanwhile."""


class JournalFull(MarginalError):
    """Cost records cannot be written, so nothing may be spent that would have to be remembered."""


class ConfigurationError(MarginalError):
    """A setting, a policy file or a model name is wrong; the text names it and the fix."""


class ModelNotFetched(ConfigurationError):
    """A model file is neither here nor to be had."""
