"""Which keys open, and that nobody learns why one does not."""

import time
from statistics import median

import pytest

from marginal.errors import Unauthenticated
from marginal.routing.keyring import REFUSAL, ApiKey, Keyring, digest

NOW = 1_790_000_000.0
SECRET = "s" * 43


def key_of(key_id: str, *, secret: str = SECRET) -> str:
    return f"mk_{key_id}_{secret}"


def kept(key_id: str, **how: object) -> ApiKey:
    return ApiKey(key_id, digest(key_of(key_id)), how.pop("tenant", "search"), NOW - 60, **how)  # type: ignore[arg-type]


VALID, ENDED, REVOKED = kept("a" * 12, expires_at=NOW + 1), kept("b" * 12, expires_at=NOW), kept("c" * 12, revoked=True)
KEYRING = Keyring([VALID, ENDED, REVOKED])

WRONG = {
    "none at all": "",
    "no key of ours": "sk-something-else",
    "an unknown id": key_of("d" * 12),
    "another secret": key_of(VALID.id, secret="t" * 43),
    "a secret that is cut": key_of(VALID.id)[:-1],
    "a secret that goes on": key_of(VALID.id) + "s",
    "only the id": f"mk_{VALID.id}_",
    "its hash": VALID.sha256,
    "a line break": key_of(VALID.id) + "\n",
    "not ASCII": "mk_ä",
    "half a character": "mk_\udcff",
    "a very long one": "mk_" + "a" * 8_000,
    "one that has ended": key_of(ENDED.id),
    "one that was revoked": key_of(REVOKED.id),
}


def test_a_key_tells_its_tenant_until_it_ends() -> None:
    assert KEYRING.owner(key_of(VALID.id), now=NOW).tenant == "search"
    with pytest.raises(Unauthenticated):
        KEYRING.owner(key_of(VALID.id), now=NOW + 1)


@pytest.mark.parametrize("key", WRONG.values(), ids=WRONG)
def test_whatever_is_wrong_with_a_key_is_said_in_the_same_words(key: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        KEYRING.owner(key, now=NOW)
    assert str(refused.value) == REFUSAL


def test_no_key_and_no_tenant_is_in_the_refusal() -> None:
    assert "search" not in REFUSAL
    assert VALID.id not in REFUSAL


def seconds_to_refuse(key: str) -> float:
    began = time.perf_counter()
    with pytest.raises(Unauthenticated):
        KEYRING.owner(key, now=NOW)
    return time.perf_counter() - began


def test_an_unknown_key_takes_as_long_as_a_known_one_with_another_secret() -> None:
    unknown, known = key_of("d" * 12), key_of(VALID.id, secret="t" * 43)
    taken = [(seconds_to_refuse(unknown), seconds_to_refuse(known)) for _ in range(2_000)]
    first, second = (median(column) for column in zip(*taken, strict=True))
    assert first == pytest.approx(second, rel=0.5)
