"""What an engine is asked, what it is asked again without, and what becomes of answers that are none."""

import asyncio
import json
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from aiohttp import web

from dialects.server import DialectServer
from marginal.backends.openai_compatible import OpenAICompatible
from marginal.backends.openai_requests import plain
from marginal.backends.patience import Timeouts
from marginal.errors import (
    BackendProtocol,
    ConfigurationError,
    DeadlineExceeded,
    InvalidRequest,
    MarginalError,
    Overloaded,
    StreamInterrupted,
    TierUnavailable,
)
from marginal.tokens import Chunk, EarlyStop, Generation, Message, Role, Sampling

SHORT = Timeouts(connect_seconds=1.0, first_token_seconds=0.2, inter_token_seconds=0.2)
PROMPT = "CANARY-prompt"
Reply = Callable[["Engine", dict[str, Any]], Any]


class Engine:
    """An engine that answers as it is told and remembers what it was asked."""

    def __init__(self, reply: Reply) -> None:
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.url = ""
        self._reply = reply

    @asynccontextmanager
    async def serving(self, tls: ssl.SSLContext | None = None) -> AsyncIterator["Engine"]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.headers.append(dict(request.headers))
        self.paths.append(request.path_qs)
        body = await request.json() if request.can_read_body else {}
        self.asked.append(body)
        reply = self._reply(self, body)
        if isinstance(reply, web.StreamResponse):
            return reply
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for piece in reply:
            if isinstance(piece, float):
                await asyncio.sleep(piece)
            else:
                await response.write(piece)
        return response


def event(text: str | None, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


ANSWER = [event("hi"), event(None, "stop"), b"data: [DONE]\n\n"]


def asking(alternatives: int = 0, **sampling: Any) -> Generation:
    return Generation((Message(Role.USER, PROMPT),), Sampling(**sampling), alternatives=alternatives)


def refusal(status: int, message: str, **more: Any) -> web.Response:
    return web.json_response({"error": {"message": f"{message} {PROMPT}", **more}}, status=status)


async def answer(engine: Engine, generation: Generation | None = None, **settings: Any) -> list[Chunk]:
    timeout = settings.pop("timeout", None)
    model = OpenAICompatible(settings.pop("base_url", engine.url), **{"model": "m", "timeouts": SHORT} | settings)
    try:
        return [chunk async for chunk in model.generate(generation or asking(), timeout=timeout)]
    finally:
        await model.close()


async def test_what_is_asked_is_what_openai_documents_and_what_makes_counts_exact() -> None:
    async with Engine(lambda *_: ANSWER).serving() as engine:
        await answer(engine, asking(alternatives=5, max_tokens=9, temperature=0.5, top_p=0.9, seed=7))
    assert engine.paths == ["/v1/chat/completions"]
    assert engine.asked == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": PROMPT}],
            "max_tokens": 9,
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 0,
            "min_p": 0.0,
            "seed": 7,
            "logprobs": True,
            "top_logprobs": 5,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
            "timings_per_token": True,
        }
    ]


async def test_without_alternatives_no_logprobs_are_asked_for() -> None:
    async with Engine(lambda *_: ANSWER).serving() as engine:
        assert await answer(engine)
    assert not {"logprobs", "top_logprobs"} & set(engine.asked[0])


async def test_a_prompt_is_the_message_set_into_the_template() -> None:
    reply = [b'data: {"choices":[{"text":"hi","finish_reason":"stop"}]}\n\n']
    async with Engine(lambda *_: reply).serving() as engine:
        await answer(engine, asking(alternatives=3), route="completions", template="Q: {}\nA:")
    assert engine.paths == ["/v1/completions"]
    assert (engine.asked[0]["prompt"], engine.asked[0]["logprobs"]) == (f"Q: {PROMPT}\nA:", 3)
    assert "messages" not in engine.asked[0]


@pytest.mark.parametrize("roles", [[Role.SYSTEM, Role.USER], [Role.ASSISTANT]])
async def test_a_prompt_cannot_say_more_than_one_message_of_a_user(roles: list[Role]) -> None:
    generation = Generation(tuple(Message(role, "hi") for role in roles))
    async with Engine(lambda *_: ANSWER).serving() as engine:
        with pytest.raises(InvalidRequest, match="messages: the completions route takes one message"):
            await answer(engine, generation, route="completions")


