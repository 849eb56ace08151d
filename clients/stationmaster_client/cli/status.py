"""stationmaster status and whoami: is the server well, and who am I to it."""

from __future__ import annotations

import json
import sys
import time

from stationmaster_client.cli.command import Run
from stationmaster_client.cli.errors import CommandError, ExitCode
from stationmaster_client.cli.output import plain


async def status(run: Run) -> None:
    """Show whether the server and each of its services is well, and how fast it answers."""
    from stationmaster_client.channel import client_version

    services = dict(await run.client.health.services())
    latency = await _latency(run)
    whole = services.pop("", "UNKNOWN")
    version = client_version()
    if run.out.as_json:
        answer = {
            "target": run.client.connection.target,
            "source": run.client.connection.source,
            "status": whole,
            "services": services,
            "latencyMilliseconds": round(latency, 3),
            "clientVersion": version,
        }
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
    else:
        from rich.text import Text

        def shown(state: str) -> Text:
            return Text(plain(state, "").strip(), "green" if state == "SERVING" else "bold red")

        run.out.details(
            [
                ("server", f"{run.client.connection.target} ({run.client.connection.source})"),
                ("status", shown(whole)),
                ("answers in", f"{latency:.1f} ms"),
                ("client", version),
            ]
        )
        run.out.print()
        run.out.table(("SERVICE", "STATUS"), ((name, shown(state)) for name, state in services.items()), empty="")
    if whole != "SERVING":
        raise CommandError("the server is not serving", ExitCode.UNAVAILABLE)


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
