"""Texts that the encoder refused: told, counted, and passed over until they change."""

from __future__ import annotations

import structlog

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.embedding.embedder import TextRefused
from stationmaster_server.tasks.model import task_name
from stationmaster_server.tasks.sync import skipped_store
from stationmaster_server.tasks.sync.model import VECTORS, Key

_log = structlog.get_logger(__name__)


class Refusals:
    """Those of this server since it started, whoever had them embedded."""

    def __init__(self) -> None:
        self.count = 0

    async def note(self, tx: Transaction, key: Key, text_etag: str, encoder: str, refused: TextRefused) -> None:
        """Pass over a task's text as of an etag."""
        named = f"{key.organization_id}/{task_name(key.task_id)}"
        _log.warning("a task is not embedded until its text changes", task=named, error=refused.message)
        self.count += 1
        await skipped_store.put(tx, VECTORS, key, text_etag, encoder, refused.message)
