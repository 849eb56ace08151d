"""Work in the background: on a schedule, in an order, with a report."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

from google.protobuf.struct_pb2 import Value
from stationmaster.v1 import search_pb2, storage_pb2, task_pb2

from stationmaster_client.demo.stage import Stage, some
from stationmaster_client.errors import FailedPrecondition
from stationmaster_client.structs import values
from stationmaster_client.values import to_struct

REPORT, CLEAN = "morning-report", "clean-up"
_SOON = timedelta(seconds=10)


async def play(stage: Stage) -> None:
    """A task that is run by hand, by its schedule, and never in a circle."""
    client, programme = stage.client, stage.programme
    programme.act("Tasks")
    task = _asking(stage, "what is {{ trains }}*60")
    task.description = "count the trains that left, for those who come in the morning"
    task.variables.add(name="trains", type=task_pb2.VARIABLE_TYPE_INTEGER, default_value=Value(number_value=17))
    task.options.report_formats.append(storage_pb2.REPORT_FORMAT_HTML)
    task.schedule.every.FromTimedelta(_SOON)
    await client.tasks.create(REPORT, task)
    programme.fact(f"tasks/{REPORT} asks an agent something every {_SOON.seconds} s; first it is run by hand")
    execution = await client.executions.wait((await client.tasks.execute(REPORT)).name)
    answer = str(values(execution.result).get("text", ""))
    good = execution.state == task_pb2.EXECUTION_STATE_SUCCEEDED and "1020" in answer
    programme.check("Task", "an execution runs an agent to its end", good, f"“{answer}”")
    await _report(stage, execution.name)
    await _circle(stage)
    await _found(stage)
    await _fired(stage)


def _asking(stage: Stage, prompt: str) -> task_pb2.Task:
    agent = stage.agent.removeprefix("agents/")
    return task_pb2.Task(kind="prompt", payload=to_struct({"agent": agent, "prompt": prompt}))


async def _report(stage: Stage, execution: str) -> None:
    """Reports are made after the end, and by whoever has time."""
    condition = f'execution = "{execution}"'
    (report, *_) = await some(lambda: stage.client.reports.list(filter=condition), "the report of the execution")
    page = (await stage.client.reports.read(report.name)).decode()
    whole = page.lstrip().lower().startswith("<!doctype html") and "1020" in page
    stage.programme.check("Task", "its report is a page with the conversation", whole, f"{len(page):,} characters")


async def _circle(stage: Stage) -> None:
    task = _asking(stage, "what time is it")
    task.description = "tidy the platforms in the evening"
    await stage.client.tasks.create(CLEAN, task)
    await stage.client.tasks.depend(CLEAN, REPORT)
    try:
        await stage.client.tasks.depend(REPORT, CLEAN)
        answer = "it was taken"
    except FailedPrecondition as error:
        answer = error.message.rpartition(": ")[2]
    refused = REPORT in answer and CLEAN in answer
    stage.programme.check("Task", "a circle of dependencies is refused and shown", refused, answer)


async def _found(stage: Stage) -> None:
    """By meaning, when the model that knows it is there; by words always."""
    mode = search_pb2.SEARCH_MODE_MEANING if stage.has_model else search_pb2.SEARCH_MODE_TEXT
    wanted = "somebody has to sweep up the litter" if stage.has_model else "tidy"
    (hit,) = await some(lambda: _best(stage, wanted, mode), f"tasks/{CLEAN} as the best hit of a search")
    how = "by its meaning" if stage.has_model else "by its words (the model that knows meanings is not fetched)"
    best = hit.task.name == f"tasks/{CLEAN}"
    stage.programme.check("Task", f"“{wanted}” finds a task {how}", best, f"{hit.task.name}: {hit.task.description}")


async def _best(
    stage: Stage, wanted: str, mode: search_pb2.SearchMode.ValueType
) -> AsyncIterator[task_pb2.SearchTasksResponse.Hit]:
    """The best hit, once it is the one that is meant: what was written is found by its meaning a moment later."""
    async for hit in stage.client.tasks.search(wanted, mode=mode):
        if hit.task.name == f"tasks/{CLEAN}":
            yield hit
        return


async def _fired(stage: Stage) -> None:
    """Wait for its schedule, which is at most one interval ahead."""
    stage.programme.fact("now the schedule is waited for")
    condition = f'task = "tasks/{REPORT}" AND trigger = "SCHEDULE"'
    (fired, *_) = await some(lambda: stage.client.executions.list(filter=condition), "the schedule")
    ended = await stage.client.executions.wait(fired.name)
    await stage.client.tasks.pause(REPORT, "the demo is over")
    scheduled = ended.trigger == task_pb2.EXECUTION_TRIGGER_SCHEDULE and ended.HasField("scheduled_time")
    good = scheduled and ended.state == task_pb2.EXECUTION_STATE_SUCCEEDED
    stage.programme.check("Task", "its schedule runs it too", good, f"due {ended.scheduled_time.ToDatetime():%H:%M:%S}")
