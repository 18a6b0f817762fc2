"""TLS on both ends of a hop, with certificates that can be replaced while calls go on.

Measured with grpc.aio 1.85.1: a server's certificates are asked for at every handshake, so the next connection has the
new ones; a channel's are fixed, so the next call after a change dials anew and calls under way end on the old channel.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Generic, TypeVar

import grpc

from marginal.errors import ConfigurationError, MarginalError, TierUnavailable
from marginal.transport.certificates import Certificates
from marginal.transport.statuses import error_from_rpc

OLD_CALLS_SECONDS = 600.0

Stub = TypeVar("Stub")

_REFUSED = re.compile(r"CERTIFICATE_VERIFY_FAILED: ([A-Za-z ]+)")
_OTHER_NAME = "Hostname Verification Check failed"
_NO_TLS = "WRONG_VERSION_NUMBER"


class ServerTls:
    """What a server shows to its callers; with `ca` it takes only callers that this vouches for."""

    def __init__(self, certificates: Certificates) -> None:
        self._mutual = certificates.ca is not None
        self.replace(certificates)

    def replace(self, certificates: Certificates) -> None:
        """Puts other certificates in force, from the next handshake on."""
        if certificates.key is None or certificates.chain is None:
            raise ConfigurationError("--tls-cert and --tls-key: a server needs both")
        self.certificates = certificates
        self._configuration = grpc.ssl_server_certificate_configuration(
            [(certificates.key, certificates.chain)], root_certificates=certificates.ca
        )

    @property
    def mutual(self) -> bool:
        """Whether callers must show a certificate."""
        return self._mutual

    def credentials(self) -> grpc.ServerCredentials:
        """For a port, once."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration,
            self.changes(),  # type: ignore[arg-type]  # None is for no change, which its stubs do not know
            require_client_authentication=self._mutual,
        )

    def changes(self) -> Callable[[], grpc.ServerCertificateConfiguration | None]:
        """What is asked at every handshake of a port: the configuration where it is another than before, else None.

        gRPC takes whatever it is given for new and frees the one before, which a handshake at the same moment may be
        about to use: with 1.85.1 the process is aborted (seen).
        """
        given = self._configuration

        def changed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal given
            if self._configuration is given:
                return None
            given = self._configuration
            return given

        return changed


class ClientTls:
    """Whom a client believes, and what it shows; channels look at `version` to see that they are outdated.

    `name` is whom the other side's certificate must be for; "" is the target's own.
    """

    def __init__(self, certificates: Certificates, *, name: str = "") -> None:
        self.certificates = certificates
        self.name = name
        self.version = 0

    def replace(self, certificates: Certificates) -> None:
        """Puts other certificates in force, from the next call on."""
        self.certificates = certificates
        self.version += 1

    def credentials(self) -> grpc.ChannelCredentials:
        """For a channel that is dialled now."""
        return grpc.ssl_channel_credentials(self.certificates.ca, self.certificates.key, self.certificates.chain)


class Line(Generic[Stub]):
    """A service's stub over a channel that is dialled anew when its certificates were replaced."""

    def __init__(
        self,
        target: str,
        stub: Callable[[grpc.aio.Channel], Stub],
        *,
        tls: ClientTls | None = None,
        options: tuple[tuple[str, object], ...] = (),
        interceptors: list[grpc.aio.ClientInterceptor] | None = None,
    ) -> None:
        self._target = target
        self._make_stub = stub
        self._tls = tls
        self._options = options
        self._interceptors = interceptors or []
        self._closing: set[asyncio.Task[None]] = set()
        self._dial()

    def stub(self) -> Stub:
        """For the next call; not to be kept."""
        if self._tls is not None and self._tls.version != self._version:
            closing = asyncio.create_task(self._channel.close(OLD_CALLS_SECONDS))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            self._dial()
        return self._stub

    @property
    def ready(self) -> bool:
        """Whether a call would go out at once; begins to connect when it would not."""
        return self._channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY

    async def close(self) -> None:
        """Ends every call."""
        for closing in self._closing:
            closing.cancel()
        await self._channel.close()

    def _dial(self) -> None:
        self._version = self._tls.version if self._tls else 0
        self._channel = dialled(self._target, self._tls, options=self._options, interceptors=self._interceptors)
        self._stub = self._make_stub(self._channel)


def dialled(
    target: str,
    tls: ClientTls | None,
    *,
    options: tuple[tuple[str, object], ...] = (),
    interceptors: list[grpc.aio.ClientInterceptor] | None = None,
) -> grpc.aio.Channel:
    """A channel to `target`, in plain text without `tls`."""
    if tls is None:
        return grpc.aio.insecure_channel(target, options=options, interceptors=interceptors)
    if tls.name:
        options = (*options, ("grpc.ssl_target_name_override", tls.name))
    return grpc.aio.secure_channel(target, tls.credentials(), options=options, interceptors=interceptors)


def open_port(server: grpc.aio.Server, address: str, tls: ServerTls | None, *, option: str) -> int:
    """Lets a server listen at `address`. Raises ConfigurationError naming the option when it cannot be had."""
    try:
        if tls is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, tls.credentials())
    except RuntimeError:
        raise ConfigurationError(f"{option} {address}: the address is taken or not ours, choose another") from None


def error_of_call(error: grpc.aio.AioRpcError) -> MarginalError:
    """The domain error behind a failed call, one that never got through a handshake included."""
    problem = handshake_problem(error)
    return TierUnavailable(problem) if problem else error_from_rpc(error)


def handshake_problem(error: grpc.aio.AioRpcError) -> str:
    """Why no TLS connection came about, in words that hold nothing of the other side's; "" when that is not why."""
    details = error.details() or ""
    if error.code() is not grpc.StatusCode.UNAVAILABLE:
        return ""
    if (refused := _REFUSED.search(details)) is not None:
        return f"its certificate was refused: {refused[1].strip()}"
    if _OTHER_NAME in details:
        return "its certificate is for another host name"
    return "it does not speak TLS" if _NO_TLS in details else ""
