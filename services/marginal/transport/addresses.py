"""Addresses to listen at: who could reach them."""

import ipaddress


def only_this_machine(listen: str) -> bool:
    """Whether nobody but programs on this machine can reach an address, "host:port" or "unix:path"."""
    if listen.startswith(("unix:", "unix-abstract:")):
        return True
    host = listen.rpartition(":")[0].removeprefix("[").removesuffix("]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
