"""Runs in a router's pod: what its scaler tells KEDA of the large tier, a JSON object every half a second."""

import asyncio
import json
import time

from marginal.tokens import Tier
from marginal.transport.scaler import demand_at


async def main() -> None:
    while True:
        told = {"at": time.time(), "demand": await demand_at("127.0.0.1:50055", Tier.LARGE)}
        print(json.dumps(told), flush=True)  # noqa: T201
        await asyncio.sleep(0.5)


asyncio.run(main())
