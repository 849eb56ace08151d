"""Whether a changed prompt can stand among those that it includes, also when these are changed at the same time."""

from __future__ import annotations

from collections.abc import Mapping

from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant
from stationmaster_server.db.optimistic import ChangedMeanwhile
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.prompts import store
from stationmaster_server.prompts.expanding import Expanding
from stationmaster_server.prompts.heads import Head, Heads
from stationmaster_server.prompts.model import Prompt

Parts = Mapping[str, str]
"""The prompts that a prompt is made of, however indirectly, with the etags that were believed of them."""


class Standing:
    """Looks before the transaction, for putting texts together takes its time, and inside it whether all is still so.

    Two changes at once could close a circle that neither sees: each has the other's prompt among its parts.
    """

    def __init__(self, database: Database, heads: Heads, expanding: Expanding) -> None:
        self._database = database
        self._heads = heads
        self._expanding = expanding

    async def check(self, tenant: Tenant, changed: Prompt, *numbers: int) -> Parts:
        """These versions of a prompt as it would be, and the one that others include where they name none.

        Raises FailedPrecondition (PROMPT_CYCLE, PROMPT_MISSING).
        """
        parts: dict[str, str] = {}
        usual = changed.labelled(changed.usual_label)
        for number in sorted({*numbers, *([usual] if usual else [])}):
            version = changed.shown
            if number != version.version:
                async with self._database.tenant(tenant, read=True) as tx:
                    known = await store.version(tx, tenant.organization_id, changed.prompt_id, number)
                if known is None:  # whoever asked for it says so
                    continue
                version = known
            parts |= await self._expanding.parts(tenant, Head.of(changed), version)
        return parts

    async def settle(self, tx: Transaction, tenant: Tenant, parts: Parts) -> None:
        """Hold every change of what includes others, and see that the parts are as they were.

        To be called before a prompt is locked. Raises ChangedMeanwhile.
        """
        if not parts:
            return
        await store.lock_includes(tx, tenant.organization_id)
        etags = await store.etags(tx, tenant.organization_id, parts)
        changed = [prompt_id for prompt_id, etag in parts.items() if etags.get(prompt_id) != etag]
        for prompt_id in changed:
            self._heads.forget(tenant.organization_id, prompt_id)
        if changed:
            raise ChangedMeanwhile
