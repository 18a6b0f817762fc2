"""`marginal status` against an API server of our own, with a real router's ports behind it."""

import asyncio
import base64
import json
import sys
import threading
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from cluster.api_server import ApiServer
from contract.subjects import Untraced
from integration.authorities import Authority, Identity
from integration.test_replicas import free_port
from marginal.cluster import api as kubernetes
from marginal.cluster.port_forward import forwarded
from marginal.cluster.release import Workload, find_release
from marginal.entrypoints import cli
from marginal.entrypoints.status import ADMIN_PORT, SCALER_PORT
from marginal.entrypoints.status_facts import NOTHING, Status, what_is_wrong
from marginal.entrypoints.status_shown import status_shown
from marginal.errors import ConfigurationError
from marginal.routing.holds import Window
from marginal.routing.overview import Source
from marginal.routing.spending import BudgetState, BudgetStates
from marginal.tokens import Tier
from marginal.transport.admin import AdminServicer, serving_admin
from marginal.transport.certificates import CertificateFiles, read_certificates
from marginal.transport.guard import Guard
from marginal.transport.scaler import serving_scaler
from marginal.transport.tls import ServerTls
from unit.entrypoints.test_policy_shown import SEEN

APPS = "/apis/apps/v1/namespaces/llm"
SCALED = "/apis/keda.sh/v1alpha1/namespaces/llm/scaledobjects"
HPAS = "/apis/autoscaling/v2/namespaces/llm/horizontalpodautoscalers"
SPENT = BudgetState("acme", Window.DAY, "2026-11-24", 5_000_000_000, 0, 20_000_000_000, 3_600.0)


class Books:
    """The money of one tenant."""

    async def budgets(self, tenant: str) -> BudgetStates:  # noqa: ARG002
        return BudgetStates("USD", (SPENT,))


class Wanted:
    """A scale that wants the large tier."""

    def demand(self, tier: Tier) -> float:
        return 3.5 if tier is Tier.LARGE else 0.0

    def active(self, tier: Tier) -> bool:
        return tier is Tier.LARGE

    async def changes(self, tier: Tier) -> AsyncIterator[bool]:
        yield self.active(tier)


def workload(
    component: str, *, ready: int, desired: int, release: str = "main", version: str = "0.1.0"
) -> dict[str, Any]:
    labels = {"name": "marginal", "part-of": "marginal", "instance": release, "component": component}
    return {
        "metadata": {
            "name": f"{release}-{component}",
            "labels": {f"app.kubernetes.io/{key}": value for key, value in {**labels, "version": version}.items()},
        },
        "spec": {"replicas": desired},
        "status": {"readyReplicas": ready} if ready else {},
    }


async def install(server: ApiServer, *, large: tuple[int, int] = (0, 0), tls: bool = False) -> None:
    """A release whose large tier is scaled by KEDA and whose router is by an HPA."""
    router = workload("router", ready=2, desired=2)
    if tls:
        container = {"name": "router", "env": [{"name": "MARGINAL_TLS_CERT", "value": "/tls.crt"}]}
        router["spec"]["template"] = {"spec": {"containers": [container]}}
    await server.put(f"{APPS}/deployments", router)
    await server.put(f"{APPS}/deployments", workload("small", ready=1, desired=2))
    await server.put(f"{APPS}/statefulsets", workload("large", ready=large[0], desired=large[1]))
    await server.put(f"{APPS}/statefulsets", workload("valkey", ready=1, desired=1))
    target = {"scaleTargetRef": {"name": "main-router"}, "minReplicas": 2, "maxReplicas": 6}
    await server.put(HPAS, {"metadata": {"name": "main-router"}, "spec": target})
    made = {"scaleTargetRef": {"name": "main-large"}, "minReplicas": 1, "maxReplicas": 4}
    await server.put(HPAS, {"metadata": {"name": "keda-hpa-main-large"}, "spec": made})
    scaled = {"scaleTargetRef": {"name": "main-large"}, "minReplicaCount": 0, "maxReplicaCount": 4, "triggers": []}
    await server.put(SCALED, {"metadata": {"name": "main-large"}, "spec": scaled})
    labels = {"app.kubernetes.io/instance": "main", "app.kubernetes.io/component": "router"}
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    await server.put(
        "/api/v1/namespaces/llm/pods", {"metadata": {"name": "main-router-1", "labels": labels}, "status": ready}
    )
    small = {"name": "main-small-7", "labels": labels | {"app.kubernetes.io/component": "small"}}
    await server.put("/api/v1/namespaces/llm/pods", {"metadata": small, "status": {}})
    for number, about in enumerate(("main-small-7", "other-1", "main-router-1")):
        event = {
            "metadata": {"name": f"event-{number}"},
            "type": "Warning",
            "reason": "Unhealthy",
            "message": "Readiness probe failed:\n NOT_SERVING",
            "count": 4,
            "lastTimestamp": f"2026-11-24T21:0{number}:00Z",
            "involvedObject": {"kind": "Pod", "name": about},
        }
        await server.put("/api/v1/namespaces/llm/events", event)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ApiServer]:
    """An installed release with a router behind it."""
    with served(tmp_path) as server:
        yield server


