"""A private environment for a peer, in a cache folder: never a dependency of this project."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

from benchmarks.processes import stop
from benchmarks.skip import Skipped

INSTALL_LIMIT = 240.0


def cache_folder() -> Path:
    """Where environments are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stationmaster-benchmarks"


async def environment(name: str, requirements: tuple[str, ...]) -> Path:
    """The folder of the environment's programs, after installing what is missing. Raises Skipped."""
    folder = cache_folder() / f"{name}-python{sys.version_info.major}.{sys.version_info.minor}"
    mark = folder / "installed.txt"
    wanted = "\n".join(requirements)
    if not mark.exists() or mark.read_text() != wanted:
        print(f"installing {name} for comparison (at most {INSTALL_LIMIT:.0f} s, once)", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            async with asyncio.timeout(INSTALL_LIMIT):
                await _run(sys.executable, "-m", "venv", str(folder))
                await _run(str(folder / "bin" / "pip"), "install", "--quiet", *requirements)
        except TimeoutError:
            raise Skipped(f"{name} could not be installed within {INSTALL_LIMIT:.0f} s") from None
        mark.write_text(wanted)
    return folder / "bin"


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        _, errors = await process.communicate()
    finally:
        await stop(process)
    if process.returncode:
        lines = [line for line in errors.decode(errors="replace").splitlines() if line.startswith("ERROR")]
        raise Skipped(f"{Path(command[0]).name} failed: {lines[-1] if lines else process.returncode}"[:200])
