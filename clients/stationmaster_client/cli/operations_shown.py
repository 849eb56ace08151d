"""How operations are shown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from stationmaster_client.cli import resolve
from stationmaster_client.cli.errors import CommandError, ExitCode
from stationmaster_client.cli.output import Output, age, moment, plain
from stationmaster_client.cli.progress import between
from stationmaster_client.cli.transcript import shorten
from stationmaster_client.names import last
from stationmaster_client.structs import values

if TYPE_CHECKING:
    from rich.text import Text
    from stationmaster.v1 import maintenance_pb2

_STYLES = {"succeeded": "green", "failed": "red", "running": "cyan"}


def row(operation: maintenance_pb2.Operation) -> tuple[str | Text, ...]:
    """A line of the table."""
    return (
        resolve.short(operation.name),
        last(operation.service),
        operation.operation,
        _state(operation),
        age(operation.create_time),
        between(operation.start_time, operation.finish_time),
        shorten(operation.error or _json(operation)),
    )


def describe_operation(out: Output, operation: maintenance_pb2.Operation) -> None:
    """All of one operation: as the message, or for people."""
    if out.as_json:
        out.json(operation)
        return
    arguments = values(operation.arguments)
    out.details(
        [
            ("operation", operation.name),
            ("service", last(operation.service)),
            ("what", operation.operation),
            ("arguments", json.dumps(arguments, ensure_ascii=False) if arguments else ""),
            ("state", _state(operation)),
            ("attempts", str(operation.attempts) if operation.attempts > 1 else ""),
            ("asked for", f"{moment(operation.create_time)} by {operation.owner}"),
            ("ended", moment(operation.finish_time)),
            ("took", between(operation.start_time, operation.finish_time)),
            ("result", _json(operation)),
            ("error", operation.error),
        ]
    )


def failed(operation: maintenance_pb2.Operation) -> CommandError:
    """What to say of an operation that was waited for and failed."""
    return CommandError(f"{operation.name} failed: {operation.error}", ExitCode.CONFLICT)


def _state(operation: maintenance_pb2.Operation) -> Text:
    from rich.text import Text
    from stationmaster.v1 import maintenance_pb2

    state = plain(maintenance_pb2.OperationState.Name(operation.state), "OPERATION_STATE")
    return Text(state, _STYLES.get(state, ""))


def _json(operation: maintenance_pb2.Operation) -> str:
    result = values(operation.result)
    return json.dumps(result, ensure_ascii=False) if result else ""
