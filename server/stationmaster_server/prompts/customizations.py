"""What users want of prompts, each for itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.listing import Page, PageRequest
from stationmaster_server.db.requests import first_answer, recall, remember
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import AlreadyExists, NotFound, require_etag
from stationmaster_server.identity.model import AuditEntry
from stationmaster_server.prompts import customization_store, store
from stationmaster_server.prompts.checking import Checking
from stationmaster_server.prompts.expanding import Expanding
from stationmaster_server.prompts.heads import Heads
from stationmaster_server.prompts.model import Customization, Prompt, Target, customization_name, prompt_name
from stationmaster_server.prompts.rules import found

UPDATABLE = frozenset({"template", "mode", "variables", "disabled"})


@dataclass(frozen=True, slots=True)
class _Deleted:
    """What is remembered of a deletion."""

    customization_id: UUID


class Customizations:
    """The caller's own; there is no way to another's, not even for owners."""

    def __init__(
        self, database: Database, audit: AuditLog, heads: Heads, checking: Checking, expanding: Expanding
    ) -> None:
        self._database = database
        self._audit = audit
        self._heads = heads
        self._checking = checking
        self._expanding = expanding

    async def create(self, caller: Caller, new: Customization) -> Customization:
        """Add one. Raises NotFound (the prompt), AlreadyExists, InvalidArgument."""
        tenant = caller.tenant
        if (first := await first_answer(self._database, caller, Customization)) is not None:
            return first
        new = replace(new, id=new_id(), user_id=tenant.user_id, etag=new_id().hex)
        await self._check(caller, new)
        async with self._database.tenant(tenant) as tx:
            again = await recall(tx, tenant, caller.request_key, Customization)
            if again is not None:
                return again
            await self._prompt(tx, caller, new.prompt_id)
            made = await customization_store.insert(tx, tenant, new)
            if made is None:
                agent = f" with agents/{new.agent_id}" if new.agent_id else ""
                raise AlreadyExists("PromptCustomization", f"yours of {prompt_name(new.prompt_id)}{agent}")
            return await self._written(tx, caller, "prompt_customization.create", made)

    async def get(self, caller: Caller, prompt_id: str, customization_id: UUID) -> Customization:
        """One of the caller's. Raises NotFound."""
        async with self._database.tenant(caller.tenant, read=True) as tx:
            one = await customization_store.get(tx, caller.tenant, prompt_id, customization_id)
        return _found(one, prompt_id, customization_id)

    async def list(
        self, caller: Caller, prompt_id: str, filter_text: str, order_by: str, page: PageRequest
    ) -> Page[Customization]:
        """A page of the caller's, the newest first by default. Raises NotFound (the prompt), InvalidArgument."""
        clause = customization_store.LISTING.sql(filter_text, order_by, page, start=4)
        async with self._database.tenant(caller.tenant, read=True) as tx:
            await self._prompt(tx, caller, prompt_id)
            return await customization_store.list_of(tx, caller.tenant, prompt_id, clause)

    async def update(
        self, caller: Caller, prompt_id: str, customization_id: UUID, changes: Mapping[str, Any], etag: str = ""
    ) -> Customization:
        """Change fields, by their names in `Customization`. Raises NotFound, Aborted, InvalidArgument."""
        tenant = caller.tenant
        if (first := await first_answer(self._database, caller, Customization)) is not None:
            return first
        before = await self.get(caller, prompt_id, customization_id)
        await self._check(caller, replace(before, **changes))
        async with self._database.tenant(tenant) as tx:
            again = await recall(tx, tenant, caller.request_key, Customization)
            if again is not None:
                return again
            current = _found(
                await customization_store.get(tx, tenant, prompt_id, customization_id, lock=True),
                prompt_id,
                customization_id,
            )
            require_etag(customization_name(current.prompt_id, current.id), current.etag, etag)
            changed = await customization_store.update(tx, tenant, replace(current, **changes, etag=new_id().hex))
            return await self._written(tx, caller, "prompt_customization.update", changed)

    async def delete(self, caller: Caller, prompt_id: str, customization_id: UUID, etag: str = "") -> None:
        """Remove one. Raises NotFound, Aborted(ETAG_MISMATCH)."""
        tenant = caller.tenant
        async with self._database.tenant(tenant) as tx:
            if await recall(tx, tenant, caller.request_key, _Deleted) is not None:
                return
            current = _found(
                await customization_store.get(tx, tenant, prompt_id, customization_id, lock=True),
                prompt_id,
                customization_id,
            )
            require_etag(customization_name(current.prompt_id, current.id), current.etag, etag)
            await customization_store.delete(tx, tenant, customization_id)
            await self._tell(tx, caller, "prompt_customization.delete", current)
            await remember(tx, tenant, caller.request_key, _Deleted(customization_id))

    async def _check(self, caller: Caller, one: Customization) -> None:
        """Against the prompt's default version: what others lack is told when they are filled in."""
        head = await self._heads.get(caller.tenant, one.prompt_id)
        if head is None:
            raise NotFound("Prompt", prompt_name(one.prompt_id))
        number = head.prompt.version_of(Target()) or head.prompt.latest_version
        version = await self._heads.version(caller.tenant, head, number)
        filled = await self._expanding.filled(caller.tenant, head, version or head.prompt.shown)
        await self._checking.customization(one, filled.variables)

    async def _prompt(self, tx: Transaction, caller: Caller, prompt_id: str) -> Prompt:
        return found(await store.get(tx, caller.tenant.organization_id, prompt_id), prompt_id)

    async def _written(self, tx: Transaction, caller: Caller, action: str, one: Customization) -> Customization:
        await self._tell(tx, caller, action, one)
        await remember(tx, caller.tenant, caller.request_key, one)
        return one

    async def _tell(self, tx: Transaction, caller: Caller, action: str, one: Customization) -> None:
        await self._heads.changed(tx, caller.tenant.organization_id, one.prompt_id)
        name = customization_name(one.prompt_id, one.id)
        await self._audit.write(tx, caller, AuditEntry(action, name, details={"agent": one.agent_id}))


def _found(one: Customization | None, prompt_id: str, customization_id: UUID) -> Customization:
    if one is None:
        raise NotFound("PromptCustomization", customization_name(prompt_id, customization_id))
    return one
