"""The pods behind a service, as they come and go: what may be called now.

EndpointSlices are listed and then watched; every so often they are listed again. While the API server is away what was
last known stays true, and it is asked again after growing waits.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from marginal.cluster.api import GONE, Api, ApiAway, ApiRefused, Listing, Object

Push = Callable[[frozenset[str]], None]
"""Takes every address that may be called, as "host:port", each time they change."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often what is done, in seconds.

    A watch ends by itself after `watch` and goes on where it was; all is listed anew after `resync`. Waits after a
    failure double from `first_wait` to `longest_wait` until a watch was of use, and are drawn from the upper half.
    """

    watch: int = 60
    resync: float = 600.0
    first_wait: float = 0.2
    longest_wait: float = 30.0

    def waits(self) -> Iterator[float]:
        """One after the other."""
        wait = self.first_wait
        while True:
            yield wait * random.uniform(0.5, 1.0)  # noqa: S311 (spreads routers, no secret)
            wait = min(2.0 * wait, self.longest_wait)


RHYTHM = Rhythm()


@dataclass(frozen=True, slots=True)
class Service:
    """A service, and the port that its pods listen at: a number, or the name it has in the slices."""

    namespace: str
    name: str
    port: str

    @property
    def path(self) -> str:
        """Where the slices of its namespace are."""
        return f"/apis/discovery.k8s.io/v1/namespaces/{self.namespace}/endpointslices"

    @property
    def selector(self) -> str:
        """The label that its slices have."""
        return f"kubernetes.io/service-name={self.name}"


async def follow(api: Api, service: Service, push: Push, *, rhythm: Rhythm = RHYTHM) -> None:
    """Pushes the addresses that may be called, at once and whenever they change, until cancelled."""
    following = _Following(api, service, push)
    waits, gone = rhythm.waits(), False
    while True:
        fault: ApiAway | None = None
        try:
            await following.anew(rhythm)
        except ApiAway as error:
            fault = error
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            fault = ApiAway(f"the API server's answer cannot be understood: {type(error).__name__}")
        if following.heard:
            waits, gone = rhythm.waits(), False
        if isinstance(fault, ApiRefused) and fault.status == GONE and not gone:
            gone = True
        elif fault is not None:
            following.away(fault)
            await asyncio.sleep(next(waits))


class _Following:
    """What is known of a service's slices, by their names."""

    def __init__(self, api: Api, service: Service, push: Push) -> None:
        self._api = api
        self._service = service
        self._push = push
        self._slices: dict[str, Object] = {}
        self._pushed: frozenset[str] | None = None
        self._away = ""
        self._portless = False
        self.heard = False
        """Whether the latest watch was of use: it gave an event, or was not cut short."""

    def away(self, error: ApiAway) -> None:
        """Tells once that nothing new is heard."""
        if str(error) != self._away:
            logger.warning("the pods of %s stay as they were: %s", self._service.name, error)
        self._away = str(error)

    async def anew(self, rhythm: Rhythm) -> None:
        """Lists all there is, and watches until it is time to list again. Raises ApiAway, ApiRefused."""
        self.heard, now = False, asyncio.get_running_loop().time
        listed: Listing = await self._api.list(self._service.path, labelSelector=self._service.selector)
        version, resync = listed.version, now() + rhythm.resync
        self._slices = {str(one["metadata"]["name"]): one for one in listed.items}
        self._tell()
        if self._away:
            logger.info("the pods of %s are known again", self._service.name)
            self._away = ""
        while now() < resync:
            events, began = self._watch(version, rhythm), now()
            try:
                async for kind, found in events:
                    self.heard = True
                    version = str(found["metadata"]["resourceVersion"])
                    if kind != "BOOKMARK":
                        self._take(kind, found)
                self.heard = True
            finally:  # what hangs up on silence after a while leaves each watch of use
                self.heard |= now() - began > rhythm.longest_wait
            await asyncio.sleep(rhythm.first_wait)  # something on the way may end every watch at once

    def _watch(self, version: str, rhythm: Rhythm) -> AsyncIterator[tuple[str, Object]]:
        selector = self._service.selector
        return self._api.watch(self._service.path, version=version, seconds=rhythm.watch, labelSelector=selector)

    def _take(self, kind: str, found: Object) -> None:
        name = str(found["metadata"]["name"])
        if kind == "DELETED":
            self._slices.pop(name, None)
        else:
            self._slices[name] = found
        self._tell()

    def _tell(self) -> None:
        portless = _portless(self._slices.values(), self._service.port)
        if portless and not self._portless:
            logger.warning("no pod of %s has a port named %s: none is called", self._service.name, self._service.port)
        self._portless = portless
        found = frozenset(addresses(self._slices.values(), self._service.port))
        if found != self._pushed:
            logger.info("%s has %d pods that may be called", self._service.name, len(found))
            self._pushed = found
            self._push(found)


def addresses(slices: Iterable[Object], port: str) -> Iterator[str]:
    """The addresses of the pods that are ready and not about to end, one of each pod: IPv4 where it has both."""
    by_family: dict[str, dict[str, str]] = {"IPv4": {}, "IPv6": {}}
    for one in slices:
        found, number = by_family.get(str(one.get("addressType"))), _number(one, port)
        if found is None or number is None:
            continue
        for endpoint in one.get("endpoints") or ():
            if _callable(endpoint.get("conditions") or {}):
                address = str(endpoint["addresses"][0])
                pod = str((endpoint.get("targetRef") or {}).get("uid") or address)
                found[pod] = f"[{address}]:{number}" if ":" in address else f"{address}:{number}"
    yield from (by_family["IPv6"] | by_family["IPv4"]).values()


def _callable(conditions: Mapping[str, Any]) -> bool:
    """What is not said counts as ready; `ready` alone is always true where not-ready pods are published."""
    ready = conditions.get("ready") is not False and conditions.get("serving") is not False
    return ready and not conditions.get("terminating")


def _portless(slices: Iterable[Object], port: str) -> bool:
    """Whether there are pods, and none has the port."""
    peopled = [one for one in slices if one.get("endpoints")]
    return bool(peopled) and all(_number(one, port) is None for one in peopled)


def _number(found: Object, port: str) -> int | None:
    """The port's number in a slice; a number is what pods listen at, whatever the service calls it."""
    if port.isdigit():
        return int(port)
    return next((int(one["port"]) for one in found.get("ports") or () if one.get("name") == port), None)
