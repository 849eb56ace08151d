"""The first start, and keys by hand."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path
from uuid import uuid4

import pytest
from stationmaster_server.db.engine import Database
from stationmaster_server.errors import NotFound, Unauthenticated
from stationmaster_server.identity.administration import create_key, list_keys, revoke
from stationmaster_server.identity.bootstrap import ensure_local_administrator
from stationmaster_server.identity.keys import NewKey
from stationmaster_server.identity.model import Caller, Role

from tests.identity.conftest import Server


async def test_servers_that_start_at_once_make_one_administrator(
    server: Server, database: Database, tmp_path: Path
) -> None:
    starts = [ensure_local_administrator(database, tmp_path, server.audit) for _ in range(10)]
    await asyncio.gather(*starts)
    assert len(await list_keys(database)) == 1
    identity = await server.authenticator.authenticate(f"Bearer {(tmp_path / 'admin.key').read_text().strip()}")
    assert identity.role is Role.OWNER
    assert "organizations.admin" in identity.scopes


async def test_the_key_is_its_owners_alone_to_read(database: Database, tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there" / "yet"
    await ensure_local_administrator(database, folder)
    assert stat.S_IMODE((folder / "admin.key").stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == ["admin.key"]


async def test_a_second_start_changes_nothing(database: Database, tmp_path: Path) -> None:
    await ensure_local_administrator(database, tmp_path)
    first = (tmp_path / "admin.key").read_text()
    await ensure_local_administrator(database, tmp_path)
    assert (tmp_path / "admin.key").read_text() == first
    assert len(await list_keys(database)) == 1


async def test_a_key_of_another_database_is_replaced_and_kept(
    server: Server, database: Database, tmp_path: Path
) -> None:
    (tmp_path / "admin.key").write_text("sm_of_another_database")
    await ensure_local_administrator(database, tmp_path)
    await server.authenticator.authenticate(f"Bearer {(tmp_path / 'admin.key').read_text().strip()}")
    assert (tmp_path / "admin.key.old").read_text() == "sm_of_another_database"


async def test_a_file_that_cannot_be_written_leaves_nothing_in_the_database(database: Database, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        await ensure_local_administrator(database, tmp_path / "file" / "folder")
    assert await list_keys(database) == []
    await ensure_local_administrator(database, tmp_path)
    assert len(await list_keys(database)) == 1


async def test_an_installation_with_an_organization_gets_no_local_one(
    database: Database, owner: Caller, tmp_path: Path
) -> None:
    await ensure_local_administrator(database, tmp_path)
    assert not (tmp_path / "admin.key").exists()


async def test_keys_by_hand_are_made_listed_and_revoked(server: Server, owner: Caller, database: Database) -> None:
    created = await create_key(database, server.audit, NewKey(display_name="by hand"))
    assert created.key.user_id == owner.tenant.user_id
    await server.authenticator.authenticate(f"Bearer {created.secret}")
    assert await list_keys(database) == [created.key]
    revoked = await revoke(database, server.audit, created.key.id)
    assert revoked.revoked_at is not None
    server.authenticator.forget()
    with pytest.raises(Unauthenticated):
        await server.authenticator.authenticate(f"Bearer {created.secret}")
    async with database.system(autocommit=True) as tx:
        actors = await tx.fetch("SELECT action, actor FROM audit_events ORDER BY id LIMIT 2")
    assert [tuple(row) for row in actors] == [("apiKey.create", "system"), ("apiKey.revoke", "system")]


async def test_keys_by_hand_need_a_user(server: Server, database: Database) -> None:
    for new, organization_id in ((NewKey(user_id=uuid4()), None), (NewKey(), uuid4())):
        with pytest.raises(NotFound):
            await create_key(database, server.audit, new, organization_id)


async def test_the_first_key_by_hand_operates_the_installation_unless_it_is_given_less(
    server: Server, database: Database
) -> None:
    first, second = await asyncio.gather(*(create_key(database, server.audit, NewKey()) for _ in range(2)))
    assert {first.key.scopes, second.key.scopes} == {("*", "organizations.admin"), ()}
    assert first.key.user_id == second.key.user_id, "there is one first owner"


async def test_the_first_key_by_hand_may_be_given_less(server: Server, database: Database) -> None:
    created = await create_key(database, server.audit, NewKey(scopes=("sessions.read",)))
    assert created.key.scopes == ("sessions.read",)
