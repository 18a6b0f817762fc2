"""Several engines as one model: who is asked, who is left out, what is asked again, and how often at most."""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing

import pytest

from fakes import SteppingClock
from marginal.backends.endpoints import Endpoint, Endpoints, address
from marginal.errors import (
    BackendProtocol,
    DeadlineExceeded,
    InvalidRequest,
    MarginalError,
    Overloaded,
    StreamInterrupted,
    TierUnavailable,
)
from marginal.tokens import Chunk, FinishReason, Generation, Message, ModelDescription, Role, Token, Usage

ASKED = Generation((Message(Role.USER, "what is it"),))
DOWN = TierUnavailable("the engine cannot be reached")


class Engine:
    """Answers each call with the next of its outcomes, for ever with the last one; None is an answer of two tokens."""

    def __init__(self, *outcomes: MarginalError | None, begins: bool = False, passes: Callable[[], None] | None = None):
        self.calls = 0
        self.closed = 0
        self.running = 0
        self.timeouts: list[float | None] = []
        self.gate: asyncio.Event | None = None
        self._outcomes = itertools.chain(outcomes, itertools.repeat(outcomes[-1] if outcomes else None))
        self._begins = begins
        self._passes = passes

    async def describe(self) -> ModelDescription:
        if (outcome := next(self._outcomes)) is not None:
            raise outcome
        return ModelDescription("tiny", 512, 20)

    async def generate(self, generation: Generation, *, timeout: float | None = None) -> AsyncGenerator[Chunk, None]:  # noqa: ARG002
        self.calls += 1
        self.timeouts.append(timeout)
        outcome = next(self._outcomes)
        self.running += 1
        try:
            if self._passes is not None:
                self._passes()
            if outcome is None or self._begins:
                yield Chunk((Token("a"),), Usage(3, 1))
            if self.gate is not None:
                await self.gate.wait()
            if outcome is not None:
                raise outcome
            yield Chunk((Token("b"),), Usage(3, 2))
            yield Chunk((), Usage(3, 2), FinishReason.STOP)
        finally:
            self.running -= 1

    async def close(self) -> None:
        self.closed += 1


