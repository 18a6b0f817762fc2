"""API keys at a router: nobody gets in without one, nothing is looked at before, and no sink holds one."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from typer.testing import CliRunner

from contract.subjects import Untraced
from integration.processes import answer, deployed
from integration.served import Served, served
from marginal.entrypoints import keys as keys_command
from marginal.entrypoints import router
from marginal.entrypoints.processes import free_addresses
from marginal.entrypoints.services import ROUTER
from marginal.errors import Unauthenticated
from marginal.routing.keyring import REFUSAL, ApiKey, Keyring
from marginal.settings.keys_file import minted
from marginal.transport.credentials import Callers
from marginal.transport.guard import Guard
from marginal.transport.router_client import RouterClient
from marginal.transport.server import ServerSettings, serve
from marginal.v1 import router_pb2
from unit.routing.cascade import Cascade

GOOD = router_pb2.RouterServiceGenerateRequest(prompt="a question")
NO_MESSAGE = b"\xff\xff\xff"
NOW = time.time()
KEY, KEPT = minted("search", now=NOW)
ENDED, ENDED_KEPT = minted("search", now=NOW, expires_at=NOW - 1)
REVOKED, REVOKED_KEPT = minted("search", now=NOW)
KEYRING = Keyring(
    [KEPT, ENDED_KEPT, ApiKey(REVOKED_KEPT.id, REVOKED_KEPT.sha256, "search", NOW, revoked=True)],
)
CALLERS = Callers(lambda key: KEYRING.owner(key, now=time.time()).tenant)

Metadata = tuple[tuple[str, str], ...]

NOBODY: dict[str, Metadata] = {
    "no key": (),
    "a header alone": (("marginal-tenant", "search"),),
    "no key of ours": (("authorization", "Bearer sk-1234"),),
    "another secret": (("authorization", f"Bearer {KEY[:-3]}xyz"),),
    "another scheme": (("authorization", f"Basic {KEY}"),),
    "two keys": (("authorization", f"Bearer {KEY}"), ("x-api-key", KEY)),
    "one that has ended": (("authorization", f"Bearer {ENDED}"),),
    "one that was revoked": (("x-api-key", REVOKED),),
}


def bearer(key: str = KEY) -> Metadata:
    return (("authorization", f"Bearer {key}"),)


async def refusal(target: Served, request: Any, metadata: Metadata) -> tuple[grpc.StatusCode, str, str]:
    """The code, the text and the reason of a call that is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await target.call(request, metadata=metadata)
    info = error_details_pb2.ErrorInfo()
    status = rpc_status.from_call(refused.value)
    assert status is not None
    assert any(detail.Unpack(info) for detail in status.details)
    return refused.value.code(), refused.value.details() or "", info.reason


def run(*arguments: str) -> dict[str, Any]:
    """What a command of `marginal keys` with --json gives."""
    done = CliRunner().invoke(keys_command.app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    parsed = json.loads(done.stdout)
    assert isinstance(parsed, dict)
    return parsed


async def ask(target: str, key: str) -> str:
    async with RouterClient(target, api_key=key) as client:
        text, _ = await answer(client, "a question")
        return text


async def opens(target: str, key: str, *, wanted: bool) -> None:
    """Waits until a key opens, or opens no more."""
    async with asyncio.timeout(10):
        while True:
            try:
                await ask(target, key)
                seen = True
            except Unauthenticated:
                seen = False
            if seen is wanted:
                return
            await asyncio.sleep(0.1)


def everything_in(directory: Path) -> str:
    """The text of all files: logs, spans, and what else the services wrote."""
    return "".join(path.read_text() for path in directory.iterdir() if path.is_file())


@asynccontextmanager
async def serving_nothing(host: str, *, reflection: bool | None) -> AsyncIterator[str]:
    """A server without a service of ours, by its address on this machine."""
    [address] = free_addresses("127.0.0.1", 1)
    stop, ready = asyncio.Event(), asyncio.Event()
    settings = ServerSettings(f"{host}:{address.rpartition(':')[2]}", grace_seconds=0.0, reflection=reflection)
    guard = Guard(Untraced(), max_calls=4, trust_baggage=False)

    async def until_ready() -> None:
        ready.set()

    serving = asyncio.create_task(
        serve("test", settings, guard=guard, register=lambda _: None, until_ready=until_ready, stop=stop)
    )
    await ready.wait()
    try:
        yield address
    finally:
        stop.set()
        await serving


async def lists_services(target: str) -> bool:
    """Whether reflection answers."""
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    async with grpc.aio.insecure_channel(target) as channel:
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([asked]), timeout=5)
        with suppress(grpc.aio.AioRpcError):
            return bool([response async for response in call])
        return False


async def test_a_key_is_billed_to_its_tenant() -> None:
    cascade = Cascade()
    async with served(cascade, callers=CALLERS) as target:
        await target.call(GOOD, metadata=bearer())
        await target.call(GOOD, metadata=(("x-api-key", KEY), ("marginal-tenant", "search")))
    assert [record.tenant for record in cascade.recorder.records] == ["search", "search"]


