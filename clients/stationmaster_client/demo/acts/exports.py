"""A longer task, which tells how far it is while it runs."""

from __future__ import annotations

from stationmaster.v1 import task_pb2

from stationmaster_client.demo.stage import Stage
from stationmaster_client.values import to_struct

EXPORT, WHAT = "take-minutes", "messages"


async def play(stage: Stage) -> None:
    """Export the conversation into its own workspace, and follow that."""
    client, programme = stage.client, stage.programme
    programme.act("A task that tells how far it is")
    filters = {WHAT: f'session = "{stage.session}"'}
    payload = to_struct({"what": [WHAT], "session": stage.session, "filters": filters})
    await client.tasks.create(EXPORT, task_pb2.Task(kind="export", payload=payload))
    execution = await client.tasks.execute(EXPORT)
    async with client.executions.watch(execution.name) as events:
        told = [event async for event in events]
    counted = [event.execution_progress.counters[WHAT] for event in told if event.HasField("execution_progress")]
    path = f"exports/{execution.name.removeprefix('executions/')}/{WHAT}.jsonl"
    written = len((await client.files.read(stage.session, path)).splitlines())
    ended = bool(told) and told[-1].execution_state_changed.state == "SUCCEEDED"
    said = len([message async for message in client.sessions.messages(stage.session)])
    good = ended and bool(counted) and counted == sorted(counted) and 0 < counted[-1] == written == said
    detail = f"{counted[-1] if counted else 'nothing'} told, {written} lines in the file"
    programme.check("Task", "progress is streamed, and true in the end", good, detail)
