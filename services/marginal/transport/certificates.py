"""Certificates in PEM files: read whole, and refused when they could not work."""

import re
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from marginal.errors import ConfigurationError

SEQUENCE, UTC_TIME = 0x30, 0x17
TIMES = {UTC_TIME: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """PEM files: `cert` and `key` are who we are, `ca` who vouches for the other side."""

    cert: Path | None = None
    key: Path | None = None
    ca: Path | None = None


@dataclass(frozen=True, slots=True)
class Certificates:
    """What the files hold; our own certificate ends at `ends_at`, in seconds since the Unix epoch."""

    chain: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    ca: bytes | None = None
    ends_at: float | None = None


def read_certificates(files: CertificateFiles, *, clock: Callable[[], float]) -> Certificates:
    """Reads and checks them. Raises ConfigurationError naming the file and what is wrong with it.

    `clock` gives seconds since the Unix epoch.
    """
    ca = _authorities(files.ca) if files.ca else None
    if files.cert is None and files.key is None:
        return Certificates(ca=ca)
    if files.cert is None or files.key is None:
        raise ConfigurationError("--tls-cert and --tls-key belong together: give both or none")
    chain, key = _bytes(files.cert), _bytes(files.key)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.cert, files.key, password="")
    except (ssl.SSLError, OSError):
        raise ConfigurationError(
            f"certificate {files.cert}: is no certificate in PEM, or {files.key} is not its unencrypted key"
        ) from None
    begins, ends = _validity(files.cert, chain)
    if not begins.timestamp() <= clock() < ends.timestamp():
        raise ConfigurationError(f"certificate {files.cert}: is valid from {_told(begins)} until {_told(ends)} only")
    return Certificates(chain, key, ca, ends.timestamp())


def _authorities(path: Path) -> bytes:
    pem = _bytes(path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=pem.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise ConfigurationError(f"certificates {path}: hold none of an authority in PEM") from None
    return pem


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"certificate {path}: cannot be read, {(error.strerror or 'no reason').lower()}"
        ) from None


def _validity(path: Path, pem: bytes) -> tuple[datetime, datetime]:
    """From when until when the first certificate of a file is valid: the standard library tells this of none."""
    try:
        [first, *_] = _CERTIFICATE.findall(pem.decode("ascii", "replace"))
        [(_, certificate)] = _fields(ssl.PEM_cert_to_DER_cert(first))
        _, signed = next(_fields(certificate))
        _algorithm, _issuer, validity, *_ = (content for tag, content in _fields(signed) if tag == SEQUENCE)
        begins, ends = (
            datetime.strptime(content.decode("ascii"), TIMES[tag]).replace(tzinfo=UTC)
            for tag, content in _fields(validity)
        )
    except (ValueError, LookupError, StopIteration):
        raise ConfigurationError(f"certificate {path}: is not one of X.509") from None
    return begins, ends


def _fields(der: bytes) -> Iterator[tuple[int, bytes]]:
    """The values of a DER encoding, one after the other, with their tags."""
    at = 0
    while at < len(der):
        tag, size, at = der[at], der[at + 1], at + 2
        if size >= 0x80:
            more = size - 0x80
            size, at = int.from_bytes(der[at : at + more], "big"), at + more
        yield tag, der[at : at + size]
        at += size


def _told(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")
