"""Storage, built: the files of workspaces, reports, their servicer, and the services that look after them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from stationmaster_server.app.archives import build_archives
from stationmaster_server.app.credentials import aws_identities
from stationmaster_server.app.ground import Ground
from stationmaster_server.app.storage_watch import StorageWatch
from stationmaster_server.config import Settings
from stationmaster_server.config.storage import PlaceKind
from stationmaster_server.maintenance.base import Routine
from stationmaster_server.maintenance.model import Scope
from stationmaster_server.resilience.aws_identity import AwsIdentities
from stationmaster_server.resilience.aws_signing import AwsIdentity
from stationmaster_server.storage.batches import Batches
from stationmaster_server.storage.changes import Changes
from stationmaster_server.storage.files import Files
from stationmaster_server.storage.places.local import LocalPlace
from stationmaster_server.storage.places.place import Place
from stationmaster_server.storage.reports import Reports
from stationmaster_server.storage.service import StorageService
from stationmaster_server.storage.servicer import FileServices, StorageServicer
from stationmaster_server.storage.uploads import Uploads
from stationmaster_server.storage.usage import Usage

if TYPE_CHECKING:
    from stationmaster_server.storage.places.s3_store import Objects

WORKSPACES = "workspaces"
"""Where in the data folder the files of sessions are."""


@dataclass(frozen=True, slots=True)
class Storage:
    """What the rooms above need of storage, and its servicer."""

    servicer: StorageServicer
    reports: Reports
    bucket: Place | None
    """Where the files of workspaces are, when they are no folders of this host."""


def build_storage(stack: AsyncExitStack, on: Ground) -> Storage:
    """Build everything about what is stored."""
    settings, database, audit, quotas = on.settings.storage, on.database, on.gate.audit, on.gate.quotas
    reports = Reports(database, audit, max_bytes=settings.max_report_bytes, retention=settings.report_retention)
    place = build_place(on.settings)
    stack.push_async_callback(place.close)
    changes = Changes(database, audit, quotas, place, keep_uploads=settings.upload_retention)
    batches = Batches(database, changes)
    stack.push_async_callback(changes.close, on.settings.server.shutdown_grace)
    uploads = Uploads(
        database,
        audit,
        quotas,
        place,
        changes,
        most_bytes=settings.max_file_bytes,
        keep=settings.upload_retention,
    )
    bucket = None if settings.place is PlaceKind.LOCAL else place
    if bucket is not None:
        objects = bucket_of(on.settings)
        stack.push_async_callback(objects.close)
        watch = StorageWatch(objects.answer, on.board)
        what = "Looks whether the bucket of files answers; while it does not StorageService is not served."
        check = Routine("storage-check", what, timedelta(seconds=15), watch.look, when_held=watch.forget)
        on.background.add(check)
    usage = Usage(database, quotas, place)
    for routine in _routines(on, reports, changes, batches, uploads, usage):
        on.background.add(routine)
    services = FileServices(Files(database, place, changes), uploads, usage)
    archives = build_archives(stack, on, place, batches)
    return Storage(StorageServicer(StorageService(database), services, archives, on.tokens), reports, bucket)


def build_place(settings: Settings) -> Place:
    """Where the files of workspaces are, as the settings say."""
    if settings.storage.place is PlaceKind.LOCAL:
        return LocalPlace(settings.data_folder / WORKSPACES)
    from stationmaster_server.storage.places.s3 import S3Place  # its library takes 20 MiB, which few need

    return S3Place(bucket_of(settings), settings.storage.s3.part_bytes)


def bucket_of(settings: Settings) -> Objects:
    """The bucket, with the identity of its own settings, else the one that all requests to AWS have."""
    from stationmaster_server.storage.places.s3_store import Bucket, Objects

    s3 = settings.storage.s3
    identities = aws_identities(settings.credentials)
    if s3.access_key is not None:
        token = s3.session_token.get_secret_value() if s3.session_token else ""
        identities = AwsIdentities(AwsIdentity(s3.access_key_id, s3.access_key.get_secret_value(), token))
    return Objects(Bucket(s3.bucket, s3.region, s3.endpoint, s3.prefix, s3.timeout), identities)


def _routines(
    on: Ground, reports: Reports, changes: Changes, batches: Batches, uploads: Uploads, usage: Usage
) -> Iterator[Routine]:
    one = Scope.ONE_SERVER
    what = "Deletes reports that are older than `storage.report_retention`."
    yield Routine("report-cleanup", what, timedelta(hours=1), reports.remove_old, scope=one)
    what = "Makes changes of files that a server which died had decided about."
    yield Routine("file-changes", what, timedelta(seconds=2), changes.make_left)
    what = "Makes restores of archives that a server which died had decided about, and gives up those it had not."
    yield Routine("restores", what, timedelta(seconds=2), batches.make_left)
    often = max(min(timedelta(seconds=30), on.settings.storage.upload_retention / 4), timedelta(milliseconds=50))
    what = "Gives up uploads that nobody went on with for `storage.upload_retention`, and the room that they held."
    yield Routine("upload-cleanup", what, often, uploads.give_up_expired)
    what = "Counts the files of workspaces that agents changed."
    yield Routine("file-counting", what, timedelta(seconds=2), usage.measure_due)
