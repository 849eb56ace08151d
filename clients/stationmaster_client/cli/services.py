"""stationmaster services: what the installation does in the background. For operators."""

from __future__ import annotations

from typing import Annotated

import typer

from stationmaster_client.cli import given
from stationmaster_client.cli.command import Run, command, group
from stationmaster_client.cli.errors import CommandError
from stationmaster_client.cli.operations_shown import describe_operation, failed
from stationmaster_client.cli.service_settings import DEFAULT, by_default, plainly, spans
from stationmaster_client.cli.services_shown import columns, describe_service, row

Service = Annotated[str, typer.Argument(help="Such as session-cleanup; `services` lists them.", metavar="SERVICE")]
Setting = Annotated[
    list[str] | None,
    typer.Option("--setting", "-s", metavar="NAME=VALUE", help=f"What this service alone knows. {given.HOW}"),
]

app = group("What the installation does in the background: see it, hold it, change it, have it done. For operators.")


@command(app, "list")
async def list_services(
    run: Run,
    condition: Annotated[
        str, typer.Option("--filter", "-f", metavar="EXPRESSION", help="For example 'state = UNHEALTHY' (AIP-160).")
    ] = "",
) -> None:
    """List the background services: how each is, what it did, and when."""
    from stationmaster.v1 import maintenance_pb2

    found = [service async for service in run.client.maintenance.services(filter=condition)]
    if run.out.as_json:
        run.out.json(maintenance_pb2.ListBackgroundServicesResponse(background_services=found))
        return
    width = run.out.console.width
    run.out.table(columns(width), (row(service, width) for service in found), empty="No background services.", gap=1)
    for service in found:
        if service.metrics.errors_last_hour and service.metrics.last_error:
            run.out.note(f"{service.name.partition('/')[2]}: {service.metrics.last_error}", "yellow")


@command(app, "show", also="get")
async def show_service(run: Run, service: Service) -> None:
    """Show one background service with all that can be set and asked of it."""
    describe_service(run.out, await run.client.maintenance.service(service))


@command(app, "pause")
async def pause(
    run: Run,
    service: Service,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why, for whoever finds it paused.")] = "",
) -> None:
    """Hold a background service on every server; a run that is under way is ended."""
    changed = await run.client.maintenance.pause(service, reason)
    run.out.done(changed, f"{changed.name} is paused; `stationmaster services resume` lets it go on")


@command(app, "resume")
async def resume(run: Run, service: Service) -> None:
    """Let a paused background service go on at once, or have one that keeps failing try again now."""
    changed = await run.client.maintenance.resume(service)
    how = (
        "goes on" if changed.enabled else f"is switched off; stationmaster services set {service} --enable lets it run"
    )
    run.out.done(changed, f"{changed.name} {how}")


@command(app, "set")
async def set_service(
    run: Run,
    service: Service,
    enabled: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Whether it runs at all.", show_default=False)
    ] = None,
    interval: Annotated[
        str, typer.Option("--interval", metavar=f"SPAN|{DEFAULT}", help="The pause between two runs: 30s, 5m, 2h.")
    ] = "",
    max_failures: Annotated[
        int | None, typer.Option("--max-failures", metavar="N", help="In a row, before it counts as unhealthy.")
    ] = None,
    retry_delay: Annotated[
        str, typer.Option("--retry-delay", metavar=f"SPAN|{DEFAULT}", help="After the first failure; it doubles.")
    ] = "",
    alert_errors: Annotated[
        int | None, typer.Option("--alert-errors", metavar="N", help="So many errors an hour raise an alert; 0: none.")
    ] = None,
    alert_run_time: Annotated[
        str, typer.Option("--alert-run-time", metavar=f"SPAN|{DEFAULT}", help="Runs that take so long raise one.")
    ] = "",
    alert_memory: Annotated[
        int | None, typer.Option("--alert-memory", metavar="BYTES", help="So much left behind by runs does; 0: none.")
    ] = None,
    alert_files: Annotated[
        int | None, typer.Option("--alert-files", metavar="N", help="So many files left open do; 0: none.")
    ] = None,
    settings: Setting = None,
    reset: Annotated[
        list[str] | None,
        typer.Option("--reset", metavar="NAME", help="By default again: an option's name, or one of its own settings."),
    ] = None,
) -> None:
    """Change how a background service goes about; every server goes by it within a second."""
    changed = await run.client.maintenance.service(service)
    fields = [
        *plainly(
            changed,
            enabled=enabled,
            max_failures=max_failures,
            alert_errors_per_hour=alert_errors,
            alert_memory_growth_bytes=alert_memory,
            alert_handle_growth=alert_files,
        ),
        *spans(changed, interval=interval, retry_delay=retry_delay, alert_run_time=alert_run_time),
    ]
    own = given.values(settings or [], "--setting")
    if own:
        changed.settings.update(own)
        fields.append("settings")
    fields += by_default(changed, reset or [], {*fields, *own})
    if not fields:
        raise CommandError("nothing to change: name what, as --interval, --setting or --reset (see --help)")
    describe_service(run.out, await run.client.maintenance.update(changed, fields))


@command(app, "trigger")
async def trigger(
    run: Run,
    service: Service,
    operation: Annotated[str, typer.Argument(help="What is to be done; `services show` lists it.")] = "run",
    arguments: Annotated[
        list[str] | None,
        typer.Option("--argument", "-a", metavar="NAME=VALUE", help=f"What it has to know. {given.HOW}"),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Until it has ended; exit code 5 if it failed.")] = False,
) -> None:
    """Have some server do something that a background service offers, once."""
    from stationmaster.v1 import maintenance_pb2

    client = run.client.maintenance
    done = await client.trigger(service, operation, given.values(arguments or [], "--argument"))
    if wait:
        run.out.note(done.name)  # for whoever does not wait to the end
        done = await client.wait(done.name)
    describe_operation(run.out, done)
    if wait and done.state == maintenance_pb2.OPERATION_STATE_FAILED:
        raise failed(done)
