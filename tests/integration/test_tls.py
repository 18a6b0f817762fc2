"""TLS on a hop: who gets through and who does not, what is said about it, and certificates that change meanwhile."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from contract.subjects import Unrecorded, Untraced
from evidence import sure
from integration.authorities import Authority, Identity
from marginal.backends.scripted import Script, ScriptedModel
from marginal.entrypoints.certificate_keeping import CertificateKeeper, TlsFiles
from marginal.entrypoints.processes import free_addresses
from marginal.errors import ConfigurationError, TierUnavailable
from marginal.routing.overview import Overview, Source
from marginal.routing.spending import BudgetStates, CostQuery, CostSummary
from marginal.tokens import Chunk, Generation, Message, Role, Sampling
from marginal.transport.admin import AdminServicer, list_policies, serving_admin
from marginal.transport.certificates import CertificateFiles, read_certificates
from marginal.transport.guard import Guard
from marginal.transport.model_servicer import ModelServicer
from marginal.transport.remote_model import RemoteModel, connected
from marginal.transport.router_client import wait_until_serving
from marginal.transport.server import options
from marginal.transport.tls import ServerTls, open_port
from marginal.transport.validation import Limits
from unit.entrypoints.test_reaching import reached
from unit.telemetry.spans import MemoryLog, MemoryTracing
from unit.telemetry.test_metrics import Counted

ASKED = Generation((Message(Role.USER, "a question"),), Sampling(max_tokens=64))


@dataclass
class Side:
    """One process's certificates, followed by looks that the test takes itself."""

    keeper: CertificateKeeper
    log: MemoryLog

    async def look(self) -> None:
        for _ in range(2):
            for followed in self.keeper.followed:
                await followed.look_again()

    def told(self, event: str) -> list[str]:
        return [str(line.get("because", "")) for line in self.log.events() if line["event"] == event]


def side(files: TlsFiles) -> Side:
    log = MemoryLog()
    return Side(CertificateKeeper(files, log=log.logs.log, metrics=Counted().metrics), log)


@dataclass
class Served:
    """A model service on a real port."""

    port: int
    side: Side

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"


@asynccontextmanager
async def serving(files: TlsFiles, *, tokens: int = 2, delay: float = 0.0) -> AsyncIterator[Served]:
    """Serves a scripted model as `files` say."""
    own = side(files)
    script = Script(tuple(sure(0.9, text=f"{n} ") for n in range(tokens)), input_tokens=1, delay_seconds=delay)
    guard = Guard(Untraced(), max_calls=64, trust_baggage=True)
    server = grpc.aio.server(interceptors=[guard], options=options(guard, message_bytes=1024 * 1024))
    ModelServicer(ScriptedModel(script), name="scripted", limits=Limits(), recorder=Unrecorded()).register(server)
    statuses = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(statuses, server)
    await statuses.set("marginal.v1.ModelService", health_pb2.HealthCheckResponse.SERVING)
    port = open_port(server, "127.0.0.1:0", own.keeper.server, option="--listen")
    await server.start()
    try:
        yield Served(port, own)
    finally:
        await server.stop(None)
        await guard.idle()


async def answer(model: RemoteModel) -> list[Chunk]:
    async with aclosing(model.generate(ASKED, timeout=5.0)) as chunks:
        return [chunk async for chunk in chunks]


async def refusal(served: Served, files: TlsFiles) -> str:
    """Why no call gets through."""
    async with connected(served.target, tls=side(files).keeper.client) as model:
        with pytest.raises(TierUnavailable) as refused:
            await answer(model)
    return str(refused.value)


@pytest.fixture(scope="module")
def ours() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def theirs() -> Authority:
    return Authority()


@pytest.fixture
def server(ours: Authority, tmp_path: Path) -> Identity:
    return ours.write(tmp_path / "server")


@pytest.fixture
def caller(ours: Authority, tmp_path: Path) -> Identity:
    return ours.write(tmp_path / "caller", "router")


def calling(identity: Identity) -> TlsFiles:
    """For a caller that shows its certificate."""
    return TlsFiles(identity.cert, identity.key, ca=identity.ca)