@pytest.mark.parametrize("metadata", NOBODY.values(), ids=NOBODY)
@pytest.mark.parametrize("request_", [GOOD, NO_MESSAGE], ids=["a request", "no message"])
async def test_a13_without_a_good_key_the_answer_is_the_same_whatever_was_sent(
    request_: Any, metadata: Metadata
) -> None:
    cascade = Cascade()
    async with served(cascade, callers=CALLERS) as target:
        assert await refusal(target, request_, metadata) == (
            grpc.StatusCode.UNAUTHENTICATED,
            REFUSAL,
            "UNAUTHENTICATED",
        )
    assert cascade.recorder.records == []


async def test_a13_unknown_keys_and_wrong_secrets_are_refused_in_similar_time() -> None:
    unknown, _ = minted("search", now=NOW)
    taken: list[tuple[float, ...]] = []
    async with served(Cascade(), callers=CALLERS) as target:
        for _ in range(100):
            each = []
            for key in (unknown, f"{KEY[:-3]}xyz", "nonsense"):
                began = time.perf_counter()
                await refusal(target, GOOD, bearer(key))
                each.append(time.perf_counter() - began)
            taken.append(tuple(each))
    unknown_s, wrong_s, nonsense_s = (median(column) for column in zip(*taken, strict=True))
    assert unknown_s == pytest.approx(wrong_s, rel=0.5)
    assert nonsense_s == pytest.approx(wrong_s, rel=0.5)


async def test_a14_a_key_cannot_be_billed_to_somebody_else() -> None:
    cascade = Cascade()
    async with served(cascade, callers=CALLERS) as target:
        code, text, reason = await refusal(target, GOOD, (*bearer(), ("marginal-tenant", "ads")))
    assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_ALLOWED")
    assert "search" not in text
    assert cascade.recorder.records == []


async def test_a25_whatever_else_the_metadata_claims_is_not_read() -> None:
    cascade = Cascade()
    claims = (("marginal-cost", "0"), ("marginal-tier", "large"), ("marginal-request-id", "mine"), ("x-tenant", "ads"))
    async with served(cascade, callers=CALLERS) as target:
        *_, last = await target.call(GOOD, metadata=(*bearer(), *claims))
    [record] = cascade.recorder.records
    assert last.final.total.nanos == record.total_nanos > 0
    assert (record.tenant, record.request_id == "mine") == ("search", False)


async def test_health_needs_no_key() -> None:
    async with served(Cascade(), callers=CALLERS) as target:
        assert await target.healthy()


async def test_without_keys_a_header_names_nobody_else() -> None:
    async with served(Cascade(), callers=Callers()) as target:
        code, *_ = await refusal(target, GOOD, (("marginal-tenant", "ads"),))
        assert code is grpc.StatusCode.PERMISSION_DENIED
        assert await target.call(GOOD, metadata=(("marginal-tenant", "default"),))


async def test_a_router_takes_new_keys_and_drops_revoked_ones_while_it_runs_and_logs_none(tmp_path: Path) -> None:
    keys, tenants = tmp_path / "keys.jsonl", tmp_path / "tenants.toml"
    first = run("create", "search", "--keys-file", str(keys))
    tenants.write_text("[tenants.search]\nconcurrency = 4\n")
    async with deployed(
        tmp_path,
        small="scripted:tokens=4",
        large="scripted:tokens=4",
        router=("--keys-file", str(keys), "--tenants-file", str(tenants)),
    ) as services:
        assert await ask(services.target, first["key"])
        with pytest.raises(Unauthenticated, match=REFUSAL):
            await ask(services.target, "")
        second = run("create", "ads", "--keys-file", str(keys), "--expires", "1h")
        await opens(services.target, second["key"], wanted=True)
        run("revoke", first["id"], "--keys-file", str(keys))
        await opens(services.target, first["key"], wanted=False)
        assert {line["tenant"] for line in services.logged(ROUTER, "cost_record")} == {"search", "ads"}
    listed = run("list", "--keys-file", str(keys))["keys"]
    assert [(key["tenant"], key["state"]) for key in listed] == [("search", "revoked"), ("ads", "valid")]
    written = everything_in(tmp_path)
    for secret in (first["key"], second["key"], first["key"].split("_", 2)[2]):
        assert secret not in written
    assert keys.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--listen", "0.0.0.0:0"), "--listen 0.0.0.0:0: others than this machine could reach it and spend"),
        (("--admin-listen", "[::]:0"), "--admin-listen [::]:0: others than this machine could reach it"),
        (("--keys-file", "nowhere.jsonl"), "keys file nowhere.jsonl: cannot be read"),
        (("--tenants-file", "nowhere.toml"), "tenants file nowhere.toml: cannot be read"),
        (("--tls-cert", "nowhere.crt"), "--tls-cert and --tls-key belong together"),
        (("--tls-ca", "nowhere.crt"), "certificate nowhere.crt: cannot be read"),
    ],
)
def test_a_router_that_would_not_be_safe_refuses_to_start(arguments: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(router.app, ["--listen", "127.0.0.1:0", "--admin-listen", "", *arguments])
    assert done.exit_code == 2
    assert said in done.stderr


@pytest.mark.parametrize(
    ("host", "asked", "reflects"),
    [("127.0.0.1", None, True), ("127.0.0.1", False, False), ("0.0.0.0", None, False), ("0.0.0.0", True, True)],
)
async def test_a30_reflection_is_for_this_machine_only_unless_asked_for(
    host: str, *, asked: bool | None, reflects: bool
) -> None:
    async with serving_nothing(host, reflection=asked) as target:
        assert await lists_services(target) is reflects
