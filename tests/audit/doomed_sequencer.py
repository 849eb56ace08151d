"""A server that places and signs until it is killed: `python -m tests.audit.doomed_sequencer URL KEY`."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta

from stationmaster_server.audit import sequencer
from stationmaster_server.audit.checkpoints import Signer
from stationmaster_server.audit.log_keys import LogKeys
from stationmaster_server.db.engine import Database


async def main(url: str, key: str) -> None:
    """Small batches, each told, so that death comes anywhere within one."""
    database = await Database.connect(url, pool_size=1, system_pool_size=3, connect_timeout=timedelta(seconds=10))
    signer = Signer(database, LogKeys(database, configured=key), every=timedelta(milliseconds=1))
    await signer.start()
    while True:
        async with database.system() as tx:
            taken = await sequencer.place(tx, 37)
        if taken:
            sys.stdout.write(f"{taken}\n")
            sys.stdout.flush()
        await asyncio.sleep(0)


asyncio.run(main(*sys.argv[1:]))
