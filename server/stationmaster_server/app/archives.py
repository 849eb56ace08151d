"""Archives of workspaces, built, with the services that look after them."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import timedelta

from stationmaster_server.app.ground import Ground
from stationmaster_server.maintenance.base import Routine
from stationmaster_server.maintenance.model import Scope
from stationmaster_server.storage.archives.making import Making
from stationmaster_server.storage.archives.model import Rules
from stationmaster_server.storage.archives.removing import Removing
from stationmaster_server.storage.archives.restoring import Restoring
from stationmaster_server.storage.archives.running import Running
from stationmaster_server.storage.archives.service import Archives
from stationmaster_server.storage.batches import Batches
from stationmaster_server.storage.places.place import Place
from stationmaster_server.storage.places.threads import Threads
from stationmaster_server.storage.servicer import ArchiveServices


def build_archives(stack: AsyncExitStack, on: Ground, place: Place, batches: Batches) -> ArchiveServices:
    """Build everything about archives, which are kept where the files of workspaces are."""
    settings, database, audit, quotas = on.settings.storage, on.database, on.gate.audit, on.gate.quotas
    rules = Rules(
        most_files=settings.max_archive_files,
        most_bytes=settings.max_archive_bytes,
        most_ratio=settings.max_archive_ratio,
        retention=settings.archive_retention,
    )
    threads = Threads(2)
    stack.callback(threads.close)
    removing = Removing(database, audit, quotas, place, retention=rules.retention)
    making = Making(database, audit, quotas, place, removing, threads, rules)
    restoring = Restoring(database, audit, quotas, place, batches, threads, rules, keep=settings.upload_retention)
    running = Running()
    stack.push_async_callback(running.close)
    what = "Deletes archives that are older than `storage.archive_retention`."
    on.background.add(Routine("archive-cleanup", what, timedelta(hours=1), removing.remove_old, scope=Scope.ONE_SERVER))
    what = "Removes archives that were deleted, or that a server which died was making."
    on.background.add(Routine("archive-removal", what, timedelta(seconds=5), removing.remove_left))
    return ArchiveServices(Archives(database, audit, place, removing), making, restoring, running, rules.retention)
