"""The data folder: what lies where, how a cluster is made in it, and what must be true before it is used."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from stationmaster_server.db.embedded.account import Account, choose_account
from stationmaster_server.db.embedded.binaries import MAJOR_VERSION, reachable_binaries
from stationmaster_server.db.embedded.errors import EmbeddedPostgresError
from stationmaster_server.db.embedded.supervisor import ENVIRONMENT

SUPERUSER = "postgres"
LOGIN = "stationmaster"
DATABASE = "stationmaster"
_SOCKET = ".s.PGSQL.5432"
_LONGEST_SOCKET_PATH = 100  # the kernel's limit is 104 on macOS, 108 on Linux


@dataclass(frozen=True, slots=True)
class Cluster:
    """A data folder whose PostgreSQL cluster exists."""

    folder: Path
    account: Account
    binaries: Path

    @property
    def pgdata(self) -> Path:
        """PostgreSQL's own folder."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """What PostgreSQL and its supervisor say."""
        return self.folder / "postgres.log"

    @property
    def servers_lock(self) -> Path:
        """Locked shared by every server that uses the cluster, exclusively by the supervisor that stops it."""
        return self.folder / "servers.lock"

    @property
    def start_lock(self) -> Path:
        """Locked by the one server that prepares the folder or starts a supervisor."""
        return self.folder / "start.lock"

    @property
    def supervisor_lock(self) -> Path:
        """Locked by the supervisor as long as it lives."""
        return self.folder / "supervisor.lock"

    @property
    def socket_folder(self) -> Path:
        """Where the Unix socket is. No TCP port: none to collide with, none for another account to try."""
        folder = self.folder / "socket"
        if len(str(folder / _SOCKET)) <= _LONGEST_SOCKET_PATH:
            return folder
        return Path(_read(self.folder / "socket-folder"))

    def url(self, *, user: str = LOGIN, database: str = DATABASE) -> str:
        """A libpq URL; the password is in it."""
        password = _read(self.folder / ("password" if user == LOGIN else "superuser-password"))
        return f"postgresql://{user}:{password}@/{database}?host={quote(str(self.socket_folder), safe='/')}"


def _read(path: Path) -> str:
    return path.read_text().strip()


def prepare(folder: Path, *, minimum_free_bytes: int) -> Cluster:
    """The cluster of a data folder, made when there is none yet. The caller holds the start lock.

    EmbeddedPostgresError when the folder cannot be used, is of another PostgreSQL version, or the disk is full.
    """
    account = choose_account(folder / "data")
    _check_folder(folder, account, minimum_free_bytes)
    cluster = Cluster(folder, account, reachable_binaries(account, folder))
    if cluster.pgdata.exists():
        _check_version(cluster)
    else:
        _initialize(cluster)
    _make_socket_folder(cluster)
    return cluster


def make_folder(data_folder: Path) -> Path:
    """The folder `postgres` of a data folder, made where needed.

    Nobody but us may list either; for root, the account of PostgreSQL may pass through.
    """
    folder = data_folder / "postgres"
    passing = 0o011 if os.geteuid() == 0 else 0
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700 | passing)
        if passing and data_folder.stat().st_uid == 0:
            data_folder.chmod(data_folder.stat().st_mode | passing)
        for name in ("start.lock", "servers.lock", "supervisor.lock"):
            (folder / name).touch(mode=0o600)
    except OSError as error:
        raise EmbeddedPostgresError(
            f"the data folder {data_folder} cannot be written ({error.strerror}): make it writable for this account,"
            " or choose another one"
        ) from error
    return folder.resolve()


def _check_folder(folder: Path, account: Account, minimum_free_bytes: int) -> None:
    for parent in (folder, *folder.parents) if account.arguments else ():
        if not parent.stat().st_mode & 0o001:
            raise EmbeddedPostgresError(
                f"PostgreSQL runs under uid {account.uid}, which cannot pass through {parent}: choose a data folder"
                " outside private folders (as root: /var/lib/stationmaster), or start the server under another account"
            )
    free = shutil.disk_usage(folder).free
    if free < minimum_free_bytes:
        raise EmbeddedPostgresError(
            f"the disk of {folder} is full: {free >> 20} MiB are free, at least {minimum_free_bytes >> 20} MiB are"
            " needed. Free some space or choose another data folder"
        )


def _check_version(cluster: Cluster) -> None:
    version = _read(cluster.pgdata / "PG_VERSION")
    if version != str(MAJOR_VERSION):
        raise EmbeddedPostgresError(
            f"{cluster.pgdata} is of PostgreSQL {version}, this server brings {MAJOR_VERSION}: dump it with the"
            " Stationmaster that wrote it and restore it into a new data folder, or use that Stationmaster"
        )


def _initialize(cluster: Cluster) -> None:
    """Make the cluster aside and rename it, so that one that exists is complete."""
    login, superuser = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
    partial, password_file = cluster.folder / "data.partial", cluster.folder / "superuser-password"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    cluster.account.own(partial)
    _write_private(password_file, superuser)
    handed = partial.with_suffix(".password")
    _write_private(handed, superuser)
    cluster.account.own(handed)
    try:
        _run(
            cluster,
            "initdb",
            [f"--pgdata={partial}", f"--username={SUPERUSER}", "--auth=scram-sha-256", f"--pwfile={handed}"],
            [
                "--encoding=UTF8",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--locale=C",
                "--data-checksums",
            ],
        )
    finally:
        handed.unlink()
    _write_private(cluster.folder / "password", login)
    statements = (
        f"CREATE ROLE {LOGIN} LOGIN CREATEROLE PASSWORD '{login}';\n\nCREATE DATABASE {DATABASE} OWNER {LOGIN};\n\n"
    )
    # A failed statement, which has the password in it, must not get into the log.
    quiet = ["-c", "log_min_error_statement=panic"]
    single = ["--single", "-j", "-D", str(partial), *quiet]
    # Only a superuser may make the extension: databases that are made from the template have it.
    _run(cluster, "postgres", [*single, "template1"], sql="CREATE EXTENSION vector;\n\n")
    _run(cluster, "postgres", [*single, "postgres"], sql=statements)
    partial.rename(cluster.pgdata)


def _run(cluster: Cluster, program: str, *arguments: list[str], sql: str = "") -> None:
    command = [str(cluster.binaries / program), *(word for words in arguments for word in words)]
    done = subprocess.run(
        command,
        input=sql,
        capture_output=True,
        text=True,
        check=False,
        cwd=cluster.folder,
        env=ENVIRONMENT,
        **cluster.account.arguments,
    )
    with cluster.log.open("a") as log:
        log.write(done.stdout + done.stderr)
    if done.returncode != 0 or "ERROR:" in done.stderr:
        raise EmbeddedPostgresError(f"{program} failed in {cluster.folder}: {done.stderr.strip()[-800:]}")


def _make_socket_folder(cluster: Cluster) -> None:
    note = cluster.folder / "socket-folder"
    if len(str(cluster.folder / "socket" / _SOCKET)) > _LONGEST_SOCKET_PATH and not (
        note.exists() and Path(_read(note)).is_dir()
    ):
        _write_private(note, tempfile.mkdtemp(prefix="stationmaster-"))
    folder = cluster.socket_folder
    folder.mkdir(mode=0o700, exist_ok=True)
    cluster.account.own(folder)


def _write_private(path: Path, text: str) -> None:
    """A file of mode 0600, in one step: never readable by others, never half written."""
    aside = path.with_name(path.name + ".new")
    aside.unlink(missing_ok=True)
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
