"""`stationmaster`: the command line."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from stationmaster_client.cli import (
    agents,
    archives,
    audit,
    credential_keys,  # noqa: F401 - these add their commands to those of credentials
    credential_versions,  # noqa: F401
    credentials,
    executions,
    experiments,
    keys,
    mcp_contents,  # noqa: F401 - adds its commands to those of mcp_servers
    mcp_servers,
    operations,
    organizations,
    permissions,
    policies,
    prompt_uses,  # noqa: F401 - adds its commands to those of prompts
    prompts,
    quota,
    reports,
    schedules,
    services,
    session_contents,  # noqa: F401 - adds its commands to those of sessions
    sessions,
    task_changes,  # noqa: F401 - these add their commands to those of tasks
    task_links,  # noqa: F401
    task_runs,  # noqa: F401
    tasks,
    users,
    workspace_files,
)
from stationmaster_client.cli.chat import chat
from stationmaster_client.cli.command import command, group
from stationmaster_client.cli.mcp import mcp
from stationmaster_client.cli.queue import queue
from stationmaster_client.cli.status import status, whoami
from stationmaster_client.cli.usage import usage

app = group(
    "Talk to agents, and look after a Stationmaster server.",
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 ok, 1 unexpected, 2 usage, 3 not found, 4 denied, 5 conflict, 6 quota or rate, "
    "7 unavailable, 8 deadline, 9 cancelled, 130 interrupted.",
)
command(app, "chat")(chat)
app.add_typer(sessions.app, name="sessions")
app.add_typer(permissions.app, name="permissions")
app.add_typer(policies.app, name="policies")
app.add_typer(agents.app, name="agents")
app.add_typer(prompts.app, name="prompts")
app.add_typer(experiments.app, name="experiments")
app.add_typer(mcp_servers.app, name="mcp-servers")
app.add_typer(tasks.app, name="tasks")
app.add_typer(executions.app, name="executions")
app.add_typer(schedules.app, name="schedules")
command(app, "queue")(queue)
app.add_typer(workspace_files.app, name="files")
command(app, "usage")(usage)
app.add_typer(archives.app, name="archives")
app.add_typer(reports.app, name="reports")
app.add_typer(credentials.app, name="credentials")
app.add_typer(users.app, name="users")
app.add_typer(keys.app, name="keys")
app.add_typer(quota.app, name="quota")
app.add_typer(organizations.app, name="organizations")
app.add_typer(audit.app, name="audit")
app.add_typer(services.app, name="services")
app.add_typer(operations.app, name="operations")
command(app, "mcp")(mcp)
command(app, "whoami")(whoami)
command(app, "status")(status)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        sys.stdout.write(f"stationmaster {version('stationmaster')}\n")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Talk to agents, and look after a Stationmaster server."""


def main() -> None:
    """Run the command line."""
    # gRPC's core writes its own log to standard error, which is ours to keep readable.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    app()


if __name__ == "__main__":
    main()
