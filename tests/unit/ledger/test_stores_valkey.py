"""What is the shared store's own: epochs, faults of its server, and what it writes there."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.valkey import ValkeyProcess, free_port
from marginal.errors import ConfigurationError, InvalidRequest
from marginal.ledger.ports import Settled, StoreAway, StoreEmptied
from marginal.ledger.valkey import ValkeyStore
from marginal.ledger.valkey_link import TIMEOUT_SECONDS, open_client
from marginal.routing.holds import MOST_NANOS, HoldState, Window
from unit.ledger.stored import EVENING, LEASE, SetClock, ask, limited, money, open_valkey

CANARY = "CANARY-3f1c"


@pytest.fixture
def server(valkey_server: ValkeyProcess) -> ValkeyProcess:
    valkey_server.empty()
    return valkey_server


@pytest.fixture
async def store(server: ValkeyProcess) -> AsyncIterator[ValkeyStore]:
    async with open_valkey(server) as store:
        store.join(await store.found("first"))
        yield store


@pytest.fixture
async def clocked(server: ValkeyProcess) -> AsyncIterator[tuple[ValkeyStore, SetClock]]:
    """A store whose clock is set."""
    clock = SetClock()
    async with open_valkey(server, clock) as store:
        store.join(await store.found("first"))
        yield store, clock


@contextmanager
def configured(server: ValkeyProcess, **options: str) -> Iterator[None]:
    """The server with other settings, and then with the ones it had."""
    with server.client() as client:
        before = {name: client.config_get(name)[name] for name in options}
        for name, value in options.items():
            client.config_set(name, value)
        try:
            yield
        finally:
            if "requirepass" in options:
                client.auth(options["requirepass"])
            for name, value in before.items():
                client.config_set(name, value)


@asynccontextmanager
async def answering(line: str) -> AsyncIterator[str]:
    """The URL of a server that answers every command with one line."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65_536):
            writer.write(f"{line}\r\n".encode())
        writer.close()

    listener = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listener:
        yield f"valkey://127.0.0.1:{listener.sockets[0].getsockname()[1]}/0"


