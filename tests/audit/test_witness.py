"""Witnesses cosign what grew, and nothing else; a rewritten trail gets no cosignature."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import timedelta

import pytest
import structlog
from stationmaster_client.transparency import open_checkpoint
from stationmaster_server.audit import publishing
from stationmaster_server.audit.notes import COSIGNATURE, NoteError
from stationmaster_server.audit.proofs import Proofs
from stationmaster_server.audit.publishing import Copies, NotPublished, Publisher
from stationmaster_server.errors import FailedPrecondition
from stationmaster_server.identity.model import Caller

from tests.audit.conftest import Server
from tests.audit.test_bundles import fill
from tests.audit.verified import SIGNER, export, key_of, signed, verify
from tests.audit.witness import TIME, Witness, serving


@pytest.fixture
def witnesses(caller: Caller) -> Iterator[list[Witness]]:
    """Two witnesses that know the organization's log."""
    with ExitStack() as stack:
        made = [stack.enter_context(serving(Witness(f"witness.example/{n}", n))) for n in (1, 2)]
        for each in made:
            each.logs.append(key_of(caller))
        yield made


async def publish(server: Server, witnesses: Sequence[Witness], copies: Copies | None = None) -> Publisher:
    """One round."""
    asked = [publishing.Witness(each.url, each.vkey) for each in witnesses]
    publisher = Publisher(server.database, server.log, asked, copies, every=timedelta())
    try:
        await publisher.run_once()
    finally:
        await publisher.close()
    return publisher


async def test_witnesses_cosign_what_grew(server: Server, caller: Caller, witnesses: list[Witness]) -> None:
    await fill(server, caller, 3)
    with pytest.raises(FailedPrecondition):
        await Proofs(server.database).checkpoint(caller, cosigned=True)
    await publish(server, witnesses)
    for _ in range(30):
        await server.change(caller)
    await signed(server, caller, 33)
    publisher = await publish(server, witnesses)
    assert (publisher.cosigned, publisher.refused) == (2, 0)
    cosigned = await Proofs(server.database).checkpoint(caller, cosigned=True)
    keys = [key_of(caller), *(each.key for each in witnesses)]
    checkpoint = open_checkpoint(cosigned.note, keys)
    assert (checkpoint.size, checkpoint.root, cosigned.size) == (33, cosigned.root, 33)
    times = [each.time.timestamp() for each in checkpoint.signatures if each.kind == COSIGNATURE and each.time]
    assert times == [TIME, TIME]
    assert [each.seen[checkpoint.origin][0] for each in witnesses] == [33, 33]
    assert verify(await export(server, caller), caller).checkpoint.unknown == ("witness.example/1", "witness.example/2")


async def test_a_checkpoint_is_not_told_to_be_signed_when_another_was(
    server: Server, caller: Caller, witnesses: list[Witness]
) -> None:
    await fill(server, caller, 3)
    await publish(server, witnesses)
    proofs = Proofs(server.database)
    newest, cosigned = [await proofs.checkpoint(caller, cosigned=each) for each in (False, True)]
    assert cosigned.signed_at == newest.signed_at is not None
    await server.change(caller)
    await signed(server, caller, 4)
    cosigned = await proofs.checkpoint(caller, cosigned=True)
    assert (cosigned.size, cosigned.signed_at) == (3, None)


async def test_a_witness_that_knows_more_than_we_do_is_believed(
    server: Server, caller: Caller, witnesses: list[Witness]
) -> None:
    await fill(server, caller, 3)
    await publish(server, witnesses[:1])
    async with server.database.system() as tx:
        await tx.execute("DELETE FROM audit_witnesses")
    await server.change(caller)
    await signed(server, caller, 4)
    assert (await publish(server, witnesses[:1])).cosigned == 1
    assert witnesses[0].answers == [200, 409, 200]


async def test_a_witness_that_is_down_keeps_nobody_else_from_cosigning_and_is_asked_again(
    server: Server, caller: Caller, witnesses: list[Witness]
) -> None:
    await fill(server, caller, 3)
    witnesses[0].down = True
    publisher = await publish(server, witnesses)
    assert (publisher.cosigned, publisher.refused) == (1, 1)
    keys = [key_of(caller), *(each.key for each in witnesses)]
    proofs = Proofs(server.database)
    found = open_checkpoint((await proofs.checkpoint(caller, cosigned=True)).note, keys)
    assert [each.name for each in found.signatures[1:]] == ["witness.example/2"]
    witnesses[0].down = False
    await publish(server, witnesses)
    found = open_checkpoint((await proofs.checkpoint(caller, cosigned=True)).note, keys)
    assert [each.name for each in found.signatures[1:]] == ["witness.example/1", "witness.example/2"]
    assert (await publish(server, witnesses)).cosigned == 0  # there is nothing new


