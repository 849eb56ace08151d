"""Exit codes, and failures as people read them."""

from __future__ import annotations

import os
import re
from enum import IntEnum
from typing import TYPE_CHECKING

from stationmaster_client.connection import config_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stationmaster_client.connection import Connection
    from stationmaster_client.errors import StationmasterError


class ExitCode(IntEnum):
    """What the process ends with; scripts rely on it (docs/guides/command-line.md)."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    NOT_FOUND = 3
    DENIED = 4
    CONFLICT = 5
    EXHAUSTED = 6
    UNAVAILABLE = 7
    DEADLINE = 8
    CANCELLED = 9
    INTERRUPTED = 130


class CommandError(Exception):
    """A command cannot go on; the message says why and what to do instead."""

    def __init__(self, message: str, code: ExitCode = ExitCode.USAGE) -> None:
        super().__init__(message)
        self.code = code


EXIT_CODES = {
    "INVALID_ARGUMENT": ExitCode.USAGE,
    "OUT_OF_RANGE": ExitCode.USAGE,
    "NOT_FOUND": ExitCode.NOT_FOUND,
    "PERMISSION_DENIED": ExitCode.DENIED,
    "UNAUTHENTICATED": ExitCode.DENIED,
    "ALREADY_EXISTS": ExitCode.CONFLICT,
    "ABORTED": ExitCode.CONFLICT,
    "FAILED_PRECONDITION": ExitCode.CONFLICT,
    "RESOURCE_EXHAUSTED": ExitCode.EXHAUSTED,
    "UNAVAILABLE": ExitCode.UNAVAILABLE,
    "DEADLINE_EXCEEDED": ExitCode.DEADLINE,
}

HINTS = {
    "AGENT_IN_USE": "Terminate its sessions first, or delete it with --force.",
    "ACCESS_NOT_GRANTED": "Its owner can let you: stationmaster credentials grant CREDENTIAL --to users/…",
    "CREDENTIALS_EXPIRED": "Ask for a new key: stationmaster keys create.",
    "CREDENTIALS_INVALID": "Is the key one of this server's? Set STATIONMASTER_API_KEY.",
    "CREDENTIALS_REVOKED": "Ask for a new key: stationmaster keys create.",
    "ENCRYPTION_KEY_UNAVAILABLE": "Whoever runs the server sees why: stationmaster credentials key-status.",
    "ETAG_MISMATCH": "Somebody changed it meanwhile. Look at it again and repeat the change.",
    "MCP_SERVER_UNAVAILABLE": "See what is wrong with it: stationmaster mcp-servers check SERVER.",
    "MODEL_UNAVAILABLE": "See which models there are: stationmaster agents models.",
    "SCOPE_MISSING": "Use a key with this scope; yours are listed by: stationmaster whoami.",
    "SESSION_BUSY": "Wait for its turn, or cancel it: stationmaster sessions cancel.",
}


# What the server calls by the names of its contract, and what that is here.
_HERE = {
    "ResumeSession": "stationmaster sessions resume",
    "ForkSession": "stationmaster sessions fork",
    "SetPromptLabel": "stationmaster prompts label",
    "DeleteFile": "stationmaster files rm",
    "UploadFile": "stationmaster files put",
    "ArchiveWorkspace": "stationmaster archives create",
    "make_new": "--new",
    "skip_trial": "--untried",
}
_NAMES = re.compile(rf"\b({'|'.join(_HERE)})\b")
_BY_TIME = {
    "max_calls_per_hour": "calls an hour",
    "max_cost_micros_per_day": "millionths of a dollar a day",
    "max_tokens_per_day": "tokens a day",
    "max_tool_calls_per_day": "tool calls a day",
    "max_running_time_per_day": "running time a day",
}
_NOT_BY_TIME = {
    "max_concurrent_sessions": "sessions at once",
    "max_storage_bytes": "storage",
    "max_users": "users",
}
"""Limits that no waiting makes room in."""
_CALL_OR = re.compile(r"\(\w+, or: ")


def exit_code(error: StationmasterError) -> ExitCode:
    """The exit code that a failed call ends the command with."""
    return EXIT_CODES.get(error.code.name, ExitCode.UNEXPECTED)


def explain(error: StationmasterError, connection: Connection | None) -> Iterator[str]:
    """Lines that say what happened, what to do about it, and what to quote when asking for help."""
    if error.code.name == "UNAVAILABLE" and not error.reason and connection is not None:
        yield f"The server at {connection.target} cannot be reached: {_shorter(error.message)}"
        yield f"Is it running (stationmaster-server serve)? The address came from: {connection.source}."
        if connection.source == "default":
            yield "A server with another data folder is found by STATIONMASTER_DATA_FOLDER; any by --target."
        return
    if error.code.name == "DEADLINE_EXCEEDED" and not error.reason:
        yield "No answer came in time; --timeout SECONDS gives it longer."
        return
    yield _as_here(error.message)
    for violation in error.violations:
        line = f"{violation.subject}: {violation.description}" if violation.subject else violation.description
        if violation.description not in error.message:
            yield f"  {_as_here(line)}"
    if error.reason == "CREDENTIALS_MISSING":
        yield f"Set STATIONMASTER_API_KEY, or name a context of {config_file(os.environ)}."
    elif hint := HINTS.get(error.reason):
        yield hint
    elif error.retry_after is not None and not any(name in error.message for name in _NOT_BY_TIME):
        yield f"Try again in {error.retry_after.total_seconds():.0f} s."
    request = f", request {error.request_id}" if error.request_id else ""
    yield f"({error.reason or error.code.name}{request})"


def _as_here(text: str) -> str:
    """The text with commands, options and words for the methods, fields and limits that the server names."""
    text = _NAMES.sub(lambda name: _HERE[name[0]], _CALL_OR.sub("(", text))
    for name, words in {**_BY_TIME, **_NOT_BY_TIME}.items():
        text = text.replace(f"{name} is ", f"the limit of {words} is ")
    return text


def _shorter(text: str) -> str:
    """The cause at the end of gRPC's text, after the list of addresses tried."""
    return text.rpartition(": ")[2].removesuffix("]")
