"""What the memory and the environment of this process hold is nobody else's: keys and secrets that no disk may have."""

from __future__ import annotations

import contextlib
import importlib

from stationmaster_server.resilience.leash import hide

# One byte instead of none: Linux hands a core to a program (core_pattern `|…`) whatever the limit is, but for this one.
_LEAST = 1


def keep_to_itself() -> None:
    """First of all: no other process of this user looks into this one, and no core file is written of it.

    The limit is for the processes that it starts too. Windows has none.
    """
    hide()
    with contextlib.suppress(ImportError):
        resource = importlib.import_module("resource")
        _, hard = resource.getrlimit(resource.RLIMIT_CORE)
        least = 0 if hard == 0 else _LEAST
        resource.setrlimit(resource.RLIMIT_CORE, (least, least))
