"""Many sessions and many ends: nothing is left of any."""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import aclosing, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from stationmaster_server.agents.runtime import RuntimeFailure, TextDelta
from stationmaster_server.agents.runtimes.claude.runtime import ClaudeRuntime

from tests.agents.claude.conftest import MakeRuntime
from tests.agents.claude.conversation import WRITE, asking, command_lines, first_turn, next_turn
from tests.agents.providers import anthropic_stream as anthropic
from tests.agents.providers.stand_in import StandIn
from tests.agents.turns import last_text, run

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]
SESSIONS = 24


def pipes() -> int:
    """How many pipes and process descriptors this process holds; its connections come and go with their pools."""
    held = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if os.path.lexists(link)]
    return sum(name.startswith(("pipe:", "anon_inode:[pidfd]")) for name in held)


async def ends_well(runtime: ClaudeRuntime, workspace: Path) -> None:
    """Two turns."""
    first = first_turn("hello", workspace)
    events = await run(runtime, first)
    assert last_text(await run(runtime, next_turn(first, events, "and now?"))) == "Hi."


async def is_stopped(runtime: ClaudeRuntime, workspace: Path) -> None:
    """Within its answer."""
    async with aclosing(runtime.run(first_turn("hello", workspace))) as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                break


async def is_cancelled(runtime: ClaudeRuntime, workspace: Path) -> None:
    """At any time at all, also while its process starts."""
    task = asyncio.create_task(run(runtime, first_turn("hello", workspace)))
    await asyncio.sleep(random.random())
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def loses_its_process(runtime: ClaudeRuntime, workspace: Path) -> None:
    """Before its second turn."""
    first = first_turn("hello", workspace)
    events = await run(runtime, first)
    for process in command_lines(first.session_id):
        process.kill()
    with suppress(RuntimeFailure):
        await run(runtime, next_turn(first, events, "and now?"))


async def asks(runtime: ClaudeRuntime, workspace: Path) -> None:
    """For a permission, if the model calls a tool."""
    await run(runtime, first_turn("hello", workspace, rulings=asking))


async def test_nothing_is_left_of_many_sessions_whatever_their_end(
    provider: StandIn, make_runtime: MakeRuntime, tmp_path: Path
) -> None:
    runtime = make_runtime(max_live=3, idle=timedelta(0))
    answers = [
        anthropic.answer(anthropic.text("Hi.")),
        anthropic.answer(anthropic.text("Hi."), anthropic.tool(WRITE, {"path": "a", "content": "b"}, "toolu_1")),
    ]
    chance = random.Random(7)
    provider.reply(*(chance.choices(answers, [4, 1])[0] for _ in range(SESSIONS * 8)))
    ends = (ends_well, is_stopped, is_cancelled, loses_its_process, asks)
    await ends_well(runtime, tmp_path)
    await runtime.evict_idle()
    before = pipes()
    await asyncio.gather(*(ends[number % len(ends)](runtime, tmp_path) for number in range(SESSIONS)))
    assert runtime.live <= 3
    await runtime.evict_idle()
    assert runtime.live == 0
    assert command_lines() == []
    assert pipes() == before
    (folder,) = (tmp_path / "claude-1").iterdir()
    assert list(folder.iterdir()) == []
