"""The key that signs: made once, private, the same for all servers, and changed without a break."""

from __future__ import annotations

import stat
from base64 import b64encode
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
import structlog
from stationmaster_client.transparency import VerifierKey, open_checkpoint
from stationmaster_server.audit import checkpoints, key_store
from stationmaster_server.audit.checkpoints import Signer
from stationmaster_server.audit.log_keys import LogKeys
from stationmaster_server.audit.notes import SigningKey
from stationmaster_server.audit.proofs import Proofs
from stationmaster_server.audit.signing_keys import KeysUnusable, read_key_file, read_keys
from stationmaster_server.db.engine import Database
from stationmaster_server.identity.model import Caller

from tests.audit.conftest import Server, make_caller, running
from tests.audit.test_bundles import fill
from tests.audit.verified import key_of
from tests.db.conditions import eventually
from tests.fixtures.database import make_tenant

SEEDS = [b64encode(bytes([number]) * 32).decode() for number in range(3)]
SIGNERS = [SigningKey(bytes([number]) * 32) for number in range(3)]


async def active(database: Database) -> bytes | None:
    """The key that signs."""
    async with database.system(autocommit=True) as tx:
        return await key_store.active(tx)


async def load(database: Database, *seeds: str) -> None:
    """A server with these keys starts."""
    await LogKeys(database, configured=",".join(seeds)).load()


async def test_the_first_start_makes_a_private_key_file_that_all_servers_of_the_host_share(
    database: Database, tmp_path: Path
) -> None:
    file = tmp_path / "data" / "audit.keys"
    for _ in range(2):
        await LogKeys(database, file=file, make=True).load()
    (key,) = read_key_file(file)
    assert await active(database) == key.public
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [each.name for each in file.parent.iterdir()] == ["audit.keys"]


async def test_a_server_of_another_host_makes_no_key_of_its_own(database: Database, tmp_path: Path) -> None:
    await load(database, SEEDS[0])
    file = tmp_path / "audit.keys"
    await LogKeys(database, file=file, make=True).load()
    assert not file.exists()
    assert await active(database) == SIGNERS[0].public


async def test_a_server_without_the_key_places_events_and_another_signs_them(
    database: Database, caller: Caller
) -> None:
    await load(database, SEEDS[0])
    with structlog.testing.capture_logs() as logs:
        async with running(database, keys=SEEDS[1]) as server:
            await server.change(caller)
            await server.signer.sign()
            assert await active(database) == SIGNERS[0].public
            async with running(database, keys=SEEDS[0]):
                await signed_by(server, caller, 1, SIGNERS[0])
    assert sum("signs no audit checkpoints" in line["event"] for line in logs) == 1


async def signed_by(server: Server, caller: Caller, size: int, signer: SigningKey) -> None:
    """Wait for a checkpoint of so many events by this key."""

    async def is_signed() -> bool:
        async with server.database.system(autocommit=True) as tx:
            sql = "SELECT size FROM audit_checkpoints WHERE organization_id = $1"
            return (await tx.fetchval(sql, caller.tenant.organization_id) or 0) >= size

    await eventually(is_signed)
    open_checkpoint((await Proofs(server.database).checkpoint(caller)).note, [key_of(caller, signer)])


async def test_a_new_key_takes_over_and_the_old_one_stays_published(database: Database, caller: Caller) -> None:
    async with running(database, keys=SEEDS[0]) as server:
        await server.change(caller)
        await signed_by(server, caller, 1, SIGNERS[0])
        async with running(database, keys=f"{SEEDS[0]},{SEEDS[1]}") as other:
            await server.change(caller)
            await signed_by(other, caller, 2, SIGNERS[1])
    async with database.system(autocommit=True) as tx:
        keys = await key_store.keys(tx)
    assert [(key.public_key, key.retired_at is None) for key in keys] == [
        (SIGNERS[1].public, True),
        (SIGNERS[0].public, False),
    ]
    await load(database, SEEDS[1], SEEDS[0])  # a key that was retired does not come back
    assert await active(database) == SIGNERS[1].public


