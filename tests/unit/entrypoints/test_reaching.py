"""What stands before a command of `marginal` is how it reaches services."""

from contextvars import Context, copy_context
from pathlib import Path

import pytest

from integration.authorities import Authority
from marginal.entrypoints import reaching
from marginal.errors import ConfigurationError
from marginal.transport.certificates import CertificateFiles


def reached(key: Path | None = None, tls: CertificateFiles | None = None, name: str = "") -> reaching.Reaching:
    def given() -> reaching.Reaching:
        reaching.reaching(key, tls or CertificateFiles(), name)
        return reaching.current()

    return copy_context().run(given)


def test_nothing_given_is_plain_text_without_a_key() -> None:
    assert reached() == reaching.PLAIN == Context().run(reaching.current)


def test_a_key_comes_from_its_file_and_is_in_no_representation(tmp_path: Path) -> None:
    path = tmp_path / "search.key"
    path.write_text("mk_a_CANARY\n")
    how = reached(path)
    assert how.api_key == "mk_a_CANARY"
    assert "CANARY" not in repr(how)


@pytest.mark.parametrize("text", ["", "two keys", "a\nb", "schlüssel"])
def test_a_file_that_holds_no_key_is_named_and_not_quoted(text: str, tmp_path: Path) -> None:
    path = tmp_path / "search.key"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=f"--api-key-file {path}"):
        reached(path)


def test_tls_is_spoken_where_an_authority_is_given(tmp_path: Path) -> None:
    own = Authority().write(tmp_path / "own")
    assert reached(tls=CertificateFiles(ca=own.ca)).tls
    assert reached(tls=CertificateFiles(own.cert, own.key)).tls is None


def test_a_name_to_look_for_needs_an_authority() -> None:
    with pytest.raises(ConfigurationError, match="--tls-name: has no effect without --tls-ca"):
        reached(name="router.llm.svc")
