"""Every setting of the server: its name, its type, its default and what it means."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from stationmaster_server.config.audit import IN_STORAGE, AuditSettings
from stationmaster_server.config.claude import ClaudeSettings
from stationmaster_server.config.crawl import CrawlerSettings
from stationmaster_server.config.credentials import CredentialSettings
from stationmaster_server.config.documents import DocumentSettings
from stationmaster_server.config.embedding import EmbeddingSettings
from stationmaster_server.config.export import ExportSettings
from stationmaster_server.config.maintenance import MaintenanceSettings
from stationmaster_server.config.mcp import McpSettings
from stationmaster_server.config.outbound import OutboundSettings
from stationmaster_server.config.pools import PoolSettings
from stationmaster_server.config.prices import PriceSettings, UnknownPriceSettings
from stationmaster_server.config.prompts import PromptSettings
from stationmaster_server.config.storage import StorageSettings
from stationmaster_server.config.sync import SyncSettings
from stationmaster_server.config.tasks import TaskSettings
from stationmaster_server.config.types import Duration, Group, Port, Positive


class Profile(StrEnum):
    """A set of defaults for a kind of installation (`config/profiles.py` lists them)."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"
    LOW_RESOURCE = "low-resource"


class DatabaseSettings(Group):
    """Where the data is."""

    url: SecretStr | None = None
    """`postgresql://user:password@host:port/name`. Absent: an embedded PostgreSQL in the data folder."""
    pool_size: Positive = 12
    """Connections that calls share."""
    system_pool_size: Positive = 6
    """Connections that the engines (events, work, audit) share."""
    connect_timeout: Duration = timedelta(seconds=30)
    """How long the start waits for the database."""
    migrate: bool = True
    """Bring the schema up to date at start. Otherwise a stale schema stops the start."""

    @field_validator("url")
    @classmethod
    def _is_postgresql(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(("postgresql://", "postgres://")):
            raise ValueError("must begin with postgresql://")
        return url


class TlsSettings(Group):
    """Encryption of the port that serves calls. With neither certificate nor key it speaks plaintext."""

    certificate: Path | None = None
    """PEM file with the server's certificate chain."""
    key: Path | None = None
    """PEM file with the server's private key."""
    client_ca: Path | None = None
    """PEM file with the authorities of client certificates; with it, every client must show one (mutual TLS)."""

    @property
    def enabled(self) -> bool:
        """Whether connections are encrypted."""
        return self.certificate is not None

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key are needed together")
        if self.client_ca is not None and self.certificate is None:
            raise ValueError("client_ca needs certificate and key")
        return self


class ServerSettings(Group):
    """The port that serves calls."""

    host: str = "127.0.0.1"
    """Address to listen on; `0.0.0.0` or `::` for all."""
    port: Port = 50151
    """Port to listen on."""
    processes: Positive = 1
    """Server processes on this host, sharing the port."""
    tls: TlsSettings = TlsSettings()
    allow_plaintext: bool = False
    """Serve other hosts without TLS (when something in front of the server encrypts)."""
    open_health: bool = True
    """Answer health checks without authentication."""
    reflection: bool = True
    """Serve reflection, so that grpcurl and the like know the methods."""
    open_reflection: bool = True
    """Answer reflection without authentication."""
    max_message_bytes: Annotated[int, Field(ge=64 * 1024, le=64 * 1024 * 1024)] = 4 * 1024 * 1024
    """Largest message taken or sent."""
    max_calls: Positive = 20_000
    """Calls with one answer under way at once; more are refused with RESOURCE_EXHAUSTED."""
    max_streams: Positive = 50_000
    """Streams open at once; more are refused with RESOURCE_EXHAUSTED."""
    max_streams_per_connection: Positive = 20_000
    """Calls and streams of one connection at once; a client holds more back."""
    keepalive_interval: Duration = timedelta(seconds=60)
    """How often a silent connection is asked whether it lives."""
    keepalive_timeout: Duration = timedelta(seconds=20)
    """How long it has to answer."""
    max_connection_age: Duration = timedelta(minutes=30)
    """After about so long (jittered by a tenth) a client is asked to connect anew, which rebalances servers."""
    max_connection_age_grace: Duration = timedelta(minutes=5)
    """How long calls of such a connection may go on."""
    drain_delay: Duration = timedelta()
    """How long the server answers NOT_SERVING to health checks, and goes on, before it stops."""
    shutdown_grace: Duration = timedelta(seconds=20)
    """How long calls and work may go on once the server was told to stop."""

    @property
    def loopback(self) -> bool:
        """Whether only this host can connect."""
        if self.host == "localhost" or self.host.startswith("unix:"):
            return True
        try:
            return ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False


class LimitSettings(Group):
    """How fast calls may come. Zero means: no limit."""

    calls_per_second: Annotated[float, Field(ge=0)] = 50_000
    """Of all callers together, per process."""
    burst: Positive = 100_000
    """How many of them may come at once."""
    caller_calls_per_second: Annotated[float, Field(ge=0)] = 10_000
    """Of one user, per process."""
    caller_burst: Positive = 20_000
    """How many of them may come at once."""


class AdminSettings(Group):
    """The port for operators: `/metrics`, `/healthz`, `/readyz` over HTTP."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Port = 9464
    """With several processes, process n listens on `port + n`."""


class TelemetrySettings(Group):
    """Logs, metrics and traces."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"
    """`auto`: for people when standard error is a terminal, JSON lines otherwise."""
    access_log: Literal["all", "errors", "none"] = "errors"
    """Which calls get a line of log. `errors`: those that failed or took longer than `slow_call`."""
    slow_call: Duration = timedelta(seconds=5)
    otlp_endpoint: str | None = None
    """An OpenTelemetry collector (`http://host:4317`). Absent: no traces."""
    sample_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of traces that are kept, of those that the caller did not decide about."""
    monitor_interval: Duration = timedelta(seconds=5)
    """How often CPU, memory, files, connections and threads are looked at."""


class JwtIssuerSettings(Group):
    """An OpenID Connect issuer whose tokens are accepted."""

    issuer: Annotated[str, Field(pattern=r"^[^|]+$")]
    """The `iss` claim."""
    audience: str
    """The `aud` claim."""
    jwks_url: str | None = None
    """Where its keys are; absent: found by the issuer's discovery document."""
    organization: str | None = None
    """Organization (UUID) of its users; absent: the claim `organization` names it.

    Of several issuers, client certificates (`server.tls.client_ca`) among them, at most one may be without.
    """
    clock_skew: Duration = timedelta(seconds=30)


class IdentitySettings(Group):
    """Who may call."""

    local_admin: bool = True
    """Make an administrator key in the data folder (mode 0600) at the first start."""
    jwt_issuers: tuple[JwtIssuerSettings, ...] = ()
    """Issuers of tokens: `issuer` (the claim `iss`), `audience` (the claim `aud`), and perhaps `jwks_url` (else it
    is discovered), `organization` (a UUID; else the claim `organization`), `clock_skew` (30 s). With one issuer a
    user's external subject is `{sub}`; with several it is `{issuer}|{sub}`, and all issuers but one need an
    `organization`. Client certificates (`server.tls.client_ca`) count as the issuer `mtls`, which has none: their `sub`
    is a name (SAN or CN), their O the organization.
    """

    @field_validator("jwt_issuers")
    @classmethod
    def _are_different(cls, issuers: tuple[JwtIssuerSettings, ...]) -> tuple[JwtIssuerSettings, ...]:
        names = [issuer.issuer for issuer in issuers]
        if len(set(names)) < len(names) or "mtls" in names:
            raise ValueError("issuers must have different names, none of them mtls")
        return issuers


class WorkSettings(Group):
    """The engine that runs turns, tasks and background operations."""

    slots: Positive = 64
    """Work items that one process runs at once."""
    lease: Duration = timedelta(seconds=15)
    """How long a worker that fell silent keeps its items."""
    keep_ended: Duration = timedelta(days=7)
    """How long work that succeeded or was cancelled is kept; what failed for good stays until somebody retries it."""

    @field_validator("lease")
    @classmethod
    def _is_long_enough(cls, lease: timedelta) -> timedelta:
        if lease < timedelta(seconds=1):
            raise ValueError("must be at least 1s")
        return lease


class EventSettings(Group):
    """The log that streams are read from."""

    keepalive: Duration = timedelta(seconds=15)
    """How often an idle stream tells its newest sequence."""


class SessionSettings(Group):
    """Conversations."""

    idle_timeout: Duration | None = timedelta(days=7)
    """A session that nobody used for so long is paused, unless it says otherwise itself."""


class ProviderSettings(Group):
    """A model provider."""

    api_key: SecretStr | None = None
    base_url: str | None = None
    """Another server that speaks the provider's protocol."""
    models: tuple[str, ...] = ()
    """Names to list beside the known ones."""


class ModelSettings(Group):
    """The models that sessions may use."""

    demo: bool = True
    """Offer the built-in model `demo`, which needs no network."""
    anthropic: ProviderSettings = ProviderSettings()
    openai: ProviderSettings = ProviderSettings()
    google: ProviderSettings = ProviderSettings()
    compatible: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")], ProviderSettings] = Field(
        default_factory=dict
    )
    """Servers that speak OpenAI's protocol, by the name that stands before the colon of their model ids. In the file:
    `[models.compatible.local]`, then `base_url = "http://localhost:11434/v1"` and `models = ["llama3"]`; its model is
    `local:llama3`.
    """
    claude: ClaudeSettings = ClaudeSettings()
    prices: dict[Annotated[str, Field(min_length=1, max_length=200)], PriceSettings] = Field(default_factory=dict)
    """What models cost, by model id, in place of what the catalogue knows. In the file:
    `[models.prices."local:llama3"]`, then `input = 0.2` and `output = 0.6`, in US dollars for a million tokens, and
    perhaps `cache_read` and `cache_write`.
    """
    unknown_price: UnknownPriceSettings = UnknownPriceSettings()

    @field_validator("compatible")
    @classmethod
    def _have_an_address(cls, compatible: dict[str, ProviderSettings]) -> dict[str, ProviderSettings]:
        for name, provider in compatible.items():
            if provider.base_url is None:
                raise ValueError(f"{name} needs a base_url")
        return compatible


