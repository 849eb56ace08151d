"""The real model, fetched once for all tests of this machine."""

from __future__ import annotations

import fcntl
import os
from functools import cache
from pathlib import Path

from stationmaster_server.embedding.fetching import fetch
from stationmaster_server.embedding.model_files import MODEL


@cache
def model_folder() -> Path:
    """The folder of its files, after fetching them unless they are there; one process at a time."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stationmaster-tests"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "model.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fetch(folder / MODEL)
    return folder / MODEL
