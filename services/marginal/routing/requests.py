"""What a caller asks of the router, and the pieces it is answered with."""

import re
from dataclasses import dataclass
from enum import Enum

from marginal.tokens import Generation, Tier, Token

TASK = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
"""What a task label looks like: it is a key of policies and of what was learnt."""


class Mode(Enum):
    """Which tier answers; under SHADOW the policy decides, and kept requests are asked of the large tier too."""

    AUTO = "auto"
    SMALL_ONLY = "small_only"
    LARGE_ONLY = "large_only"
    SHADOW = "shadow"


class OnDegrade(Enum):
    """What to do when the policy wants the large tier and it cannot be had."""

    SERVE = "serve"
    FAIL = "fail"


class Criticality(Enum):
    """Whether a request is shed before others when there is no room for all."""

    CRITICAL = "critical"
    SHEDDABLE = "sheddable"


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `policy` "" is the default policy, `task` "" no task, `tenant` whoever is billed.

    `max_nanos` of `max_currency` are the most it may cost, None is no limit. `key` names the caller's idempotency key
    without telling it ("" is none), `fingerprint` what was asked under it.
    """

    request_id: str
    generation: Generation
    policy: str = ""
    task: str = ""
    mode: Mode = Mode.AUTO
    on_degrade: OnDegrade = OnDegrade.SERVE
    tenant: str = "default"
    max_nanos: int | None = None
    max_currency: str = ""
    key: str = ""
    fingerprint: str = ""
    criticality: Criticality = Criticality.CRITICAL


@dataclass(frozen=True, slots=True)
class Delta:
    """Tokens of the answering tier, at least one."""

    tokens: tuple[Token, ...]
    tier: Tier