class Full:
    """A place that takes nothing."""

    async def write(self, name: str, note: str) -> str | None:
        raise OSError(f"no space left for {name}")


class Others:
    """A place that has a copy of somebody else's already."""

    async def write(self, name: str, note: str) -> str | None:
        return note.replace("\n", "0\n", 1)


@pytest.mark.parametrize(
    ("copies", "told"), [(None, "witness.example/1 did not cosign"), (Full(), "no space left"), (Others(), "rewritten")]
)
async def test_a_run_that_could_not_publish_everything_fails_so_that_operators_see_it(
    server: Server, caller: Caller, witnesses: list[Witness], copies: Copies | None, told: str
) -> None:
    await fill(server, caller, 3)
    witnesses[0].down = copies is None
    asked = [publishing.Witness(each.url, each.vkey) for each in witnesses]
    publisher = Publisher(server.database, server.log, asked, copies, every=timedelta())
    with pytest.raises(NotPublished, match=told):
        await publisher.run()
    witnesses[0].down = False
    publisher._copies = None
    await publisher.run()
    await publisher.close()


async def test_cosignatures_of_a_checkpoint_are_gathered_over_rounds(
    server: Server, caller: Caller, witnesses: list[Witness]
) -> None:
    await fill(server, caller, 3)
    for first, second in ((0, 1), (1, 0)):
        witnesses[first].down, witnesses[second].down = True, False
        assert (await publish(server, witnesses)).cosigned == 1
    note = (await Proofs(server.database).checkpoint(caller, cosigned=True)).note
    found = open_checkpoint(note, [key_of(caller), *(each.key for each in witnesses)])
    assert [each.name for each in found.signatures[1:]] == ["witness.example/1", "witness.example/2"]


async def test_an_answer_without_end_is_not_read_to_its_end(
    server: Server, caller: Caller, witnesses: list[Witness]
) -> None:
    await fill(server, caller, 3)
    witnesses[0].more = "x" * 100_000
    publisher = await publish(server, witnesses)
    assert (publisher.cosigned, publisher.refused) == (1, 1)


async def test_who_deletes_nodes_of_a_tree_does_not_keep_checkpoints_from_being_copied(
    server: Server, caller: Caller, witnesses: list[Witness]
) -> None:
    copied: list[str] = []

    class Kept:
        async def write(self, name: str, note: str) -> str | None:
            copied.append(name)
            return None

    await fill(server, caller, 3)
    await publish(server, witnesses)
    await server.change(caller)
    await signed(server, caller, 4)
    async with server.database.system() as tx:
        await tx.execute("DELETE FROM audit_tiles")
    with structlog.testing.capture_logs() as logs:
        assert (await publish(server, witnesses, Kept())).refused == 2
    assert any("nodes of the tree are missing" in str(line) for line in logs)
    assert copied == [f"{caller.tenant.organization_id}/{4:020d}"]


async def test_a_trail_that_was_rewritten_and_signed_again_gets_no_cosignature(
    server: Server, caller: Caller, witnesses: list[Witness]
) -> None:
    seen = await fill(server, caller, 5)
    await publish(server, witnesses)
    await server.signer.close()
    forged = SIGNER.sign(seen.origin, 6, bytes(32))
    async with server.database.system() as tx:
        await tx.execute("UPDATE audit_checkpoints SET size = 6, root = $1, note = $2", bytes(32), forged)
        await tx.execute("UPDATE audit_tiles SET hashes = sha256('x') || hashes")
    with structlog.testing.capture_logs() as logs:
        assert (await publish(server, witnesses)).cosigned == 0
    assert sum("did not cosign" in line["event"] for line in logs) == 2
    async with server.database.system() as tx:
        await tx.execute("UPDATE audit_checkpoints SET size = 4, published_size = 0, note = $1", forged)
    with structlog.testing.capture_logs() as logs:
        assert (await publish(server, witnesses)).cosigned == 0
    assert any("cut or rolled back" in str(line) for line in logs)


async def test_a_cosignature_that_does_not_verify_is_not_kept(
    server: Server, caller: Caller, witnesses: list[Witness]
) -> None:
    await fill(server, caller, 3)
    impostor = publishing.Witness(witnesses[0].url, witnesses[1].vkey)
    publisher = Publisher(server.database, server.log, [impostor], None, every=timedelta())
    await publisher.run_once()
    await publisher.close()
    assert (publisher.cosigned, publisher.refused) == (0, 1)
    with pytest.raises(NoteError):
        publishing.Witness(witnesses[0].url, str(key_of(caller)))