class Observer:
    """Keeps what it is told, a tuple each, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def retried(self, endpoint: str, *, other: str, because: str) -> None:
        self.told.append(("retried", endpoint, other, because))

    def retry_denied(self, endpoint: str) -> None:
        self.told.append(("retry denied", endpoint))

    def ejected(self, endpoint: str, *, seconds: float, because: str) -> None:
        self.told.append(("ejected", endpoint, seconds, because))

    def tried(self, endpoint: str, *, again: bool) -> None:
        self.told.append(("tried again" if again else "tried", endpoint))

    def returned(self, endpoint: str) -> None:
        self.told.append(("returned", endpoint))

    def paused(self, endpoint: str) -> None:
        self.told.append(("paused", endpoint))


def over(
    *engines: Engine, clock: Callable[[], float] | None = None, limit: int = 256, observer: Observer | None = None
) -> Endpoints:
    named = [Endpoint(f"engine-{number}:80", engine, engine.close) for number, engine in enumerate(engines)]
    return Endpoints(named, limit=limit, clock=clock or SteppingClock(), observer=observer)


async def answer(model: Endpoints, *, timeout: float | None = None) -> list[Chunk]:
    async with aclosing(model.generate(ASKED, timeout=timeout)) as chunks:
        return [chunk async for chunk in chunks]


async def outcomes(model: Endpoints, times: int) -> list[bool]:
    """Whether each of so many requests was answered."""
    answered = []
    for _ in range(times):
        try:
            await answer(model)
        except MarginalError:
            answered.append(False)
        else:
            answered.append(True)
    return answered


async def test_idle_endpoints_take_turns() -> None:
    engines = [Engine() for _ in range(3)]
    await outcomes(over(*engines), 9)
    assert [engine.calls for engine in engines] == [3, 3, 3]


async def test_the_one_with_the_least_to_do_is_asked() -> None:
    busy, idle = Engine(), Engine()
    model = over(busy, idle)
    held = model.generate(ASKED)
    await anext(held)
    await outcomes(model, 5)
    assert (busy.calls, idle.calls) == (1, 5)
    await held.aclose()
    await outcomes(model, 4)
    assert (busy.calls, idle.calls) == (3, 7)


async def test_a_fault_before_the_first_token_is_invisible_and_its_usage_is_the_one_that_answered() -> None:
    for fault in (DOWN, Overloaded("full"), BackendProtocol("nonsense")):
        broken, sound = Engine(fault), Engine()
        chunks = await answer(over(broken, sound))
        assert (broken.calls, sound.calls) == (1, 1)
        assert [chunk.usage for chunk in chunks] == [Usage(3, 1), Usage(3, 2), Usage(3, 2)]


@pytest.mark.parametrize("fault", [InvalidRequest("messages", "too long"), DeadlineExceeded("late")])
async def test_what_another_endpoint_would_do_no_better_is_not_asked_again(fault: MarginalError) -> None:
    broken, sound = Engine(fault), Engine()
    with pytest.raises(type(fault)):
        await answer(over(broken, sound))
    assert sound.calls == 0


@pytest.mark.parametrize("fault", [DOWN, StreamInterrupted("cut"), BackendProtocol("nonsense")])
async def test_after_the_first_token_nothing_is_asked_twice(fault: MarginalError) -> None:
    broken, sound = Engine(fault, begins=True), Engine()
    with pytest.raises(type(fault)):
        await answer(over(broken, sound))
    assert sound.calls == 0


async def test_a_single_endpoint_is_asked_once_and_never_left_out() -> None:
    alone = Engine(DOWN)
    assert await outcomes(over(alone), 10) == [False] * 10
    assert alone.calls == 10


async def test_each_endpoint_is_asked_once_at_most_and_the_last_fault_is_told() -> None:
    engines = [Engine(TierUnavailable(f"engine {number}")) for number in range(3)]
    with pytest.raises(TierUnavailable, match="engine 2"):
        await answer(over(*engines))
    assert [engine.calls for engine in engines] == [1, 1, 1]


async def test_a_retry_has_the_time_that_is_left_and_none_is_made_when_none_is() -> None:
    clock = SteppingClock()

    def pass_three_seconds() -> None:
        clock.now += 3.0

    slow, sound = Engine(DOWN, passes=pass_three_seconds), Engine()
    await answer(over(slow, sound, clock=clock), timeout=5.0)
    assert sound.timeouts == [pytest.approx(2.0)]
    with pytest.raises(TierUnavailable):
        await answer(over(slow, sound, clock=clock), timeout=3.0)
    assert sound.calls == 1


async def test_an_endpoint_that_keeps_failing_is_left_out_tried_and_taken_back() -> None:
    observer = Observer()
    clock, broken, sound = SteppingClock(), Engine(DOWN, DOWN, DOWN, DOWN, None), Engine()
    model = over(broken, sound, clock=clock, observer=observer)
    assert all(await outcomes(model, 20))
    assert broken.calls == 3
    clock.now += 1.0
    assert all(await outcomes(model, 20))
    assert broken.calls == 4
    clock.now += 1.99
    assert all(await outcomes(model, 20))
    assert broken.calls == 4
    clock.now += 0.01
    assert all(await outcomes(model, 20))
    assert broken.calls > 10
    asked_again = ("retried", "engine-0:80", "engine-1:80", "TierUnavailable")
    assert observer.told == [
        asked_again,
        asked_again,
        ("ejected", "engine-0:80", 1.0, "TierUnavailable"),
        asked_again,
        ("tried", "engine-0:80"),
        ("ejected", "engine-0:80", 2.0, "TierUnavailable"),
        asked_again,
        ("tried", "engine-0:80"),
        ("returned", "engine-0:80"),
    ]


async def test_a_trial_that_shows_nothing_is_told_apart_from_the_first() -> None:
    observer, clock = Observer(), SteppingClock()
    model = over(
        Engine(DOWN, DOWN, DOWN, InvalidRequest("prompt", "no"), InvalidRequest("prompt", "no"), None),
        Engine(),
        clock=clock,
        observer=observer,
    )
    await outcomes(model, 20)
    clock.now += 1.0
    await outcomes(model, 20)
    trials = [told for told, *_ in observer.told if told not in ("retried", "ejected")]
    assert trials == ["tried", "tried again", "tried again", "returned"]


async def test_a_pause_is_told_when_it_begins_and_a_retry_that_the_budget_denies_each_time() -> None:
    observer, busy = Observer(), Overloaded("busy", retry_seconds=5.0)
    await outcomes(over(Engine(busy), Engine(), observer=observer), 5)
    assert observer.told == [("paused", "engine-0:80"), ("retried", "engine-0:80", "engine-1:80", "Overloaded")]
    observer.told.clear()
    engines = (Engine(DOWN), Engine(DOWN))
    await outcomes(over(*engines, observer=observer), 30)
    told = Counter(what for what, *_ in observer.told)
    assert told["retried"] == 10
    assert told["retry denied"] == 20


async def test_answers_that_break_off_put_an_endpoint_out_too() -> None:
    broken, sound = Engine(StreamInterrupted("cut"), begins=True), Engine()
    answered = await outcomes(over(broken, sound), 20)
    assert answered.count(False) == broken.calls == 3


async def test_a_reader_that_has_enough_speaks_for_the_endpoint_and_one_that_never_began_does_not_speak() -> None:
    clock, flaky, sound = SteppingClock(), Engine(DOWN, DOWN, None, DOWN, DOWN, None), Engine()
    model = over(flaky, sound, clock=clock)
    for _ in range(4):
        await outcomes(model, 2)
        chunks = model.generate(ASKED)
        await anext(chunks)
        await chunks.aclose()
    await model.generate(ASKED).aclose()
    assert flaky.running == sound.running == 0
    assert flaky.calls >= 5


async def test_an_endpoint_that_stays_silent_until_its_callers_give_up_is_left_out() -> None:
    clock, frozen, sound = SteppingClock(), Engine(DOWN), Engine()
    frozen.gate = asyncio.Event()
    model = over(frozen, sound, clock=clock)
    for seconds in (4.9, 4.9, 4.9, 5.0, 5.0, 5.0):
        while frozen.running == 0:
            waiting = asyncio.ensure_future(answer(model))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        clock.now += seconds
        waiting.cancel()
        await asyncio.wait([waiting])
    assert frozen.calls == 6
    assert all(await outcomes(model, 20))
    assert frozen.calls == 6


async def test_a_cancelled_trial_is_followed_by_another() -> None:
    clock, broken, sound = SteppingClock(), Engine(DOWN, DOWN, DOWN, None), Engine()
    model = over(broken, sound, clock=clock)
    await outcomes(model, 10)
    clock.now += 1.0
    waiting = [asyncio.ensure_future(answer(model)) for _ in range(2)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    await outcomes(model, 10)
    assert broken.calls > 4


async def test_when_every_endpoint_has_its_limit_further_requests_are_refused_at_once() -> None:
    engines = [Engine(), Engine()]
    model = over(*engines, limit=2)
    held = [model.generate(ASKED) for _ in range(4)]
    for chunks in held:
        await anext(chunks)
    with pytest.raises(Overloaded, match="every endpoint has 2 requests under way"):
        await answer(model)
    await held[0].aclose()
    assert len(await answer(model)) == 3
    for chunks in held:
        await chunks.aclose()


async def test_a_place_is_held_until_the_engine_has_let_go() -> None:
    engine = Engine()
    model = over(engine, limit=1)
    chunks = model.generate(ASKED)
    await anext(chunks)
    await chunks.aclose()
    assert engine.running == 0
    assert len(await answer(model)) == 3


async def test_a_description_comes_from_an_endpoint_that_can_be_reached() -> None:
    assert (await over(Engine(DOWN), Engine()).describe()).name == "tiny"
    with pytest.raises(TierUnavailable):
        await over(Engine(DOWN), Engine(DOWN)).describe()


async def test_closing_closes_every_endpoint() -> None:
    engines = [Engine(), Engine()]
    await over(*engines).close()
    assert [engine.closed for engine in engines] == [1, 1]


async def test_an_overloaded_endpoint_that_names_a_time_gets_no_request_until_then() -> None:
    clock, busy, sound = SteppingClock(), Engine(Overloaded("full", retry_seconds=5.0), None), Engine()
    model = over(busy, sound, clock=clock)
    assert all(await outcomes(model, 20))
    assert busy.calls == 1
    clock.now += 4.9
    assert all(await outcomes(model, 20))
    assert busy.calls == 1
    clock.now += 0.1
    assert all(await outcomes(model, 20))
    assert busy.calls == 11


async def test_when_all_ask_to_be_left_alone_the_caller_is_told_for_how_long() -> None:
    clock = SteppingClock()
    engines = [Engine(Overloaded("full", retry_seconds=seconds)) for seconds in (5.0, 3.0)]
    model = over(*engines, clock=clock)
    await outcomes(model, 1)
    clock.now += 1.0
    with pytest.raises(Overloaded, match=r"the first for 2 s more") as caught:
        await answer(model)
    assert caught.value.retry_seconds == 2.0
    assert [engine.calls for engine in engines] == [1, 1]


async def load(engines: Iterable[Engine], *, requests: int = 1000, per_second: float = 100.0) -> float:
    """Attempts per request of a steady load, on a clock that is set."""
    clock, engines = SteppingClock(), tuple(engines)
    model = over(*engines, clock=clock)
    for _ in range(requests):
        await outcomes(model, 1)
        clock.now += 1.0 / per_second
    return sum(engine.calls for engine in engines) / requests


@pytest.mark.parametrize("count", [2, 4, 8])
async def test_with_half_of_all_calls_failing_load_grows_by_a_fifth_at_most(count: int) -> None:
    amplification = await load(Engine(*[DOWN, None] * 1000) for _ in range(count))
    assert 1.15 < amplification <= 1.2


async def test_with_half_of_all_calls_failing_at_random_load_grows_by_a_fifth_at_most() -> None:
    chance = random.Random(7)  # noqa: S311 (a simulation)
    engines = [Engine(*[chance.choice((DOWN, None)) for _ in range(3000)]) for _ in range(4)]
    assert 1.0 < await load(engines) <= 1.2


async def test_with_half_of_the_endpoints_down_they_are_left_out_and_load_hardly_grows() -> None:
    broken, sound = [Engine(DOWN) for _ in range(2)], [Engine() for _ in range(2)]
    assert await load([*broken, *sound]) <= 1.02
    assert sum(engine.calls for engine in sound) == 1000


async def test_with_all_endpoints_down_load_grows_by_a_fifth_at_most() -> None:
    assert await load(Engine(DOWN) for _ in range(4)) <= 1.2


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:SECRET@10.0.0.1:8000/v1?key=SECRET", "10.0.0.1:8000"),
        ("https://engine.example/SECRET", "engine.example:443"),
        ("http://engine", "engine:80"),
        ("http://[::1]:8080", "[::1]:8080"),
        ("http://host:SECRET/", "unknown"),
        ("SECRET", "unknown:80"),
    ],
)
def test_an_endpoint_is_called_by_host_and_port(url: str, shown: str) -> None:
    assert address(url) == shown
