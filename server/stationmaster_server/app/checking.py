"""What is wrong with settings that their types cannot tell: what they name is missing, or cannot be used."""

from __future__ import annotations

from collections import deque

from stationmaster_server.app.audit import store_of, witnesses_of
from stationmaster_server.app.embedding import check_encoder
from stationmaster_server.app.identity import issuers_of
from stationmaster_server.app.maintenance import alerts_of
from stationmaster_server.app.sync import stores_of
from stationmaster_server.config import Settings
from stationmaster_server.mcp.builtin.catalogue import kubernetes_entry
from stationmaster_server.rpc import tls
from stationmaster_server.telemetry import tracing


def check(settings: Settings) -> None:
    """Whatever a start would stop at before it needs a database. Raises SettingsError."""
    check_named(settings)
    check_encoder(settings)
    tracing.check(settings.telemetry.otlp_endpoint)
    if settings.server.tls.enabled:
        tls.credentials(settings.server.tls)


def check_named(settings: Settings) -> None:
    """All of it but certificates, the model and extras, of which `doctor` has more to tell. Raises SettingsError."""
    witnesses_of(settings.audit)
    store_of(settings.audit)
    alerts_of(settings.maintenance)
    issuers_of(settings.identity.jwt_issuers)
    deque(stores_of(settings.sync.targets), maxlen=0)
    kubernetes_entry(settings.mcp.kubernetes)
