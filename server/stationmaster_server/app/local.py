"""What a server leaves in its data folder: where it listens, for the command line of this machine."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from stationmaster_server.config import Settings, StartupError
from stationmaster_server.rpc.port import claim

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
def published(settings: Settings, port: int, admin_ports: Sequence[int] = ()) -> Iterator[Path]:
    """Write where the server listens, for the command line of this machine, and take it away again.

    The newest server of a folder is the one that is found; the one before it is again when the newest has ended.
    """
    file = settings.data_folder / ADDRESS_FILE
    entry: dict[str, Any] = {"target": f"{_reachable(settings.server.host)}:{port}", "pid": os.getpid()}
    entry["admin_ports"] = [number for number in admin_ports if number]
    if settings.server.tls.enabled:
        entry |= {"tls": True, "ca": str(settings.server.tls.certificate)}
    before = _read(file)
    _write(file, entry)
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):
            if _read(file) == entry:
                _write(file, before) if before is not None and _lives(before) else file.unlink()


@dataclass(frozen=True, slots=True)
class Running:
    """A server of a data folder."""

    pid: int
    port: int
    admin_ports: tuple[int, ...] = ()


def claim_ports(settings: Settings) -> None:
    """Raise StartupError unless every port that the settings name is free: before the work that a start is."""
    server, admin = settings.server, settings.admin
    claim(server.host, server.port, shared=server.processes > 1)
    if admin.enabled:
        claim(admin.host, admin.port, setting="admin.port")


def running_server(folder: Path) -> Running | None:
    """Return the server that published itself in the data folder, if its process lives."""
    entry = _read(folder / ADDRESS_FILE)
    if entry is None or not psutil.pid_exists(int(entry["pid"])):
        return None
    port = int(entry["target"].rpartition(":")[2])
    return Running(int(entry["pid"]), port, tuple(entry.get("admin_ports", ())))


def _read(file: Path) -> dict[str, Any] | None:
    """An entry that is whole; None for anything else."""
    try:
        entry: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        int(entry["pid"]), int(entry["target"].rpartition(":")[2])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return entry


def _write(file: Path, entry: dict[str, Any]) -> None:
    temporary = file.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(entry) + "\n", encoding="utf-8")
    temporary.replace(file)


def _lives(entry: dict[str, Any]) -> bool:
    """Whether another process than this has the entry's id: in a container every server's may be the same."""
    pid = int(entry["pid"])
    return pid != os.getpid() and psutil.pid_exists(pid)


def _reachable(host: str) -> str:
    """An address of this machine at which a server that listens on `host` answers."""
    if host in {"0.0.0.0", "::", "[::]"}:  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host and not host.startswith(("[", "unix:")) else host
