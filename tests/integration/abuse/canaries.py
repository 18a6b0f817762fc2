"""Secrets that can be told again wherever they turn up, and requests that carry them to every refusal."""

import uuid

from google.type.money_pb2 import Money

from engines.callers import Request
from integration.abuse.house import asking
from marginal.v1 import router_pb2

PROMPT, ANSWERED, CHOICE, KEY, ENGINE_KEY, IDEMPOTENCY, POLICY, OTHER = (
    f"CANARY-{what}-{uuid.uuid4()}"
    for what in ("prompt", "answer", "choice", "key", "engine-key", "idempotency", "policy", "other")
)
TRACE = b"canary-"
"""What no sink may hold in any case; the engine's answer begins with the words that it was asked."""

SLOWLY = f"{ANSWERED} slowly {PROMPT}"
FAIL, SMALL_ONLY = router_pb2.ON_DEGRADE_FAIL, router_pb2.MODE_SMALL_ONLY

POLICIES = """
default = "keeps"
currency = "USD"

[prices.small]
per_call = 0.0001

[prices.large]
per_call = 0.001

[policies.keeps]
version = "1"
score = "min_margin"
window = 2
threshold = { rule = "fixed", value = 0.0 }

[policies.defers]
version = "1"
score = "min_margin"
window = 2
threshold = { rule = "fixed", value = 1.0 }

[policies.learning]
version = "1"
score = "min_margin"
window = 2
threshold = { rule = "target_rate", rate = 0.3 }

[policies.shadowed]
version = "1"
score = "min_margin"
window = 2
mode = "shadow"
shadow = { share = 1.0, per_hour = 10.0 }
threshold = { rule = "fixed", value = 0.0 }

[policies.unhurried]
version = "1"
score = "min_margin"
window = 2
degrade = { small_floor_seconds = 600.0 }
threshold = { rule = "fixed", value = 0.0 }
"""

REFUSED: dict[str, Request | bytes] = {
    "an unknown policy": asking(PROMPT, policy=POLICY),
    "a task that is no label": asking(PROMPT, task=OTHER),
    "a single choice": asking(PROMPT, choices=[CHOICE]),
    "a choice twice": asking(PROMPT, choices=[CHOICE, CHOICE.lower()]),
    "a choice too long": asking(PROMPT, choices=["a", CHOICE * 10]),
    "a key with blanks": asking(PROMPT, idempotency_key=f"{IDEMPOTENCY} "),
    "another currency": asking(PROMPT, max_cost=Money(currency_code=OTHER, units=1)),
    "no message": b"\x0a\xff" + PROMPT.encode(),
    "not utf-8": b"\x0a\x40\xff" + PROMPT.encode(),
    "too much": asking(PROMPT * 10_000),
}
