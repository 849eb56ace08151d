"""Prompts, versions and labels: the rules. Every change is one transaction with its audit row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.listing import Page, PageRequest
from stationmaster_server.db.optimistic import ChangedMeanwhile, until_unchanged
from stationmaster_server.db.requests import first_answer, recall, remember
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import (
    AlreadyExists,
    InvalidArgument,
    require_etag,
)
from stationmaster_server.identity.model import AuditEntry
from stationmaster_server.identity.roles import require_administrator
from stationmaster_server.prompts import experiment_store, store
from stationmaster_server.prompts.checking import Checking
from stationmaster_server.prompts.heads import Heads
from stationmaster_server.prompts.model import (
    LATEST,
    NewPrompt,
    Prompt,
    Target,
    Version,
    prompt_name,
)
from stationmaster_server.prompts.rules import found, found_version, in_use, moved_label, no_label, require_mover
from stationmaster_server.prompts.standing import Parts, Standing

OF_VERSION = frozenset({"template", "variables"})
_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class _Deleted:
    """What is remembered of a deletion."""

    prompt_id: str


class PromptService:
    """Prompts of an organization."""

    def __init__(
        self, database: Database, audit: AuditLog, heads: Heads, checking: Checking, standing: Standing
    ) -> None:
        self._database = database
        self._audit = audit
        self._heads = heads
        self._checking = checking
        self._standing = standing

    async def create(self, caller: Caller, new: NewPrompt, *, validate_only: bool = False) -> Prompt:
        """Create a prompt with its first version.

        Raises AlreadyExists, InvalidArgument, FailedPrecondition (PROMPT_CYCLE, PROMPT_MISSING), PermissionDenied.
        """
        return await until_unchanged(lambda: self._create(caller, new, validate_only=validate_only), "what it includes")

    async def _create(self, caller: Caller, new: NewPrompt, *, validate_only: bool) -> Prompt:
        tenant = caller.tenant
        if not validate_only and (again := await first_answer(self._database, caller, Prompt)) is not None:
            return again
        prompt = await self._new(caller, new)  # before the transaction: a template may take its time
        require_mover(caller, prompt, new.labels)
        if validate_only:
            async with self._database.tenant(tenant, read=True) as tx:
                if await store.get(tx, tenant.organization_id, prompt.prompt_id) is not None:
                    raise AlreadyExists("Prompt", prompt_name(prompt.prompt_id))
            return prompt
        parts = await self._standing.check(tenant, prompt, 1)
        async with self._database.tenant(tenant) as tx:
            again = await recall(tx, tenant, caller.request_key, Prompt)
            if again is not None:
                return again
            await self._standing.settle(tx, tenant, parts)
            await store.insert(tx, tenant.organization_id, prompt)
            return await self._written(tx, caller, "prompt.create", prompt.prompt_id, {"labels": list(new.labels)})

    async def get(self, caller: Caller, prompt_id: str, target: Target) -> Prompt:
        """A prompt with one of its versions, by default the newest. Raises NotFound."""
        organization_id = caller.tenant.organization_id
        async with self._database.tenant(caller.tenant, read=True) as tx:
            prompt = found(await store.get(tx, organization_id, prompt_id), prompt_id)
            number = prompt.version_of(target, LATEST)
            if number is None:
                raise no_label(prompt_id, target.label)
            if number == prompt.latest_version:
                return prompt
            version = await store.version(tx, organization_id, prompt_id, number)
        return replace(prompt, shown=found_version(version, prompt_id, number))

    async def list(self, caller: Caller, filter_text: str, order_by: str, page: PageRequest) -> Page[Prompt]:
        """A page of prompts, the newest first by default. Raises InvalidArgument."""
        clause = store.LISTING.sql(filter_text, order_by, page, start=2)
        async with self._database.tenant(caller.tenant, read=True) as tx:
            return await store.list_prompts(tx, caller.tenant.organization_id, clause)

    async def versions(
        self, caller: Caller, prompt_id: str, filter_text: str, order_by: str, page: PageRequest
    ) -> Page[Version]:
        """A page of a prompt's versions, the newest first by default. Raises NotFound, InvalidArgument."""
        clause = store.VERSIONS.sql(filter_text, order_by, page, start=3)
        organization_id = caller.tenant.organization_id
        async with self._database.tenant(caller.tenant, read=True) as tx:
            found(await store.get(tx, organization_id, prompt_id), prompt_id)
            return await store.list_versions(tx, organization_id, prompt_id, clause)

    async def update(
        self,
        caller: Caller,
        prompt_id: str,
        changes: Mapping[str, Any],
        labels: tuple[str, ...] = (),
        etag: str = "",
        *,
        validate_only: bool = False,
    ) -> Prompt:
        """Change fields, by their names in `NewPrompt`; a change of the template or the variables is a new version.

        Raises NotFound, Aborted(ETAG_MISMATCH), InvalidArgument, FailedPrecondition, PermissionDenied.
        """
        return await until_unchanged(
            lambda: self._update(caller, prompt_id, changes, labels, etag, validate_only=validate_only),
            prompt_name(prompt_id),
        )

    async def _update(
        self,
        caller: Caller,
        prompt_id: str,
        changes: Mapping[str, Any],
        labels: tuple[str, ...],
        etag: str,
        *,
        validate_only: bool,
    ) -> Prompt:
        tenant = caller.tenant
        if not validate_only and (again := await first_answer(self._database, caller, Prompt)) is not None:
            return again
        async with self._database.tenant(tenant, read=True) as tx:
            before = found(await store.get(tx, tenant.organization_id, prompt_id), prompt_id)
        require_etag(prompt_name(before.prompt_id), before.etag, etag)
        changed = await self._changed(caller, before, changes, labels)
        if validate_only:
            return changed
        parts = await self._standing.check(tenant, changed, changed.latest_version)
        async with self._database.tenant(tenant) as tx:
            again = await recall(tx, tenant, caller.request_key, Prompt)
            if again is not None:
                return again
            await self._standing.settle(tx, tenant, parts)
            current = found(await store.lock(tx, tenant.organization_id, prompt_id), prompt_id)
            if current.etag != before.etag:
                raise ChangedMeanwhile  # and with an etag of the caller's: a mismatch
            await self._require_still(tx, tenant.organization_id, prompt_id, labels)
            if changed.latest_version != before.latest_version:
                await store.insert_version(tx, tenant.organization_id, changed.shown)
            await store.update(tx, tenant.organization_id, changed)
            details = {"paths": sorted(changes), "version": changed.latest_version, "labels": list(labels)}
            return await self._written(tx, caller, "prompt.update", prompt_id, details)

    async def delete(self, caller: Caller, prompt_id: str, etag: str = "", *, force: bool = False) -> None:
        """Delete a prompt with all that belongs to it.

        Raises NotFound, Aborted(ETAG_MISMATCH), FailedPrecondition(PROMPT_IN_USE), PermissionDenied.
        """
        tenant = caller.tenant
        async with self._database.tenant(tenant) as tx:
            if await recall(tx, tenant, caller.request_key, _Deleted) is not None:
                return
            await store.lock_includes(tx, tenant.organization_id)  # nobody begins to include it
            prompt = found(await store.lock(tx, tenant.organization_id, prompt_id), prompt_id)
            require_etag(prompt_name(prompt.prompt_id), prompt.etag, etag)
            require_mover(caller, prompt, prompt.labels.keys())
            if not force:
                await self._require_unused(tx, tenant.organization_id, prompt_id)
            await store.delete(tx, tenant.organization_id, prompt_id)
            await self._told(tx, caller, "prompt.delete", prompt_id, {"versions": prompt.latest_version})
            await remember(tx, tenant, caller.request_key, _Deleted(prompt_id))

    async def set_label(self, caller: Caller, prompt_id: str, label: str, version: int, etag: str = "") -> Prompt:
        """Point a label to a version; zero takes it away.

        Raises NotFound, Aborted(ETAG_MISMATCH), FailedPrecondition (PROMPT_CYCLE, PROMPT_MISSING, PROMPT_IN_USE),
        PermissionDenied, InvalidArgument.
        """
        return await until_unchanged(
            lambda: self._set_label(caller, prompt_id, label, version, etag), prompt_name(prompt_id)
        )

    async def _set_label(self, caller: Caller, prompt_id: str, label: str, version: int, etag: str) -> Prompt:
        tenant = caller.tenant
        if (again := await first_answer(self._database, caller, Prompt)) is not None:
            return again
        parts = await self.check_move(caller, prompt_id, label, version)
        async with self._database.tenant(tenant) as tx:
            again = await recall(tx, tenant, caller.request_key, Prompt)
            if again is not None:
                return again
            await self._standing.settle(tx, tenant, parts)
            current = found(await store.lock(tx, tenant.organization_id, prompt_id), prompt_id)
            require_etag(prompt_name(current.prompt_id), current.etag, etag)
            await self.move(tx, caller, current, label, version)
            return await self._remembered(tx, caller, prompt_id)

    async def check_move(self, caller: Caller, prompt_id: str, label: str, version: int) -> Parts:
        """What has to be looked at before a transaction moves a label; what it returns is to be settled inside.

        Raises NotFound, FailedPrecondition (PROMPT_CYCLE, PROMPT_MISSING), PermissionDenied, InvalidArgument.
        """
        tenant = caller.tenant
        async with self._database.tenant(tenant, read=True) as tx:
            before = found(await store.get(tx, tenant.organization_id, prompt_id), prompt_id)
            if version not in (0, before.latest_version):
                known = await store.version(tx, tenant.organization_id, prompt_id, version)
                found_version(known, prompt_id, version)
        require_mover(caller, before, [label])
        changed = moved_label(before, label, version)
        parts = await self._standing.check(tenant, changed, *([version] if version else []))
        return {**parts, prompt_id: before.etag} if parts else parts

    async def settle(self, tx: Transaction, caller: Caller, parts: Parts) -> None:
        """See that what `check_move` looked at is still so. Before a prompt is locked. Raises ChangedMeanwhile."""
        await self._standing.settle(tx, caller.tenant, parts)

    async def move(
        self,
        tx: Transaction,
        caller: Caller,
        prompt: Prompt,
        label: str,
        version: int,
        concluding: UUID | None = None,
    ) -> None:
        """Move a label of a prompt that is locked; `concluding` is the experiment that does it by its end.

        Raises NotFound, FailedPrecondition(PROMPT_IN_USE), PermissionDenied, InvalidArgument.
        """
        organization_id = caller.tenant.organization_id
        require_mover(caller, prompt, [label])
        await self._require_still(tx, organization_id, prompt.prompt_id, [label], concluding)
        await store.update(tx, organization_id, moved_label(prompt, label, version))
        await self._told(tx, caller, "prompt.set_label", prompt.prompt_id, {"label": label, "version": version})

    async def _new(self, caller: Caller, new: NewPrompt) -> Prompt:
        now = datetime.now(UTC)
        author = caller.tenant.user_id
        version = Version(
            new.prompt_id, 1, new.template, new.variables, (), new.message, author, now, tuple(sorted(new.labels))
        )
        prompt = Prompt(
            prompt_id=new.prompt_id,
            uid=new_id(),
            display_name=new.display_name,
            description=new.description,
            tags=new.tags,
            protected_labels=new.protected_labels,
            default_label=new.default_label,
            attributes=new.attributes,
            rules=new.rules,
            latest_version=1,
            labels=dict.fromkeys(new.labels, 1),
            etag=new_id().hex,
            created_at=now,
            updated_at=now,
            shown=await self._checking.version(version),
        )
        self._checking.rest(prompt)
        if new.protected_labels:
            require_administrator(caller, "protect labels")
        return await self._checking.whole(caller.tenant, prompt)

    async def _changed(
        self, caller: Caller, before: Prompt, changes: Mapping[str, Any], labels: tuple[str, ...]
    ) -> Prompt:
        plain = {name: value for name, value in changes.items() if name not in OF_VERSION | {"message"}}
        if set(plain.get("protected_labels", before.protected_labels)) != set(before.protected_labels):
            require_administrator(caller, "change protected labels")
        changed = replace(before, **plain, etag=new_id().hex)
        if (changed.rules, changed.default_label) != (before.rules, before.default_label):
            require_mover(caller, before, before.protected_labels)  # what is chosen in the place of one
        if _makes_version(before.shown, changes):
            changed = self._with_version(caller, changed, changes, labels)
            changed = replace(changed, shown=await self._checking.version(changed.shown))
        elif labels:
            raise InvalidArgument.field("labels", "nothing makes a new version; move labels by SetPromptLabel")
        self._checking.rest(changed)
        require_mover(caller, before, labels)
        if changed.latest_version != before.latest_version:
            changed = await self._checking.whole(caller.tenant, changed)
        return changed

    @staticmethod
    def _with_version(caller: Caller, prompt: Prompt, changes: Mapping[str, Any], labels: tuple[str, ...]) -> Prompt:
        number, shown = prompt.latest_version + 1, prompt.shown
        template = changes.get("template", shown.template)
        variables = changes.get("variables", shown.variables)
        message = changes.get("message", "")
        author, now = caller.tenant.user_id, datetime.now(UTC)
        made = Version(prompt.prompt_id, number, template, variables, (), message, author, now, tuple(sorted(labels)))
        return replace(
            prompt, latest_version=number, labels={**prompt.labels, **dict.fromkeys(labels, number)}, shown=made
        )

    async def _written(
        self, tx: Transaction, caller: Caller, action: str, prompt_id: str, details: dict[str, Any]
    ) -> Prompt:
        """What follows each change of a prompt that stays; returns it as it is now."""
        await self._told(tx, caller, action, prompt_id, details)
        return await self._remembered(tx, caller, prompt_id)

    async def _told(
        self, tx: Transaction, caller: Caller, action: str, prompt_id: str, details: dict[str, Any]
    ) -> None:
        """Every server and the audit trail hear of a change with its commit."""
        await self._heads.changed(tx, caller.tenant.organization_id, prompt_id)
        await self._audit.write(tx, caller, AuditEntry(action, prompt_name(prompt_id), details=details))

    async def _remembered(self, tx: Transaction, caller: Caller, prompt_id: str) -> Prompt:
        """The prompt as it is now: what a repeat of the request is answered."""
        prompt = found(await store.get(tx, caller.tenant.organization_id, prompt_id), prompt_id)
        await remember(tx, caller.tenant, caller.request_key, prompt)
        return prompt

    async def _require_unused(self, tx: Transaction, organization_id: UUID, prompt_id: str) -> None:
        others = await store.including(tx, organization_id, prompt_id, _MOST_NAMED)
        if others:
            names = ", ".join(prompt_name(other) for other in others)
            raise in_use(prompt_id, f"it is included by {names}; change them, or delete with force")
        for experiment in await experiment_store.running(tx, organization_id, prompt_id):
            raise in_use(prompt_id, f"{experiment.name} runs on it; stop that, or delete with force")

    @staticmethod
    async def _require_still(
        tx: Transaction, organization_id: UUID, prompt_id: str, labels: Iterable[str], concluding: UUID | None = None
    ) -> None:
        for experiment in await experiment_store.running(tx, organization_id, prompt_id):
            if experiment.label in labels and experiment.id != concluding:
                advice = f"{experiment.name} runs on its label {experiment.label!r}: stop or conclude that first"
                raise in_use(prompt_id, advice)


def _makes_version(shown: Version, changes: Mapping[str, Any]) -> bool:
    now = {"template": shown.template, "variables": shown.variables}
    return any(name in changes and changes[name] != now[name] for name in now)
