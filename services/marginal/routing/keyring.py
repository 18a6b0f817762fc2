"""API keys: who is billed, told from a key of which nothing but a hash is kept.

A key is `mk_ID_SECRET` with 256 random bits in SECRET. Nobody can search for those by their hash, so one SHA-256 is
enough: NIST SP 800-63B, 5.1.2.2, asks for salt and a slow function below 112 bits only.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from marginal.errors import Unauthenticated

KEY = re.compile(r"mk_(?P<id>[0-9a-f]{12})_[A-Za-z0-9_-]{43}")

REFUSAL = "there is no API key with the call, or none that is valid here"
"""The same for every reason, so that nobody learns which keys exist."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is kept; `id` names it in logs, times are in seconds since the Unix epoch."""

    id: str
    sha256: str
    tenant: str
    created_at: float
    expires_at: float | None = None
    revoked: bool = False

    def valid(self, now: float) -> bool:
        """Whether it opens anything at this moment."""
        return not self.revoked and (self.expires_at is None or now < self.expires_at)


_NOBODY = ApiKey("", hashlib.sha256(b"").hexdigest(), "", 0.0, revoked=True)
"""Stands for a key that is not ours, so that looking for one takes as long."""


class Keyring:
    """Every key that was given out, the revoked ones included."""

    def __init__(self, keys: Iterable[ApiKey] = ()) -> None:
        self._by_id = {key.id: key for key in keys}

    def __iter__(self) -> Iterator[ApiKey]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def owner(self, key: str, *, now: float) -> ApiKey:
        """Whose key it is. Raises Unauthenticated, in the same words and time whatever is wrong with it."""
        shaped = KEY.fullmatch(key)
        kept = self._by_id.get(shaped["id"] if shaped else "", _NOBODY)
        same = hmac.compare_digest(digest(key), kept.sha256)
        if not (kept.valid(now) and same):
            raise Unauthenticated(REFUSAL)
        return kept


def digest(key: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()
