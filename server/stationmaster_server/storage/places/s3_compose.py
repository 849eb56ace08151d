"""An object made of others, by the object storage itself: it appears at once, and no byte comes through here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from stationmaster_server.storage.places.s3_requests import Requests

_AT_ONCE = 8


async def compose(requests: Requests, parts: Sequence[str], target: str, mark: str) -> None:
    """Make an object of parts of at least 5 MiB each but the last; in place of one that is there.

    Raises FileNotFoundError: a part is missing; Interrupted: see there; Unavailable.
    """
    if len(parts) == 1:
        await requests.copy(parts[0], target, mark)
        return
    async with requests.multipart(target, mark) as upload:
        slots = asyncio.Semaphore(_AT_ONCE)

        async def add(number: int, part: str) -> str:
            async with slots:
                return await requests.add(target, upload, number, part)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(add(number, part)) for number, part in enumerate(parts, 1)]
        await requests.complete(target, upload, [task.result() for task in tasks])


async def abort_others(requests: Requests, target: str) -> None:
    """Nobody who had begun to make an object completes it any more. Raises Unavailable."""
    for left in await requests.begun(target):
        await requests.abort(target, left)