@contextmanager
def served(tmp_path: Path, identity: Identity | None = None) -> Iterator[ApiServer]:
    """The same, by an event loop of its own; with an identity the router speaks TLS."""
    tls = (
        ServerTls(read_certificates(CertificateFiles(identity.cert, identity.key), clock=time.time))
        if identity
        else None
    )
    ready, end = asyncio.Event(), asyncio.Event()
    server = ApiServer()

    async def serve() -> None:
        guard = Guard(Untraced(), max_calls=8, trust_baggage=False)
        ports = {ADMIN_PORT: free_port(), SCALER_PORT: free_port()}
        server.ports = {("main-router-1", port): here for port, here in ports.items()}
        admin = AdminServicer(lambda: SEEN, Books())  # type: ignore[arg-type]
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(server)
            await install(server, tls=tls is not None)
            server.kubeconfig(tmp_path, namespace="llm")
            admin_at = f"127.0.0.1:{ports[ADMIN_PORT]}"
            await stack.enter_async_context(serving_admin(admin_at, admin, guard=guard, tls=tls))
            await stack.enter_async_context(serving_scaler(f"127.0.0.1:{ports[SCALER_PORT]}", Wanted(), guard=guard))
            ready.set()
            await end.wait()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    while not ready.is_set():
        threading.Event().wait(0.01)
    yield server
    loop.call_soon_threadsafe(end.set)
    thread.join()
    loop.close()


def status(*options: str, before: tuple[str, ...] = ()) -> str:
    outcome = CliRunner().invoke(cli.app, [*before, "status", *options], env={"COLUMNS": "110"}, catch_exceptions=False)
    return outcome.stdout


def test_a_release_is_shown_with_what_is_wrong(cluster: ApiServer, tmp_path: Path) -> None:
    shown = " ".join(status("--kubeconfig", str(tmp_path / "kubeconfig"), "-n", "llm").split())
    assert "release main in namespace llm · version 0.1.0" in shown
    assert "wrong: no replica of the large tier is ready (0 wanted): its requests wait, or degrade" in shown
    assert "router 2 2 hpa, 2 to 6" in shown
    assert "small 1 2 none 0.0" in shown
    assert "large 0 0 keda, 0 to 4 3.5" in shown
    assert "default 3 acme 0.31 1,200 30.3% 1.0% $0.00540" in shown
    assert "this day: $5.00 spent, $0.00 held for requests under way" in shown
    assert "pod main-small-7: Unhealthy (4 times), Readiness probe failed: NOT_SERVING" in shown
    assert "other-1" not in shown
    assert "pod main-router-1" not in shown
    assert any(one.startswith("forward main-router-1:50054") for one in cluster.asked)


def test_the_same_as_one_object(cluster: ApiServer, tmp_path: Path) -> None:  # noqa: ARG001
    seen = json.loads(status("--kubeconfig", str(tmp_path / "kubeconfig"), "-n", "llm", "--json"))
    assert [(one["component"], one["ready"], one["desired"], one["scaler"]) for one in seen["tiers"]] == [
        ("router", 2, 2, "hpa"),
        ("small", 1, 2, "none"),
        ("large", 0, 0, "keda"),
    ]
    assert seen["tiers"][2]["demand"] == 3.5
    assert seen["policies"]["policies"][0]["criteria"][0]["tenants"][0]["threshold"] == 0.31
    assert seen["budgets"][0]["spent_nanos"] == 5_000_000_000
    assert seen["unreachable"] is None
    assert "secret-token" not in json.dumps(seen)


def test_who_may_not_forward_a_port_is_told_so(cluster: ApiServer, tmp_path: Path) -> None:
    cluster.refuses["/api/v1/namespaces/llm/pods/main-router-1/portforward"] = 403
    seen = json.loads(status("--kubeconfig", str(tmp_path / "kubeconfig"), "-n", "llm", "--json"))
    assert seen["unreachable"] == "the API server refused a port-forward with status 403"
    assert [one["ready"] for one in seen["tiers"]] == [2, 1, 0]


