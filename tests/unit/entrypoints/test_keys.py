"""`marginal keys`: what is shown, what is written, and what a mistake looks like."""

import json
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from marginal.entrypoints.keys import app, create
from marginal.errors import MarginalError
from marginal.settings.keys_file import keys_file


def keys(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--keys-file", str(path)])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.jsonl"


def test_a_key_is_shown_once_and_by_itself(path: Path) -> None:
    done = keys(path, "create", "search", "--expires", "90d")
    [key] = done.stdout.split()
    assert key.startswith("mk_")
    assert "only time" in done.stderr
    [kept] = keys_file(path).read()
    assert kept.expires_at == pytest.approx(kept.created_at + 90 * 86_400, abs=2)
    assert keys_file(path).read().owner(key, now=kept.created_at).tenant == "search"


def test_the_file_is_its_owners_alone_and_holds_no_key(path: Path) -> None:
    key = json.loads(keys(path, "create", "search", "--json").stdout)["key"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert key.split("_", 2)[2] not in path.read_text()


def test_keys_are_listed_with_their_state_and_never_shown(path: Path) -> None:
    first = json.loads(keys(path, "create", "search", "--json").stdout)
    keys(path, "create", "ads", "--expires", "30m")
    assert keys(path, "revoke", first["id"]).stdout == f"Key {first['id']} of tenant search is revoked.\n"
    listed = json.loads(keys(path, "list", "--json").stdout)["keys"]
    assert [(key["tenant"], key["state"]) for key in listed] == [("search", "revoked"), ("ads", "valid")]
    shown = keys(path, "list").stdout
    assert "revoked" in shown
    assert first["key"] not in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "Search"), "name must match"),
        (("create", "search", "--expires", "soon"), "--expires soon: must be a span of time"),
        (("create", "search", "--expires", "0d"), "--expires 0d: must be a span of time"),
        (("revoke", "5f0c2a9b71de"), "no key 5f0c2a9b71de"),
        (("list",), "cannot be read"),
    ],
)
def test_a_mistake_is_an_error_of_ours_and_writes_nothing(path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = keys(path, *arguments)
    assert isinstance(done.exception, MarginalError)
    assert said in str(done.exception)
    assert not path.exists()


def test_a_file_that_is_not_one_of_keys_is_left_as_it_is(path: Path) -> None:
    path.write_text("something else")
    assert isinstance(keys(path, "create", "search").exception, MarginalError)
    assert path.read_text() == "something else"


def test_keys_created_at_the_same_time_are_all_kept(path: Path) -> None:
    creating = [threading.Thread(target=create, args=(f"t{n}", path, "", True)) for n in range(8)]
    for one in creating:
        one.start()
    for one in creating:
        one.join()
    assert len(keys_file(path).read()) == 8
