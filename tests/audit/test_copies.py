"""Copies of checkpoints are written once; whoever rewrites the trail is told of by them."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog
from stationmaster_client.transparency import open_checkpoint
from stationmaster_server.app.storage import bucket_of
from stationmaster_server.audit.copies import ObjectStore
from stationmaster_server.audit.publishing import Copies
from stationmaster_server.config import SettingsError, load
from stationmaster_server.identity.model import Caller
from stationmaster_server.storage.places.s3_once import WrittenOnce

from tests.audit.conftest import Server
from tests.audit.test_bundles import fill
from tests.audit.test_witness import publish
from tests.audit.verified import SIGNER, key_of, signed
from tests.storage.places import S3Site


@pytest.fixture(params=["folder", "bucket"])
def copies(request: pytest.FixtureRequest, tmp_path: Path) -> Copies:
    if request.param == "folder":
        return ObjectStore(tmp_path.as_uri())
    site: S3Site = request.getfixturevalue("bucket")
    return WrittenOnce(bucket_of(load(None, {"storage": site.settings()}, environ={})))


async def test_checkpoints_are_copied_once_and_a_fork_is_told(server: Server, caller: Caller, copies: Copies) -> None:
    seen = await fill(server, caller, 3)
    publisher = await publish(server, [], copies)
    assert publisher.forks == 0
    name = f"{caller.tenant.organization_id}/{3:020d}"
    assert open_checkpoint(await copies.write(name, "other") or "", [key_of(caller)]) == seen
    await server.signer.close()
    forged = SIGNER.sign(seen.origin, 3, bytes(32))
    async with server.database.system() as tx:
        await tx.execute("UPDATE audit_checkpoints SET published_size = 0, note = $1", forged)
    with structlog.testing.capture_logs() as logs:
        publisher = await publish(server, [], copies)
    assert publisher.forks == 1
    assert any("the trail was rewritten" in line["event"] for line in logs)
    assert open_checkpoint(await copies.write(name, "other") or "", [key_of(caller)]) == seen
    async with server.database.system() as tx:
        (event,) = await tx.fetch("SELECT * FROM audit_events WHERE action = 'audit.fork'")
    assert (event["category"], event["outcome"], event["actor"]) == ("security", "failed", "system")
    assert event["details"]["size"] == 3


async def test_the_same_checkpoint_again_is_no_fork(server: Server, caller: Caller, copies: Copies) -> None:
    await fill(server, caller, 3)
    await publish(server, [], copies)
    async with server.database.system() as tx:
        await tx.execute("UPDATE audit_checkpoints SET published_size = 0")
    assert (await publish(server, [], copies)).forks == 0
    await server.change(caller)
    await signed(server, caller, 4)
    assert (await publish(server, [], copies)).forks == 0


async def test_a_bucket_that_is_away_is_tried_again(server: Server, caller: Caller, bucket: S3Site) -> None:
    missing = S3Site(bucket.endpoint, "missing")
    await fill(server, caller, 3)
    for site, left in ((missing, 1), (bucket, 0)):
        copies = WrittenOnce(bucket_of(load(None, {"storage": site.settings()}, environ={})))
        await publish(server, [], copies)
        async with server.database.system() as tx:
            due = await tx.fetchval("SELECT count(*) FROM audit_checkpoints WHERE published_size < size")
        assert due == left


def test_a_store_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        ObjectStore("nowhere://x")
    with pytest.raises(ValueError, match=rf"^there is no folder {tmp_path}/not there: make it, [^\n]+$"):
        ObjectStore(f"{tmp_path.as_uri()}/not%20there")
    with pytest.raises(SettingsError, match="needs storage"):
        load(None, {"audit": {"copies": "storage"}}, environ={})
