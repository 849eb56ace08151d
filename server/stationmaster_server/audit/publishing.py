"""Shows checkpoints to witnesses and copies them to where they are written once: outside of who holds the database."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Protocol
from uuid import UUID

import httpx2
import structlog

from stationmaster_server.audit import checkpoint_store
from stationmaster_server.audit.checkpoint_store import Due
from stationmaster_server.audit.merkle import consistency_ranges
from stationmaster_server.audit.notes import COSIGNATURE, NoteError, VerifierKey, cosignature, origin_of
from stationmaster_server.audit.proofs import hashes
from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.engine import Database
from stationmaster_server.identity.model import AuditEntry, Category, Outcome
from stationmaster_server.identity.system import system_caller

_log = structlog.get_logger(__name__)

_BATCH = 100
_TIMEOUT = timedelta(seconds=10)
_LARGEST_ANSWER = 64 * 1024
_AT_ONCE = 8
_SHOWN = 400


class Copies(Protocol):
    """Where checkpoints are written once."""

    async def write(self, name: str, note: str) -> str | None:
        """Write a checkpoint unless there is one of this name; returns that one's text, None when this is the first."""
        ...


class Witness:
    """One witness, by its submission prefix and its key."""

    def __init__(self, url: str, key: str) -> None:
        """Raises NoteError: no key of the type cosignature/v1."""
        self.url = url.rstrip("/")
        self.key = VerifierKey.parse(key)
        if self.key.kind != COSIGNATURE:
            raise NoteError(f"the key of the witness {url} is not of the type cosignature/v1")


class NotPublished(Exception):
    """Checkpoints were not copied or cosigned, or a copy is another's: how often, and what of the first."""


