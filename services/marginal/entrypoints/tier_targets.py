"""A tier by the words of an option: an address, a list, a DNS name, or a Kubernetes service whose pods are watched."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from marginal.cluster import api as kubernetes
from marginal.cluster.endpoints import Service, follow
from marginal.errors import ConfigurationError
from marginal.transport.remote_model import connected
from marginal.transport.remote_pool import RemotePool
from marginal.transport.targets import KUBERNETES, Discovery
from marginal.transport.tls import ClientTls
from marginal.transport.tracing import CallTracer

FORMS = "host:port, a list host1:port,host2:port, dns:///name:port, or kubernetes:///namespace/service:port"


@asynccontextmanager
async def tier_at(
    target: str, tracer: CallTracer | None = None, *, tls: ClientTls | None, lost: Callable[[], object]
) -> AsyncIterator[RemotePool]:
    """Opens a tier; `lost` is as for `connected`.

    Raises ConfigurationError for a target that is none, or a cluster that is not there.
    """
    service = kubernetes_service(target)
    if service is None:
        async with connected(target, tracer, tls=tls, lost=lost) as pool:
            yield pool
        return
    async with kubernetes.opened() as api:
        found = Discovery(partial(follow, api, service), f"{service.name}.{service.namespace}.svc")
        async with connected(target, tracer, tls=tls, found=found, lost=lost) as pool:
            yield pool


def kubernetes_service(target: str) -> Service | None:
    """The service that a target of the form kubernetes:///NAMESPACE/SERVICE:PORT names, None for other forms."""
    if not target.startswith(KUBERNETES):
        return None
    namespace, slash, rest = target.removeprefix(KUBERNETES).partition("/")
    name, colon, port = rest.partition(":")
    if not all((namespace, slash, name, colon, port)) or "/" in rest:
        raise ConfigurationError(f"{target}: write kubernetes:///NAMESPACE/SERVICE:PORT")
    return Service(namespace, name, port)
