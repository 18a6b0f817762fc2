"""Certificate authorities of one test, and the PEM files of what they vouch for."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

from marginal.entrypoints.certificate_keeping import TlsFiles
from marginal.transport.certificates import CertificateFiles


@dataclass(frozen=True)
class Identity:
    """A certificate, its key, and the authority that vouches for it, as files of one directory."""

    directory: Path

    @property
    def cert(self) -> Path:
        return self.directory / "tls.crt"

    @property
    def key(self) -> Path:
        return self.directory / "tls.key"

    @property
    def ca(self) -> Path:
        return self.directory / "ca.crt"

    @property
    def files(self) -> CertificateFiles:
        return CertificateFiles(self.cert, self.key, self.ca)

    def serving(self, *, mutual: bool = False) -> TlsFiles:
        """For a server that shows it; `mutual` asks callers for one of the same authority."""
        return TlsFiles(self.cert, self.key, self.ca if mutual else None)


class Authority:
    """A certificate authority."""

    def __init__(self) -> None:
        self._ca = trustme.CA()

    def write(self, directory: Path, *names: str, ends_in: timedelta = timedelta(days=1)) -> Identity:
        """Puts a certificate for 127.0.0.1, or other names, into a directory, over what is there."""
        directory.mkdir(parents=True, exist_ok=True)
        ends = datetime.now(UTC) + ends_in
        made = self._ca.issue_cert(
            *(names or ("127.0.0.1", "localhost")), not_before=ends - timedelta(days=365), not_after=ends
        )
        identity = Identity(directory)
        identity.cert.write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
        identity.key.write_bytes(made.private_key_pem.bytes())
        identity.ca.write_bytes(self._ca.cert_pem.bytes())
        return identity
