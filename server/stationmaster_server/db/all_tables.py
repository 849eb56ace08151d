"""Every room's tables, in one metadata: what migrations are made from and tests are checked against."""

from __future__ import annotations

import importlib
import importlib.util

from sqlalchemy import MetaData

from stationmaster_server.db.schema import metadata

# One line for each module that declares tables.
MODULES = (
    "stationmaster_server.db.requests_table",
    "stationmaster_server.events.tables",
    "stationmaster_server.work.tables",
    "stationmaster_server.identity.tables",
    "stationmaster_server.audit.tables",
    "stationmaster_server.storage.tables",
    "stationmaster_server.credentials.tables",
    "stationmaster_server.prompts.tables",
    "stationmaster_server.mcp.tables",
    "stationmaster_server.agents.tables",
    "stationmaster_server.sessions.tables",
    "stationmaster_server.tasks.crawl.tables",
    "stationmaster_server.tasks.tables",
    "stationmaster_server.tasks.process.tables",
    "stationmaster_server.tasks.sync.tables",
    "stationmaster_server.maintenance.tables",
)


def load() -> MetaData:
    """The metadata with the tables of every module."""
    for module in MODULES:
        if importlib.util.find_spec(module.rpartition(".")[0]) and importlib.util.find_spec(module):
            importlib.import_module(module)
    return metadata
