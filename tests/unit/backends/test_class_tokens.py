"""A class set asked of an engine that can report chosen candidates, and of some that cannot."""

import json
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from marginal.backends.openai_compatible import OpenAICompatible
from marginal.policy.deferral import Decision, Deferral
from marginal.tokens import EarlyStop, Generation, Message, Role, Sampling

CHOICES = ("yes", "no", "either")
LEFT_OVER = 1e-5
SHARES = {"yes": 0.6, "x": 0.2, "y": 0.15, "no": 0.04, "either": 0.009}
VOCABULARY = [*SHARES, "Yes", "No", "Either", " yes", " Yes", " no", " No", " either", " Either"]
"""A token's id is its place."""


class ChosenCandidates:
    """vLLM with `logprob_token_ids`: the candidates that were chosen, else the best two."""

    takes_choice = True

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/v1/chat/completions", self._complete)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    def listed(self, body: Mapping[str, Any]) -> list[str]:
        chosen = body.get("logprob_token_ids") if self.takes_choice else None
        return list(SHARES)[:2] if chosen is None else [VOCABULARY[each] for each in chosen]

    def refused(self, body: Mapping[str, Any]) -> web.Response | None:  # noqa: ARG002
        return None

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await request.json()
        return web.json_response({"tokens": [VOCABULARY.index(body["prompt"])], "max_model_len": 4096})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if (refused := self.refused(body)) is not None:
            return refused
        rows = [{"token": text, "logprob": math.log(SHARES.get(text, LEFT_OVER))} for text in self.listed(body)]
        own = {"token": "yes", "logprob": math.log(SHARES["yes"]), "top_logprobs": rows}
        choice = {"index": 0, "delta": {"content": "yes"}, "logprobs": {"content": [own]}, "finish_reason": "stop"}
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\ndata: [DONE]\n\n")
        return response


class BestOnly(ChosenCandidates):
    """An engine with vLLM's tokenizer that passes over the field."""

    takes_choice = False


class Refusing(BestOnly):
    """An engine with vLLM's tokenizer that refuses the field by name."""

    def refused(self, body: Mapping[str, Any]) -> web.Response | None:
        if "logprob_token_ids" not in body:
            return None
        return web.json_response({"error": {"message": "unexpected field logprob_token_ids"}}, status=400)


async def decided(engine: ChosenCandidates, rule: EarlyStop) -> Decision:
    generation = Generation((Message(Role.USER, "?"),), Sampling(1), 2, choices=CHOICES, early_stop=rule)
    deferral = Deferral(rule, choices=CHOICES)
    async with engine.serving() as url:
        model = OpenAICompatible(url, model="m")
        async for chunk in model.generate(generation):
            for token in chunk.tokens:
                deferral.feed(token)
        await model.close()
    return deferral.finish()


async def test_chosen_candidates_for_every_class_leave_nothing_to_be_bounded() -> None:
    decision = await decided(ChosenCandidates(), EarlyStop("first_token_margin", 1, 0.0))
    others = 3 * LEFT_OVER
    of_class = [SHARES[name] + others for name in CHOICES]
    assert not decision.bounded
    assert decision.score == pytest.approx((of_class[0] - of_class[1]) / sum(of_class))


@pytest.mark.parametrize("engine", [BestOnly(), Refusing()], ids=["passes over the field", "refuses the field"])
async def test_an_engine_that_gives_its_best_all_the_same_leaves_the_score_bounded(engine: ChosenCandidates) -> None:
    exact = await decided(ChosenCandidates(), EarlyStop("first_token_margin", 1, 0.0))
    decision = await decided(engine, EarlyStop("first_token_margin", 1, 0.0))
    assert decision.bounded
    assert exact.score is not None
    assert decision.score is not None
    assert decision.score < exact.score


async def test_a_score_of_many_tokens_has_the_best_candidates_and_says_that_it_is_bounded() -> None:
    decision = await decided(ChosenCandidates(), EarlyStop("min_margin", 0, 0.0))
    assert decision.bounded