async def test_further_fields_and_headers_pass_through() -> None:
    spans = iter(["first", "second"])
    async with Engine(lambda *_: ANSWER).serving() as engine:
        model = OpenAICompatible(
            engine.url,
            model="m",
            extra_body={"top_k": 40, "stream": False, "guided_json": {}},
            headers=lambda: {"traceparent": next(spans)},
        )
        for _ in range(2):
            assert [chunk async for chunk in model.generate(asking())]
        await model.close()
    assert [headers["traceparent"] for headers in engine.headers] == ["first", "second"]
    assert (engine.asked[0]["top_k"], engine.asked[0]["stream"], engine.asked[0]["guided_json"]) == (40, True, {})


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/", "/proxy/llm", "/proxy/llm/v1"])
async def test_a_base_url_is_given_with_or_without_v1_and_keeps_its_path_and_query(path: str) -> None:
    async with Engine(lambda *_: ANSWER).serving() as engine:
        await answer(engine, base_url=f"{engine.url}{path}?api-version=1")
    prefix = path.removesuffix("/").removesuffix("/v1")
    assert engine.paths == [f"{prefix}/v1/chat/completions?api-version=1"]


async def test_fields_an_engine_does_not_know_are_left_out_from_then_on() -> None:
    def strict(_: Engine, body: dict[str, Any]) -> Any:
        if "timings_per_token" in body:
            return refusal(400, "Unrecognized request argument supplied: timings_per_token")
        if "continuous_usage_stats" in body["stream_options"]:
            detail = [{"loc": ["body", "stream_options", "continuous_usage_stats"], "type": "extra_forbidden"}]
            return web.json_response({"detail": detail}, status=422)
        return ANSWER

    async with Engine(strict).serving() as engine:
        model = OpenAICompatible(engine.url, model="m")
        for _ in range(2):
            assert [chunk async for chunk in model.generate(asking())]
        await model.close()
    assert len(engine.asked) == 4, "three tries for the first, one for the second"
    assert engine.asked[-1]["stream_options"] == {"include_usage": True}


async def test_the_length_of_the_answer_goes_by_its_newer_name_where_the_older_is_refused() -> None:
    def newer(_: Engine, body: dict[str, Any]) -> Any:
        if "max_tokens" in body:
            return refusal(400, "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.")
        return ANSWER

    async with Engine(newer).serving() as engine:
        assert await answer(engine, asking(max_tokens=9))
    assert engine.asked[-1]["max_completion_tokens"] == 9


async def test_a_refusal_that_leaving_fields_out_does_not_cure_teaches_nothing() -> None:
    def fussy(engine: Engine, _: dict[str, Any]) -> Any:
        return refusal(400, "a prompt that says timings_per_token and seed") if len(engine.asked) < 3 else ANSWER

    async with Engine(fussy).serving() as engine:
        model = OpenAICompatible(engine.url, model="m")
        with pytest.raises(InvalidRequest):
            [chunk async for chunk in model.generate(asking(seed=1))]
        assert [chunk async for chunk in model.generate(asking(seed=1))]
        await model.close()
    assert {"timings_per_token", "seed"} <= set(engine.asked[-1])


async def test_an_engine_that_always_refuses_is_not_asked_for_ever() -> None:
    def never(_: Engine, body: dict[str, Any]) -> Any:
        return refusal(400, " ".join([*body, *body.get("stream_options", {})]))

    async with Engine(never).serving() as engine:
        with pytest.raises(InvalidRequest):
            await answer(engine, asking(seed=1, temperature=1.0, alternatives=2))
    assert len(engine.asked) <= 5


