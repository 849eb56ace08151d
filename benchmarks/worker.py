"""A process that makes load: one scenario a line on standard input, its figures a line on standard output."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import uvloop

from benchmarks.floors import audit as floor_audit
from benchmarks.floors import group_commit, notify
from benchmarks.floors import work as floor_work
from benchmarks.load import audit, events, files, graph, prompts, streams, talk, tasks, unary, work

Scenario = Callable[..., Awaitable[Mapping[str, Any]]]


def scenarios() -> dict[str, Scenario]:
    """All there are, by name."""
    idle, across = streams.Idle(), events.Across()
    each: list[Scenario] = [
        *(unary.unary, unary.burst, unary.make_sessions, prompts.make_prompts),
        *(talk.creations, talk.cycles, talk.replies, talk.sessions, talk.grow, talk.first_and_last),
        *(streams.messages, streams.watchers, idle.hold, idle.release),
        *(group_commit.group_commit, notify.listen, notify.notify),
        *(floor_work.floor_drain, floor_work.floor_one_by_one, floor_work.floor_bulk, floor_work.floor_low_load),
        *(tasks.batch_submit, work.work_drain, work.work_one_by_one, work.work_bulk, work.work_low_load),
        *(floor_audit.floor_audit, audit.audit_place, audit.checkpoint_lag),
        *(files.floor_files, files.our_files),
        *(graph.make_graph, graph.add_edges, graph.bare_edges),
        *(events.event_log, across.make_stream, across.append, across.watch),
    ]
    return {scenario.__name__: scenario for scenario in each}


async def _main() -> None:
    known = scenarios()
    reader = asyncio.StreamReader(limit=64 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print("ready", flush=True)
    while line := await reader.readline():
        order = json.loads(line)
        try:
            answer: dict[str, Any] = {"figures": dict(await known[order.pop("scenario")](**order))}
        except Exception as error:  # noqa: BLE001 - whatever it is, the harness is to say it
            answer = {"error": _explain(error)}
        print(json.dumps(answer), flush=True)


def _explain(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"[:1000]


if __name__ == "__main__":
    uvloop.run(_main())
