"""How the command line is started: what it may do, what it is told, and the little that it sees of its surroundings."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from uuid import UUID

import claude_agent_sdk

from stationmaster_server.agents.runtimes.claude.names import SERVER
from stationmaster_server.agents.runtimes.retries import Retries

CONTINUE = "Continue from where you left off."
"""What the model is told, behind the results of its tools, when another process takes its turn up."""
_FOREVER_MS = str(7 * 24 * 3600 * 1000)
_QUIET = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "1",
    "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",
    "CLAUDE_CODE_DISABLE_FILE_CHECKPOINTING": "1",
    "CLAUDE_CODE_DISABLE_TERMINAL_TITLE": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_BUG_COMMAND": "1",
    "DISABLE_COST_WARNINGS": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
# What would make the command line call the model without our knowing, or another model, or at another price, or answer
# otherwise than our tools did.
_NOTHING_OF_ITS_OWN = {
    "CLAUDE_CODE_DISABLE_LEGACY_MODEL_REMAP": "1",
    "CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK": "1",
    "DISABLE_COMPACT": "1",
    "DISABLE_AUTO_COMPACT": "1",
    "ENABLE_TOOL_SEARCH": "false",
    "FORCE_PROMPT_CACHING_5M": "1",
    "MAX_MCP_OUTPUT_TOKENS": "10000000",
    "MCP_TOOL_TIMEOUT": _FOREVER_MS,
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command line lives: the session's files, and a private folder for what it keeps itself."""

    session_id: UUID
    workspace: Path
    home: Path

    @property
    def instructions(self) -> Path:
        """What the model is told first: on the command line every user of this machine could read it."""
        return self.home / "instructions.txt"


@dataclass(frozen=True, slots=True)
class Asking:
    """What it asks its model with. Another one needs another command line."""

    model: str
    instructions: str
    max_output_tokens: int


def command(place: Place, asking: Asking, *, resume: bool) -> list[str]:
    """The command line: without tools of its own, settings of anybody or servers but ours."""
    servers = {"mcpServers": {SERVER: {"type": "sdk", "name": SERVER}}}
    return [
        str(program()),
        *("--output-format", "stream-json", "--input-format", "stream-json", "--verbose"),
        *("--session-mirror", "--strict-mcp-config"),
        f"--system-prompt-file={place.instructions}",
        "--tools=",
        "--setting-sources=",
        f"--model={asking.model}",
        f"--mcp-config={json.dumps(servers)}",
        "--permission-prompt-tool=stdio",
        "--permission-mode=default",
        f"--{'resume' if resume else 'session-id'}={place.session_id}",
    ]


def environment(
    place: Place, asking: Asking, url: str, token: str, retries: Retries, *, going_on: bool
) -> dict[str, str]:
    """All that it sees. Of this server's environment only where programs are and which language is spoken."""
    return dict(_variables(place, asking, url, token, retries, going_on=going_on))


def _variables(
    place: Place, asking: Asking, url: str, token: str, retries: Retries, *, going_on: bool
) -> Iterator[tuple[str, str]]:
    for name in ("PATH", "LANG", "LC_ALL", "TZ", "SYSTEMROOT"):
        if name in os.environ:
            yield name, os.environ[name]
    for name in ("HOME", "CLAUDE_CONFIG_DIR", "TMPDIR", "CLAUDE_CODE_TMPDIR"):
        yield name, str(place.home)
    yield "PWD", str(place.workspace)
    yield "ANTHROPIC_API_KEY", token
    yield "ANTHROPIC_BASE_URL", url
    yield "CLAUDE_CODE_ENTRYPOINT", "sdk-py"
    yield "CLAUDE_AGENT_SDK_VERSION", claude_agent_sdk.__version__
    yield "CLAUDE_AGENT_SDK_CLIENT_APP", "stationmaster"
    yield "CLAUDE_CODE_MAX_OUTPUT_TOKENS", str(asking.max_output_tokens)
    yield "CLAUDE_CODE_MAX_RETRIES", str(retries.attempts - 1)
    yield "API_TIMEOUT_MS", _FOREVER_MS
    yield from _QUIET.items()
    yield from _NOTHING_OF_ITS_OWN.items()
    if going_on:
        yield "CLAUDE_CODE_RESUME_INTERRUPTED_TURN", "1"
        yield "CLAUDE_CODE_RESUME_PROMPT", CONTINUE


@cache
def program() -> Path:
    """The program that came with the SDK."""
    return Path(claude_agent_sdk.__file__).parent / "_bundled" / ("claude.exe" if os.name == "nt" else "claude")
