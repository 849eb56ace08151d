"""What this server knows of prompts: read once, forgotten when any server changes it, believed for a second at most."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from stationmaster_server.db.engine import Database
from stationmaster_server.db.listener import Listener
from stationmaster_server.db.model import Tenant
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.prompts import customization_store, experiment_store, store
from stationmaster_server.prompts.experiment_model import Experiment
from stationmaster_server.prompts.model import Customization, Prompt, Rule, Version
from stationmaster_server.prompts.selection import by_priority
from stationmaster_server.templating.model import Variable
from stationmaster_server.templating.templates import Ready

LIFETIME = timedelta(seconds=1)
"""The promise about labels that moved, should a notification be lost."""
_MOST_BYTES = 64 * 1024 * 1024
"""Of all prompts with their versions, texts put together and customizations, about."""
_ENTRY_BYTES = 2_000
"""What anything that is kept takes besides what stands in it, about."""


@dataclass(frozen=True, slots=True)
class Filled:
    """A version with all that it includes: ready to be filled in. `parts` are the prompts that it is made of."""

    ready: Ready
    variables: tuple[Variable, ...]
    parts: frozenset[str]
    absent: frozenset[str]
    """Variables that are left out when they are not given: the template has something in their place."""

    @property
    def is_lasting(self) -> bool:
        """Whether it is made of nothing but a version, which never changes."""
        return len(self.parts) == 1


@dataclass(slots=True)
class Head:
    """A prompt as it stands, and what was found out about it on the way."""

    prompt: Prompt
    rules: tuple[tuple[int, Rule], ...]
    until: float
    experiments: Sequence[Experiment] = ()
    """Those that run."""
    versions: dict[int, Version] = field(default_factory=dict)
    filled: dict[int, Filled] = field(default_factory=dict)
    customizations: dict[UUID, Mapping[str, Customization]] = field(default_factory=dict)
    """Of each user that rendered it, by agent."""
    composed: dict[UUID, tuple[Filled, Ready]] = field(default_factory=dict)
    """By customization: what it was put together with, and the whole."""
    size: int = 0
    """In bytes, about."""
    lasting: int = 0
    """Of it what the prompt's next head takes over."""

    @classmethod
    def of(cls, prompt: Prompt, experiments: Sequence[Experiment] = ()) -> Head:
        """A prompt as it was just read."""
        until = time.monotonic() + LIFETIME.total_seconds()
        return cls(prompt, by_priority(prompt.rules), until, experiments, {prompt.shown.version: prompt.shown})