async def test_the_right_authority_gets_through(server: Identity) -> None:
    async with (
        serving(server.serving()) as served,
        connected(served.target, tls=side(TlsFiles(ca=server.ca)).keeper.client) as model,
    ):
        assert len(await answer(model)) == 3
        assert (await model.describe()).name == "scripted"


async def test_both_sides_may_ask_for_certificates(server: Identity, caller: Identity) -> None:
    async with (
        serving(server.serving(mutual=True)) as served,
        connected(served.target, tls=side(calling(caller)).keeper.client) as model,
    ):
        assert len(await answer(model)) == 3


async def test_certificates_are_handed_over_once_to_each_port_and_not_at_every_handshake(
    ours: Authority, tmp_path: Path
) -> None:
    before, after = (ours.write(tmp_path / name).files for name in ("before", "after"))
    tls = ServerTls(read_certificates(before, clock=time.time))
    ports = [tls.changes(), tls.changes()]
    assert [changed() for changed in ports] == [None, None]
    tls.replace(read_certificates(after, clock=time.time))
    first, second = (changed() for changed in ports)
    assert first is second is not None
    assert [changed() for changed in ports] == [None, None]


async def test_the_authority_of_somebody_else_is_not_believed(
    server: Identity, theirs: Authority, tmp_path: Path
) -> None:
    foreign = theirs.write(tmp_path / "foreign")
    async with serving(server.serving()) as served:
        said = await refusal(served, TlsFiles(ca=foreign.ca))
    assert said == "its certificate was refused: unable to get local issuer certificate"


async def test_a_certificate_for_another_host_is_not_believed(ours: Authority, tmp_path: Path) -> None:
    elsewhere = ours.write(tmp_path / "elsewhere", "elsewhere.example")
    async with serving(elsewhere.serving()) as served:
        assert await refusal(served, TlsFiles(ca=elsewhere.ca)) == "its certificate is for another host name"


async def test_a_certificate_for_another_host_is_believed_by_whoever_says_its_name(
    ours: Authority, tmp_path: Path
) -> None:
    elsewhere = ours.write(tmp_path / "elsewhere", "elsewhere.example")
    how = reached(tls=CertificateFiles(ca=elsewhere.ca), name="elsewhere.example")
    async with serving(elsewhere.serving()) as served, connected(served.target, tls=how.tls) as model:
        assert len(await answer(model)) == 3


async def test_a_caller_without_a_certificate_is_refused_where_one_is_asked_for(server: Identity) -> None:
    async with serving(server.serving(mutual=True)) as served:
        assert await refusal(served, TlsFiles(ca=server.ca)) == "it answered UNAVAILABLE"


async def test_the_certificate_of_a_foreign_caller_is_refused(
    server: Identity, theirs: Authority, tmp_path: Path
) -> None:
    foreign = theirs.write(tmp_path / "foreign", "router")
    async with serving(server.serving(mutual=True)) as served:
        said = await refusal(served, TlsFiles(foreign.cert, foreign.key, ca=server.ca))
    assert said == "it answered UNAVAILABLE"


async def test_plain_text_gets_nothing_out_of_tls(server: Identity) -> None:
    async with serving(server.serving()) as served:
        assert await refusal(served, TlsFiles()) == "it answered UNAVAILABLE"


async def test_tls_to_plain_text_is_said(server: Identity) -> None:
    async with serving(TlsFiles()) as served:
        assert await refusal(served, TlsFiles(ca=server.ca)) == "it does not speak TLS"


async def test_waiting_for_a_service_tells_why_it_is_in_vain(
    server: Identity, theirs: Authority, tmp_path: Path
) -> None:
    foreign = side(TlsFiles(ca=theirs.write(tmp_path / "foreign").ca)).keeper.client
    async with serving(server.serving()) as served:
        with pytest.raises(TierUnavailable, match="certificate was refused"):
            await wait_until_serving(served.target, "", timeout_seconds=1.0, tls=foreign)


