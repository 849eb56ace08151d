"""The audit trail, built: its servicer, its checkpoints, and what becomes of both."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial

from stationmaster_server.app.ground import Ground
from stationmaster_server.app.storage import bucket_of
from stationmaster_server.audit.checkpoints import EVERY, Signer
from stationmaster_server.audit.counting import Counting
from stationmaster_server.audit.exporting import Exporting
from stationmaster_server.audit.log_keys import LogKeys
from stationmaster_server.audit.model import Category
from stationmaster_server.audit.notes import NoteError
from stationmaster_server.audit.proofs import Proofs
from stationmaster_server.audit.publishing import Copies, Publisher, Witness
from stationmaster_server.audit.recording import Recording
from stationmaster_server.audit.retention import Retention
from stationmaster_server.audit.service import AuditTrail
from stationmaster_server.audit.servicer import AuditServicer
from stationmaster_server.config import Settings, SettingsError
from stationmaster_server.config.audit import IN_STORAGE, AuditSettings
from stationmaster_server.db.engine import Database
from stationmaster_server.maintenance.base import Routine
from stationmaster_server.maintenance.engines import Engine
from stationmaster_server.maintenance.model import Scope
from stationmaster_server.rpc.health import HealthBoard

KEY_FILE = "audit.keys"
SIGNING = "audit signing"
"""What is missing, on the board, when nobody signs; no service needs it."""


async def build_audit(stack: AsyncExitStack, on: Ground) -> AuditServicer:
    """Build everything that reads the trail, signs checkpoints, publishes them and forgets."""
    database, settings = on.database, on.settings.audit
    trail = AuditTrail(database, on.listener, keepalive=on.settings.events.keepalive)
    await trail.start()
    stack.push_async_callback(trail.close)
    signer = Signer(database, log_keys(database, on.settings), tell=partial(_told, on.board))
    await signer.start()
    stack.push_async_callback(signer.close)
    what = "Signs a checkpoint of each tree that has grown, where this server has the key."
    on.background.add(Engine("audit-signing", what, signer.pulse, EVERY))
    on.metrics.read(
        "audit_checkpoint_behind_seconds",
        "For how long an audit event had been without a checkpoint when this server last looked.",
        lambda: signer.behind_seconds,
    )
    _publish(stack, on)
    keep = {category: kept for category, kept in _kept(settings).items() if kept is not None}
    retention = Retention(database, on.gate.audit, keep)
    if keep:
        what = "Deletes what old audit events said, as `audit.keep_…` say; their places in the tree stay."
        on.background.add(Routine("audit-retention", what, timedelta(hours=6), retention.run, scope=Scope.ONE_SERVER))
    return AuditServicer(
        trail,
        Recording(database, on.gate.audit),
        Proofs(database),
        Exporting(database, on.gate.audit),
        Counting(database),
        on.tokens,
    )


def _told(board: HealthBoard, why: str) -> None:
    """Operators are told by the status; whoever calls is served all the same."""
    if why:
        board.lose(SIGNING, why)
    else:
        board.regain(SIGNING)


def log_keys(database: Database, settings: Settings) -> LogKeys:
    """The keys that settings name, not read yet."""
    configured = settings.audit.signing_keys.get_secret_value() if settings.audit.signing_keys else ""
    file = settings.audit.signing_key_file or settings.data_folder / KEY_FILE
    return LogKeys(database, configured=configured, file=file, make=settings.audit.make_key_file)


def witnesses_of(settings: AuditSettings) -> list[Witness]:
    """The witnesses that settings name. Raises SettingsError."""
    try:
        return [Witness(each.url, each.key) for each in settings.witnesses]
    except NoteError as error:
        raise SettingsError(f"setting audit.witnesses: {error}") from None


def _publish(stack: AsyncExitStack, on: Ground) -> None:
    settings = on.settings.audit
    witnesses = witnesses_of(settings)
    copies = _copies(on.settings)
    if not witnesses and copies is None:
        return
    publisher = Publisher(on.database, on.gate.audit, witnesses, copies, every=settings.publish_interval)
    stack.push_async_callback(publisher.close)
    what = "Shows checkpoints to witnesses, and copies them."
    on.background.add(Routine("audit-publishing", what, settings.publish_interval, publisher.run))
    on.metrics.read(
        "audit_cosignatures",
        "Checkpoints that witnesses cosigned for this server, or did not.",
        lambda: {"cosigned": publisher.cosigned, "refused": publisher.refused},
        label="outcome",
        total=True,
    )
    what = "Audit checkpoints of which another copy was there: somebody rewrote the trail. Alarm when it is not 0."
    on.metrics.read("audit_forks", what, lambda: publisher.forks, total=True)


def store_of(settings: AuditSettings) -> Copies | None:
    """Where checkpoints are copied to, if that has a URL. Raises SettingsError when it cannot be used."""
    if settings.copies in {"", IN_STORAGE}:
        return None
    from stationmaster_server.audit.copies import ObjectStore  # its library takes 20 MiB, which few need

    try:
        return ObjectStore(settings.copies)
    except ValueError as error:
        raise SettingsError(f"setting audit.copies: {error}") from None


def _copies(settings: Settings) -> Copies | None:
    if not settings.audit.copies:
        return None
    if settings.audit.copies == IN_STORAGE:
        from stationmaster_server.storage.places.s3_once import WrittenOnce

        return WrittenOnce(bucket_of(settings))
    return store_of(settings.audit)


def _kept(settings: AuditSettings) -> dict[Category, timedelta | None]:
    return {
        Category.SECURITY: settings.keep_security,
        Category.BUSINESS: settings.keep_business,
        Category.COMPLIANCE: settings.keep_compliance,
        Category.SYSTEM: settings.keep_system,
    }
