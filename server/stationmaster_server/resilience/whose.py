"""For whom something is done: whoever shares a bounded thing out looks here, so that nobody has to hand it through."""

from __future__ import annotations

from contextvars import ContextVar
from uuid import UUID

WHOSE: ContextVar[UUID | None] = ContextVar("stationmaster_whose", default=None)
"""The organization of the call, or of the item of work; None: the server itself."""
