"""Experiments, their variants and states, and what is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from stationmaster_server.errors import FailedPrecondition, PreconditionViolation, Reason

SLOTS = 10_000
"""Parts of all traffic that experiments of an exclusion group share out: ten thousandths."""


class ExperimentState(StrEnum):
    """How an experiment stands."""

    DRAFT = "DRAFT"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    CONCLUDED = "CONCLUDED"


class Metric(StrEnum):
    """What is measured: 1 or 0; any number; seconds; millionths of a US dollar."""

    SUCCESS = "SUCCESS"
    SCORE = "SCORE"
    LATENCY = "LATENCY"
    COST = "COST"

    @property
    def more_is_better(self) -> bool:
        """Whether a larger number is the better one."""
        return self in (Metric.SUCCESS, Metric.SCORE)


@dataclass(frozen=True, slots=True)
class Variant:
    """A version that an experiment tries, and how often in proportion to the others."""

    variant_id: str
    version: int
    weight: int


Slots = Sequence[tuple[int, int]]
"""Ranges of ten thousandths, each with its first and the one after its last."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """Versions of a prompt, told apart by what comes of them. The first variant is what the others are held against."""

    id: UUID
    prompt_id: str
    prompt_uid: UUID
    user_id: UUID
    display_name: str
    description: str
    label: str
    variants: tuple[Variant, ...]
    traffic: int
    """Ten thousandths of the units."""
    exclusion_group: str
    metric: Metric
    alpha: float
    """How often, at most, a difference may be seen where there is none."""
    minimum: int
    """Outcomes of each variant before anything is concluded."""
    state: ExperimentState
    slots: Slots
    winner: str
    etag: str
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def name(self) -> str:
        """`experiments/{experiment}`."""
        return experiment_name(self.id)

    def variant(self, variant_id: str) -> Variant | None:
        """One of the variants."""
        return next((each for each in self.variants if each.variant_id == variant_id), None)


_NEXT = {
    ExperimentState.DRAFT: frozenset({ExperimentState.RUNNING}),
    ExperimentState.RUNNING: frozenset({ExperimentState.STOPPED, ExperimentState.CONCLUDED}),
    ExperimentState.STOPPED: frozenset({ExperimentState.CONCLUDED}),
    ExperimentState.CONCLUDED: frozenset(),
}


def transition(experiment: Experiment, wanted: ExperimentState) -> None:
    """Raises FailedPrecondition(ILLEGAL_TRANSITION) when the experiment cannot become that."""
    allowed = _NEXT[experiment.state]
    if wanted in allowed:
        return
    advice = f"it can become {', '.join(sorted(allowed))}" if allowed else "make another one"
    raise _illegal(experiment, wanted, f"cannot become {wanted}: {advice}", advice)


def require_started(experiment: Experiment) -> None:
    """Raises FailedPrecondition(ILLEGAL_TRANSITION) when the experiment has given nobody a variant yet."""
    if experiment.state is ExperimentState.DRAFT:
        advice = "start it before it is told what came of it"
        raise _illegal(experiment, ExperimentState.RUNNING, f"was never started: {advice}", advice)


def _illegal(experiment: Experiment, wanted: ExperimentState, why: str, advice: str) -> FailedPrecondition:
    error = FailedPrecondition(
        Reason.ILLEGAL_TRANSITION,
        f"{experiment.name} is {experiment.state} and {why}",
        PreconditionViolation("EXPERIMENT_STATE", experiment.name, advice),
    )
    error.metadata |= {"from": experiment.state.value, "to": wanted.value}
    return error


def experiment_name(experiment_id: UUID) -> str:
    """`experiments/{experiment}`."""
    return f"experiments/{experiment_id}"