def test_a_router_that_outlives_its_deployment_is_not_asked(cluster: ApiServer, tmp_path: Path) -> None:
    asyncio.run(cluster.delete(f"{APPS}/deployments", "main-router"))
    seen = json.loads(status("--kubeconfig", str(tmp_path / "kubeconfig"), "-n", "llm", "--json"))
    assert seen["unreachable"] == "the release has no router"
    assert [one["component"] for one in seen["tiers"]] == ["small", "large"]


def test_a_router_that_speaks_tls_is_believed_by_the_name_of_its_service(tmp_path: Path) -> None:
    identity = Authority().write(tmp_path / "tls", "main-router", "main-router.llm.svc")
    with served(tmp_path, identity):
        where = ("--kubeconfig", str(tmp_path / "kubeconfig"), "-n", "llm", "--json")
        believed = json.loads(status(*where, before=("--tls-ca", str(identity.ca))))
        unsaid = json.loads(status(*where))
        stranger = Authority().write(tmp_path / "other", "main-router.llm.svc")
        disbelieved = json.loads(status(*where, before=("--tls-ca", str(stranger.ca))))
    assert believed["budgets"][0]["spent_nanos"] == 5_000_000_000
    assert "say `marginal --tls-ca FILE status`" in unsaid["unreachable"]
    assert "its certificate was refused" in disbelieved["unreachable"]


def test_a_router_whose_certificate_is_for_another_name_is_believed_by_whoever_says_it(tmp_path: Path) -> None:
    identity = Authority().write(tmp_path / "tls", "router.example")
    with served(tmp_path, identity):
        where = ("--kubeconfig", str(tmp_path / "kubeconfig"), "-n", "llm", "--json")
        named = json.loads(status(*where, before=("--tls-ca", str(identity.ca), "--tls-name", "router.example")))
        unnamed = json.loads(status(*where, before=("--tls-ca", str(identity.ca))))
    assert named["budgets"][0]["spent_nanos"] == 5_000_000_000
    assert "for another host name" in unnamed["unreachable"]


async def test_whoever_may_not_read_some_kinds_is_shown_the_others_and_told_which(tmp_path: Path) -> None:
    async with ApiServer() as server:
        await install(server)
        server.refuses |= {f"{APPS}/statefulsets": 403, "/api/v1/namespaces/llm/pods": 403}
        where = ("--kubeconfig", str(server.kubeconfig(tmp_path)), "-n", "llm")
        shown = await asyncio.to_thread(status, *where)
        seen = json.loads(await asyncio.to_thread(status, *where, "--json"))
        server.refuses |= {f"{APPS}/deployments": 403}
        async with kubernetes.opened(server.kubeconfig(tmp_path)) as api:
            with pytest.raises(ConfigurationError, match="you may not read deployments and statefulsets in namespace"):
                await find_release(api, "llm")
    assert [one["component"] for one in seen["tiers"]] == ["router", "small"]
    assert seen["unread"] == ["statefulsets", "pods"]
    assert seen["unreachable"] == "you may not read pods"
    assert "you may not read statefulsets, pods" in shown


async def test_a_watch_goes_on_when_the_api_server_was_away_and_wants_another_token(tmp_path: Path) -> None:
    async with ApiServer() as server:
        await server.put(f"{APPS}/deployments", workload("small", ready=1, desired=1))
        where = ("--kubeconfig", str(server.kubeconfig(tmp_path)), "-n", "llm")
        program = str(Path(sys.executable).with_name("marginal"))
        watching = await asyncio.create_subprocess_exec(program, "status", *where, "--watch", "--json", stdout=PIPE)
        assert watching.stdout is not None

        async def until(away: str | None) -> dict[str, Any]:
            async for line in watching.stdout:  # type: ignore[union-attr]
                seen = json.loads(line)
                if seen["away"] == away:
                    return dict(seen)
            raise AssertionError("it ended")

        try:
            async with asyncio.timeout(60):
                before = await until(None)
                await server.go_away()
                away = await until("the API server cannot be asked: ClientConnectorError")
                server.token = "another"  # noqa: S105 (of a server of our own)
                server.kubeconfig(tmp_path)
                await server.put(f"{APPS}/deployments", workload("small", ready=1, desired=2))
                await server.come_back()
                after = await until(None)
        finally:
            watching.terminate()
            await watching.wait()
    assert away["wrong"] == "this is as it was: the API server cannot be asked: ClientConnectorError"
    assert away["tiers"] == before["tiers"]
    assert [one["desired"] for one in after["tiers"]] == [2]


