"""How much of a server's is taken, and how fast."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of one connection; the defaults are what servers of good will never meet."""

    message_bytes: int = 8 * 1024 * 1024
    """One message."""
    result_bytes: int = 3 * 1024 * 1024
    """What is kept of one result."""
    argument_bytes: int = 1024 * 1024
    """The arguments of one call."""
    stderr_bytes: int = 4 * 1024
    """How much of what a process complained about last is kept."""
    stray_lines: int = 100
    """Lines that are no messages (banners, logs) that a process may write where messages belong."""
    messages_per_second: float = 1000.0
    """The rate at which a server is read; a large message counts as several (`message_unit_bytes`)."""
    message_burst: float = 4000.0
    message_unit_bytes: int = 8 * 1024
    flood_patience: timedelta = timedelta(seconds=10)
    """How long a server that never falls below that rate is slowed before it is closed."""
    values: int = 30_000
    """Values in one message, besides those of schemas and of data that nothing looks into."""
    schema_values: int = 500_000
    """Values of all schemas in one message."""
    contents: int = 2_000
    """Pieces of content of one result."""
    items: int = 1000
    """Tools, resources or prompts of one server."""
    list_bytes: int = 4 * 1024 * 1024
    """One of these lists, as JSON."""
    arguments: int = 100
    """Arguments of one prompt."""
    pages: int = 100
    """Pages that one of these lists may have."""
    description_chars: int = 4096
    schema_bytes: int = 64 * 1024
    schema_depth: int = 40
    schemas_work: int = 60_000_000
    """How long all schemas of a server may take to check, in tenths of a microsecond."""
    ping_timeout: timedelta = timedelta(seconds=5)
    list_timeout: timedelta = timedelta(seconds=30)
    exit_grace: timedelta = timedelta(seconds=2)
    """How long a process may take to end after its input was closed."""
