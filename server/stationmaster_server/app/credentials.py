"""Credentials, built: the keys of this server, the services, and what goes on in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from stationmaster_server.agents import store as agents
from stationmaster_server.app.ground import Ground
from stationmaster_server.config import Settings
from stationmaster_server.config.credentials import CredentialSettings, allowed_variables
from stationmaster_server.credentials import key_store
from stationmaster_server.credentials.access import Access
from stationmaster_server.credentials.expiry import Expiry
from stationmaster_server.credentials.grants import Grants
from stationmaster_server.credentials.importing import Importing
from stationmaster_server.credentials.key_service import Keys
from stationmaster_server.credentials.keyring import Keyring
from stationmaster_server.credentials.providers.aws_kms import AwsKmsKeys
from stationmaster_server.credentials.providers.base import KeyProvider
from stationmaster_server.credentials.providers.environment import EnvironmentKeys
from stationmaster_server.credentials.providers.file import FileKeys
from stationmaster_server.credentials.providers.passphrase import PassphraseKeys
from stationmaster_server.credentials.rewrap import Rewrapper
from stationmaster_server.credentials.service import Credentials
from stationmaster_server.credentials.servicer import CredentialServicer
from stationmaster_server.credentials.using import Using
from stationmaster_server.credentials.versions import Versions
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.maintenance.base import Routine
from stationmaster_server.maintenance.model import Scope
from stationmaster_server.resilience.aws_identity import AwsIdentities
from stationmaster_server.resilience.aws_signing import AwsIdentity
from stationmaster_server.rpc.health import HealthBoard

KEY = "encryption key"
"""What CredentialService needs, on the board."""
KEY_FILE = "credentials.keys"


@dataclass(frozen=True, slots=True)
class CredentialRoom:
    """The servicer, and what the rooms above need: values by name."""

    servicer: CredentialServicer
    using: Using


async def build_credentials(stack: AsyncExitStack, on: Ground) -> CredentialRoom:
    """Build everything about credentials; a key that is missing or wrong stops this service alone."""
    database, audit, settings = on.database, on.gate.audit, on.settings.credentials
    keyring = Keyring(database, list(key_providers(on.settings)), active=settings.active_key)
    watch = _KeyWatch(keyring, on.board)
    await watch.look()
    on.listener.add(key_store.CHANNEL, lambda _: watch.look_soon())
    stack.push_async_callback(watch.close)
    on.background.encryption_keys = lambda: keyring.present
    rewrapper = Rewrapper(database, keyring)
    keys = Keys(database, audit, keyring, rewrapper, on.background.lacking)
    stack.push_async_callback(keys.close)
    variables = allowed_variables(settings.environment)
    credentials = Credentials(database, audit, keyring, keep_deleted=settings.keep_deleted)
    versions = Versions(database, audit, keyring, grace=settings.grace)
    access = Access(database, audit, keyring, variables)
    expiry = Expiry(database, audit, announce_before=settings.announce_before)
    importing = Importing(database, audit, keyring, credentials, versions, variables)
    for routine in _routines(watch, rewrapper, expiry):
        on.background.add(routine)
    counts = expiry.counters
    on.metrics.read(
        "credentials_rewrapped", "Versions wrapped anew by this server.", lambda: float(rewrapper.rewrapped), total=True
    )
    on.metrics.read(
        "credentials_expiry",
        "Credentials that this server announced, told to have expired, or purged.",
        lambda: {"announced": counts.announced, "expired": counts.expired, "purged": counts.purged},
        label="event",
        total=True,
    )
    grants = Grants(database, audit, _agent_exists)
    servicer = CredentialServicer(credentials, versions, access, grants, keys, importing, on.tokens)
    return CredentialRoom(servicer, Using(access))


def _routines(watch: _KeyWatch, rewrapper: Rewrapper, expiry: Expiry) -> Iterator[Routine]:
    what = "Looks whether this server has the encryption keys; without them CredentialService is not served."
    yield Routine("encryption-key-check", what, timedelta(seconds=15), watch.look)
    what = "Wraps credentials by the newest encryption key, while that is being changed."
    yield Routine("key-rewrap", what, timedelta(seconds=15), rewrapper.run)
    what = "Announces credentials that expire soon, tells of those that have, and purges those that were deleted."
    yield Routine("credential-expiry", what, timedelta(seconds=30), expiry.run, scope=Scope.ONE_SERVER)


def key_providers(settings: Settings) -> Iterator[KeyProvider]:
    """Where keys may come from; the first that has one makes the first key of a database."""
    configured = settings.credentials
    if configured.kms_key is not None:
        yield _kms(configured)
    if configured.passphrase is not None:
        yield PassphraseKeys(configured.passphrase.get_secret_value(), configured.passphrase_key_id)
    if configured.keys is not None:
        yield EnvironmentKeys(configured.keys.get_secret_value())
    others = configured.passphrase or configured.keys or configured.kms_key
    yield FileKeys(key_file(settings), make=configured.make_key_file and not others)


def key_file(settings: Settings) -> Path:
    """The file of keys, whether or not it is there."""
    return settings.credentials.key_file or settings.data_folder / KEY_FILE


def aws_identities(configured: CredentialSettings) -> AwsIdentities:
    """Whose requests to AWS are, unless a setting says otherwise."""
    given = None
    if configured.kms_access_key is not None:
        token = configured.kms_session_token
        given = AwsIdentity(
            configured.kms_access_key_id,
            configured.kms_access_key.get_secret_value(),
            token.get_secret_value() if token else "",
        )
    shown = configured.kms_container_token
    return AwsIdentities(
        given,
        container_url=configured.kms_container_url,
        token=shown.get_secret_value() if shown else "",
        token_file=configured.kms_container_token_file,
    )


def _kms(configured: CredentialSettings) -> AwsKmsKeys:
    return AwsKmsKeys(
        configured.kms_key or "",
        configured.kms_region,
        aws_identities(configured),
        configured.kms_endpoint,
        former=configured.kms_former_keys,
    )


async def _agent_exists(tx: Transaction, organization_id: UUID, agent_id: str) -> bool:
    return await agents.get(tx, organization_id, agent_id) is not None


class _KeyWatch:
    """Looks at the keys and tells the board."""

    def __init__(self, keyring: Keyring, board: HealthBoard) -> None:
        self._keyring = keyring
        self._board = board
        self._looking: set[asyncio.Task[None]] = set()

    async def look(self) -> None:
        """Look now."""
        problem = await self._keyring.refresh()
        if problem:
            self._board.lose(KEY, problem)
        else:
            self._board.regain(KEY)

    def look_soon(self) -> None:
        """Look without waiting for it: another server changed the keys."""
        task = asyncio.create_task(self.look(), name="look at the encryption keys")
        self._looking.add(task)
        task.add_done_callback(self._looked)

    async def close(self) -> None:
        """Look no more."""
        for task in self._looking:
            task.cancel()
        await asyncio.gather(*self._looking, return_exceptions=True)

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._looking.discard(task)
        if not task.cancelled():
            task.exception()  # the chore looks again, and logs what is wrong