@pytest.mark.parametrize("watched", [(), ("--watch",)])
async def test_a_first_look_that_fails_is_the_last(tmp_path: Path, watched: tuple[str, ...]) -> None:
    async with ApiServer() as server:
        where = ("--kubeconfig", str(server.kubeconfig(tmp_path)), "-n", "llm")
        with pytest.raises(ConfigurationError, match="there is no release"):
            await asyncio.to_thread(status, *where, *watched)


NO_AUTHORITY = base64.b64encode(b"no certificate").decode()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1\nb: }", "the kubeconfig cannot be used"),
        ("just words", "the kubeconfig cannot be used"),
        ("", "the kubeconfig cannot be used"),
        (None, "no Kubernetes cluster: its certificate or ours cannot be used"),
    ],
)
async def test_a_kubeconfig_that_cannot_be_used_is_one_sentence(tmp_path: Path, text: str | None, said: str) -> None:
    path = ApiServer().kubeconfig(tmp_path)
    if text is None:
        config = json.loads(path.read_text())
        config["clusters"][0]["cluster"] = {
            "server": "https://host.example",
            "certificate-authority-data": NO_AUTHORITY,
        }
        text = json.dumps(config)
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        async with kubernetes.opened(path):
            pass


async def test_warnings_are_of_this_release_and_not_of_one_whose_name_begins_alike(tmp_path: Path) -> None:
    """A release `marginal`, and one `marginal-small`, whose names the chart leaves as they are."""
    hashed = {"name": "marginal-small-5f6b7c8d9b", "labels": {"app.kubernetes.io/instance": "marginal"}}
    pod = {"name": "marginal-router-0", "labels": {"app.kubernetes.io/instance": "marginal"}}
    volumes = [
        {"name": "journal", "persistentVolumeClaim": {"claimName": "journal-marginal-router-0"}},
        {"name": "tmp"},
    ]
    async with ApiServer() as server:
        for release in ("marginal", "marginal-small"):
            for component in ("router", "small", "large"):
                one = workload(component, ready=1, desired=1, release=release)
                await server.put(f"{APPS}/deployments", one)
        await server.put(f"{APPS}/replicasets", {"metadata": hashed})
        await server.put("/api/v1/namespaces/llm/pods", {"metadata": pod, "spec": {"volumes": volumes}, "status": {}})
        scaler = {"scaleTargetRef": {"name": "marginal-large"}, "maxReplicas": 4}
        await server.put(HPAS, {"metadata": {"name": "keda-hpa-marginal-large"}, "spec": scaler})
        ours = {
            "Pod": ("marginal-router-0", "marginal-small-5f6b7c8d9b-x2x4z", "marginal-router-7"),
            "ReplicaSet": ("marginal-small-5f6b7c8d9b",),
            "PersistentVolumeClaim": ("journal-marginal-router-0",),
            "HorizontalPodAutoscaler": ("keda-hpa-marginal-large",),
        }
        others = {
            "Pod": ("marginal-small-router-5f6b7c8d9b-x2x4z", "marginal-small-router-0"),
            "ReplicaSet": ("marginal-small-router-5f6b7c8d9b",),
            "Deployment": ("marginal-small-small",),
        }
        seen = [await warned_of(server, tmp_path, kind, name) for kind, names in ours.items() for name in names]
        assert all(seen), seen
        seen = [await warned_of(server, tmp_path, kind, name) for kind, names in others.items() for name in names]
        assert not any(seen), seen


async def warned_of(server: ApiServer, tmp_path: Path, kind: str, name: str) -> bool:
    """Whether the status of the release `marginal` has a warning about it."""
    events = "/api/v1/namespaces/llm/events"
    about = {"kind": kind, "name": name}
    event = {"metadata": {"name": "e"}, "reason": "FailedCreate", "message": "no", "involvedObject": about}
    await server.put(events, event)
    async with kubernetes.opened(server.kubeconfig(tmp_path)) as api:
        found = await find_release(api, "llm", "marginal")
    await server.delete(events, "e")
    return [one.about for one in found.warnings] == [f"{kind.lower()} {name}"]


async def test_a_cluster_without_keda_and_without_rights_to_events_is_shown_all_the_same(tmp_path: Path) -> None:
    async with ApiServer() as server:
        await server.put(f"{APPS}/deployments", workload("small", ready=1, desired=1))
        server.refuses |= {SCALED: 404, "/api/v1/namespaces/llm/events": 403}
        async with kubernetes.opened(server.kubeconfig(tmp_path)) as api:
            found = await find_release(api, "llm")
    assert found.workloads == (Workload("small", "main-small", 1, 1),)
    assert (found.warnings, found.router_pod) == ((), "")


