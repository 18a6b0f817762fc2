import pytest

from marginal.transport.addresses import only_this_machine


@pytest.mark.parametrize("listen", ["127.0.0.1:50051", "127.9.9.9:1", "[::1]:50051", "localhost:0", "unix:/tmp/socket"])
def test_loopback_is_reached_from_this_machine_only(listen: str) -> None:
    assert only_this_machine(listen)


@pytest.mark.parametrize("listen", ["0.0.0.0:50051", "[::]:50051", "10.0.0.7:1", "router:50051", ":50051", "", "*:1"])
def test_everything_else_may_be_reached_by_others(listen: str) -> None:
    assert not only_this_machine(listen)
