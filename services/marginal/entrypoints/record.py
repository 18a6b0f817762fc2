"""`marginal record`: both tiers asked the same questions directly, their answers graded and kept as a run."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from marginal.entrypoints import reaching
from marginal.entrypoints.groups import together
from marginal.entrypoints.progress import counted
from marginal.errors import BackendProtocol, ConfigurationError, InvalidRequest, MarginalError, TierUnavailable
from marginal.evaluation.graders import grader
from marginal.evaluation.questions import Question
from marginal.evaluation.results import LARGE, Header, Row, TierResult
from marginal.evaluation.run_writer import RunWriter
from marginal.policy.evidence import MOST_ALTERNATIVES
from marginal.policy.scores import SCORES, judge
from marginal.pricing import Price
from marginal.routing.busy import BusyTime
from marginal.routing.ports import LanguageModel
from marginal.tokens import Generation, Message, ModelDescription, Role, Sampling, Tier, Token, Usage
from marginal.transport import model_servicer
from marginal.transport.remote_model import connected
from marginal.transport.remote_pool import RemotePool
from marginal.transport.router_client import wait_until_serving

READY_SECONDS = 3.0
TRIES = 2
AGAIN_AFTER_SECONDS = 0.5
MOST_REPORTED = 10
"""Failures that are told one by one; a tier that is gone fails every question."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to ask whom and how to grade it; targets are HOST:PORT, `timeout_seconds` are for one answer.

    `labels` is one of `evaluation.results.LABELS`; with the large tier's answers as labels that tier is always right.
    """

    questions: tuple[Question, ...]
    targets: Mapping[Tier, str]
    prices: Mapping[Tier, Price]
    currency: str
    grader: str
    labels: str
    sampling: Sampling
    concurrency: int
    timeout_seconds: float
    texts: bool
    output: Path


@dataclass(frozen=True, slots=True)
class Recorded:
    """How a recording ended: questions asked now, questions that were there before, and those that got no answer."""

    asked: int
    resumed: int
    failed: int


@dataclass(frozen=True, slots=True)
class Reply:
    """One tier's answer to one question; seconds from the request on."""

    tokens: tuple[Token, ...]
    usage: Usage
    seconds: float
    first_token_seconds: float | None
    busy_micros: int

    @property
    def text(self) -> str:
        """The whole answer."""
        return "".join(token.text for token in self.tokens)


async def record(plan: Plan, *, progress: Console) -> Recorded:
    """Asks what the run has not yet and appends each row when it is there. Raises ConfigurationError, ModelFault."""
    async with _tier(plan, Tier.SMALL) as small, _tier(plan, Tier.LARGE) as large:
        header = _header(plan, await small.describe(), await large.describe())
        with RunWriter(plan.output, header) as run:
            wanted = [question for question in plan.questions if question.id not in run.done]
            resumed = len(plan.questions) - len(wanted)
            if run.done:
                progress.print(f"resumed, {resumed} of {len(plan.questions)} were there", soft_wrap=True)
            asking = Asking(plan, header.alternatives, {Tier.SMALL: small, Tier.LARGE: large})
            failed = await _ask_all(asking, wanted, run, concurrency=plan.concurrency, progress=progress)
    return Recorded(len(wanted) - failed, resumed, failed)


@asynccontextmanager
async def _tier(plan: Plan, tier: Tier) -> AsyncIterator[RemotePool]:
    """A tier that is serving. Raises ConfigurationError."""
    target, tls = plan.targets[tier], reaching.current().tls
    try:
        await wait_until_serving(
            target, model_servicer.SERVICE, timeout_seconds=READY_SECONDS, tls=reaching.current().tls
        )
    except TierUnavailable:
        raise ConfigurationError(
            f"no {tier.value} model is ready at {target}: start one with `marginal up`,"
            f" or name another with --{tier.value}"
        ) from None
    async with connected(target, tls=tls) as model:
        yield model


def _header(plan: Plan, small: ModelDescription, large: ModelDescription) -> Header:
    return Header(
        small=small.name,
        large=large.name,
        currency=plan.currency,
        grader=plan.grader,
        labels=plan.labels,
        sampling=plan.sampling,
        alternatives=min(MOST_ALTERNATIVES, small.max_alternatives),
        created=now(),
    )


