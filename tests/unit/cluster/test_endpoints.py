"""Which pods of a service may be called, as the API server tells, goes away and comes back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException

from cluster.api_server import ApiServer, endpoint, endpoint_slice
from marginal.cluster import api as kubernetes
from marginal.cluster.endpoints import Rhythm, Service, addresses, follow
from marginal.errors import ConfigurationError

SMALL = Service("llm", "small", "50052")
QUICK = Rhythm(watch=60, first_wait=0.01, longest_wait=0.05)


class Heard:
    """Remembers the sets that were pushed, and waits for one."""

    def __init__(self) -> None:
        self.sets: list[frozenset[str]] = []
        self._came = asyncio.Condition()

    def __call__(self, found: frozenset[str]) -> None:
        self.sets.append(found)
        self._telling = asyncio.ensure_future(self._tell())

    async def _tell(self) -> None:
        async with self._came:
            self._came.notify_all()

    async def become(self, *expected: str) -> None:
        async with asyncio.timeout(5), self._came:
            await self._came.wait_for(lambda: self.sets and self.sets[-1] == frozenset(expected))


class Account:
    """A service account whose token is read anew for each request, from a file that is empty at first."""

    def __init__(self, server: ApiServer, token: Path) -> None:
        self.token = token
        token.write_text("")
        self._configuration = Configuration(host=server.url, api_key={"BearerToken": "Bearer before"})
        self._configuration.refresh_api_key_hook = self._read

    def client(self) -> ApiClient:
        return ApiClient(self._configuration)

    def _read(self, configuration: Configuration) -> None:
        if not (token := self.token.read_text()):
            raise ConfigException("Token file exists but empty.")
        configuration.api_key["BearerToken"] = f"Bearer {token}"


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with ApiServer() as opened:
        yield opened


@asynccontextmanager
async def following(
    server: ApiServer, tmp_path: Path, *, rhythm: Rhythm = QUICK, service: Service = SMALL
) -> AsyncIterator[Heard]:
    heard = Heard()
    async with kubernetes.opened(server.kubeconfig(tmp_path)) as api:
        task = asyncio.create_task(follow(api, service, heard, rhythm=rhythm))
        try:
            yield heard
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_pods_that_are_there_come_first_and_every_change_after_them(server: ApiServer, tmp_path: Path) -> None:
    await server.put(SMALL.path, endpoint_slice("small-1", "small", endpoint("10.0.0.1")))
    await server.put(SMALL.path, endpoint_slice("large-1", "large", endpoint("10.0.9.9")))
    async with following(server, tmp_path) as heard:
        await heard.become("10.0.0.1:50052")
        await server.put(SMALL.path, endpoint_slice("small-2", "small", endpoint("10.0.0.2")))
        await heard.become("10.0.0.1:50052", "10.0.0.2:50052")
        await server.delete(SMALL.path, "small-1")
        await heard.become("10.0.0.2:50052")


async def test_a_tier_at_zero_is_told_as_an_empty_set(server: ApiServer, tmp_path: Path) -> None:
    async with following(server, tmp_path) as heard:
        await heard.become()
        await server.put(SMALL.path, endpoint_slice("small-1", "small", endpoint("10.0.0.1", ready=False)))
        await server.put(SMALL.path, endpoint_slice("small-1", "small", endpoint("10.0.0.1")))
        await heard.become("10.0.0.1:50052")
        assert heard.sets == [frozenset(), frozenset({"10.0.0.1:50052"})]


async def test_a_terminating_pod_is_not_called_though_it_still_serves(server: ApiServer, tmp_path: Path) -> None:
    await server.put(SMALL.path, endpoint_slice("s", "small", endpoint("10.0.0.1"), endpoint("10.0.0.2")))
    async with following(server, tmp_path) as heard:
        await heard.become("10.0.0.1:50052", "10.0.0.2:50052")
        ending = endpoint("10.0.0.1", ready=False, serving=True, terminating=True)
        await server.put(SMALL.path, endpoint_slice("s", "small", ending, endpoint("10.0.0.2")))
        await heard.become("10.0.0.2:50052")


async def test_an_expired_version_means_to_list_again_at_once(server: ApiServer, tmp_path: Path) -> None:
    await server.put(SMALL.path, endpoint_slice("s", "small", endpoint("10.0.0.1")))
    async with following(server, tmp_path, rhythm=Rhythm(watch=1, first_wait=60.0)) as heard:
        await heard.become("10.0.0.1:50052")
        other = "/apis/discovery.k8s.io/v1/namespaces/other/endpointslices"
        await server.put(other, endpoint_slice("x", "x", endpoint("10.9.9.9")))
        server.forget()
        await server.put(SMALL.path, endpoint_slice("s", "small", endpoint("10.0.0.2")))
        await heard.become("10.0.0.2:50052")
        server.forget()
        async with asyncio.timeout(5):
            await server.times_asked("list", 2)


async def test_a_watch_that_ends_goes_on_where_a_bookmark_was(server: ApiServer, tmp_path: Path) -> None:
    await server.put(SMALL.path, endpoint_slice("s", "small", endpoint("10.0.0.1")))
    async with following(server, tmp_path, rhythm=Rhythm(watch=1)) as heard:
        await heard.become("10.0.0.1:50052")
        await server.bookmark(SMALL.path)
        async with asyncio.timeout(5):
            await server.times_asked("watch 102", 1)
        assert [one for one in server.asked if one.startswith("list")] == [f"list {SMALL.path}"]


async def test_a_version_that_is_expired_again_and_again_is_waited_out(server: ApiServer, tmp_path: Path) -> None:
    server.forget_all()
    async with following(server, tmp_path, rhythm=Rhythm(first_wait=0.2, longest_wait=0.2)) as heard:
        await heard.become()
        await asyncio.sleep(1.0)
    assert 5 <= sum(one.startswith("watch") for one in server.asked) <= 13


async def test_a_watch_that_was_of_use_ends_the_growing_of_waits(server: ApiServer, tmp_path: Path) -> None:
    rhythm = Rhythm(first_wait=0.01, longest_wait=1_000.0)
    async with following(server, tmp_path, rhythm=rhythm) as heard, asyncio.timeout(20):
        await heard.become()
        for number in range(1, 20):
            await server.times_asked("watch", number)
            await server.put(SMALL.path, endpoint_slice("s", "small", endpoint(f"10.0.0.{number}")))
            await heard.become(f"10.0.0.{number}:50052")
            await server.go_away()
            await server.come_back()


async def test_a_watch_that_gave_nothing_does_not_end_the_growing_of_waits(server: ApiServer, tmp_path: Path) -> None:
    rhythm = Rhythm(first_wait=0.1, longest_wait=1_000.0)
    began = asyncio.get_running_loop().time()
    async with following(server, tmp_path, rhythm=rhythm), asyncio.timeout(20):
        for number in range(1, 6):
            await server.times_asked("watch", number)
            await server.go_away()
            await server.come_back()
    assert asyncio.get_running_loop().time() - began >= 0.5 * (0.1 + 0.2 + 0.4 + 0.8)


async def test_credentials_that_cannot_be_read_for_a_while_are_waited_for(server: ApiServer, tmp_path: Path) -> None:
    account, heard = Account(server, tmp_path / "token"), Heard()
    async with account.client() as client:
        task = asyncio.create_task(follow(kubernetes.Api(client, "llm"), SMALL, heard, rhythm=QUICK))
        await asyncio.sleep(0.1)
        assert heard.sets == []
        account.token.write_text("secret-token")
        await heard.become()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_was_last_known_stays_while_the_api_server_is_away(server: ApiServer, tmp_path: Path) -> None:
    await server.put(SMALL.path, endpoint_slice("s", "small", endpoint("10.0.0.1")))
    async with following(server, tmp_path) as heard:
        await heard.become("10.0.0.1:50052")
        await server.go_away()
        await asyncio.sleep(0.1)
        assert heard.sets == [frozenset({"10.0.0.1:50052"})]
        await server.come_back()
        await server.put(SMALL.path, endpoint_slice("s", "small", endpoint("10.0.0.2")))
        await heard.become("10.0.0.2:50052")


async def test_all_is_listed_again_now_and_then_though_nothing_is_heard(server: ApiServer, tmp_path: Path) -> None:
    async with following(server, tmp_path, rhythm=Rhythm(watch=1, resync=0.5)), asyncio.timeout(5):
        await server.times_asked("list", 2)


async def test_a_refusal_is_waited_out(server: ApiServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server.refuses[SMALL.path] = 403
    async with following(server, tmp_path) as heard:
        await asyncio.sleep(0.1)
        assert heard.sets == []
        del server.refuses[SMALL.path]
        await heard.become()
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told == [f"the pods of small stay as they were: the API server answers 403 at {SMALL.path}"]


async def test_without_any_cluster_the_operator_hears_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no Kubernetes cluster: "):
        async with kubernetes.opened(tmp_path / "none"):
            pass


def test_waits_grow_to_their_longest() -> None:
    waits = Rhythm(first_wait=0.2, longest_wait=1.0).waits()
    drawn = [next(waits) for _ in range(5)]
    assert all(most / 2 <= one <= most for one, most in zip(drawn, (0.2, 0.4, 0.8, 1.0, 1.0), strict=True))


def test_a_port_may_be_named_as_in_the_slice() -> None:
    found = endpoint_slice("s", "small", endpoint("10.0.0.1"), port=8081)
    assert list(addresses([found], "grpc")) == ["10.0.0.1:8081"]
    assert list(addresses([found], "http")) == []


async def test_a_port_that_no_pod_has_is_told_once(
    server: ApiServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await server.put(SMALL.path, endpoint_slice("s", "small"))
    async with following(server, tmp_path, service=Service("llm", "small", "http")) as heard:
        await heard.become()
        assert not [record for record in caplog.records if record.levelname == "WARNING"]
        for address in ("10.0.0.1", "10.0.0.2"):
            await server.put(SMALL.path, endpoint_slice("s", "small", endpoint(address)))
        await server.put(
            SMALL.path,
            endpoint_slice("t", "small", endpoint("10.0.0.3")) | {"ports": [{"name": "http", "port": 50052}]},
        )
        await heard.become("10.0.0.3:50052")
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told == ["no pod of small has a port named http: none is called"]


def test_a_pod_with_two_families_is_called_once() -> None:
    four = endpoint_slice("s4", "small", endpoint("10.0.0.1", pod="a"))
    six = endpoint_slice("s6", "small", endpoint("fd00::1", pod="a"), endpoint("fd00::2", pod="b"), family="IPv6")
    assert set(addresses([four, six], "50052")) == {"10.0.0.1:50052", "[fd00::2]:50052"}


def test_what_is_not_said_counts_as_ready_and_published_unready_pods_do_not() -> None:
    said_nothing = {"addresses": ["10.0.0.1"]}
    published = endpoint("10.0.0.2", ready=True, serving=False)
    assert set(addresses([endpoint_slice("s", "small", said_nothing, published)], "1")) == {"10.0.0.1:1"}
