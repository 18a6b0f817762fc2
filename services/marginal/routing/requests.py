"""What a caller asks of the router, and the pieces it is answered with."""

from dataclasses import dataclass
from enum import Enum

from marginal.tokens import Generation, Tier, Token


class Mode(Enum):
    """Which tier answers."""

    AUTO = "auto"
    SMALL_ONLY = "small_only"
    LARGE_ONLY = "large_only"


class OnDegrade(Enum):
    """What to do when the policy wants the large tier and it cannot be had."""

    SERVE = "serve"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `policy` "" is the default policy, `tenant` whoever is billed."""

    request_id: str
    generation: Generation
    policy: str = ""
    mode: Mode = Mode.AUTO
    on_degrade: OnDegrade = OnDegrade.SERVE
    tenant: str = "default"


@dataclass(frozen=True, slots=True)
class Delta:
    """Tokens of the answering tier, at least one."""

    tokens: tuple[Token, ...]
    tier: Tier