class Heads:
    """One for each process. Changes are heard of from every server, this one's own at once."""

    def __init__(self, database: Database, listener: Listener) -> None:
        self._database = database
        self._kept: dict[UUID, dict[str, Head]] = {}
        self._size = 0
        self.generation = 0
        """Grows with all that is forgotten: what was found out across such a moment must not be kept."""
        self._asking: dict[tuple[UUID, str], asyncio.Task[Head | None]] = {}
        listener.add(store.CHANNEL, self._heard)

    def kept(self, organization_id: UUID, prompt_id: str) -> Head | None:
        """What is known without asking."""
        of_organization = self._kept.get(organization_id)
        head = of_organization.get(prompt_id) if of_organization is not None else None
        return head if head is not None and time.monotonic() < head.until else None

    async def get(self, tenant: Tenant, prompt_id: str) -> Head | None:
        """A prompt as it stands; None when there is none."""
        head = self.kept(tenant.organization_id, prompt_id)
        if head is not None:
            return head
        key = (tenant.organization_id, prompt_id)
        asking = self._asking.get(key)
        if asking is None:
            asking = self._asking[key] = asyncio.create_task(self._ask(tenant, prompt_id), name="read a prompt")
        return await asyncio.shield(asking)

    async def version(self, tenant: Tenant, head: Head, number: int) -> Version | None:
        """One version of a prompt."""
        known = head.versions.get(number)
        if known is None:
            async with self._database.tenant(tenant, read=True) as tx:
                known = await store.version(tx, tenant.organization_id, head.prompt.prompt_id, number)
            if known is not None:
                head.versions[number] = known
                self.grew(tenant.organization_id, head, known, lasting=True)
        return known

    async def customizations(self, tenant: Tenant, head: Head) -> Mapping[str, Customization]:
        """What the user wants of the prompt, by agent."""
        known = head.customizations.get(tenant.user_id)
        if known is None:
            async with self._database.tenant(tenant, read=True) as tx:
                known = await customization_store.of_user(tx, tenant, head.prompt.prompt_id)
            head.customizations[tenant.user_id] = known
            self.grew(tenant.organization_id, head, known)
        return known

    def grew(self, organization_id: UUID, head: Head, by: object, *, lasting: bool = False) -> None:
        """Count something more that a head holds; when all hold too much, all are forgotten."""
        added = _size(by)
        head.size += added
        head.lasting += added if lasting else 0
        if self._kept.get(organization_id, {}).get(head.prompt.prompt_id) is head:
            self._size += added
            self._bound()

    async def changed(self, tx: Transaction, organization_id: UUID, prompt_id: str) -> None:
        """A transaction changes a prompt: with its commit, every server forgets what it knew of it."""
        await store.notify(tx, organization_id, prompt_id)
        tx.after_commit(lambda: self.forget(organization_id, prompt_id))

    def forget(self, organization_id: UUID, prompt_id: str) -> None:
        """Believe nothing of a prompt any more, nor of what is made of it, nor what is being asked just now."""
        self.generation += 1
        self._asking.pop((organization_id, prompt_id), None)
        of_organization = self._kept.get(organization_id)
        if of_organization is None:
            return
        gone = of_organization.pop(prompt_id, None)
        self._size -= gone.size if gone is not None else 0
        for head in of_organization.values():
            for number in [n for n, filled in head.filled.items() if prompt_id in filled.parts]:
                del head.filled[number]

    def _heard(self, payload: str | None) -> None:
        if payload is None:
            self.generation += 1
            self._clear()
            self._asking.clear()
        else:
            organization, _, prompt_id = payload.partition("/")
            self.forget(UUID(organization), prompt_id)

    async def _ask(self, tenant: Tenant, prompt_id: str) -> Head | None:
        key, task = (tenant.organization_id, prompt_id), asyncio.current_task()
        try:
            async with self._database.tenant(tenant, read=True) as tx:
                prompt = await store.get(tx, tenant.organization_id, prompt_id)
                if prompt is None:
                    return None
                experiments = await experiment_store.running(tx, tenant.organization_id, prompt_id)
            head = Head.of(prompt, experiments)
            if self._asking.get(key) is task:
                self._keep(tenant.organization_id, head)
            return head
        finally:
            if self._asking.get(key) is task:
                del self._asking[key]

    def _keep(self, organization_id: UUID, head: Head) -> None:
        of_organization = self._kept.setdefault(organization_id, {})
        before = of_organization.get(head.prompt.prompt_id)
        head.size = _size(head.prompt)
        if before is not None:
            self._size -= before.size
            if before.prompt.etag == head.prompt.etag and before.prompt.uid == head.prompt.uid:
                head.versions |= before.versions
                head.filled |= {n: filled for n, filled in before.filled.items() if filled.is_lasting}
                head.lasting = before.lasting
                head.size += head.lasting
        of_organization[head.prompt.prompt_id] = head
        self._size += head.size
        self._bound()

    def _bound(self) -> None:
        """Whoever has most makes room: nobody's prompts are read anew because of somebody else's."""
        if self._size > _MOST_BYTES and self._kept:
            sizes = {one: sum(head.size for head in heads.values()) for one, heads in self._kept.items()}
            largest = max(sizes, key=sizes.__getitem__)
            del self._kept[largest]
            self._size = sum(sizes.values()) - sizes[largest]

    def _clear(self) -> None:
        self._kept.clear()
        self._size = 0


def _size(held: object) -> int:
    """About how many bytes it takes: it is texts for the most part."""
    return _ENTRY_BYTES + len(repr(held))
