"""A router over two scripted tiers, and what a caller of it saw."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from evidence import sure
from fakes import RememberingLedger, RememberingRecorder, SteppingClock
from marginal.backends.scripted import Script, ScriptedModel
from marginal.errors import MarginalError
from marginal.policy.scores import QUANTILE
from marginal.policy.thresholds import Fixed, Threshold
from marginal.pricing import Price, price_version
from marginal.routing.admission import Admission
from marginal.routing.book import PolicyBook
from marginal.routing.concurrency import AdaptiveLimit, LimitRules
from marginal.routing.policies import BypassRules, Criterion, DegradeRules, Policies, Policy, Rule, ShadowRules
from marginal.routing.records import CostRecord
from marginal.routing.requests import Criticality, Delta, Mode, OnDegrade, Request
from marginal.routing.router import Router
from marginal.routing.shadows import Shadows
from marginal.routing.tenant_limits import TenantLimits
from marginal.routing.tenants import TenantRules, Tenants
from marginal.routing.terms import Step
from marginal.routing.tiers import TierState
from marginal.routing.waiting import Places, WaitingRules
from marginal.tokens import Generation, Message, Role, Sampling, Tier

INPUT_TOKENS = 10
PRICES = {
    Tier.SMALL: Price(input_nanos_per_million=1_000_000, output_nanos_per_million=10_000_000, call_nanos=100),
    Tier.LARGE: Price(input_nanos_per_million=20_000_000, output_nanos_per_million=200_000_000, call_nanos=1000),
}
SURE = tuple(sure(0.9, text=text) for text in ("sure", " of", " it"))
UNSURE = (sure(0.9, text="not"), sure(0.1, text=" so"), sure(0.9, text=" sure"))
LARGE = (sure(0.9, text="large"), sure(0.9, text=" answer"))


def criterion(start: Callable[[], Threshold], *, fingerprint: str = "", exact: bool = False) -> Criterion:
    """The smallest margin of the first three tokens against a threshold."""
    return Criterion("min_margin", 3, QUANTILE, Rule("test", "as the test says", start, exact), fingerprint)


def script(tokens: tuple = SURE, fault: MarginalError | None = None, *, fault_at: int = 0, delay: float = 0) -> Script:
    return Script(tokens, input_tokens=INPUT_TOKENS, fault=fault, fault_at=fault_at, first_delay_seconds=delay)


def roomy() -> Places:
    """Places for everybody."""
    return Places(AdaptiveLimit(LimitRules(initial=1000, minimum=1000, maximum=1000)), WaitingRules())


@dataclass
class Cascade:
    """Scripts of both tiers and the policy; `ask` sends one request and remembers every delta.

    `replies` are the small tier's for certain prompts, so that requests at the same time can differ.
    """

    small: Script = field(default_factory=script)
    replies: Mapping[str, Script] = field(default_factory=dict)
    large: Script = field(default_factory=lambda: script(LARGE))
    threshold: Threshold = field(default_factory=lambda: Fixed(0.5))
    degrade: DegradeRules = field(default_factory=DegradeRules)
    bypass: BypassRules = field(default_factory=BypassRules)
    defer_without_score: bool = True
    mode: Mode = Mode.AUTO
    shadow: ShadowRules = field(default_factory=ShadowRules)
    tasks: Mapping[str, Criterion] = field(default_factory=dict)
    rules: TenantRules = field(default_factory=TenantRules)
    prices: Mapping[Tier, Price] = field(default_factory=lambda: PRICES)
    lot: float = 0.0
    waits_for_the_whole: bool = False

    def __post_init__(self) -> None:
        self.deltas: list[Delta] = []
        self.served: list[CostRecord] = []
        self.recorder = RememberingRecorder()
        self.clock = SteppingClock()
        self.small_model = ScriptedModel(
            lambda asked: self.replies.get(asked.messages[-1].text, self.small), name="tiny"
        )
        self.large_model = ScriptedModel(lambda _: self.large, name="huge")
        models = {Tier.SMALL: self.small_model, Tier.LARGE: self.large_model}
        self.tiers = {tier: TierState(tier, model, roomy()) for tier, model in models.items()}
        policy = Policy(
            name="test",
            version="1",
            criterion=criterion(lambda: self.threshold),
            tasks=self.tasks,
            mode=self.mode,
            shadow=self.shadow,
            defer_without_score=self.defer_without_score,
            currency="USD",
            prices=self.prices,
            price_version=price_version("USD", self.prices),
            degrade=self.degrade,
        )
        self.book = PolicyBook(Policies({"test": policy}, "test", self.bypass))
        self.shadows = Shadows(lambda: self.lot, self.clock)
        self.ledger = RememberingLedger()
        self.steps: list[Step] = []
        tenants = Tenants(others=self.rules)
        admission = Admission(
            self.tiers,
            lambda: tenants,
            TenantLimits(tenants.rules),
            self.ledger,
            self.clock,
            self.steps.append,
        )
        self.router = Router(
            self.tiers,
            book=self.book,
            shadows=self.shadows,
            recorder=self.recorder,
            admission=admission,
            ledger=self.ledger,
            clock=self.clock,
            step=self.steps.append,
        )

    async def ask(
        self,
        *,
        mode: Mode = Mode.AUTO,
        on_degrade: OnDegrade = OnDegrade.SERVE,
        policy: str = "",
        task: str = "",
        tenant: str = "default",
        seconds: float = 10.0,
        choices: tuple[str, ...] = (),
        max_nanos: int | None = None,
        max_currency: str = "USD",
        criticality: Criticality = Criticality.CRITICAL,
        max_tokens: int = 256,
        prompt: str = "who knows?",
    ) -> CostRecord:
        generation = Generation((Message(Role.USER, prompt),), Sampling(max_tokens=max_tokens), choices=choices)
        request = Request(
            "request-1",
            generation,
            policy=policy,
            task=task,
            mode=mode,
            on_degrade=on_degrade,
            tenant=tenant,
            max_nanos=max_nanos,
            max_currency=max_currency,
            criticality=criticality,
        )
        async with self.router.route(request, self.send, timeout=seconds, retract=self.retract) as record:
            self.served.append(record)
        return record

    async def send(self, delta: Delta) -> None:
        self.deltas.append(delta)

    def retract(self) -> bool:
        if self.waits_for_the_whole:
            self.deltas.clear()
        return self.waits_for_the_whole

    @property
    def text(self) -> str:
        return "".join(token.text for delta in self.deltas for token in delta.tokens)

    @property
    def outcomes(self) -> list[tuple[Tier, str, int]]:
        """Tier, outcome and output tokens of every attempt."""
        return [(each.tier, each.outcome.value, each.usage.output_tokens) for each in self.recorder.attempts]
