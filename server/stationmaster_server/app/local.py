"""What a server leaves in its data folder: where it listens, for the command line of this machine."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from stationmaster_server.config import Settings, StartupError

ADDRESS_FILE = "server.json"


def make_data_folder(folder: Path) -> None:
    """Make the data folder. Raises StartupError when this user may not write there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StartupError(
            f"data_folder {folder} cannot be written: {error.strerror or error};"
            " choose another (STATIONMASTER_DATA_FOLDER) or give this user the right to it"
        ) from None


@contextmanager
def published(settings: Settings, port: int) -> Iterator[Path]:
    """Write where the server listens, for the command line of this machine, and take it away again."""
    file = settings.data_folder / ADDRESS_FILE
    entry: dict[str, object] = {"target": f"{_reachable(settings.server.host)}:{port}", "pid": os.getpid()}
    if settings.server.tls.enabled:
        entry |= {"tls": True, "ca": str(settings.server.tls.certificate)}
    temporary = file.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(entry) + "\n", encoding="utf-8")
    temporary.replace(file)
    try:
        yield file
    finally:
        with contextlib.suppress(OSError, ValueError):
            if json.loads(file.read_text(encoding="utf-8")).get("pid") == os.getpid():
                file.unlink()


@dataclass(frozen=True, slots=True)
class Running:
    """A server of a data folder."""

    pid: int
    port: int


def running_server(folder: Path) -> Running | None:
    """Return the server that published itself in the data folder, if its process lives."""
    try:
        entry = json.loads((folder / ADDRESS_FILE).read_text(encoding="utf-8"))
        found = Running(int(entry["pid"]), int(entry["target"].rpartition(":")[2]))
    except (OSError, ValueError, KeyError):
        return None
    return found if psutil.pid_exists(found.pid) else None


def _reachable(host: str) -> str:
    """An address of this machine at which a server that listens on `host` answers."""
    if host in {"0.0.0.0", "::", "[::]"}:  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host and not host.startswith(("[", "unix:")) else host
