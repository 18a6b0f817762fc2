"""What a router must have before others than this machine may reach it."""

from dataclasses import dataclass

from marginal.entrypoints.certificate_keeping import TlsFiles
from marginal.entrypoints.tenant_keeping import TenantFiles
from marginal.errors import ConfigurationError
from marginal.transport.addresses import only_this_machine

PLAIN_TEXT = "plain text: whoever is on the way can read API keys and prompts, see --tls-cert"


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call a router, by what they are told apart, and whether anybody may (`insecure`)."""

    tenants: TenantFiles
    tls: TlsFiles
    insecure: bool = False

    def check(self, listen: str, admin_listen: str) -> None:
        """Refuses a router that anybody could spend at, or operate. Raises ConfigurationError naming the fix."""
        if self.insecure:
            return
        if self.tenants.keys is None and not only_this_machine(listen):
            raise ConfigurationError(
                f"--listen {listen}: others than this machine could reach it and spend without a key; give --keys-file "
                "(see `marginal keys create --help`), listen on 127.0.0.1, or say --insecure"
            )
        if admin_listen and self.tls.client_ca is None and not only_this_machine(admin_listen):
            raise ConfigurationError(
                f"--admin-listen {admin_listen}: others than this machine could reach it; give --tls-client-ca with "
                "--tls-cert and --tls-key, listen on 127.0.0.1, or say --insecure"
            )

    def readable_on_the_way(self, listen: str) -> bool:
        """Whether calls from elsewhere come in plain text."""
        return self.tls.cert is None and not only_this_machine(listen)