@asynccontextmanager
async def behind_tls(server: ValkeyProcess, context: ssl.SSLContext) -> AsyncIterator[int]:
    """A port that speaks TLS before the server."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(carry(reader, onward[1]), carry(onward[0], writer))

    listener = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
    async with listener:
        yield listener.sockets[0].getsockname()[1]


class TestEpochs:
    async def test_nothing_is_reserved_before_an_epoch_was_joined(self, server: ValkeyProcess) -> None:
        async with open_valkey(server) as store:
            assert await store.epoch() == ""
            with pytest.raises(StoreEmptied):
                await store.reserve(ask("a"), lease_seconds=LEASE)

    async def test_the_first_one_to_found_an_epoch_names_it_for_all(self, server: ValkeyProcess) -> None:
        async with open_valkey(server) as one, open_valkey(server) as other:
            assert await one.found("ours") == "ours"
            assert await other.found("theirs") == "ours"
            assert await other.epoch() == "ours"

    async def test_an_emptied_store_is_noticed_and_told_before_anything_is_reserved(
        self, server: ValkeyProcess, store: ValkeyStore
    ) -> None:
        server.empty()
        with pytest.raises(StoreEmptied):
            await store.reserve(ask("a"), lease_seconds=LEASE)
        await store.settle([Settled("a", "acme", 30, time.time())])
        store.join(await store.found("second"))
        await store.reserve(ask("b"), lease_seconds=LEASE)
        assert await money(store) == [(30, 100)] * 3

    async def test_a_router_that_was_away_while_the_others_began_anew_is_told(
        self, server: ValkeyProcess, store: ValkeyStore
    ) -> None:
        server.empty()
        async with open_valkey(server) as other:
            await other.found("second")
        with pytest.raises(StoreEmptied):
            await store.reserve(ask("a"), lease_seconds=LEASE)


class TestFaults:
    async def test_flushed_scripts_are_not_noticed(self, server: ValkeyProcess, store: ValkeyStore) -> None:
        await store.reserve(ask("a"), lease_seconds=LEASE)
        with server.client() as client:
            client.script_flush()
        await store.reserve(ask("b"), lease_seconds=LEASE)
        assert await money(store) == [(0, 200)] * 3

    async def test_a_reserve_that_timed_out_and_was_done_is_not_done_again(self, server: ValkeyProcess) -> None:
        async with open_valkey(server, timeout_seconds=TIMEOUT_SECONDS) as store:
            store.join(await store.found("first"))
            await store.reserve(ask("warm"), lease_seconds=LEASE)
            with server.frozen(), pytest.raises(StoreAway, match="did not answer in time"):
                await store.reserve(ask("a"), lease_seconds=LEASE)
        async with open_valkey(server) as store:
            store.join("first")
            assert await store.states(["a"]) == {"a": HoldState.HELD}
            await store.reserve(ask("a"), lease_seconds=LEASE)
            assert await money(store) == [(0, 200)] * 3

    async def test_a_frozen_server_costs_one_timeout(self, server: ValkeyProcess) -> None:
        async with open_valkey(server, timeout_seconds=TIMEOUT_SECONDS) as store:
            await store.epoch()
            started = time.monotonic()
            with server.frozen(), pytest.raises(StoreAway):
                await store.epoch()
            assert time.monotonic() - started < 3 * TIMEOUT_SECONDS

    async def test_a_restart_of_the_server_is_not_noticed(self, server: ValkeyProcess, store: ValkeyStore) -> None:
        await store.reserve(ask("a"), lease_seconds=LEASE)
        server.restart()
        await asyncio.sleep(0.01)
        await store.settle([Settled("a", "acme", 30, time.time())])
        assert await money(store) == [(30, 0)] * 3

    async def test_a_server_that_is_not_there_is_away(self) -> None:
        async with open_valkey("valkey://user:secret@127.0.0.1:1/0") as store:
            with pytest.raises(StoreAway) as away:
                await store.epoch()
            assert "secret" not in str(away.value)

    @pytest.mark.parametrize(
        "line",
        [
            "-LOADING Valkey is loading the dataset in memory",
            "-BUSY Valkey is busy running a script",
            "-MASTERDOWN Link with MASTER is down",
            "-CLUSTERDOWN The cluster is down",
            "-MOVED 3999 127.0.0.1:6381",
            "-ERR something else",
            "+NONSENSE",
            "no protocol at all",
        ],
    )
    async def test_what_is_no_answer_of_ours_is_a_store_that_is_away(self, line: str) -> None:
        async with answering(line) as url, open_valkey(url) as store:
            store.join("first")
            with pytest.raises(StoreAway):
                await store.reserve(ask("a"), lease_seconds=LEASE)

    async def test_a_server_without_memory_is_away_and_has_done_nothing(
        self, server: ValkeyProcess, store: ValkeyStore
    ) -> None:
        await store.reserve(ask("a"), lease_seconds=LEASE)
        with configured(server, maxmemory="1"):
            with pytest.raises(StoreAway, match="refused"):
                await store.reserve(ask("b"), lease_seconds=LEASE)
            with pytest.raises(StoreAway, match="refused"):
                await store.settle([Settled("a", "acme", 30, time.time())])
            assert await store.states(["a", "b"]) == {"a": HoldState.HELD}
        await store.settle([Settled("a", "acme", 30, time.time())])
        assert await money(store) == [(30, 0)] * 3

    async def test_a_server_that_became_a_replica_is_away(self, server: ValkeyProcess, store: ValkeyStore) -> None:
        with server.client() as client:
            client.replicaof("127.0.0.1", "1")
            with pytest.raises(StoreAway, match="refused"):
                await store.reserve(ask("a"), lease_seconds=LEASE)
            client.replicaof("NO", "ONE")
        await store.reserve(ask("a"), lease_seconds=LEASE)

    async def test_more_calls_than_connections_wait_for_each_other(self, store: ValkeyStore) -> None:
        names = [f"request-{number}" for number in range(200)]
        await asyncio.gather(*(store.reserve(ask(name, full=1), lease_seconds=LEASE) for name in names))
        assert await money(store) == [(0, 200)] * 3

    async def test_a_call_that_was_given_up_leaves_no_answer_to_the_next_one(self, store: ValkeyStore) -> None:
        for number in range(30):
            call = asyncio.create_task(store.reserve(ask(f"given-up-{number}"), lease_seconds=LEASE))
            await asyncio.sleep(number / 30_000)
            call.cancel()
            assert await store.epoch() == "first"


class TestCredentials:
    async def test_a_password_comes_from_its_file_and_is_in_no_error(
        self, server: ValkeyProcess, tmp_path: Path
    ) -> None:
        password_file = tmp_path / "password"
        password_file.write_text(f"{CANARY}\n")
        with configured(server, requirepass=CANARY):
            async with open_valkey(server, password_file=password_file) as store:
                assert await store.epoch() == ""
            for url in (server.url, f"valkey://:wrong-{CANARY}@127.0.0.1:{server.port}/0"):
                async with open_valkey(url) as store:
                    with pytest.raises(StoreAway, match="AuthenticationError") as away:
                        await store.epoch()
                    assert CANARY not in str(away.value)

    async def test_a_user_of_the_url_comes_in_with_the_password_of_a_file_and_needs_few_rights(
        self, tmp_path: Path
    ) -> None:
        password_file = tmp_path / "password"
        password_file.write_text(f"{CANARY}\n")
        rights = ("~{marginal}:*", "~{marginal}", "+@read", "+@write", "+@scripting", "+time", "-@dangerous")
        users = ("--user", "default", "off", "--user", "routers", "on", f">{CANARY}", *rights)
        with ValkeyProcess(*users) as server:
            url = f"valkey://routers@127.0.0.1:{server.port}/0"
            async with open_valkey(url, password_file=password_file) as store:
                store.join(await store.found("first"))
                await TestKeys().lived(store)
                await store.exchange_demand("router", "12")
                assert await store.learned("default/thresholds") == "{}"
                assert await store.balances(["acme"])
            password_file.write_text("another")
            for refused in (url, f"valkey://127.0.0.1:{server.port}/0", f"valkey://nobody@127.0.0.1:{server.port}/0"):
                async with open_valkey(refused, password_file=password_file) as store:
                    with pytest.raises(StoreAway, match="AuthenticationError"):
                        await store.epoch()

    async def test_a_password_file_that_is_missing_is_a_store_that_is_away(
        self, server: ValkeyProcess, tmp_path: Path
    ) -> None:
        async with open_valkey(server, password_file=tmp_path / "none") as store:
            with pytest.raises(StoreAway):
                await store.epoch()

    @pytest.mark.parametrize("scheme", ["valkeys", "rediss"])
    async def test_tls_is_verified_with_the_ca_file(self, server: ValkeyProcess, tmp_path: Path, scheme: str) -> None:
        ours, foreign = trustme.CA(), trustme.CA()
        ours.cert_pem.write_to_path(tmp_path / "ours.pem")
        foreign.cert_pem.write_to_path(tmp_path / "foreign.pem")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        ours.issue_cert("127.0.0.1").configure_cert(context)
        async with behind_tls(server, context) as port:
            url = f"{scheme}://127.0.0.1:{port}/0"
            async with open_valkey(url, ca_file=tmp_path / "ours.pem") as store:
                assert await store.found("over-tls") == "over-tls"
            async with open_valkey(url, ca_file=tmp_path / "foreign.pem") as store:
                with pytest.raises(StoreAway):
                    await store.epoch()
            wrong_name = f"{scheme}://localhost:{port}/0"
            async with open_valkey(wrong_name, ca_file=tmp_path / "ours.pem") as store:
                with pytest.raises(StoreAway):
                    await store.epoch()

    @pytest.mark.parametrize("url", ["", "nonsense", f"http://:{CANARY}@host", f"valkey://:{CANARY}@host:port/0"])
    def test_a_url_that_is_none_is_refused_without_its_password(self, url: str) -> None:
        with pytest.raises(ConfigurationError) as refused:
            open_client(url)
        assert CANARY not in str(refused.value)

    def test_a_ca_file_without_tls_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="valkeys://"):
            open_client("valkey://127.0.0.1", ca_file=tmp_path / "ca.pem")


class TestKeys:
    async def lived(self, store: ValkeyStore) -> None:
        """One request of every fate."""
        for name in ("open", "settled", "expired"):
            await store.reserve(ask(name, key=f"{CANARY}-{name}", fingerprint=CANARY), lease_seconds=LEASE)
        await store.settle([Settled("settled", "acme", 30, time.time(), key=f"{CANARY}-settled")])
        await store.settle([Settled("elsewhere", "acme", 30, time.time(), key=f"{CANARY}-elsewhere")])
        await store.progress({"open": 5}, lease_seconds=LEASE)
        await store.expire(["expired"])
        await store.save_learned("default/thresholds", "{}")

    async def test_everything_ends_by_itself_but_for_the_epoch(self, server: ValkeyProcess, store: ValkeyStore) -> None:
        await self.lived(store)
        with server.client() as client:
            assert [key for key in client.scan_iter() if client.ttl(key) == -1] == ["{marginal}:epoch"]
            assert client.ttl("{marginal}:hold:settled") == pytest.approx(48 * 3600, abs=60)

    async def test_what_callers_sent_is_not_in_the_store(self, server: ValkeyProcess, store: ValkeyStore) -> None:
        await self.lived(store)
        with server.client() as client:
            keys = list(client.scan_iter())
            values = [client.get(key) for key in keys if client.type(key) == "string"]
        assert CANARY not in f"{keys}{values}"

    async def test_all_keys_are_in_one_slot_of_a_cluster(self) -> None:
        with ValkeyProcess("--cluster-enabled", "yes", "--cluster-port", str(free_port())) as server:
            server.serve_all_slots()
            async with open_valkey(server) as store:
                store.join(await store.found("first"))
                await self.lived(store)
                assert [one.committed_nanos for one in await store.balances()] == [160] * 3

    @pytest.mark.parametrize(
        "tenant", ["", "a:b", "a}b", "{x}", "a\nb", "A", "x" * 10_000, "' .. redis.call('FLUSHALL')"]
    )
    async def test_a_tenant_that_is_no_name_is_refused(self, store: ValkeyStore, tenant: str) -> None:
        with pytest.raises(InvalidRequest):
            await store.reserve(ask("a", tenant=tenant), lease_seconds=LEASE)
        with pytest.raises(InvalidRequest):
            await store.settle([Settled("a", tenant, 1, EVENING)])

    @pytest.mark.parametrize("request_id", ["", "a b", "a\n", "{x}", "x" * 10_000])
    async def test_a_request_id_that_is_none_is_refused(self, store: ValkeyStore, request_id: str) -> None:
        with pytest.raises(InvalidRequest):
            await store.reserve(ask(request_id), lease_seconds=LEASE)

    async def test_deployments_with_other_names_share_nothing(self, server: ValkeyProcess) -> None:
        budget = limited(month=150)
        async with (
            ValkeyStore(open_client(server.url), name="llm/marginal") as one,
            ValkeyStore(open_client(server.url), name="llm/marginal-2") as other,
        ):
            one.join(await one.found("of-one"))
            assert await other.epoch() == ""
            other.join(await other.found("of-other"))
            for store in (one, other):
                await store.reserve(ask("a", full=100, budget=budget, key="k", fingerprint="f"), lease_seconds=LEASE)
            await one.settle([Settled("a", "acme", 90, time.time(), key="k")])
            assert await one.states(["a"]) == {"a": HoldState.SETTLED}
            assert await other.states(["a"]) == {"a": HoldState.HELD}
            assert ((await money(one))[2], (await money(other))[2]) == ((90, 0), (0, 100))
            await one.save_learned("thresholds", "{}")
            assert await other.learned("thresholds") is None
            await one.exchange_demand("router", "12")
            assert await other.exchange_demand("other-router", "0") == []
        with server.client() as client:
            assert {key.partition(":")[0] for key in client.scan_iter()} == {"{llm/marginal}", "{llm/marginal-2}"}

    @pytest.mark.parametrize("name", ["", "{a}", "a b", "x" * 201])
    def test_a_name_that_cannot_be_part_of_a_key_is_refused(self, name: str) -> None:
        with pytest.raises(InvalidRequest):
            ValkeyStore(open_client("valkey://127.0.0.1"), name=name)


async def test_the_servers_clock_decides_and_not_the_routers(store: ValkeyStore) -> None:
    before = time.time()
    grant = await store.reserve(ask("a"), lease_seconds=0.0)
    assert before - 1 <= grant.admitted_at <= time.time() + 1
    assert [one.request_id for one in await store.expire()] == ["a"]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 4_102_444_800).map(float) | st.floats(1.7e9, 2.5e9))
async def test_the_calendar_of_the_scripts_is_that_of_windows(clocked: tuple[ValkeyStore, SetClock], at: float) -> None:
    store, clock = clocked
    clock.now = round(at, 6)
    assert [one.period for one in await store.balances(["acme"])] == [window.period(clock.now) for window in Window]


async def test_amounts_beyond_what_a_double_holds_are_told_exactly(clocked: tuple[ValkeyStore, SetClock]) -> None:
    store, _ = clocked
    await store.settle([Settled(name, "acme", MOST_NANOS - 1, EVENING) for name in "abc"])
    assert await money(store) == [(3 * (MOST_NANOS - 1), 0)] * 3


async def test_two_routers_share_one_budget(server: ValkeyProcess) -> None:
    async with open_valkey(server) as one, open_valkey(server) as other:
        one.join(await one.found("first"))
        other.join(await other.found("second"))
        asks = [ask(f"request-{number}", full=10, small=10, budget=limited(month=500)) for number in range(100)]
        answers = await asyncio.gather(
            *((one, other)[place % 2].reserve(asked, lease_seconds=LEASE) for place, asked in enumerate(asks)),
            return_exceptions=True,
        )
        assert sum(not isinstance(answer, BaseException) for answer in answers) == 50
        assert (await money(one))[2] == (0, 500)


async def test_what_was_learned_is_there_for_the_others_and_the_newest_wins(
    server: ValkeyProcess, store: ValkeyStore
) -> None:
    assert await store.learned("default/thresholds") is None
    await store.save_learned("default/thresholds", '{"threshold": 0.4}')
    await store.save_learned("default/thresholds", '{"threshold": 0.5}')
    async with open_valkey(server) as other:
        assert await other.learned("default/thresholds") == '{"threshold": 0.5}'
