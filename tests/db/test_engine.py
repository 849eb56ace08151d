"""The two transactions of `Database`."""

from __future__ import annotations

from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant


async def test_a_tenant_transaction_runs_as_the_role_that_row_level_security_holds(
    database: Database, tenant: Tenant
) -> None:
    async with database.tenant(tenant, read=True) as tx:
        assert await tx.fetchval("SELECT current_user") == "stationmaster_app"
        assert await tx.fetchval("SELECT current_setting('stationmaster.user')") == tenant.user_id.hex
