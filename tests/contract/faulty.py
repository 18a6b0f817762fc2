"""One request through a real router, one of whose tiers is an engine that shows a fault, and what became of it."""

import asyncio
import os
import tempfile
import time
import traceback
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from dialects.server import DialectServer, Generated
from fakes import RememberingLedger, RememberingRecorder, open_door
from marginal.backends.openai_compatible import OpenAICompatible
from marginal.backends.patience import Timeouts
from marginal.backends.scripted import ScriptedModel
from marginal.backends.tgi import TextGenerationInference
from marginal.errors import MarginalError
from marginal.policy.thresholds import Fixed
from marginal.routing.book import PolicyBook
from marginal.routing.policies import Policies, Policy
from marginal.routing.ports import LanguageModel
from marginal.routing.records import Attempt, CostRecord
from marginal.routing.requests import Delta, Request
from marginal.routing.router import Router
from marginal.routing.shadows import Shadows
from marginal.routing.tiers import TierState
from marginal.tokens import Generation, Message, Role, Sampling, Tier
from unit.routing.cascade import LARGE, PRICES, UNSURE, criterion, script

TIMEOUTS = Timeouts(first_token_seconds=0.3, inter_token_seconds=0.3)

PATIENT = Timeouts(first_token_seconds=10.0, inter_token_seconds=10.0)
"""For whatever does not end by waiting: a slow link, or a slow machine."""

QUIET_SECONDS = 0.5
"""For an engine to notice that nobody listens; one that does not goes on generating."""

SURE_ENOUGH = 0.1
"""Every answer of the dialect server has margins above."""

NEVER_SURE = 0.9999


class Closable(LanguageModel, Protocol):
    """A language model with connections."""

    async def close(self) -> None: ...


Build = Callable[[str, Path | None, Timeouts], Closable]


@dataclass(frozen=True)
class Backend:
    """A backend under test: its dialect, and how it is made of a URL, a file with a key and its patience."""

    dialect: str
    build: Build


def _tgi(route: str) -> Backend:
    return Backend(
        "tgi", lambda url, key, timeouts: TextGenerationInference(url, route=route, api_key_file=key, timeouts=timeouts)
    )


def _openai(dialect: str, route: str) -> Backend:
    return Backend(
        dialect, lambda url, key, timeouts: OpenAICompatible(url, route=route, api_key_file=key, timeouts=timeouts)
    )


BACKENDS = {
    "TGI native": _tgi("native"),
    "TGI chat": _tgi("chat"),
    "vLLM chat": _openai("vllm", "chat"),
    "vLLM completions": _openai("vllm", "completions"),
    "SGLang chat": _openai("sglang", "chat"),
    "SGLang completions": _openai("sglang", "completions"),
    "llama-server chat": _openai("llama-server", "chat"),
    "llama-server completions": _openai("llama-server", "completions"),
}


@dataclass
class Seen:
    """What became of one request: what its caller saw, its records, and what the engine logged."""

    faulty: Tier
    error: MarginalError | None = None
    text: str = ""
    seconds: float = 0.0
    records: list[CostRecord] = field(default_factory=list)
    log: list[Generated] = field(default_factory=list)
    tasks_left: int = 0
    sockets_left: int = 0
    leaked: list[str] = field(default_factory=list)
    """Secrets that were found in errors or records."""

    @property
    def record(self) -> CostRecord:
        (record,) = self.records
        return record

    @property
    def attempts(self) -> list[Attempt]:
        """Those of the faulty tier."""
        return [attempt for attempt in self.record.attempts if attempt.tier is self.faulty]

    @property
    def difference(self) -> int:
        """Output tokens of the record less those that the engine sent."""
        used = sum(attempt.usage.output_tokens for attempt in self.attempts)
        return used - sum(entry.sent for entry in self.log)

    @property
    def input_difference(self) -> int:
        """Prompt tokens of the record less those of the generations whose tokens were sent."""
        used = sum(attempt.usage.input_tokens for attempt in self.attempts if attempt.usage.output_tokens)
        return used - sum(entry.prompt_tokens for entry in self.log if entry.sent)

    @property
    def outcome(self) -> str:
        """What the caller saw, in a few words."""
        if self.error is not None:
            return type(self.error).__name__
        record = self.record
        assert record.tier is not None
        degraded = f", degraded: {record.degraded.value}" if record.degraded else ""
        return f"{record.tier.value} answer{degraded}"


