"""Settings of documents that are searched."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stationmaster_server.config.types import Group, Positive


class DocumentSettings(Group):
    """Bounds of what tasks of the kind `process` put into the library."""

    max_bytes: Annotated[int, Field(ge=1024, le=16_777_216)] = 4_194_304
    """Bytes that a file may have to be processed."""
    max_pieces: Positive = 1_000_000
    """Pieces that the documents of one organization may have together. Each takes about 5 KiB."""
