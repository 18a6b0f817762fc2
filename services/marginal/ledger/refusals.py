"""What a store answers to an ask that it does not grant: the same words from each of them."""

from marginal.errors import AlreadyAnswered, InProgress, KeyReused


def key_reused() -> KeyReused:
    """The key came with another request than the one that has it."""
    return KeyReused("idempotency_key", "it was used for another request")


def in_progress(request_id: str) -> InProgress:
    """The request that has the key is still under way."""
    return InProgress("the first request under this idempotency key is still under way", request_id=request_id)


def already_answered(request_id: str) -> AlreadyAnswered:
    """The request itself is over, or the one that has its key was answered."""
    return AlreadyAnswered("this request came before, and it is over", request_id=request_id)
