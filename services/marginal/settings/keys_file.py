"""The keys file: a JSON object a line, of which none tells a key, only its hash."""

import json
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from marginal.errors import ConfigurationError
from marginal.routing.keyring import ApiKey, Keyring, digest
from marginal.routing.tenants import TENANT
from marginal.settings.text_files import SettingsFile

MOST_BYTES = 32_000_000
ID_BYTES = 6
SECRET_BYTES = 32


class _Line(BaseModel):
    """A line of the file; what cannot be understood is refused, so that no key is valid by mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: Annotated[str, Field(pattern="^[0-9a-f]{12}$")]
    tenant: Annotated[str, Field(pattern=f"^{TENANT.pattern}$")]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None
    revoked: bool = False

    def build(self) -> ApiKey:
        expires = self.expires_at.timestamp() if self.expires_at else None
        return ApiKey(self.id, self.sha256, self.tenant, self.created_at.timestamp(), expires, self.revoked)


def minted(tenant: str, *, now: float, expires_at: float | None = None) -> tuple[str, ApiKey]:
    """A new key, in the words that its owner sends, and what is kept of it. Raises ConfigurationError for the name."""
    if not TENANT.fullmatch(tenant):
        raise ConfigurationError(f"a tenant's name must match {TENANT.pattern}")
    key_id = secrets.token_hex(ID_BYTES)
    key = f"mk_{key_id}_{secrets.token_urlsafe(SECRET_BYTES)}"
    return key, ApiKey(key_id, digest(key), tenant, float(int(now)), expires_at)


def keys_file(path: Path) -> SettingsFile[Keyring]:
    """A keys file, by its path."""
    return SettingsFile("keys file", path, parse_keys, MOST_BYTES)


def parse_keys(text: str) -> Keyring:
    """The keys of a text, a JSON object a line. Raises ConfigurationError naming the line; it quotes nothing of it."""
    by_id: dict[str, ApiKey] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            key = _Line.model_validate_json(line).build()
        except ValidationError as error:
            problem = error.errors(include_input=False, include_context=False)[0]
            field = ".".join(map(str, problem["loc"]))
            said = "is not a JSON object" if problem["type"] == "json_invalid" else problem["msg"].lower()
            raise ConfigurationError(f"line {number}: {f'{field}: ' if field else ''}{said}") from None
        if key.id in by_id:
            raise ConfigurationError(f"line {number}: the id {key.id} was given before")
        by_id[key.id] = key
    return Keyring(by_id.values())


def written_keys(keys: Iterable[ApiKey]) -> str:
    """The text of a keys file that holds these."""
    return "".join(f"{json.dumps(_as_line(key))}\n" for key in keys)


def moment(seconds: float | None) -> str | None:
    """A time as it is written in the file, "2026-11-24T21:00:00Z"."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _as_line(key: ApiKey) -> dict[str, object]:
    line: dict[str, object] = {"id": key.id, "tenant": key.tenant, "sha256": key.sha256}
    line["created_at"] = moment(key.created_at)
    if key.expires_at is not None:
        line["expires_at"] = moment(key.expires_at)
    return line | ({"revoked": True} if key.revoked else {})
