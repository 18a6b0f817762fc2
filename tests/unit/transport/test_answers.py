import pytest

from marginal.errors import BackendProtocol
from marginal.tokens import Tier
from marginal.transport.generation_messages import answered_value
from marginal.transport.model_messages import chunk_from_proto
from marginal.v1 import model_pb2, router_pb2


@pytest.mark.parametrize("number", [0, 99])
def test_a_finish_reason_we_do_not_know_is_the_servers_fault_not_the_callers(number: int) -> None:
    finish = model_pb2.Finish(reason=number)  # type: ignore[arg-type]
    with pytest.raises(BackendProtocol, match="same version"):
        chunk_from_proto(model_pb2.ModelServiceGenerateResponse(finish=finish))


def test_a_value_we_know_is_ours() -> None:
    assert answered_value(Tier, router_pb2.Tier, "TIER", router_pb2.TIER_LARGE) is Tier.LARGE
