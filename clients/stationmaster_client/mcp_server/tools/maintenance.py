"""What Stationmaster does in the background: how that goes, how it is set, and having it done now."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field
from stationmaster.v1 import maintenance_pb2

from stationmaster_client.maintenance import RESETTABLE, by_default
from stationmaster_client.mcp_server.answer import Answer, compact, facts, moment, plain, struct
from stationmaster_client.mcp_server.caller import Call
from stationmaster_client.mcp_server.tool import changes, reads
from stationmaster_client.names import full, last

ServiceName = Annotated[str, Field(description="The background service, such as task-embedding.")]
Wait = Annotated[float, Field(ge=0, le=600, description="How long to wait for its end; then it goes on by itself.")]


class Service(Answer):
    """One background service."""

    name: str
    description: str
    state: str = Field(description="idle, running, paused, disabled, failing or unhealthy")
    enabled: bool
    interval_seconds: float
    settings: dict[str, Any]
    settings_help: dict[str, str]
    operations_completed: int
    operations_failed: int
    operations_retried: int
    average_processing_seconds: float
    last_run: str
    last_success: str
    errors_last_hour: int
    last_error: str
    pause_reason: str
    max_failures: int

    def text(self) -> str:
        """All that is known."""
        meaning = "; ".join(f"{name}: {what}" for name, what in sorted(self.settings_help.items()))
        return facts(
            background_service=f"{self.name}: {self.description}",
            state=self.state,
            why_paused=self.pause_reason,
            every=f"{self.interval_seconds:g} s",
            completed=self.operations_completed,
            failed=self.operations_failed or "",
            retried=self.operations_retried or "",
            average=f"{self.average_processing_seconds:.3f} s",
            last_run=self.last_run,
            last_success=self.last_success,
            errors_within_the_last_hour=self.errors_last_hour or "",
            last_error=self.last_error,
            settings=compact(self.settings) if self.settings else "",
            settings_mean=meaning,
        )

    def line(self) -> str:
        """The service on one line."""
        wrong = f", {self.errors_last_hour} errors within the last hour: {self.last_error}"
        did = f"{self.operations_completed} runs, last {self.last_run or 'never'}"
        return f"{self.name} is {self.state}: {did}{wrong if self.errors_last_hour else ''}"


class Services(Answer):
    """The background services, those first that somebody should look at."""

    services: list[Service]

    def text(self) -> str:
        """One line each."""
        return "\n".join(service.line() for service in self.services)


class Operation(Answer):
    """What a background service was asked to do."""

    name: str
    service: str
    operation: str
    state: str = Field(description="queued, running, succeeded or failed")
    result: dict[str, Any]
    error: str

    def text(self) -> str:
        """How it stands."""
        return facts(
            operation=f"{self.name}: {self.operation} of {self.service}",
            state=self.state,
            result=compact(self.result, 4_000) if self.result else "",
            error=self.error,
        )

    def failed(self) -> bool:
        """Whether it was tried in vain."""
        return self.state == "failed"


@reads("Background services")
async def get_background_service_status(call: Call, service: ServiceName = "") -> Services:
    """Show how the background services are: state, runs, errors. With `service` that one alone. For operators."""
    client = call.client.maintenance
    if service:
        return Services(services=[_service(await client.service(service))])
    found = [_service(each) async for each in client.services()]
    return Services(services=sorted(found, key=lambda one: (one.state not in _BAD, not one.errors_last_hour, one.name)))


_BAD = ("unhealthy", "failing")


@changes("Configure a background service", idempotent=True)
async def configure_background_service(
    call: Call,
    service: ServiceName,
    enabled: Annotated[bool | None, Field(description="Whether it runs at all.")] = None,
    paused: Annotated[bool | None, Field(description="Hold it for a while, or let it go on.")] = None,
    reason: Annotated[str, Field(description="Why it is paused.")] = "",
    interval_seconds: Annotated[float | None, Field(gt=0, description="The pause between two runs.")] = None,
    max_failures: Annotated[int | None, Field(ge=0, description="In a row, before it counts as unhealthy.")] = None,
    settings: Annotated[dict[str, Any] | None, Field(description="Its own settings; those not named stay.")] = None,
    reset: Annotated[
        list[str] | None, Field(description=f"What is by default again: {', '.join(RESETTABLE)}, or own settings.")
    ] = None,
) -> Service:
    """Change how a background service goes about, on every server. What is not named stays as it is. For operators."""
    client = call.client.maintenance
    found = await client.service(service)
    fields = []
    for name, value in (("enabled", enabled), ("max_failures", max_failures)):
        if value is not None:
            setattr(found, name, value)
            fields.append(name)
    if interval_seconds is not None:
        found.interval.FromMicroseconds(round(interval_seconds * 1_000_000))
        fields.append("interval")
    if settings is not None:
        found.settings.update(settings)
        fields.append("settings")
    if twice := sorted({*fields, *(settings or {})} & set(reset or [])):
        raise ToolError(f"reset: {', '.join(twice)}: either set or by default again")
    try:
        fields += by_default(found, reset or [])
    except ValueError as error:
        raise ToolError(f"reset: {error}") from None
    if fields:
        found = await client.update(found, fields)
    if paused is not None:
        found = await (client.pause(service, reason) if paused else client.resume(service))
    return _service(found)


@changes("Optimize indexes", idempotent=True)
async def trigger_index_optimization(call: Call, wait_seconds: Wait = 60) -> Operation:
    """Vacuum and analyze the database's tables now, and make swollen indexes anew. For operators."""
    return await _done(call, "index-optimization", "optimize", {}, wait_seconds)


@changes("Embed a task", idempotent=True)
async def force_task_embedding(
    call: Call,
    task: Annotated[str, Field(description="The task: tasks/{id}, or the id alone.")],
    wait_seconds: Wait = 60,
) -> Operation:
    """Embed one task of the organization now, so that search finds it by meaning. After changes that happens anyway."""
    return await _done(call, "task-embedding", "embed-task", {"task": full("tasks", task)}, wait_seconds)


async def _done(call: Call, service: str, operation: str, arguments: dict[str, Any], wait_seconds: float) -> Operation:
    """Have it done, and wait for its end for a while."""
    client = call.client.maintenance
    found = await client.trigger(service, operation, arguments)
    await call.progress(f"{found.name} is queued")
    try:
        async with asyncio.timeout(wait_seconds):
            found = await client.wait(found.name)
    except TimeoutError:
        found = await client.operation(found.name)
    return Operation(
        name=found.name,
        service=last(found.service),
        operation=found.operation,
        state=plain(maintenance_pb2.OperationState.Name(found.state), "OPERATION_STATE"),
        result=struct(found.result),
        error=found.error,
    )


def _service(service: maintenance_pb2.BackgroundService) -> Service:
    metrics = service.metrics
    return Service(
        name=last(service.name),
        description=service.description,
        state=plain(maintenance_pb2.BackgroundServiceState.Name(service.state), "BACKGROUND_SERVICE_STATE"),
        enabled=service.enabled,
        interval_seconds=service.interval.ToTimedelta().total_seconds(),
        settings=struct(service.settings),
        settings_help=dict(service.settings_help),
        operations_completed=metrics.completed,
        operations_failed=metrics.failed,
        operations_retried=metrics.retried,
        average_processing_seconds=metrics.average_time.ToTimedelta().total_seconds(),
        last_run=moment(metrics.last_run_time),
        last_success=moment(metrics.last_success_time),
        errors_last_hour=metrics.errors_last_hour,
        last_error=metrics.last_error,
        pause_reason=service.pause_reason,
        max_failures=service.max_failures,
    )