async def test_a_release_must_be_there_and_be_the_only_one_or_be_named(tmp_path: Path) -> None:
    async with ApiServer() as server, kubernetes.opened(server.kubeconfig(tmp_path)) as api:
        with pytest.raises(ConfigurationError, match="there is no release of Marginal in namespace llm"):
            await find_release(api, "llm")
        for name in ("blue", "green"):
            await server.put(f"{APPS}/deployments", workload("router", ready=1, desired=1, release=name))
        with pytest.raises(ConfigurationError, match="has the releases blue, green"):
            await find_release(api, "llm")
        with pytest.raises(ConfigurationError, match="there is no release 'red'"):
            await find_release(api, "llm", "red")
        assert (await find_release(api, "llm", "green")).name == "green"


async def test_a_forwarded_port_carries_more_than_one_frame_both_ways(tmp_path: Path) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(10_000):
            writer.write(data)
            await writer.drain()
        writer.close()

    behind = await asyncio.start_server(echo, "127.0.0.1", 0)
    sent = bytes(range(256)) * 2_000
    async with ApiServer() as server, behind:
        server.ports["pod-1", 7] = behind.sockets[0].getsockname()[1]
        async with (
            kubernetes.opened(server.kubeconfig(tmp_path)) as api,
            forwarded(api, "llm", "pod-1", 7) as way,
        ):
            reader, writer = await asyncio.open_connection(*way.address.split(":"))
            writer.write(sent)
            assert await asyncio.wait_for(reader.readexactly(len(sent)), 10) == sent
            writer.close()


WELL = Status(
    "release main in namespace llm",
    "0.1.0",
    (Workload("router", "r", 1, 1), Workload("small", "s", 1, 1), Workload("large", "l", 0, 0, "keda", 0, 4)),
    SEEN,
)


def with_large(ready: int, desired: int, ails: str = "") -> tuple[Workload, ...]:
    return (*WELL.workloads[:2], Workload("large", "l", ready, desired, "keda", 0, 4, ails))


@pytest.mark.parametrize(
    ("status", "wrong"),
    [
        (WELL, NOTHING),
        (replace(WELL, workloads=(Workload("router", "r", 0, 2),)), "no router is ready (2 wanted): nothing answers"),
        (
            replace(WELL, overview=None, unreachable="it does not answer"),
            "the router's admin address cannot be asked: it does not",
        ),
        (replace(WELL, demand={Tier.LARGE: 2.0}), "no replica of the large tier is ready (0 wanted)"),
        (replace(WELL, demand={Tier.LARGE: 0.4}), NOTHING),
        (replace(WELL, workloads=with_large(1, 3)), "l has 1 of 3 replicas ready"),
        (
            replace(WELL, workloads=(*WELL.workloads[:2], replace(WELL.workloads[2], pods_ail="pod l-1 cannot start"))),
            "pod l-1 cannot start",
        ),
        (
            replace(WELL, workloads=(Workload("router", "r", 0, 2, pods_ail="pod r-1 cannot start: it is"),)),
            "no router is ready (2 wanted): nothing answers; pod r-1 cannot start: it is",
        ),
        (replace(WELL, unreachable="the store is away"), "the router's budgets cannot be asked: the store is away"),
        (replace(WELL, workloads=with_large(1, 1, "no scaler")), "the scaler of l does not work: no scaler"),
        (
            replace(WELL, overview=replace(SEEN, source=Source("p.toml", 0.0, refused="line 3: no"))),
            "the newest policies were refused",
        ),
        (
            replace(WELL, budgets=BudgetStates("USD", (replace(SPENT, spent_nanos=20_000_000_000),))),
            "tenant acme has spent its budget of this day",
        ),
    ],
)
def test_the_worst_is_said_in_one_sentence(status: Status, wrong: str) -> None:
    assert what_is_wrong(status).startswith(wrong)


@pytest.mark.parametrize("wanted", [0.0, 2.0])
def test_what_could_not_be_asked_is_said_once(wanted: float) -> None:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(status_shown(replace(WELL, overview=None, unreachable="it is away", demand={Tier.LARGE: wanted})))
    assert capture.get().count("it is away") == 1


def test_it_fits_a_terminal() -> None:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(status_shown(replace(WELL, demand={Tier.LARGE: 2.0})))
    assert "…" not in capture.get()
