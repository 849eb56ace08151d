"""What a verifier has: bundles, keys and checkpoints of a trail."""

from __future__ import annotations

import io
import json
from typing import Any

from stationmaster_client.transparency import Checkpoint, VerifierKey, open_checkpoint
from stationmaster_client.transparency.bundle import Verified, verify_bundle
from stationmaster_server.audit.exporting import Exporting
from stationmaster_server.audit.model import ExportFormat
from stationmaster_server.audit.notes import ED25519, SigningKey, origin_of
from stationmaster_server.audit.notes import VerifierKey as ServersKey
from stationmaster_server.audit.proofs import Proofs
from stationmaster_server.identity.model import Caller

from tests.audit.conftest import KEY, Server
from tests.db.conditions import eventually

SIGNER = SigningKey(bytes(range(32)))
assert KEY == "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


def key_of(caller: Caller, signer: SigningKey = SIGNER) -> VerifierKey:
    """The key that an organization's checkpoints are verified with."""
    return VerifierKey.parse(str(ServersKey(origin_of(caller.tenant.organization_id), ED25519, signer.public)))


async def signed(server: Server, caller: Caller, size: int) -> Checkpoint:
    """The newest checkpoint, once it is over so many events."""
    proofs = Proofs(server.database)

    async def is_signed() -> bool:
        async with server.database.system(autocommit=True) as tx:
            sql = "SELECT size FROM audit_checkpoints WHERE organization_id = $1"
            return (await tx.fetchval(sql, caller.tenant.organization_id) or 0) >= size

    await eventually(is_signed)
    return open_checkpoint((await proofs.checkpoint(caller)).note, [key_of(caller)])


async def export(
    server: Server, caller: Caller, form: ExportFormat = ExportFormat.BUNDLE, after: int = 0, where: str = ""
) -> str:
    """An export as a file's text."""
    exporting = Exporting(server.database, server.log)
    return "".join([line async for piece in exporting.export(caller, form, where, after) for line in piece.lines])


def verify(bundle: str | bytes, caller: Caller, previous: Checkpoint | None = None, **options: Any) -> Verified:
    """Verify a bundle with the key of the tests. Raises Tampered."""
    data = bundle.encode() if isinstance(bundle, str) else bundle
    return verify_bundle(io.BytesIO(data), [key_of(caller)], previous, **options)


def lines_of(bundle: str) -> list[str]:
    """The lines of a bundle, with their ends."""
    return [f"{line}\n" for line in bundle.removesuffix("\n").split("\n")]


def line_of(**values: Any) -> str:
    """A line of a bundle."""
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")) + "\n"