class Publisher:
    """`run` it now and then, on every server: each checkpoint is taken by one."""

    def __init__(
        self,
        database: Database,
        audit: AuditLog,
        witnesses: Sequence[Witness],
        copies: Copies | None,
        *,
        every: timedelta,
    ) -> None:
        self._database = database
        self._audit = audit
        self._witnesses = witnesses
        self._copies = copies
        self._every = every
        self._client = httpx2.AsyncClient(timeout=_TIMEOUT.total_seconds(), follow_redirects=False)
        self.cosigned = 0
        self.refused = 0
        self.forks = 0
        """Checkpoints whose copy was another's: somebody rewrote the trail."""
        self._faults: list[str] = []

    async def close(self) -> None:
        """Let go of connections."""
        await self._client.aclose()

    async def run(self) -> None:
        """Publish what is due. Raises NotPublished when something was not: it is tried again with the next run."""
        self._faults.clear()
        while await self.run_once() == _BATCH:
            pass
        if self._faults:
            raise NotPublished(f"{len(self._faults)} times: {self._faults[0]}")

    async def run_once(self) -> int:
        """Publish a batch of what is due; returns how many checkpoints were looked at."""
        async with self._database.system(autocommit=True) as tx:
            due = await checkpoint_store.claim_due(tx, self._every.total_seconds(), _BATCH)
        slots = asyncio.Semaphore(_AT_ONCE)

        async def publish(each: Due) -> None:
            async with slots:
                # What nobody foresaw of one organization keeps no other from its turn.
                try:
                    await self._publish(each)
                except Exception as error:  # noqa: BLE001 - it is told by the run
                    _log.exception("an audit checkpoint could not be published; it is tried again")
                    self._faults.append(f"an audit checkpoint could not be published: {error}")

        await asyncio.gather(*(publish(each) for each in due))
        return len(due)

    async def _publish(self, due: Due) -> None:
        answers = await asyncio.gather(*(self._cosignature(witness, due) for witness in self._witnesses))
        note = due.note + "".join(answers)
        copied = self._copies is None or await self._copy(self._copies, due, note)
        async with self._database.system(autocommit=True) as tx:
            await checkpoint_store.published(tx, due, note, done=copied and all(answers))

    async def _copy(self, copies: Copies, due: Due, note: str) -> bool:
        try:
            there = await copies.write(f"{due.organization_id}/{due.size:020d}", note)
        except OSError as error:
            _log.warning("an audit checkpoint could not be copied; it is tried again", error=str(error))
            self._faults.append(f"an audit checkpoint could not be copied: {error}")
            return False
        if there is not None and there.split("\n\n")[0] != note.split("\n\n")[0]:
            await self._tell_of_fork(due, there)
        return True

    async def _tell_of_fork(self, due: Due, there: str) -> None:
        """In the log, and in the trail itself, which nobody can leave again without another fork."""
        self.forks += 1
        organization = f"organizations/{due.organization_id}"
        text = "another audit checkpoint of this size was copied before: the trail was rewritten"
        _log.error(text, organization=organization, size=due.size)
        self._faults.append(f"{organization}: {text}")
        details = {"size": due.size, "copied_before": there[:_SHOWN], "signed_now": due.note[:_SHOWN]}
        entry = AuditEntry("audit.fork", organization, Outcome.FAILED, Category.SECURITY, text, details, organization)
        async with self._database.system() as tx:
            await self._audit.write(tx, system_caller(due.organization_id, due.organization_id), entry)

    async def _cosignature(self, witness: Witness, due: Due) -> str:
        """The witness's cosignature: what it gave in a round before, or gives now; empty when it gave none."""
        given = ""
        if due.cosigned_note.startswith(due.note):
            with suppress(NoteError):  # then somebody changed it in the database
                given = cosignature(due.cosigned_note.removeprefix(due.note), due.note, witness.key)
        return given or await self._ask(witness, due)

    async def _ask(self, witness: Witness, due: Due) -> str:
        """The witness's cosignature; empty when it gave none, which is logged."""
        async with self._database.system(autocommit=True) as tx:
            old = await checkpoint_store.witnessed(tx, due.organization_id, witness.key.name)
        try:
            status, answer = await self._submit(witness, due, old)
            if status == httpx2.codes.CONFLICT:  # it knows better what it has seen
                status, answer = await self._submit(witness, due, int(answer))
            if status != httpx2.codes.OK:
                raise NoteError(f"it answered {status}: {answer[:200]}")
            line = cosignature(answer, due.note, witness.key)
            if not line:
                raise NoteError("it answered without a cosignature of its key")
        except (httpx2.HTTPError, TimeoutError, ValueError) as error:
            self.refused += 1
            why = str(error) or type(error).__name__
            self._faults.append(f"the witness {witness.key.name} did not cosign an audit checkpoint: {why}")
            _log.warning(
                "a witness did not cosign an audit checkpoint; it is asked again",
                witness=witness.key.name,
                origin=origin_of(due.organization_id),
                size=due.size,
                error=why,
            )
            return ""
        self.cosigned += 1
        async with self._database.system(autocommit=True) as tx:
            await checkpoint_store.set_witnessed(tx, due.organization_id, witness.key.name, due.size)
        return line

    async def _submit(self, witness: Witness, due: Due, old: int) -> tuple[int, str]:
        """The status and the text of the witness's answer, as far as an answer goes, and as long as one takes."""
        proof = await self._proof(due.organization_id, old, due.size)
        lines = "".join(f"{b64encode(each).decode()}\n" for each in proof)
        body = f"old {old}\n{lines}\n{due.note}".encode()
        found = bytearray()
        async with (
            asyncio.timeout(_TIMEOUT.total_seconds()),
            self._client.stream("POST", f"{witness.url}/add-checkpoint", content=body) as response,
        ):
            async for piece in response.aiter_bytes():
                found += piece
                if len(found) > _LARGEST_ANSWER:
                    raise NoteError(f"it answered more than {_LARGEST_ANSWER} bytes")
        return response.status_code, found.decode(errors="replace")

    async def _proof(self, organization_id: UUID, old: int, size: int) -> list[bytes]:
        if old > size:
            raise NoteError(f"it has seen {old} events, and there are {size}: the trail was cut or rolled back")
        try:
            async with self._database.system(autocommit=True) as tx:
                return await hashes(tx, organization_id, consistency_ranges(old, size))
        except LookupError:
            raise NoteError("nodes of the tree are missing: the trail was tampered with") from None
