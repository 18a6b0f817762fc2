"""What the router costs: the same scripted small model called directly and through the router, in one run.

Rounds alternate between the two so that a noisy machine disturbs both; medians of the rounds are compared as ratios.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from marginal.entrypoints.processes import start
from marginal.entrypoints.services import ROUTER, SMALL, Plan, programs
from marginal.models.catalogue import Pair
from marginal.telemetry.tracing import Exporter
from marginal.tokens import Generation, Message, Role, Sampling
from marginal.transport.remote_model import RemoteModel, connected
from marginal.transport.router_client import Piece, RouterClient, wait_until_serving

TOKENS = 64
ALTERNATIVES = 10
QUESTION = "what does the router cost?"
POLICY = """
default = "bench"
currency = "USD"
[prices]
small = { input_per_million_tokens = 0.05, output_per_million_tokens = 0.2 }
large = { input_per_million_tokens = 0.5, output_per_million_tokens = 2.0 }
[policies.bench]
version = "1"
score = "first_token_margin"
threshold = { rule = "fixed", value = 0.5 }
"""

Call = Callable[[], Awaitable[float]]
"""Makes one request to its end and gives the seconds to its first token."""


@dataclass(frozen=True, slots=True)
class Round:
    """One round's figures: requests per second, and milliseconds to the first token."""

    requests_per_second: float
    first_token_ms_p50: float
    first_token_ms_p99: float


@dataclass(frozen=True, slots=True)
class Overhead:
    """Medians over the rounds, and the router's figures as ratios of the direct call's."""

    load: str
    concurrency: int
    rounds: int
    direct: Round
    router: Round

    @property
    def throughput_ratio(self) -> float:
        """Requests per second through the router / direct; 1 is free."""
        return self.router.requests_per_second / self.direct.requests_per_second

    @property
    def added_first_token_ms(self) -> float:
        """Median milliseconds the router adds to the first token."""
        return self.router.first_token_ms_p50 - self.direct.first_token_ms_p50


async def measure(
    load: str, model: str, *, concurrency: int, requests: int, rounds: int, state_dir: Path, say: Callable[[str], None]
) -> Overhead:
    """Starts the services over a scripted `model` and measures `rounds` rounds of `requests` each way."""
    async with _services(model, state_dir) as (direct, through):
        await _round(direct, concurrency, requests // 4)
        await _round(through, concurrency, requests // 4)
        directs, routers = [], []
        for number in range(rounds):
            directs.append(await _round(direct, concurrency, requests))
            routers.append(await _round(through, concurrency, requests))
            say(f"{load}, concurrency {concurrency}: round {number + 1} of {rounds}")
    return Overhead(load, concurrency, rounds, _median(directs), _median(routers))


async def _round(call: Call, concurrency: int, requests: int) -> Round:
    left = iter(range(requests))
    firsts: list[float] = []

    async def work() -> None:
        firsts.extend([await call() for _ in left])

    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(concurrency)))
    seconds = time.perf_counter() - started
    percentiles = statistics.quantiles(firsts, n=100)
    return Round(requests / seconds, percentiles[49] * 1000, percentiles[98] * 1000)


@asynccontextmanager
async def _services(model: str, state_dir: Path) -> AsyncIterator[tuple[Call, Call]]:
    policy_file = state_dir / "bench.toml"
    policy_file.write_text(POLICY)
    plan = Plan(Pair(model, model), "127.0.0.1:0", None, None, policy_file, state_dir, Exporter.NONE, None)
    planned = {program.name: program for program in programs(plan)}
    async with AsyncExitStack() as stack:
        for name in (SMALL, ROUTER):
            stack.push_async_callback((await start(planned[name])).drain)
        for name in (SMALL, ROUTER):
            await wait_until_serving(planned[name].target, planned[name].service, timeout_seconds=60)
        small = await stack.enter_async_context(connected(planned[SMALL].target))
        client = await stack.enter_async_context(RouterClient(planned[ROUTER].target))
        yield lambda: _directly(small), lambda: _through(client)


async def _directly(model: RemoteModel) -> float:
    generation = Generation((Message(Role.USER, QUESTION),), Sampling(max_tokens=TOKENS), ALTERNATIVES)
    started = time.perf_counter()
    first = 0.0
    async for _ in model.generate(generation, timeout=60.0):
        first = first or time.perf_counter() - started
    return first


async def _through(client: RouterClient) -> float:
    started = time.perf_counter()
    first = 0.0
    async for event in client.ask(QUESTION, max_tokens=TOKENS):
        if isinstance(event, Piece):
            first = first or time.perf_counter() - started
    return first


def _median(rounds: list[Round]) -> Round:
    return Round(
        statistics.median(each.requests_per_second for each in rounds),
        statistics.median(each.first_token_ms_p50 for each in rounds),
        statistics.median(each.first_token_ms_p99 for each in rounds),
    )
