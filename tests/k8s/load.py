"""Clients that ask an endpoint without end, inside the cluster; each second a line of what came back so far.

In the environment: URL, KEY, CLIENTS, PAUSE (seconds between two requests of a client). Nothing is asked twice.
"""

import asyncio
import collections
import json
import os
import time

import aiohttp


async def _ask(session: aiohttp.ClientSession, seen: collections.Counter[str], worst: list[float]) -> None:
    headers = {"Authorization": f"Bearer {os.environ['KEY']}"}
    while True:
        began = time.monotonic()
        try:
            body = {"text": "It broke after a week."}
            async with session.post(f"{os.environ['URL']}/predict", json=body, headers=headers) as reply:
                answer = await reply.json()
                seen[f"version {answer['version']}" if reply.status == 200 else str(reply.status)] += 1
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            seen[type(error).__name__] += 1
        worst[0] = max(worst[0], time.monotonic() - began)
        await asyncio.sleep(float(os.environ["PAUSE"]))


async def main() -> None:
    """Ask until the pod is ended."""
    seen: collections.Counter[str] = collections.Counter()
    worst = [0.0]
    limits = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(timeout=limits, connector=aiohttp.TCPConnector(limit=0)) as session:
        clients = [asyncio.create_task(_ask(session, seen, worst)) for _ in range(int(os.environ["CLIENTS"]))]
        while clients:
            await asyncio.sleep(1)
            print(json.dumps({"seen": seen, "worst": round(worst[0], 2)}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
