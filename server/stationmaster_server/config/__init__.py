"""Settings of the server: `load` reads them once, everything else gets plain values by constructor."""

from stationmaster_server.config.crawl import CrawlerSettings
from stationmaster_server.config.load import load
from stationmaster_server.config.model import (
    AdminSettings,
    DatabaseSettings,
    EventSettings,
    IdentitySettings,
    JwtIssuerSettings,
    LimitSettings,
    ModelSettings,
    Profile,
    ProviderSettings,
    ServerSettings,
    SessionSettings,
    Settings,
    TelemetrySettings,
    TlsSettings,
    WorkSettings,
)
from stationmaster_server.config.pools import PoolSettings
from stationmaster_server.config.startup import SettingsError, StartupError

__all__ = [
    "AdminSettings",
    "CrawlerSettings",
    "DatabaseSettings",
    "EventSettings",
    "IdentitySettings",
    "JwtIssuerSettings",
    "LimitSettings",
    "ModelSettings",
    "PoolSettings",
    "Profile",
    "ProviderSettings",
    "ServerSettings",
    "SessionSettings",
    "Settings",
    "SettingsError",
    "StartupError",
    "TelemetrySettings",
    "TlsSettings",
    "WorkSettings",
    "load",
]
