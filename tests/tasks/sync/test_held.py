"""Files that another process holds are compared by that one: whoever cannot look does not say that all is well."""

from __future__ import annotations

from contextlib import AsyncExitStack, closing
from pathlib import Path
from uuid import UUID

import apsw
import pytest
from stationmaster.v1 import maintenance_pb2 as pb
from stationmaster_client import Client
from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant
from stationmaster_server.maintenance.base import NotYet
from stationmaster_server.maintenance.services.sync import TaskSync
from stationmaster_server.tasks.sync.engine import Sync
from stationmaster_server.tasks.sync.stores.text_store import TextStore
from stationmaster_server.tasks.sync.target import TargetHeld

from tests.fixtures.server import running, server_settings
from tests.maintenance.asked import asked
from tests.tasks.sync.changing import Changer
from tests.waiting import until

TEXT = "task-text-store-sync"


async def test_a_check_of_files_that_another_process_holds_does_not_claim_that_they_are_right(
    database: Database, tenant: Tenant, tmp_path: Path
) -> None:
    await Changer(database, tenant, 1, seed=1).create(0)
    holder, other = (Sync(database, TEXT, TextStore(tmp_path / "text.db")) for _ in range(2))
    service = TaskSync(TEXT, "A sync.", database, other, ours=False)
    await holder.run()
    with pytest.raises(TargetHeld, match=r"text\.db"):
        await other.differences()
    with pytest.raises(NotYet, match="another process"):
        await asked(service, "check", tenant)
    await TaskSync(TEXT, "A sync.", database, holder, ours=False).update()
    told = await asked(service, "check", tenant)
    assert (told["place"], told["differences"]) == (holder.target.place, 0)
    await Changer(database, tenant, 9, seed=2).create(8)
    with pytest.raises(NotYet):  # what was found for one is not told to another, later
        await asked(service, "check", tenant, ask="another")
    await holder.close()
    assert (await asked(service, "check", tenant, ask="a third"))["differences"] == 1
    await other.close()


async def test_of_two_servers_the_one_that_has_the_files_checks_them(database_url: str, tmp_path: Path) -> None:
    path = tmp_path / "sync" / "text.db"
    async with AsyncExitStack() as stack:
        settings = [
            server_settings(tmp_path / name, database_url, sync={"targets": {"text": {"path": str(path)}}})
            for name in ("one", "other")
        ]
        servers = [await stack.enter_async_context(running(each)) for each in settings]
        key = servers[0].admin_key
        clients = [await stack.enter_async_context(Client.connect(each.target, key)) for each in servers]

        async def filled() -> bool:
            service = await clients[0].maintenance.service(f"backgroundServices/{TEXT}")
            return any(target.cursor for target in service.targets)

        await until(filled)
        with closing(apsw.Connection(str(path))) as file:
            file.execute("INSERT INTO tasks VALUES (99, ?, 'nobody', 'webhook', '', 'ACTIVE', '')", (str(UUID(int=1)),))
            file.execute("INSERT INTO texts (rowid, body) VALUES (99, 'nothing')")
        for client in [*clients, *clients]:  # whom it is asked does it first
            begun = await client.maintenance.trigger(f"backgroundServices/{TEXT}", "check")
            ended = await client.maintenance.wait(begun.name)
            assert ended.state == pb.OPERATION_STATE_SUCCEEDED, ended.error
            assert ended.result["differences"] == 1
