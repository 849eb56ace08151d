"""Storage, built: reports, their servicer, and the service that removes old ones."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from stationmaster_server.app.transport import Gate
from stationmaster_server.config.storage import StorageSettings
from stationmaster_server.db.engine import Database
from stationmaster_server.maintenance.base import Routine
from stationmaster_server.maintenance.model import Scope
from stationmaster_server.maintenance.registry import Registry
from stationmaster_server.storage.reports import Reports
from stationmaster_server.storage.service import StorageService
from stationmaster_server.storage.servicer import StorageServicer
from stationmaster_server.wire.paging import PageTokens


@dataclass(frozen=True, slots=True)
class Storage:
    """What the rooms above need of storage, and its servicer."""

    servicer: StorageServicer
    reports: Reports


def build_storage(
    settings: StorageSettings, database: Database, gate: Gate, tokens: PageTokens, background: Registry
) -> Storage:
    """Build everything about what is stored."""
    reports = Reports(database, gate.audit, max_bytes=settings.max_report_bytes, retention=settings.report_retention)
    what = "Deletes reports that are older than `storage.report_retention`."
    background.add(Routine("report-cleanup", what, timedelta(hours=1), reports.remove_old, scope=Scope.ONE_SERVER))
    return Storage(StorageServicer(StorageService(database), tokens), reports)
