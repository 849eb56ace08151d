"""The concurrency of what a schedule begins: its overlap policy and the task's own key, which holds all the same."""

from __future__ import annotations

from stationmaster_server.errors import InvalidArgument
from stationmaster_server.tasks.model import Concurrency, Strategy, Task
from stationmaster_server.tasks.schedule_model import Overlap, Schedule

# What lets the executions of a schedule run one at a time, and what becomes of one more.
_STRATEGIES = {Overlap.BUFFER_ONE: Strategy.GROUP_ROUND_ROBIN, Overlap.CANCEL_OTHER: Strategy.CANCEL_RUNNING}
_NAMES = {
    Strategy.GROUP_ROUND_ROBIN: "WAIT",
    Strategy.CANCEL_RUNNING: "CANCEL_RUNNING",
    Strategy.CANCEL_NEWEST: "CANCEL_NEWEST",
}


def check_overlap(task: Task, path: str = "task.schedule.overlap") -> None:
    """InvalidArgument when the task's own concurrency key does not do what the overlap policy says."""
    strategy = _STRATEGIES.get(task.schedule.overlap) if task.schedule else None
    own = task.options.concurrency
    if task.schedule is None or strategy is None or own is None:
        return
    if (own.max_running, own.strategy) != (1, strategy):
        raise InvalidArgument.field(
            path,
            f"{task.schedule.overlap} lets one execution run at a time, under the task's own concurrency key: it needs"
            f" options.concurrency with max_running 1 and the strategy {_NAMES[strategy]}, not {own.max_running} and"
            f" {_NAMES[own.strategy]}; or leave options.concurrency out, or choose SKIP",
        )


def of_schedule(task: Task, schedule: Schedule) -> Concurrency | None:
    """What replaces the task's concurrency; None: nothing does."""
    strategy = _STRATEGIES.get(schedule.overlap)
    if strategy is None or task.options.concurrency is not None:
        return None
    return Concurrency(f"schedule:{task.uid}", 1, strategy)


def of_backfill(task: Task, max_running: int) -> Concurrency:
    """The task's own, or one for what is filled. InvalidArgument when the task's own cancels instead of waiting."""
    own = task.options.concurrency
    if own is None:
        return Concurrency(f"backfill:{task.uid}", max_running)
    if own.strategy is not Strategy.GROUP_ROUND_ROBIN:
        raise InvalidArgument.field(
            "name",
            f"under its options.concurrency.strategy {_NAMES[own.strategy]} the executions of a backfill would be"
            " cancelled for each other: set it to WAIT first",
        )
    return own
