"""What can be wrong with an embedded PostgreSQL; each message says what to do."""

from __future__ import annotations


class EmbeddedPostgresError(Exception):
    """The embedded PostgreSQL cannot run; the message says why and what to do about it."""
