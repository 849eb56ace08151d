"""stationmaster operations: what background services were asked to do."""

from __future__ import annotations

from typing import Annotated

import typer

from stationmaster_client.cli import resolve
from stationmaster_client.cli.command import Run, command, group
from stationmaster_client.cli.listing import show
from stationmaster_client.cli.operations_shown import describe_operation, failed, row
from stationmaster_client.cli.options import Filter, Limit, OrderBy

Operation = Annotated[
    str, typer.Argument(help="Id or name; the end of an id is enough, - is the newest.", metavar="OPERATION")
]

app = group("What background services were asked to do (stationmaster services trigger), and what came of it.")


@command(app, "list")
async def list_operations(run: Run, condition: Filter = "", order_by: OrderBy = "", limit: Limit = 50) -> None:
    """List operations, newest first (-f 'state = FAILED')."""
    from stationmaster.v1 import maintenance_pb2

    from stationmaster_client.cli.options import query

    await show(
        run.out,
        run.client.maintenance.operations(**query(condition, order_by, limit)),
        maintenance_pb2.ListOperationsResponse(),
        "operations",
        limit=limit,
        columns=("OPERATION", "SERVICE", "WHAT", "STATE", "AGE", "TOOK", "RESULT"),
        row=row,
        empty="No operations.",
    )


@command(app, "show", also="get")
async def show_operation(
    run: Run,
    operation: Operation,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Until it has ended; exit code 5 if it failed.")] = False,
) -> None:
    """Show one operation."""
    from stationmaster.v1 import maintenance_pb2

    client = run.client.maintenance
    operation = await resolve.operation(run.client, operation)
    found = await (client.wait(operation) if wait else client.operation(operation))
    describe_operation(run.out, found)
    if wait and found.state == maintenance_pb2.OPERATION_STATE_FAILED:
        raise failed(found)
