"""The words by which a tier is named, and the addresses they stand for."""

import asyncio

import pytest

from marginal.entrypoints.tier_targets import kubernetes_service
from marginal.errors import ConfigurationError
from marginal.transport.targets import discovery


async def first(target: str) -> frozenset[str]:
    heard: asyncio.Future[frozenset[str]] = asyncio.get_running_loop().create_future()
    following = asyncio.ensure_future(discovery(target).follow(lambda found: heard.done() or heard.set_result(found)))
    try:
        async with asyncio.timeout(5):
            return await heard
    finally:
        following.cancel()


async def test_a_list_is_taken_as_it_is() -> None:
    assert await first("10.0.0.1:50052, [::1]:50052,small:50052") == {"10.0.0.1:50052", "[::1]:50052", "small:50052"}


async def test_of_a_name_every_address_counts_and_its_certificates_are_for_the_name() -> None:
    assert await first("dns:///localhost:50052") == {"127.0.0.1:50052"}
    assert discovery("dns:///localhost:50052").authority == "localhost"


async def test_a_name_without_an_address_is_a_tier_at_zero() -> None:
    assert await first("dns:///nobody.invalid:50052") == frozenset()


@pytest.mark.parametrize(
    "target", ["", "small", "small:0", "small:99999", "a:1,,b:2", "http://small:1", "dns:///a", "dns:///a..b:1"]
)
def test_what_is_none_is_refused(target: str) -> None:
    with pytest.raises(ConfigurationError):
        discovery(target)


def test_a_name_that_no_host_can_have_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="is no name of a host"):
        discovery(f"dns:///{'a' * 70}.example:1")


def test_a_service_in_kubernetes_is_named_with_its_namespace_and_port() -> None:
    service = kubernetes_service("kubernetes:///llm/marginal-small-headless:50052")
    assert service is not None
    assert (service.namespace, service.name, service.port) == ("llm", "marginal-small-headless", "50052")
    assert kubernetes_service("small:50052") is None


@pytest.mark.parametrize("rest", ["", "llm", "llm/small", "llm/small:", "/small:1", "a/b/c:1"])
def test_a_service_without_one_of_them_is_refused(rest: str) -> None:
    with pytest.raises(ConfigurationError, match="write kubernetes:///NAMESPACE/SERVICE:PORT"):
        kubernetes_service(f"kubernetes:///{rest}")
