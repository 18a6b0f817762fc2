"""Options that do not fit together are one sentence that names them; those that do make one engine."""

from dataclasses import replace
from pathlib import Path

import pytest

from marginal.backends.llama_cpp import EngineSettings
from marginal.entrypoints.engine_options import Given, checked, in_front_of, of_tier
from marginal.entrypoints.engines import Embedded, EngineKind, External, Route, risk
from marginal.errors import ConfigurationError
from marginal.tokens import Tier

URL = "http://127.0.0.1:8000"
OPENAI = Given(EngineKind.OPENAI, endpoint=(URL,))
TGI = replace(OPENAI, kind=EngineKind.TGI)


def engine(given: Given) -> External:
    found = checked(given, default_model="home-small")
    assert isinstance(found, External)
    return found


def test_nothing_given_is_the_tiers_home_model_in_process() -> None:
    assert checked(Given(), default_model="home-small") == Embedded("home-small")


def test_an_embedded_model_has_its_own_settings() -> None:
    given = Given(model="m.gguf", parallel=2, threads=3, context_tokens=512)
    found = checked(given, default_model="home-small")
    assert found == Embedded("m.gguf", EngineSettings(threads=3, parallel=2, context_tokens=512))
    assert found.name == "m"


def test_an_external_engine_is_asked_by_its_first_route_and_what_is_not_given_is_left_to_it() -> None:
    assert engine(OPENAI) == External(EngineKind.OPENAI, (URL,), Route.CHAT)
    assert engine(TGI) == External(EngineKind.TGI, (URL,), Route.NATIVE)
    assert engine(OPENAI).name == "127.0.0.1:8000"
    assert engine(replace(OPENAI, engine_model="qwen")).name == "qwen"


def test_endpoints_are_given_several_times_or_with_commas() -> None:
    given = replace(OPENAI, endpoint=(f"{URL}, http://b:1/v1,", "https://c/"))
    assert engine(given).urls == (URL, "http://b:1/v1", "https://c/")


def test_everything_given_arrives() -> None:
    given = Given(
        EngineKind.OPENAI,
        endpoint=("https://a",),
        engine_model="qwen",
        route=Route.COMPLETIONS,
        template="Q: {} A:",
        api_key_file=Path("key"),
        ca_file=Path("ca.pem"),
        extra_body='{"top_k": 40}',
        first_token_seconds=3.0,
        inter_token_seconds=2.0,
        context_tokens=8192,
    )
    assert engine(given) == External(
        EngineKind.OPENAI,
        ("https://a",),
        Route.COMPLETIONS,
        "qwen",
        "Q: {} A:",
        Path("key"),
        Path("ca.pem"),
        {"top_k": 40},
        3.0,
        2.0,
        8192,
    )


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (Given(endpoint=(URL,)), "--endpoint: only for .* --engine openai or --engine tgi"),
        (Given(api_key_file=Path("key"), route=Route.CHAT), "--route, --api-key-file: only for"),
        (Given(EngineKind.OPENAI), "--engine openai needs --endpoint"),
        (Given(EngineKind.TGI, endpoint=(" , ",)), "--engine tgi needs --endpoint"),
        (replace(OPENAI, model="home-small"), "--model: only for --engine embedded.*--engine-model"),
        (replace(TGI, parallel=2, threads=1), "--parallel, --threads: only for --engine embedded"),
        (replace(OPENAI, endpoint=(URL, URL)), "--endpoint: the same one is given twice"),
        (replace(OPENAI, ca_file=Path("ca.pem")), "--ca-file: only for an --endpoint with https"),
        (replace(OPENAI, route=Route.NATIVE), "--route native: --engine openai has chat or completions"),
        (replace(TGI, route=Route.COMPLETIONS), "--route completions: --engine tgi has native or chat"),
        (replace(OPENAI, template="Q: {}"), "--template: only for --route completions"),
        (replace(OPENAI, route=Route.COMPLETIONS, template="Q:"), "--template: .* with one {}"),
        (replace(OPENAI, extra_body="[1]"), "--extra-body: not a JSON object"),
        (replace(OPENAI, extra_body="{"), "--extra-body: not a JSON object"),
    ],
)
def test_options_that_do_not_fit_together_are_named(given: Given, names: str) -> None:
    with pytest.raises(ConfigurationError, match=names):
        checked(given, default_model="home-small")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://SECRET:1",
        "SECRET",
        "http://",
        "http://host:SECRET",
        "http://host:99999/SECRET",
        "http://SECRET@host",
        "http://user:SECRET@host:80/v1",
        "http://host/v1?key=SECRET",
        "http://host/#SECRET",
        "http://[SECRET",
    ],
)
def test_a_url_that_cannot_be_used_or_may_hold_a_key_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match="--endpoint") as caught:
        checked(replace(OPENAI, endpoint=(url,)), default_model="home-small")
    assert "SECRET" not in str(caught.value)


def test_a_key_that_travels_unencrypted_beyond_this_machine_is_warned_of() -> None:
    keyed = replace(OPENAI, api_key_file=Path("key"))
    safe = ("http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1", "https://engine")
    assert risk(engine(replace(keyed, endpoint=safe))) is None
    assert risk(engine(replace(OPENAI, endpoint=("http://engine",)))) is None
    assert risk(Embedded("home-small")) is None
    warned = risk(engine(replace(keyed, endpoint=(*safe, "http://engine:8000", "http://10.0.0.1"))))
    assert warned == "the key in --api-key-file is sent unencrypted to engine:8000, 10.0.0.1:80: use https"


def test_a_tier_of_up_stands_in_front_of_an_engine_only_when_an_endpoint_is_given() -> None:
    assert in_front_of(Tier.SMALL, Given(model="m.gguf")) is None
    assert in_front_of(Tier.SMALL, Given(endpoint=(URL,))) == External(EngineKind.OPENAI, (URL,), Route.CHAT)
    assert in_front_of(Tier.LARGE, TGI) == External(EngineKind.TGI, (URL,), Route.NATIVE)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (Given(EngineKind.TGI, engine_model="m"), "--small-engine, --small-engine-model: only with --small-endpoint"),
        (Given(api_key_file=Path("key")), "--small-api-key-file: only with --small-endpoint"),
        (
            Given(endpoint=(URL,), model="m.gguf"),
            "--small-model and --small-endpoint: give one of them; the model of an engine of your own is named by"
            " --small-engine-model",
        ),
        (
            Given(endpoint=("http://user:secret@xn--bcher-kva.example:1",)),
            "--small-endpoint xn--bcher-kva.example:1: give it without user, password and query; a key goes into"
            " --small-api-key-file",
        ),
        (Given(endpoint=(" ",)), "--small-engine openai needs --small-endpoint, for example http://127.0.0.1:8000"),
    ],
)
def test_a_mistake_is_told_in_the_words_of_up(given: Given, problem: str) -> None:
    with pytest.raises(ConfigurationError) as told:
        in_front_of(Tier.SMALL, given)
    assert str(told.value) == problem


def test_a_warning_is_told_in_the_words_of_up() -> None:
    engine = in_front_of(Tier.LARGE, Given(endpoint=("http://models.example",), api_key_file=Path("key")))
    assert engine is not None
    assert of_tier(Tier.LARGE, str(risk(engine))).startswith("the key in --large-api-key-file is sent unencrypted")
