"""The Kubernetes API server: read, watched, and as a way to the port of a pod.

Objects are the JSON that the server sends: a few fields of a few kinds are looked at, and what a newer server adds
must not matter. The client is imported when it is first used, since that takes a second or two.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp

from marginal.errors import ConfigurationError, MarginalError

Object = Mapping[str, Any]

READ_SECONDS = 10.0
PORT_FORWARD = "v4.channel.k8s.io"
GONE = 410


class ApiAway(MarginalError):
    """The API server cannot be reached, or does not understand us; it may be tried again."""


class ApiRefused(ApiAway):
    """The API server refused, with this HTTP status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Listing:
    """Objects of one kind, and the version from which a watch goes on."""

    items: Sequence[Object]
    version: str


class Api:
    """One API server, with the credentials that were found."""

    def __init__(self, client: Any, namespace: str) -> None:
        """`client` is an ApiClient of kubernetes.aio; `namespace` is where we are, or what the kubeconfig names."""
        self._client = client
        self.namespace = namespace

    async def get(self, path: str, **query: str) -> Object:
        """One object. Raises ApiAway, ApiRefused."""
        try:
            async with asyncio.timeout(READ_SECONDS), self._asked(path, query) as response:
                found = json.loads(await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise _away(error) from None
        if not isinstance(found, dict):
            raise ApiAway("the API server answers otherwise than Kubernetes does")
        return found

    async def list(self, path: str, **query: str) -> Listing:
        """Every object at `path`. Raises ApiAway, ApiRefused."""
        found = await self.get(path, **query)
        return Listing(found.get("items") or (), str(found.get("metadata", {}).get("resourceVersion", "")))

    async def watch(self, path: str, *, version: str, seconds: int, **query: str) -> AsyncIterator[tuple[str, Object]]:
        """Events from `version` on, as (ADDED, MODIFIED, DELETED or BOOKMARK, object); ends after so many seconds.

        Raises ApiAway, and ApiRefused with status GONE when the version is not known any more.
        """
        query |= {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
        }
        try:
            async with asyncio.timeout(seconds + READ_SECONDS), self._asked(path, query) as response:
                async for line in response.content:
                    event = json.loads(line)
                    kind, what = str(event["type"]), event["object"]
                    if kind == "ERROR":
                        raise ApiRefused(int(what.get("code", 0)), f"the API server ended the watch: {_reason(what)}")
                    yield kind, what
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _away(error) from None

    @asynccontextmanager
    async def port(self, namespace: str, pod: str, port: int) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A connection to one port of a pod, as the frames of the port-forward protocol. Raises ApiAway."""
        url, headers = await self._address(
            f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward", {"ports": str(port)}
        )
        session = self._session()
        try:
            async with session.ws_connect(url, headers=headers, protocols=(PORT_FORWARD,), max_msg_size=0) as socket:
                yield socket
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _away(error) from None

    @asynccontextmanager
    async def _asked(self, path: str, query: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        url, headers = await self._address(path, query)
        forever = aiohttp.ClientTimeout(total=None, connect=READ_SECONDS)
        headers |= {"Accept": "application/json"}
        async with self._session().get(url, headers=headers, timeout=forever) as response:
            if response.status != 200:
                raise ApiRefused(response.status, f"the API server answers {response.status} at {path}")
            yield response

    async def _address(self, path: str, query: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        try:
            _, url, headers, _, _ = await self._client.param_serialize(
                "GET", path, query_params=list(query.items()), auth_settings=["BearerToken"]
            )
        except Exception as error:  # whatever a token that is read anew raises, the next may be good
            raise ApiAway(f"the credentials for the API server cannot be read: {type(error).__name__}") from None
        return url, headers

    def _session(self) -> aiohttp.ClientSession:
        """The client's own, which has its certificates and its proxy."""
        rest = self._client.rest_client
        if rest.pool_manager is None:
            rest.pool_manager = rest._create_pool_manager()  # noqa: SLF001 (its requests cannot be streamed otherwise)
        session: aiohttp.ClientSession = rest.pool_manager
        return session


@asynccontextmanager
async def opened(kubeconfig: Path | None = None, context: str = "") -> AsyncIterator[Api]:
    """The API server of the pod we are in, else that of a kubeconfig.

    With `kubeconfig` or `context` always the latter. Raises ConfigurationError when there is neither.
    """
    aio = await asyncio.to_thread(_imported)
    configuration = aio.client.Configuration()
    try:
        namespace = await _configured(aio, configuration, kubeconfig, context)
    except aio.config.ConfigException as error:
        raise ConfigurationError(f"no Kubernetes cluster: {str(error).strip().rstrip('.')}") from None
    except Exception as error:  # whatever its parser raises, whose words may hold secrets
        raise ConfigurationError(f"the kubeconfig cannot be used: {type(error).__name__}") from None
    try:
        client = aio.client.ApiClient(configuration)
    except (OSError, ValueError):  # SSLError is the one, a lone ASCII certificate that is none the other
        raise ConfigurationError("no Kubernetes cluster: its certificate or ours cannot be used") from None
    try:
        yield Api(client, namespace)
    finally:
        await client.close()


NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


async def _configured(aio: Any, configuration: Any, kubeconfig: Path | None, context: str) -> str:
    """Loads what is needed and says the namespace that is meant when none is named."""
    ours = "" if kubeconfig or context else _own_namespace()
    if ours:
        aio.config.load_incluster_config(client_configuration=configuration)
        return ours
    loader = await aio.config.load_kube_config(
        config_file=str(kubeconfig) if kubeconfig else None,
        context=context or None,
        client_configuration=configuration,
        persist_config=False,
    )
    return str(loader.current_context["context"].get("namespace") or "default")


def _own_namespace() -> str:
    """That of the pod we are in, "" when we are in none."""
    return NAMESPACE_FILE.read_text("utf-8").strip() if NAMESPACE_FILE.exists() else ""


def _imported() -> ModuleType:
    try:
        import_module("kubernetes.aio.config")
        return import_module("kubernetes.aio")
    except ImportError:
        raise ConfigurationError("the Kubernetes client is not here: pip install 'marginal[cluster]'") from None


def _away(error: Exception) -> ApiAway:
    """In words without an address, which a kubeconfig may hold secrets in."""
    if isinstance(error, ApiAway):
        return error
    if isinstance(error, TimeoutError):
        return ApiAway("the API server did not answer in time")
    if isinstance(error, aiohttp.WSServerHandshakeError):
        return ApiRefused(error.status, f"the API server refused a port-forward with status {error.status}")
    return ApiAway(f"the API server cannot be asked: {type(error).__name__}")


def _reason(status: Object) -> str:
    return str(status.get("reason") or status.get("code") or "without a reason")
