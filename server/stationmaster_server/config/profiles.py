"""What each profile sets, below the settings file and the environment."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from stationmaster_server.config.model import Profile

PROFILES: Mapping[Profile, Mapping[str, Any]] = MappingProxyType(
    {
        Profile.DEVELOPMENT: {},
        Profile.PRODUCTION: {
            "database": {"pool_size": 24, "system_pool_size": 8, "connect_timeout": "2m"},
            "server": {"open_reflection": False, "drain_delay": "5s", "shutdown_grace": "30s"},
            "telemetry": {"log_format": "json"},
            "identity": {"local_admin": False},
            "credentials": {"make_key_file": False},
            "audit": {"make_key_file": False},
            "models": {"demo": False},
            "mcp": {"stdio_commands": ()},
            "pools": {"processes": 4, "threads": 32, "max_waiting": 10_000},
        },
        Profile.LOW_RESOURCE: {
            "database": {"pool_size": 4, "system_pool_size": 3},
            "server": {"max_calls": 2_000, "max_streams": 2_000},
            "telemetry": {"monitor_interval": "30s"},
            "work": {"slots": 8},
            "pools": {"processes": 1, "memory": 512 * 1024**2, "idle_timeout": "15s", "threads": 4, "max_waiting": 100},
            "mcp": {"max_connections": 20, "max_connections_per_user": 10},
            "models": {"claude": {"max_live": 2}},
        },
    }
)
