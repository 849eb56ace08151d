"""No core files: they would hold the keys and secrets that no disk may have."""

from __future__ import annotations

import contextlib
import importlib

# One byte instead of none: Linux hands a core to a program (core_pattern `|…`) whatever the limit is, but for this one.
_LEAST = 1


def forbid_core_files() -> None:
    """For this process and those that it starts. Windows has no such limit."""
    with contextlib.suppress(ImportError):
        resource = importlib.import_module("resource")
        _, hard = resource.getrlimit(resource.RLIMIT_CORE)
        least = 0 if hard == 0 else _LEAST
        resource.setrlimit(resource.RLIMIT_CORE, (least, least))
