"""What `doctor` looks at of keys: who may read the administrator's, and whether credentials can be decrypted and
the trail signed.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator

from stationmaster_server.app.audit import log_keys
from stationmaster_server.app.credentials import key_file, key_providers
from stationmaster_server.app.findings import Finding, Verdict
from stationmaster_server.audit.signing_keys import KeysUnusable
from stationmaster_server.config import Settings
from stationmaster_server.credentials import key_store
from stationmaster_server.credentials.keyring import Keyring
from stationmaster_server.db.engine import Database
from stationmaster_server.identity.bootstrap import KEY_FILE


def private_key(settings: Settings) -> Iterator[Finding]:
    """Whether nobody else may read the administrator's key."""
    file = settings.data_folder / KEY_FILE
    if not file.exists():
        return
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077:
        yield Finding(Verdict.FAIL, "keys", f"{file} has mode {mode:04o}, others may read it: chmod 600 {file}")
    else:
        yield Finding(Verdict.OK, "keys", f"{file} is private")


async def signing(database: Database, settings: Settings) -> Finding:
    """Whether this server can sign checkpoints of the audit trail; makes no key."""
    try:
        problem = await log_keys(database, settings).check()
    except KeysUnusable as error:
        return Finding(Verdict.FAIL, "audit", str(error))
    if problem:
        text = f"this server signs no checkpoints ({problem}): set audit.signing_keys, on one server at least"
        return Finding(Verdict.WARN, "audit", text)
    return Finding(Verdict.OK, "audit", "this server can sign checkpoints")


async def encryption(database: Database, settings: Settings) -> Finding:
    """Where the key of new values comes from and whether it is the right one; makes none."""
    keyring = Keyring(database, list(key_providers(settings)), active=settings.credentials.active_key)
    problem, warning = await keyring.check()
    async with database.system(autocommit=True) as tx:
        stored = await key_store.keys(tx)
    if not stored:
        return _before_the_first(settings, problem)
    if problem:
        return Finding(Verdict.FAIL, "encryption", problem)
    if warning:
        return Finding(Verdict.WARN if keyring.writes else Verdict.FAIL, "encryption", warning)
    primary, *others = stored
    text = f"key {primary.key_id!r} of the provider {primary.provider} opens its canary and encrypts new values"
    more = f"; there are also: {', '.join(key.key_id for key in others)}" if others else ""
    return Finding(Verdict.OK, "encryption", text + more)


def _before_the_first(settings: Settings, problem: str) -> Finding:
    configured, file = settings.credentials, key_file(settings)
    if configured.keys or configured.passphrase or configured.kms_key or file.exists():
        return Finding(Verdict.OK, "encryption", "no key yet: the first start takes what is configured")
    if configured.make_key_file:
        return Finding(Verdict.OK, "encryption", f"no key yet: the first start makes one in {file}")
    return Finding(Verdict.WARN, "encryption", f"{problem}; until then no credentials are served")
