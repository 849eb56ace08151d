"""Settings of background services that have to be known at the start; the others are changed while they run."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr

from stationmaster_server.config.types import Group


class MaintenanceSettings(Group):
    """Background services."""

    alert_webhook: Annotated[str, Field(pattern=r"^(https?://.*)?$")] = ""
    """Where a message goes when a background service keeps failing, or is well again. Empty: to the log alone."""
    alert_secret: SecretStr | None = None
    """What such messages are signed with (Standard Webhooks): `whsec_` and the base64 of 24 to 64 bytes."""