async def test_only_who_has_the_key_that_signs_may_change_it(database: Database) -> None:
    await load(database, SEEDS[0])
    await load(database, SEEDS[1])
    assert await active(database) == SIGNERS[0].public
    await load(database, SEEDS[1], SEEDS[0], SEEDS[2])
    assert await active(database) == SIGNERS[2].public


@pytest.mark.parametrize("text", ["x", "AAAA", SEEDS[0][:-2], f"{SEEDS[0]},x"])
def test_what_is_no_key_is_refused_by_its_source(text: str) -> None:
    with pytest.raises(KeysUnusable, match="the setting x has a line that is no key"):
        read_keys(text, "the setting x")


async def test_a_key_file_that_others_may_read_signs_nothing(database: Database, tmp_path: Path) -> None:
    file = tmp_path / "audit.keys"
    file.write_text(f"# a comment\n{SEEDS[0]}\n")
    file.chmod(0o644)
    with structlog.testing.capture_logs() as logs:
        await LogKeys(database, file=file).load()
    assert "chmod 600" in str(logs)
    assert await active(database) is None
    file.chmod(0o600)
    await LogKeys(database, file=file).load()
    assert await active(database) == SIGNERS[0].public


async def test_every_organization_has_a_log_and_a_verifier_key_of_its_own(database: Database) -> None:
    callers: Sequence[Caller] = [make_caller(await make_tenant(database)) for _ in range(3)]
    async with running(database) as server:
        checkpoints = [await fill(server, caller, 2) for caller in callers]
    assert len({each.origin for each in checkpoints}) == len({each.root for each in checkpoints}) == 3
    keys: list[VerifierKey] = [key_of(caller) for caller in callers]
    assert len({key.public for key in keys}) == 1
    assert len({key.id for key in keys}) == 3


async def test_a_trail_that_nobody_signs_is_told_until_somebody_does(
    database: Database, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "LATE", timedelta(0))
    said: list[str] = []
    async with running(database, keys="") as server:
        await server.change(caller)
        unsigned = Signer(database, LogKeys(database, configured="no key"), tell=said.append)
        await unsigned.start()

        async def told() -> bool:
            return bool(said and said[-1])

        await eventually(told)
        assert "the setting audit.signing_keys has a line that is no key" in said[-1]
        assert said[-1].endswith("set audit.signing_keys")
        await unsigned.close()
    signer = Signer(database, LogKeys(database, configured=SEEDS[0]), tell=said.append)
    await signer.start()

    async def well() -> bool:
        return not said[-1]

    await eventually(well)
    await signer.close()


async def test_whether_a_server_could_sign_is_known_without_making_a_key(database: Database, tmp_path: Path) -> None:
    file = tmp_path / "audit.keys"
    assert await LogKeys(database, file=file, make=True).check() == ""
    assert not file.exists()
    assert await LogKeys(database, file=file).check() == "no key is configured"
    assert await LogKeys(database, configured=SEEDS[0]).check() == ""
    await load(database, SEEDS[0])
    assert "is not here" in await LogKeys(database, configured=SEEDS[1]).check()
    assert "is not here" in await LogKeys(database, file=file, make=True).check()
    assert not file.exists()
    with pytest.raises(KeysUnusable):
        await LogKeys(database, configured="no key").check()


async def test_a_signer_that_is_behind_says_by_how_much(database: Database, caller: Caller) -> None:
    async with running(database, keys="") as server:
        await server.change(caller)

        async def behind() -> bool:
            await server.signer.sign()
            return server.signer.behind_seconds > 0

        await eventually(behind)
    signer = Signer(database, LogKeys(database, configured=SEEDS[0]), every=timedelta(minutes=1))
    await signer.start()

    async def caught_up() -> bool:
        await signer.sign()
        return signer.behind_seconds == 0

    await eventually(caught_up)
    await signer.close()
