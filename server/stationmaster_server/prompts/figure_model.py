"""What is counted of renders, and what came of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from stationmaster_server.prompts.experiment_model import Metric


@dataclass(frozen=True, slots=True)
class FigureKey:
    """Of what figures are."""

    organization_id: UUID
    prompt_uid: UUID
    hour: datetime
    version: int
    label: str


@dataclass(slots=True)
class Figures:
    """Renders and the model calls that they instructed. `latencies` are counts by bucket."""

    renders: int = 0
    errors: int = 0
    latencies: list[int] = field(default_factory=list)
    model_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_micros: int = 0

    def add(self, other: Figures) -> None:
        """Count others' with these."""
        self.renders += other.renders
        self.errors += other.errors
        self.model_calls += other.model_calls
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.cost_micros += other.cost_micros
        if len(self.latencies) < len(other.latencies):
            self.latencies += [0] * (len(other.latencies) - len(self.latencies))
        for place, count in enumerate(other.latencies):
            self.latencies[place] += count


@dataclass(frozen=True, slots=True)
class Exposure:
    """A unit that was given a variant."""

    organization_id: UUID
    experiment_id: UUID
    unit: str
    variant: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """One figure of one metric. `experiment_id` only where it is to count for one."""

    id: UUID
    prompt_uid: UUID
    version: int
    label: str
    metric: Metric
    outcome: float
    experiment_id: UUID | None = None
    variant: str = ""
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """How often something was measured, its mean, and the variance of one outcome."""

    variant: str
    metric: Metric
    count: int
    mean: float
    variance: float


@dataclass(frozen=True, slots=True)
class Point:
    """How a version did under a label from a time on. Of outcomes: how often, and the mean."""

    start: datetime
    version: int
    label: str
    figures: Figures
    outcomes: Sequence[tuple[Metric, int, float]]
