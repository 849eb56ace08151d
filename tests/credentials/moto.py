"""moto's server, which is AWS KMS here; in an environment of its own, as its libraries and Kubernetes' do not agree."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2

from tests.waiting import until

REQUIREMENT = "moto[server]==5.2.5"


def install() -> Path:
    """The folder of its programs, after installing it unless it is there; one process at a time."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stationmaster-tests"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"moto-python{sys.version_info.major}.{sys.version_info.minor}"
    with (cache / "moto.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        mark = folder / "installed.txt"
        if not mark.exists() or mark.read_text() != REQUIREMENT:
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            subprocess.run([folder / "bin" / "pip", "install", "--quiet", REQUIREMENT], check=True)
            mark.write_text(REQUIREMENT)
    return folder / "bin"


@asynccontextmanager
async def serving() -> AsyncIterator[str]:
    """The URL of a server, for as long as the block."""
    programs = await asyncio.to_thread(install)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    process = await asyncio.create_subprocess_exec(
        programs / "moto_server",
        "-p",
        str(port),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await until(lambda: _answers(url), seconds=60)
        yield url
    finally:
        process.kill()
        await process.wait()


async def _answers(url: str) -> bool:
    async with httpx2.AsyncClient(trust_env=False) as client:
        try:
            return (await client.get(f"{url}/moto-api/data.json")).status_code == 200
        except httpx2.HTTPError:
            return False