async def ask(
    backend: Backend,
    fault: str,
    *,
    at: int | None = None,
    faulty: Tier = Tier.SMALL,
    threshold: float = SURE_ENOUGH,
    seconds: float = 10.0,
    words: str = "",
    hang_up_after: int | None = None,
    timeouts: Timeouts = TIMEOUTS,
) -> Seen:
    """Asks once; `fault` is a name, with a variant after a slash, or nothing. Everything is closed when it returns.

    `hang_up_after` deltas the caller goes away.
    """
    seen = Seen(faulty)
    secrets = [f"CANARY-{what}-{uuid.uuid4().hex}" for what in ("prompt", "key", "path")]
    prompt, key, path = secrets
    before = _sockets(), len(asyncio.all_tasks())
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "key"
        file.write_text(f"{key}\n")
        async with _serving(backend, key, path, file, timeouts) as (server, model):
            if fault:
                name, _, variant = fault.partition("/")
                server.inject(name, variant=variant, at=at)
            await _route(seen, model, f"{words} what is {prompt}", threshold, seconds, hang_up_after)
            with suppress(TimeoutError):
                await server.quiet(seconds=QUIET_SECONDS)
            seen.log = list(server.log)
    seen.sockets_left, seen.tasks_left = await _left(*before)
    said = [repr(record) for record in seen.records]
    if seen.error is not None:
        said += [str(seen.error), "".join(traceback.format_exception(seen.error))]
    seen.leaked = [secret for secret in secrets if any(secret in text for text in said)]
    return seen


@asynccontextmanager
async def _serving(
    backend: Backend, key: str, path: str, file: Path, timeouts: Timeouts
) -> AsyncIterator[tuple[DialectServer, Closable]]:
    async with DialectServer(backend.dialect, key=key, prefix=f"/{path}") as server:
        model = backend.build(server.url, file, timeouts)
        try:
            yield server, model
        finally:
            await model.close()


async def _route(
    seen: Seen, model: Closable, text: str, threshold: float, seconds: float, hang_up_after: int | None
) -> None:
    recorder = RememberingRecorder()
    other = Tier.LARGE if seen.faulty is Tier.SMALL else Tier.SMALL
    answer = LARGE if other is Tier.LARGE else UNSURE
    models: dict[Tier, LanguageModel] = {seen.faulty: model, other: ScriptedModel(script(answer), name="scripted")}
    threshold = 0.5 if other is Tier.SMALL else threshold
    policy = Policy(
        name="test",
        version="1",
        criterion=criterion(lambda: Fixed(threshold)),
        defer_without_score=True,
        currency="USD",
        prices=PRICES,
    )
    clock = time.monotonic
    tiers, ledger = {tier: TierState(tier, each) for tier, each in models.items()}, RememberingLedger()
    router = Router(
        tiers,
        book=PolicyBook(Policies({"test": policy}, "test")),
        shadows=Shadows(lambda: 1.0, clock),
        recorder=recorder,
        admission=open_door(tiers, ledger, clock),
        ledger=ledger,
        clock=clock,
    )
    deltas: list[Delta] = []
    enough = asyncio.Event()

    async def send(delta: Delta) -> None:
        deltas.append(delta)
        if len(deltas) == hang_up_after:
            enough.set()
            await asyncio.sleep(seconds)

    generation = Generation((Message(Role.USER, text),), Sampling(max_tokens=40))
    request = Request("request-1", generation)

    async def call() -> None:
        async with router.route(request, send, timeout=seconds, retract=lambda: False):
            """The caller has the answer."""

    started = clock()
    calling = asyncio.create_task(call())
    if hang_up_after is not None:
        await enough.wait()
        calling.cancel()
    try:
        await calling
    except MarginalError as error:
        seen.error = error
    except asyncio.CancelledError:
        pass
    seen.seconds = clock() - started
    seen.text = "".join(token.text for delta in deltas for token in delta.tokens)
    seen.records = recorder.records


def _sockets() -> int:
    found = 0
    for each in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found += os.readlink(f"/proc/self/fd/{each}").startswith("socket:")
    return found


async def _left(sockets: int, tasks: int) -> tuple[int, int]:
    """Sockets and tasks that are there beyond what was there before, once those that go have gone."""
    left: tuple[int, int] = (0, 0)
    for _ in range(100):
        left = _sockets() - sockets, len(asyncio.all_tasks()) - tasks
        if max(left) <= 0:
            return 0, 0
        await asyncio.sleep(0.01)
    return left
