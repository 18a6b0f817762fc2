"""What a keys file holds, and that nothing of a key can be read from it."""

import json
import re
from pathlib import Path

import pytest

from marginal.errors import ConfigurationError
from marginal.routing.keyring import KEY, ApiKey, Keyring
from marginal.settings.keys_file import keys_file, minted, parse_keys, written_keys

NOW = 1_790_000_000.0
LINE = {"id": "5f0c2a9b71de", "tenant": "search", "sha256": "0" * 64, "created_at": "2026-11-24T21:00:00Z"}


def line(**other: object) -> str:
    return json.dumps(LINE | other)


def test_a_key_names_its_id_and_has_256_random_bits() -> None:
    key, kept = minted("search", now=NOW)
    again, _ = minted("search", now=NOW)
    prefix, key_id, secret = key.split("_", 2)
    assert KEY.fullmatch(key)
    assert (prefix, key_id) == ("mk", kept.id)
    assert len(secret) * 6 >= 256
    assert key != again


def test_a_file_holds_no_key_but_its_hash() -> None:
    key, kept = minted("search", now=NOW)
    text = written_keys([kept])
    assert key.split("_", 2)[2] not in text
    assert re.search(r'"sha256": "[0-9a-f]{64}"', text)


def test_what_was_written_is_read_as_it_was() -> None:
    keys = [
        minted("search", now=NOW)[1],
        minted("ads", now=NOW, expires_at=NOW + 60)[1],
        ApiKey("5f0c2a9b71de", "0" * 64, "old", NOW, revoked=True),
    ]
    assert list(parse_keys(written_keys(keys))) == keys


def test_a_key_opens_what_was_read_from_its_file() -> None:
    key, kept = minted("search", now=NOW)
    assert parse_keys(written_keys([kept])).owner(key, now=NOW).tenant == "search"


def test_empty_lines_are_no_keys() -> None:
    assert list(parse_keys("\n\n")) == []
    assert len(parse_keys(f"\n{line()}\n\n")) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "line 1: is not a JSON object"),
        (f"{line()}\n[]", "line 2"),
        (line(key="mk_CANARY"), "line 1: key: extra"),
        (line(tenant="A b"), "line 1: tenant"),
        (line(sha256="CANARY"), "line 1: sha256"),
        (line(id="x"), "line 1: id"),
        (line(revoked="no"), "line 1: revoked"),
        (line(revoked=1), "line 1: revoked"),
        (line(expires_at="tomorrow"), "line 1: expires_at"),
        (line(expires_at="2026-11-24T21:00:00"), "line 1: expires_at"),
        (f"{line()}\n{line()}", "line 2: the id 5f0c2a9b71de was given before"),
        (json.dumps({name: value for name, value in LINE.items() if name != "tenant"}), "line 1: tenant"),
    ],
)
def test_a_line_that_is_not_understood_is_refused_and_not_quoted(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as refused:
        parse_keys(text)
    assert "CANARY" not in str(refused.value)


@pytest.mark.parametrize("tenant", ["", "Search", "a b", "a:b", "a\n", "x" * 64, "{a}"])
def test_a_name_that_could_not_be_a_tenants_gets_no_key(tenant: str) -> None:
    with pytest.raises(ConfigurationError, match="name must match"):
        minted(tenant, now=NOW)


def test_a_file_is_named_in_what_is_wrong_with_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"keys file .*none\.jsonl: cannot be read"):
        keys_file(tmp_path / "none.jsonl").read()


def test_a_keyring_of_an_empty_file_opens_to_nobody(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    path.write_text("")
    assert list(keys_file(path).read()) == list(Keyring())
