"""What goes on in the background, seen and told to."""

from __future__ import annotations

from stationmaster.v1 import maintenance_pb2

from stationmaster_client.demo.stage import Stage

SERVICE = "index-optimization"
_ILL = (
    maintenance_pb2.BACKGROUND_SERVICE_STATE_FAILING,
    maintenance_pb2.BACKGROUND_SERVICE_STATE_UNHEALTHY,
)


async def play(stage: Stage) -> None:
    """Every background service is well, and one of them does at once what it is told."""
    client, programme = stage.client, stage.programme
    programme.act("Background services")
    services = [service async for service in client.maintenance.services()]
    ill = [service.name for service in services if service.state in _ILL]
    ran = sum(any(_runs(server, stage.pid) for server in service.servers) for service in services)
    well = ran > 0 and not ill
    detail = ", ".join(ill) or f"{len(services)}, of which {ran} have run since"
    programme.check("Maintenance", "after the crash all of them are well", well, detail)
    operation = await client.maintenance.trigger(SERVICE)
    ended = await client.maintenance.wait(operation.name)
    done = ended.state == maintenance_pb2.OPERATION_STATE_SUCCEEDED
    state = maintenance_pb2.OperationState.Name(ended.state).removeprefix("OPERATION_STATE_")
    programme.check("Maintenance", f"{SERVICE} runs when it is told to", done, state)


def _runs(server: maintenance_pb2.BackgroundServiceOnServer, pid: int) -> bool:
    """Whether it has run in this process."""
    return server.server.endswith(f"/{pid}") and server.HasField("last_run_time")
