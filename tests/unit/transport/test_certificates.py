"""Which certificates are taken, and what is said of those that are not."""

import time
from datetime import timedelta
from pathlib import Path

import pytest
import trustme

from integration.authorities import Authority, Identity
from marginal.errors import ConfigurationError
from marginal.transport.certificates import CertificateFiles, read_certificates

DAY = 86_400.0


def read(files: CertificateFiles, *, at: float = 0.0) -> float | None:
    return read_certificates(files, clock=lambda: time.time() + at).ends_at


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def identity(authority: Authority, tmp_path: Path) -> Identity:
    return authority.write(tmp_path / "own")


def test_a_certificate_is_read_with_its_end(identity: Identity) -> None:
    assert read(identity.files) == pytest.approx(time.time() + DAY, abs=60)


@pytest.mark.parametrize("kind", list(trustme.KeyType))
def test_keys_of_every_kind_are_read(kind: trustme.KeyType, tmp_path: Path) -> None:
    made = trustme.CA(key_type=kind).issue_cert("localhost", key_type=kind)
    pem = tmp_path / "both.pem"
    made.private_key_and_cert_chain_pem.write_to_path(str(pem))
    assert read(CertificateFiles(pem, pem))


def test_only_an_authority_is_enough_for_a_caller(identity: Identity) -> None:
    assert read(CertificateFiles(ca=identity.ca)) is None


def test_a_key_is_in_no_representation(identity: Identity) -> None:
    assert "PRIVATE KEY" not in repr(read_certificates(identity.files, clock=time.time))


@pytest.mark.parametrize(("at", "said"), [(DAY + 60, "is valid from"), (-365 * DAY, "is valid from")])
def test_one_that_has_ended_or_not_begun_is_refused(identity: Identity, at: float, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        read(identity.files, at=at)


def test_one_that_has_ended_is_named_with_its_days(authority: Authority, tmp_path: Path) -> None:
    ended = authority.write(tmp_path / "ended", ends_in=timedelta(days=-1))
    with pytest.raises(ConfigurationError, match=rf"certificate {ended.cert}: is valid from \d{{4}}-.* until \d{{4}}-"):
        read(ended.files)


def test_the_key_of_another_certificate_is_refused(authority: Authority, identity: Identity, tmp_path: Path) -> None:
    other = authority.write(tmp_path / "other")
    with pytest.raises(ConfigurationError, match=rf"{other.key} is not its unencrypted key"):
        read(CertificateFiles(identity.cert, other.key))


@pytest.mark.parametrize("text", ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_refused(identity: Identity, text: str) -> None:
    identity.cert.write_text(text)
    with pytest.raises(ConfigurationError, match=str(identity.cert)):
        read(identity.files)


@pytest.mark.parametrize("text", ["", "hello"])
def test_what_is_no_authority_is_refused(identity: Identity, text: str) -> None:
    identity.ca.write_text(text)
    with pytest.raises(ConfigurationError, match=rf"certificates {identity.ca}: hold none"):
        read(CertificateFiles(ca=identity.ca))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "tls.crt"
    with pytest.raises(ConfigurationError, match=f"certificate {missing}: cannot be read, no such file"):
        read(CertificateFiles(missing, missing))


def test_a_certificate_and_its_key_belong_together(identity: Identity) -> None:
    with pytest.raises(ConfigurationError, match="--tls-cert and --tls-key belong together"):
        read(CertificateFiles(identity.cert))
