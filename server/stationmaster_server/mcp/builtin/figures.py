"""What the server `monitoring` is told by the rooms above it, which it does not know."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from stationmaster_server.db.transaction import Transaction


@dataclass(frozen=True, slots=True)
class HealthFigures:
    """Which services can do their work (`""`: the whole server), what is missing and why."""

    services: Mapping[str, bool]
    missing: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SessionFigures:
    """Sessions by state, open turns by state, and permission requests that wait."""

    sessions: Mapping[str, int]
    open_turns: Mapping[str, int]
    waiting_permissions: int
    oldest_permission: datetime | None


HealthReading = Callable[[], HealthFigures]

SessionReading = Callable[[Transaction, UUID, UUID | None], Awaitable[SessionFigures]]
"""Reads the figures of an organization, or of one user of it."""
