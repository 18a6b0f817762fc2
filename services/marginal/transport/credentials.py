"""Who calls: told by the API key in a call's metadata, and by nothing else of what the caller says."""

from collections.abc import Callable, Iterable
from typing import Any

from marginal.errors import InvalidRequest, NotAllowed, Unauthenticated
from marginal.routing.keyring import REFUSAL
from marginal.routing.tenants import DEFAULT_TENANT, TENANT

AUTHORIZATION, API_KEY = "authorization", "x-api-key"
BEARER = "bearer "

TENANT_HEADER = "marginal-tenant"
"""Names the caller's own tenant; another one is refused, unless headers are trusted."""

Metadata = Iterable[tuple[str, Any]]


class Callers:
    """Tells whom a call is billed to.

    `authenticate` gives a key's tenant or raises Unauthenticated; None is no keys, and everything is one tenant's.
    `trust_header` then bills whom the caller names: for development, and behind a proxy that sets the header.
    """

    def __init__(self, authenticate: Callable[[str], str] | None = None, *, trust_header: bool = False) -> None:
        self._authenticate = authenticate
        self._trusting = trust_header and authenticate is None

    def tenant(self, metadata: Metadata | None) -> str:
        """Whom a call is billed to.

        Raises Unauthenticated, NotAllowed for a header that names another, InvalidRequest for one that names none.
        """
        said = [(key, value) for key, value in metadata or () if isinstance(value, str)]
        own = self._authenticate(_key(said)) if self._authenticate else DEFAULT_TENANT
        named = _named(said)
        if self._trusting:
            return named or own
        if named not in (None, own):
            raise NotAllowed(f"{TENANT_HEADER}: names another tenant than the one that this call is billed to")
        return own


ONE_TENANT = Callers()
"""No keys: whoever calls is the default tenant."""


def _key(said: Iterable[tuple[str, str]]) -> str:
    """The one key of a call. Raises Unauthenticated for none, several, or another scheme than Bearer."""
    keys = [value for name, value in said if name in (AUTHORIZATION, API_KEY)]
    schemes = [value for name, value in said if name == AUTHORIZATION]
    if len(keys) != 1 or not all(value.lower().startswith(BEARER) for value in schemes):
        raise Unauthenticated(REFUSAL)
    return keys[0][len(BEARER) :].strip() if schemes else keys[0]


def _named(said: Iterable[tuple[str, str]]) -> str | None:
    """The tenant that the caller names. Raises InvalidRequest for two of them, or what could be no name."""
    names = [value for name, value in said if name == TENANT_HEADER]
    if len(names) > 1 or any(not TENANT.fullmatch(name) for name in names):
        raise InvalidRequest(TENANT_HEADER, f"must be one name that matches {TENANT.pattern}")
    return names[0] if names else None