async def test_an_answer_is_asked_shorter_when_only_less_fits() -> None:
    def narrow(_: Engine, body: dict[str, Any]) -> Any:
        if body["max_tokens"] > 56:
            return refusal(400, "maximum context length is 256 tokens and your request has 200 input tokens")
        return ANSWER

    async with Engine(narrow).serving() as engine:
        assert await answer(engine, asking(max_tokens=64))
    assert [body["max_tokens"] for body in engine.asked] == [64, 56]


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (lambda: refusal(401, "CANARY"), TierUnavailable),
        (lambda: refusal(429, "CANARY"), Overloaded),
        (lambda: refusal(500, "CANARY"), TierUnavailable),
        (lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/CANARY"}), TierUnavailable),
        (lambda: web.Response(text="<html>CANARY", content_type="text/html"), BackendProtocol),
        (lambda: web.json_response({"choices": []}), BackendProtocol),
        (lambda: web.json_response({"error": {"message": "CANARY", "code": 429}}), Overloaded),
        (list, TierUnavailable),
        (lambda: [b"data: [DONE]\n\n"], TierUnavailable),
        (lambda: [event("a")], StreamInterrupted),
        (lambda: [event("a"), 0.05, b"data: [DONE]\n\n"], StreamInterrupted),
        (lambda: [event("a"), b'data: {"error":{"message":"CANARY"}}\n\n'], StreamInterrupted),
        (lambda: [b"data: {oops CANARY\n\n"], BackendProtocol),
        (lambda: [b"data: [1]\n\n"], BackendProtocol),
        (lambda: [b"data: " + b"[" * 100_000 + b"\n\n"], BackendProtocol),
        (lambda: [b"data: " + b"x" * 2_000_000], BackendProtocol),
        (lambda: [5.0], TierUnavailable),
        (lambda: [b": alive\n\n", 0.1] * 20, TierUnavailable),
        (lambda: [event("a"), 5.0], StreamInterrupted),
        (lambda: [event("a"), *([b": alive\n\n", 0.1] * 20)], StreamInterrupted),
    ],
)
async def test_what_is_no_answer_is_an_error_of_ours_and_shows_nothing_of_it(
    tmp_path: Path, reply: Callable[[], Any], kind: type[MarginalError]
) -> None:
    (tmp_path / "key").write_text("CANARY-key")
    async with Engine(lambda *_: reply()).serving() as engine:
        with pytest.raises(kind) as caught:
            await answer(engine, base_url=f"{engine.url}/CANARY-path?token=CANARY", api_key_file=tmp_path / "key")
    assert type(caught.value) is kind
    assert "CANARY" not in str(caught.value)


async def test_tokens_that_came_with_an_error_are_given_before_it() -> None:
    broken = event("a") + b'data: {"error":{"message":"x"}}\n\n'
    async with Engine(lambda *_: [broken]).serving() as engine:
        model = OpenAICompatible(engine.url, model="m")
        chunks = model.generate(asking())
        assert (await anext(chunks)).tokens[0].text == "a"
        with pytest.raises(StreamInterrupted):
            await anext(chunks)
        await model.close()


async def test_usage_that_comes_late_or_not_at_all_does_not_keep_the_answer() -> None:
    async with Engine(lambda *_: [event("a"), event(None, "stop"), 5.0]).serving() as engine:
        async with asyncio.timeout(3):
            assert (await answer(engine))[-1].usage.output_tokens == 2


async def test_nothing_listening_is_an_engine_that_cannot_be_reached() -> None:
    model = OpenAICompatible("http://user:CANARY@127.0.0.1:1/CANARY", model="m")
    for call in (anext(model.generate(asking())), model.describe()):
        with pytest.raises(TierUnavailable, match="cannot be reached") as caught:
            await call
        assert "CANARY" not in str(caught.value)
    await model.close()


async def test_the_callers_deadline_goes_before_the_engines() -> None:
    async with Engine(lambda *_: [5.0]).serving() as engine:
        with pytest.raises(DeadlineExceeded):
            await answer(engine, timeout=0.05)


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://host/", "http://", "http://host:99999", "CANARY"])
def test_a_url_that_is_none_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match="base_url") as caught:
        OpenAICompatible(url)
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize(
    ("models", "context_tokens"),
    [
        ({"data": [{"id": "m", "max_model_len": 512}]}, 512),
        ({"data": [{"id": "m", "meta": {"n_ctx": 256}}]}, 256),
        ({"data": [{"id": "m"}]}, 4096),
    ],
)
async def test_the_model_and_its_limit_are_what_the_engine_says(models: Any, context_tokens: int) -> None:
    async with Engine(lambda *_: web.json_response(models)).serving() as engine:
        model = OpenAICompatible(engine.url)
        described = await model.describe()
        await model.close()
    assert (described.name, described.context_tokens) == ("m", context_tokens)


@pytest.mark.parametrize("models", [{}, [], {"data": "x"}, {"data": [{"id": 7}]}, {"data": []}])
async def test_an_engine_that_lists_no_model_needs_one_named(models: Any) -> None:
    async with Engine(lambda *_: web.json_response(models)).serving() as engine:
        model = OpenAICompatible(engine.url)
        with pytest.raises(TierUnavailable, match="name it"):
            await model.describe()
        await model.close()


