"""stationmaster status and whoami: is the server well, and who am I to it."""

from __future__ import annotations

import json
import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from stationmaster_client.cli.command import Run
from stationmaster_client.cli.errors import CommandError, ExitCode
from stationmaster_client.cli.output import plain

if TYPE_CHECKING:
    from stationmaster.v1 import maintenance_pb2

    from stationmaster_client.errors import Unavailable


async def status(
    run: Run,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it again and again; Ctrl-C ends.")] = False,
    every: Annotated[float, typer.Option("--every", min=1, metavar="SECONDS", help="How often, with --watch.")] = 2.0,
) -> None:
    """Show whether the server and each of its services is well, and for operators how the whole installation is."""
    if watch:
        from stationmaster_client.cli.status_watch import watch_status

        await watch_status(run, timedelta(seconds=every))
        return
    services = dict(await run.client.health.services())
    latency = await _latency(run)
    whole = services.pop("", "UNKNOWN")
    system, away = await _system(run)
    if whole == "SERVING":  # by now, or for everything else
        away = None
    if run.out.as_json:
        _print_json(run, whole, services, latency, system, away)
    else:
        _print(run, whole, services, latency, system, away)
    if whole != "SERVING":
        why = f": {away.message}" if away else ""
        raise CommandError(f"the server is up, but not serving{why}", ExitCode.UNAVAILABLE)


def _print_json(
    run: Run,
    whole: str,
    services: dict[str, str],
    latency: float,
    system: maintenance_pb2.SystemStatus | None,
    away: Unavailable | None,
) -> None:
    from google.protobuf.json_format import MessageToDict

    from stationmaster_client.channel import client_version

    answer = {
        "target": run.client.connection.target,
        "source": run.client.connection.source,
        "status": whole,
        "services": services,
        "latencyMilliseconds": round(latency, 3),
        "clientVersion": client_version(),
    }
    if away is not None:
        answer["reason"] = away.reason
    if system is not None:
        answer["system"] = MessageToDict(system, always_print_fields_with_no_presence=True)
    sys.stdout.write(json.dumps(answer, indent=2) + "\n")


def _print(
    run: Run,
    whole: str,
    services: dict[str, str],
    latency: float,
    system: maintenance_pb2.SystemStatus | None,
    away: Unavailable | None,
) -> None:
    from rich.text import Text

    from stationmaster_client.channel import client_version
    from stationmaster_client.cli.status_shown import show_system

    def shown(state: str, why: str = "") -> Text:
        return Text(plain(state, "").strip() + why, "green" if state == "SERVING" else "bold red")

    why = f": {away.message}" if away else ""

    run.out.details(
        [
            ("server", f"{run.client.connection.target} ({run.client.connection.source})"),
            ("status", shown(whole, why)),
            ("answers in", f"{latency:.1f} ms"),
            ("client", client_version()),
        ]
    )
    run.out.print()
    run.out.table(("SERVICE", "STATUS"), ((name, shown(state)) for name, state in services.items()), empty="")
    if system is not None:
        run.out.print()
        show_system(run.out, system)


async def _system(run: Run) -> tuple[maintenance_pb2.SystemStatus | None, Unavailable | None]:
    """How the installation is, for operators; why the server, which is up, cannot do its work."""
    from stationmaster_client import errors

    try:
        return await run.client.maintenance.status(), None
    except errors.Unavailable as error:
        return None, error if error.reason else None
    except (errors.PermissionDenied, errors.Unauthenticated, errors.Unimplemented):
        return None, None


async def _latency(run: Run) -> float:
    """Milliseconds of the fastest of a few calls: the connection's, not this program's start."""
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        await run.client.health.check()
        best = min(best, time.perf_counter() - start)
    return best * 1000


async def whoami(run: Run) -> None:
    """Show who you are to the server, and what you may do."""
    from stationmaster.v1 import identity_pb2

    me = await run.client.whoami()
    if run.out.as_json:
        run.out.json(me)
        return
    run.out.details(
        [
            ("user", f"{me.user.name} {me.user.display_name}"),
            ("email", me.user.email),
            ("role", plain(identity_pb2.Role.Name(me.user.role), "ROLE")),
            ("organization", f"{me.organization.name} {me.organization.display_name}"),
            ("known by", me.method.replace("_", " ")),
            ("key", f"{me.api_key.name} {me.api_key.display_name}" if me.api_key.name else ""),
            ("scopes", ", ".join(me.scopes)),
            ("server", f"{run.client.connection.target} ({run.client.connection.source})"),
        ]
    )