async def test_f47_a_certificate_that_ends_is_said_by_both_sides_and_its_successor_works_without_a_restart(
    ours: Authority, tmp_path: Path
) -> None:
    lasting = timedelta(seconds=3)
    server = ours.write(tmp_path / "server", ends_in=lasting)
    client = side(TlsFiles(ca=server.ca)).keeper.client
    async with serving(server.serving()) as served:
        async with connected(served.target, tls=client) as model:
            assert await answer(model)
        await asyncio.sleep(lasting.total_seconds())
        await served.side.look()
        assert await refusal(served, TlsFiles(ca=server.ca)) == "its certificate was refused: certificate has expired"
        [because] = served.side.told("file_refused")
        assert f"certificate {server.cert}: is valid from" in because
        ours.write(tmp_path / "server")
        await served.side.look()
        async with connected(served.target, tls=client) as model:
            assert await answer(model)
        assert len(served.side.told("file_reread")) == 1


async def test_a_server_shows_its_new_certificate_from_the_next_connection_on(
    server: Identity, theirs: Authority
) -> None:
    async with (
        serving(server.serving(), tokens=20, delay=0.05) as served,
        connected(served.target, tls=side(TlsFiles(ca=server.ca)).keeper.client) as before,
    ):
        under_way = asyncio.create_task(answer(before))
        await asyncio.sleep(0.2)
        theirs.write(server.directory)
        await served.side.look()
        async with connected(served.target, tls=side(TlsFiles(ca=server.ca)).keeper.client) as after:
            assert len(await answer(after)) == 21
        assert len(await under_way) == 21


@pytest.mark.parametrize("traced", [False, True])
async def test_a_caller_dials_anew_when_its_files_change_and_old_streams_end_well(
    ours: Authority, theirs: Authority, tmp_path: Path, *, traced: bool
) -> None:
    server, own = ours.write(tmp_path / "server"), ours.write(tmp_path / "own", "router")
    router = side(calling(own))
    tracer = MemoryTracing().tracing.tracer if traced else None
    async with (
        serving(server.serving(mutual=True), tokens=20, delay=0.05) as served,
        connected(served.target, tracer, tls=router.keeper.client) as model,
    ):
        under_way = asyncio.create_task(answer(model))
        await asyncio.sleep(0.2)
        theirs.write(server.directory)
        await served.side.look()
        theirs.write(own.directory, "router")
        await router.look()
        assert len(await answer(model)) == 21
        assert (await model.describe()).name == "scripted"
        assert len(await under_way) == 21


async def test_a_key_that_does_not_fit_is_refused_while_the_pair_before_serves_on(
    server: Identity, theirs: Authority, tmp_path: Path
) -> None:
    client = side(TlsFiles(ca=server.ca)).keeper.client
    async with serving(server.serving()) as served:
        server.key.write_bytes(theirs.write(tmp_path / "foreign").key.read_bytes())
        await served.side.look()
        async with connected(served.target, tls=client) as model:
            assert await answer(model)
    [because] = served.side.told("file_refused")
    assert "is not its unencrypted key" in because
    assert "PRIVATE KEY" not in because


class NoBooks:
    """Nobody asks about money here."""

    def costs(self, query: CostQuery) -> CostSummary:
        return CostSummary(query.by)

    def record(self, request_id: str) -> None:
        del request_id

    async def budgets(self, tenant: str) -> BudgetStates:
        del tenant
        return BudgetStates("USD")


async def test_operators_get_through_with_their_certificate_only(server: Identity, caller: Identity) -> None:
    look = Overview(Source("test", 0.0), "", "", ())
    guard = Guard(Untraced(), max_calls=4, trust_baggage=False)
    [address] = free_addresses("127.0.0.1", 1)
    admin = serving_admin(
        address,
        AdminServicer(lambda: look, NoBooks()),
        guard=guard,
        tls=side(server.serving(mutual=True)).keeper.server,
    )
    async with admin:
        assert (await list_policies(address, tls=side(calling(caller)).keeper.client)).source.name == "test"
        with pytest.raises(TierUnavailable):
            await list_policies(address, tls=side(TlsFiles(ca=server.ca)).keeper.client)


def test_callers_can_only_be_asked_for_certificates_by_a_server_that_has_one(server: Identity) -> None:
    with pytest.raises(ConfigurationError, match="--tls-client-ca: needs --tls-cert and --tls-key"):
        side(TlsFiles(client_ca=server.ca))