async def test_llama_servers_slots_say_what_one_generation_holds() -> None:
    async with DialectServer("llama-server") as server:
        model = OpenAICompatible(server.url)
        assert (await model.describe()).context_tokens == 256
        await model.close()


async def test_connections_are_bounded() -> None:
    async with Engine(lambda *_: [0.1, *ANSWER]).serving() as engine:
        model = OpenAICompatible(engine.url, model="m", connections=2)
        answers = [asyncio.create_task(anext(model.generate(asking()))) for _ in range(6)]
        await asyncio.sleep(0.05)
        assert len(engine.asked) == 2
        for task in answers:
            task.cancel()
        await asyncio.gather(*answers, return_exceptions=True)
        await model.close()


async def test_only_a_certificate_of_the_given_authority_is_trusted(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2")
    subprocess.run(  # noqa: ASYNC221, S603
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject, "-keyout", key, "-out", certificate],  # noqa: S607
        check=True,
        capture_output=True,
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    async with Engine(lambda *_: ANSWER).serving(tls) as engine:
        assert await answer(engine, ca_file=certificate)
        with pytest.raises(TierUnavailable, match="certificate is not trusted"):
            await answer(engine)
    (tmp_path / "no.pem").write_text("x")
    with pytest.raises(ConfigurationError, match="ca_file"):
        OpenAICompatible("https://127.0.0.1", ca_file=tmp_path / "no.pem")


@pytest.mark.parametrize("text", ["<|end|>", "<|USER|>", "<\uff5cend\uff5c>", "</s>", "[INST]", "<end_of_turn>", "<|"])
def test_what_looks_like_a_control_token_is_broken(text: str) -> None:
    assert plain(f"a{text}b") == f"a{text[0]}\u2060{text[1:]}b"


@pytest.mark.parametrize("text", ["a < b", "x[1]", "<b>bold</b>", "f <$> x", "1 |> 2"])
def test_what_does_not_is_left_as_it_is(text: str) -> None:
    assert plain(text) == text


@pytest.mark.parametrize("window", [0, 1, 4])
async def test_candidates_for_classes_are_asked_for_when_only_the_first_token_is_judged(window: int) -> None:
    def vllm(engine: Engine, body: dict[str, Any]) -> Any:
        if engine.paths[-1] == "/tokenize":
            return web.json_response({"tokens": [crc32(body["prompt"].encode())], "max_model_len": 9})
        return ANSWER

    rule = EarlyStop("min_margin", window, 0.5)
    generation = Generation((Message(Role.USER, "hi"),), Sampling(4), 5, choices=("yes", "no"), early_stop=rule)
    async with Engine(vllm).serving() as engine:
        model = OpenAICompatible(engine.url, model="m")
        for _ in range(2):
            assert [chunk async for chunk in model.generate(generation)]
        await model.close()
    wanted = [crc32(text) for text in (b"yes", b"Yes", b" yes", b" Yes", b"no", b"No", b" no", b" No")]
    asked = [body.get("logprob_token_ids") for body in engine.asked if "messages" in body]
    assert asked == ([wanted] * 2 if window == 1 else [None] * 2)
    assert engine.paths.count("/tokenize") == (8 if window == 1 else 0), "once for the class set"


async def test_an_engine_without_vllms_tokenizer_is_asked_once_and_answers_with_its_best() -> None:
    async with DialectServer("llama-server") as server:
        model = OpenAICompatible(server.url)
        rule = EarlyStop("first_token_margin", 0, 0.0)
        generation = Generation((Message(Role.USER, "hi"),), Sampling(4), 5, choices=("yes", "no"), early_stop=rule)
        chunks = [chunk async for chunk in model.generate(generation)]
        await model.close()
    assert len(chunks[0].tokens[0].alternatives) == 5


async def test_vllms_candidates_for_classes_become_the_alternatives_of_the_first_token() -> None:
    async with DialectServer("vllm") as server:
        model = OpenAICompatible(server.url)
        rule = EarlyStop("first_token_margin", 0, 0.0)
        choices = tuple(f"class{number}" for number in range(4))
        generation = Generation((Message(Role.USER, "class2"),), Sampling(4), 5, choices=choices, early_stop=rule)
        chunks = [chunk async for chunk in model.generate(generation)]
        await model.close()
    assert len(chunks[0].tokens[0].alternatives) >= 4