def now() -> str:
    """The time as a run's header has it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Asking:
    """Asks both tiers a question at the same time and makes a row of it."""

    def __init__(
        self,
        plan: Plan,
        alternatives: int,
        tiers: Mapping[Tier, LanguageModel],
        *,
        again_after_seconds: float = AGAIN_AFTER_SECONDS,
    ) -> None:
        """`alternatives` are asked of the small tier; the large one gives no evidence."""
        self._plan = plan
        self._grade = grader(plan.grader)
        self._alternatives = {Tier.SMALL: alternatives, Tier.LARGE: 0}
        self._tiers = tiers
        self._again_after_seconds = again_after_seconds
        self._busy = {tier: BusyTime() for tier in tiers}

    async def row(self, question: Question) -> Row:
        """Asks, and once more when that failed. Raises MarginalError."""
        for tries_left in reversed(range(TRIES)):
            try:
                async with together() as group:
                    small = group.create_task(self._reply(Tier.SMALL, question))
                    large = group.create_task(self._reply(Tier.LARGE, question))
                return self._graded(question, small.result(), large.result())
            except InvalidRequest:
                raise
            except MarginalError:
                if not tries_left:
                    raise
            await asyncio.sleep(self._again_after_seconds)
        raise AssertionError("the last try returns or raises")

    async def _reply(self, tier: Tier, question: Question) -> Reply:
        generation = Generation(
            messages=(Message(Role.USER, question.request),),
            sampling=self._plan.sampling,
            alternatives=self._alternatives[tier],
            choices=question.choices,
        )
        tokens: list[Token] = []
        usage, first, finish, started = Usage(), None, None, time.perf_counter()
        began = self._busy[tier].begin(started)
        try:
            async with aclosing(self._tiers[tier].generate(generation, timeout=self._plan.timeout_seconds)) as chunks:
                async for chunk in chunks:
                    if chunk.tokens and first is None:
                        first = time.perf_counter() - started
                    tokens += chunk.tokens
                    usage, finish = chunk.usage, chunk.finish
        finally:
            ended = time.perf_counter()
            busy_micros = self._busy[tier].end(began, ended)
        if finish is None:
            raise BackendProtocol(f"the {tier.value} model ended its answer without saying why")
        return Reply(tuple(tokens), usage, ended - started, first, busy_micros)

    def _graded(self, question: Question, small: Reply, large: Reply) -> Row:
        agrees = self._grade(small.text, large.text)
        by_large = self._plan.labels == LARGE
        judged = {name: judge(name, small.tokens, choices=question.choices) for name in SCORES}
        return Row(
            id=question.id,
            task=question.task,
            small=self._result(Tier.SMALL, small, agrees if by_large else question.graded(small.text, self._grade)),
            large=self._result(Tier.LARGE, large, by_large or question.graded(large.text, self._grade)),
            tokens=small.tokens,
            scores={name: score for name, score in judged.items() if score is not None},
            choices=question.choices,
            agrees=agrees,
        )

    def _result(self, tier: Tier, reply: Reply, correct: bool) -> TierResult:
        return TierResult(
            correct=correct,
            usage=reply.usage,
            cost_nanos=self._plan.prices[tier].cost(reply.usage, reply.busy_micros),
            seconds=reply.seconds,
            first_token_seconds=reply.first_token_seconds,
            text=reply.text if self._plan.texts else None,
        )


async def _ask_all(
    asking: Asking, questions: Sequence[Question], run: RunWriter, *, concurrency: int, progress: Console
) -> int:
    """Asks `concurrency` questions at a time; tells what failed, and says how many did."""
    slots = asyncio.Semaphore(concurrency)
    failures: Counter[str] = Counter()

    async def within_slots(question: Question, tell: Callable[[str], None]) -> None:
        async with slots:
            try:
                run.append(await asking.row(question))
            except ConfigurationError:
                raise
            except MarginalError as error:
                failures[type(error).__name__] += 1
                if failures.total() <= MOST_REPORTED:
                    progress.print(f"question {question.id} is left out: {error}", style="yellow", soft_wrap=True)
        tell(question.task)

    with counted(progress, total=len(questions)) as tell:
        async with together() as group:
            for question in questions:
                group.create_task(within_slots(question, tell))
    if failures.total() > MOST_REPORTED:
        kinds = ", ".join(f"{times} {kind}" for kind, times in failures.most_common())
        progress.print(f"{failures.total()} questions are left out in all: {kinds}", style="yellow", soft_wrap=True)
    return failures.total()
