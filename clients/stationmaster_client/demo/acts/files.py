"""Files: up and down, whole and checked, nowhere else than in the workspace."""

from __future__ import annotations

import secrets

from stationmaster_client.demo.stage import Stage
from stationmaster_client.errors import InvalidArgument, NotFound

_SIZE = 8 << 20


async def play(stage: Stage) -> None:
    """A file goes up and comes down; one that would climb out is refused."""
    client, programme = stage.client, stage.programme
    programme.act("Files")
    content = secrets.token_bytes(_SIZE)
    stored = await client.files.upload(stage.session, "maps/network.bin", content)
    same = await client.files.read(stage.session, "maps/network.bin") == content
    programme.check(
        "Storage", "a file comes back as it went", same, f"{stored.size_bytes >> 20} MiB, with their SHA-256"
    )
    archive = await client.archives.create(stage.session)
    await client.files.delete(stage.session, "maps/network.bin")
    lost = await _is_lost(stage, "maps/network.bin")
    await client.archives.restore(stage.session, overwrite=True)
    back = lost and await client.files.read(stage.session, "maps/network.bin") == content
    programme.check("Storage", "an archive brings a lost file back", back, f"{archive.file_count} files packed")
    try:
        await client.files.upload(stage.session, "maps/../../outside.txt", b"x")
        answer = "it was taken"
    except InvalidArgument as error:
        answer = error.reason or error.message
    programme.check("Storage", "a path that climbs out is refused", answer != "it was taken", answer)


async def _is_lost(stage: Stage, path: str) -> bool:
    try:
        await stage.client.files.read(stage.session, path)
    except NotFound:
        return True
    return False
