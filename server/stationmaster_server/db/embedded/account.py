"""Under whose uid PostgreSQL runs: it refuses root, so root lends it an unprivileged account that exists already."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from stationmaster_server.db.embedded.errors import EmbeddedPostgresError

# `initdb` looks its uid up, so an account it must be; both are there on every Linux and macOS that has users at all.
_CANDIDATES = ("postgres", "_postgres", "nobody")


class ProcessUser(TypedDict, total=False):
    """The arguments of `subprocess` that start a process under another account."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class Account:
    """The uid and gid of the PostgreSQL processes, and of everything in their data folder."""

    uid: int
    gid: int

    @property
    def arguments(self) -> ProcessUser:
        """For `subprocess`: nothing when the account is our own."""
        if self.uid == os.geteuid():
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        """Give a file or folder to the account."""
        if self.uid != os.geteuid():
            os.chown(path, self.uid, self.gid)


def choose_account(cluster: Path) -> Account:
    """Our own account, or, for root, the one that owns the cluster already, or else an unprivileged one."""
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid())
    if cluster.exists():
        status = cluster.stat()
        if status.st_uid != 0:
            return Account(status.st_uid, status.st_gid)
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise EmbeddedPostgresError(
        "PostgreSQL refuses to run as root and this system has none of the accounts"
        f" {', '.join(_CANDIDATES)}: create one (useradd --system postgres), or start the server under another account"
    )
