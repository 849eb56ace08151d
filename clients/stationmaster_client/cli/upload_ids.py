"""Ids of uploads by which a command that is given once more goes on where it broke off."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from uuid import NAMESPACE_URL, uuid4, uuid5

from stationmaster_client.cli.output import size

if TYPE_CHECKING:
    from stationmaster_client.cli.command import Run


def of(session: str, remote: str, local: Path | BinaryIO) -> str:
    """The same each time that a file is put to the same place, until it is changed; of a stream, always another."""
    if not isinstance(local, Path):
        return str(uuid4())
    status = local.stat()
    of_it = (session, remote, local.resolve(), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    return str(uuid5(NAMESPACE_URL, "/".join(map(str, of_it))))


async def to_go_on(run: Run, session: str, upload_id: str) -> str:
    """The id of an upload that broke off, or has not begun; another when its file is there already."""
    from stationmaster.v1 import storage_pb2

    from stationmaster_client.errors import NotFound

    try:
        upload = await run.client.files.get_upload(session, upload_id)
    except NotFound:
        return upload_id
    if upload.state == storage_pb2.UPLOAD_STATE_DONE:
        return str(uuid4())
    if upload.received_bytes:
        run.out.note(f"going on after {size(upload.received_bytes)}")
    return upload_id
