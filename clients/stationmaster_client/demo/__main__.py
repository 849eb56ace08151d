"""Runs the demo: 0 when every promise was kept, 1 when not."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

# gRPC's core would write about the killed server to standard error.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from rich.console import Console

from stationmaster_client.demo.server import DemoFailure, temporary_server
from stationmaster_client.demo.story import Story
from stationmaster_client.errors import StationmasterError


async def run(console: Console, model_folder: Path | None) -> bool:
    """Tell the story; the server and its folder are gone afterwards."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with temporary_server(model_folder) as server:
        return await Story(console, server).tell()


def _model_folder(arguments: list[str]) -> Path | None:
    """`--model-folder DIR`: where `stationmaster-server models fetch` put the model; None when it is not there."""
    match arguments:
        case []:
            return None
        case ["--model-folder", folder]:
            return Path(folder) if Path(folder).is_dir() else None
        case _:
            raise DemoFailure("it takes nothing but --model-folder DIR")


def main() -> int:
    """Run the demo and return the exit code."""
    console = Console(highlight=False, markup=False, emoji=False)
    errors = Console(stderr=True, highlight=False, markup=False, emoji=False)
    try:
        if asyncio.run(run(console, _model_folder(sys.argv[1:]))):
            return 0
        errors.print("\ndemo: something is not as promised, see above", style="bold red")
    except (DemoFailure, StationmasterError) as error:
        errors.print(f"\ndemo: {error}", style="bold red", soft_wrap=True)
    except (KeyboardInterrupt, asyncio.CancelledError):
        errors.print("\ndemo: interrupted; everything that was started has been stopped", style="yellow")
        return 130
    return 1


if __name__ == "__main__":
    sys.exit(main())
