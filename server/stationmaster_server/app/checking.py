"""What is wrong with settings that their types cannot tell: what they name is missing, or cannot be used."""

from __future__ import annotations

import os
from collections import deque

from stationmaster_server.app.audit import store_of, witnesses_of
from stationmaster_server.app.embedding import check_encoder
from stationmaster_server.app.identity import issuers_of
from stationmaster_server.app.maintenance import alerts_of
from stationmaster_server.app.sync import stores_of
from stationmaster_server.audit.signing_keys import KeysUnusable
from stationmaster_server.audit.signing_keys import read_keys as read_signing_keys
from stationmaster_server.config import Settings, SettingsError
from stationmaster_server.credentials.providers.base import KeysUnreadable
from stationmaster_server.credentials.providers.environment import EnvironmentKeys
from stationmaster_server.mcp.builtin.catalogue import kubernetes_entry
from stationmaster_server.rpc import tls
from stationmaster_server.telemetry import tracing


def check(settings: Settings) -> None:
    """Whatever a start would stop at before it needs a database, or go on without. Raises SettingsError."""
    _check_data_folder(settings)
    check_named(settings)
    check_encoder(settings)
    tracing.check(settings.telemetry.otlp_endpoint)
    if settings.server.tls.enabled:
        tls.credentials(settings.server.tls)


def check_named(settings: Settings) -> None:
    """All of it but certificates, the model and extras, of which `doctor` has more to tell. Raises SettingsError."""
    _check_keys(settings)
    witnesses_of(settings.audit)
    store_of(settings.audit)
    alerts_of(settings.maintenance)
    issuers_of(settings.identity.jwt_issuers)
    deque(stores_of(settings.sync.targets), maxlen=0)
    kubernetes_entry(settings.mcp.kubernetes)


def _check_keys(settings: Settings) -> None:
    """A start goes on without them, and then no credentials are served, or no checkpoints signed."""
    try:
        if settings.credentials.keys is not None:
            EnvironmentKeys(settings.credentials.keys.get_secret_value()).read()
        if settings.audit.signing_keys is not None:
            read_signing_keys(settings.audit.signing_keys.get_secret_value(), "audit.signing_keys")
    except (KeysUnreadable, KeysUnusable) as error:
        raise SettingsError(f"setting {error}") from None


def _check_data_folder(settings: Settings) -> None:
    """Whether this user may write there, or make it there. Makes nothing."""
    folder = settings.data_folder.absolute()
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise SettingsError(
            f"setting data_folder: {settings.data_folder} cannot be written by this user; choose another"
            " (STATIONMASTER_DATA_FOLDER) or give this user the right to it"
        )
