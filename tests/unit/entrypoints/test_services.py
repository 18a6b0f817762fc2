"""Which processes `marginal up` starts, and with which arguments."""

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from marginal.entrypoints.engines import EngineKind, External, Route
from marginal.entrypoints.processes import CHOSEN_PORTS, free_addresses
from marginal.entrypoints.services import Plan, prepared, programs
from marginal.errors import ConfigurationError
from marginal.models.catalogue import Pair
from marginal.telemetry.tracing import Exporter


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(
        pair=Pair("home-small", "home-large"),
        listen="127.0.0.1:0",
        small_listen=None,
        large_listen=None,
        policy_file=None,
        state_dir=tmp_path / "state",
        exporter=Exporter.FILE,
        otlp_endpoint=None,
    )


def option(arguments: tuple[str, ...], name: str) -> str:
    return arguments[arguments.index(name) + 1]


def test_the_router_is_told_where_the_tiers_listen(plan: Plan) -> None:
    router, small, large = programs(plan)
    assert option(router.arguments, "--small") == option(small.arguments, "--listen") == small.address
    assert option(router.arguments, "--large") == option(large.arguments, "--listen") == large.address


def test_a_tier_stands_in_front_of_an_engine_instead_of_running_its_model(plan: Plan) -> None:
    urls = ("http://127.0.0.1:8080", "https://models.example/v1")
    engine = External(EngineKind.OPENAI, urls, Route.CHAT, model="qwen", api_key_file=Path("/run/secrets/key"))
    _, small, large = programs(replace(plan, large_engine=engine))
    assert option(small.arguments, "--model") == small.serves == "home-small"
    assert large.serves == "qwen of openai at 127.0.0.1:8080, models.example:443"
    assert large.arguments[2:12] == (
        *("--engine", "openai", "--endpoint", urls[0], "--endpoint", urls[1]),
        *("--engine-model", "qwen", "--api-key-file", "/run/secrets/key"),
    )


def test_addresses_not_given_are_all_different_and_not_of_the_ports_systems_hand_out(plan: Plan) -> None:
    addresses = [program.address for program in programs(plan)]
    ports = {int(address.rpartition(":")[2]) for address in addresses}
    assert len(ports) == 3
    assert ports <= set(CHOSEN_PORTS)


def test_every_service_has_a_log_and_a_span_file_of_its_own(plan: Plan) -> None:
    started = programs(plan)
    assert [program.log_path.name for program in started] == [
        "router.log.jsonl",
        "small-model.log.jsonl",
        "large-model.log.jsonl",
    ]
    assert [option(program.arguments, "--trace-file") for program in started] == [
        str(program.spans_path) for program in started
    ]


def test_no_service_takes_an_address_for_metrics_from_the_environment_that_all_three_would_get(plan: Plan) -> None:
    assert [option(program.arguments, "--metrics-listen") for program in programs(plan)] == ["", "", ""]


def test_a_router_on_every_interface_is_called_by_loopback(plan: Plan) -> None:
    router, *_ = programs(replace(plan, listen="0.0.0.0:0"))
    assert router.address.startswith("0.0.0.0:")
    assert router.target == router.address.replace("0.0.0.0", "127.0.0.1")


def test_an_address_in_use_is_refused_by_the_option_that_changes_it(plan: Plan) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigurationError, match=r"cannot be listened on .* name another with --large-listen"):
            programs(replace(plan, large_listen=address))


@pytest.mark.parametrize("address", ["50051", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", ":"])
def test_an_address_that_is_none_is_refused_with_an_example(plan: Plan, address: str) -> None:
    with pytest.raises(ConfigurationError, match=r"give HOST:PORT, for example 127\.0\.0\.1:50051"):
        programs(replace(plan, listen=address))


def test_the_policies_are_kept_beside_the_logs_they_explain(plan: Plan) -> None:
    with prepared(plan.state_dir, None):
        pass
    assert "[policies.default]" in (plan.state_dir / "policies.toml").read_text("utf-8")


def test_a_bad_policy_file_is_refused_before_anything_starts(plan: Plan, tmp_path: Path) -> None:
    bad = tmp_path / "mine.toml"
    bad.write_text("default = 1", "utf-8")
    with pytest.raises(ConfigurationError, match=r"mine\.toml"):
        prepared(plan.state_dir, bad).__enter__()
    assert not plan.state_dir.exists()


def test_a_state_directory_that_cannot_be_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(ConfigurationError, match="name another with --state-dir"):
        prepared(tmp_path / "file" / "state", None).__enter__()


def test_free_addresses_skip_what_is_in_use() -> None:
    assert len(set(free_addresses("127.0.0.1", 5))) == 5


def test_a_state_directory_is_one_ups_own(tmp_path: Path) -> None:
    with prepared(tmp_path, None), pytest.raises(ConfigurationError, match=r"in use by another .* --state-dir"):
        prepared(tmp_path, None).__enter__()
    with prepared(tmp_path, None):
        pass