def default_data_folder() -> Path:
    """Where data goes when nothing is said: below /var/lib for root, else where the system keeps a user's data."""
    if os.name == "posix" and os.geteuid() == 0:
        return Path("/var/lib/stationmaster")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "stationmaster"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "stationmaster"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "stationmaster"


class Settings(BaseSettings):
    """All settings. Made by `load`, never changed afterwards."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    profile: Profile = Profile.DEVELOPMENT
    """Defaults for a kind of installation: `development`, `production` or `low-resource` (see Profiles below)."""
    data_folder: Path = Field(default_factory=default_data_folder)
    """Keys, the embedded database and files. Servers on several hosts share its folder `workspaces` (a network file
    system): the files that a session's tools write are there, and any server may run its next turn.
    """
    database: DatabaseSettings = DatabaseSettings()
    server: ServerSettings = ServerSettings()
    limits: LimitSettings = LimitSettings()
    admin: AdminSettings = AdminSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    identity: IdentitySettings = IdentitySettings()
    work: WorkSettings = WorkSettings()
    pools: PoolSettings = PoolSettings()
    events: EventSettings = EventSettings()
    sessions: SessionSettings = SessionSettings()
    models: ModelSettings = ModelSettings()
    outbound: OutboundSettings = OutboundSettings()
    credentials: CredentialSettings = CredentialSettings()
    mcp: McpSettings = McpSettings()
    storage: StorageSettings = StorageSettings()
    prompts: PromptSettings = PromptSettings()
    tasks: TaskSettings = TaskSettings()
    crawl: CrawlerSettings = CrawlerSettings()
    export: ExportSettings = ExportSettings()
    documents: DocumentSettings = DocumentSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    audit: AuditSettings = AuditSettings()
    maintenance: MaintenanceSettings = MaintenanceSettings()
    sync: SyncSettings = SyncSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values from `load` alone, which merges the sources and can tell where each came from."""
        return (init_settings,)

    @field_validator("data_folder")
    @classmethod
    def _is_absolute(cls, folder: Path) -> Path:
        return folder.expanduser().absolute()

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        server = self.server
        if not (server.loopback or server.tls.enabled or server.allow_plaintext):
            raise ValueError(
                f"server.host {server.host} is reachable from other hosts without TLS: set server.tls.certificate and "
                "server.tls.key, or server.allow_plaintext = true if something in front of the server encrypts"
            )
        if self.profile is Profile.PRODUCTION and self.database.url is None:
            raise ValueError("the profile production needs database.url (an embedded PostgreSQL serves one host only)")
        if self.audit.copies == IN_STORAGE and not self.storage.s3.bucket:
            raise ValueError('audit.copies = "storage" needs storage.s3.bucket')
        anywhere = [issuer.issuer for issuer in self.identity.jwt_issuers if issuer.organization is None]
        if len(anywhere) + (server.tls.client_ca is not None) > 1:
            raise ValueError(
                "more than one issuer could vouch for users of every organization (client certificates count as one): "
                f"set organization of {', '.join(anywhere)} in identity.jwt_issuers, of all but one"
            )
        return self
