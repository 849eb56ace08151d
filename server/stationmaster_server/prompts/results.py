"""What an experiment has shown so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.prompts import figure_store
from stationmaster_server.prompts.experiment_model import Experiment, ExperimentState, Metric, Variant
from stationmaster_server.prompts.experiments import Experiments
from stationmaster_server.prompts.figure_model import Measured
from stationmaster_server.prompts.recording import Recorder
from stationmaster_server.prompts.statistics import (
    MISMATCH_ALPHA,
    Interval,
    Sample,
    difference,
    mean_interval,
    mismatch_p_value,
    success_sample,
)


@dataclass(frozen=True, slots=True)
class VariantResult:
    """How a variant does."""

    variant: Variant
    exposures: int
    expected: float
    metrics: Sequence[tuple[Metric, int, Interval]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A variant held against the first."""

    variant: Variant
    metric: Metric
    difference: Interval
    significant: bool
    better: bool
    enough: bool


@dataclass(frozen=True, slots=True)
class Results:
    """What an experiment has shown so far. `leader`: the best variant by the deciding metric, if that says anything."""

    experiment: Experiment
    variants: Sequence[VariantResult]
    comparisons: Sequence[Comparison]
    mismatch: bool
    mismatch_p_value: float
    leader: str
    advice: str


class ExperimentResults:
    """Reads what was exposed and measured, and tells what it shows."""

    def __init__(self, database: Database, experiments: Experiments, recorder: Recorder) -> None:
        self._database = database
        self._experiments = experiments
        self._recorder = recorder

    async def of(self, caller: Caller, experiment_id: UUID) -> Results:
        """What one has shown. Raises NotFound."""
        experiment = await self._experiments.get(caller, experiment_id)
        await self._recorder.flush_exposures()
        organization_id = caller.tenant.organization_id
        async with self._database.tenant(caller.tenant, read=True) as tx:
            exposures = await figure_store.exposures(tx, organization_id, experiment.id)
            measured = await figure_store.measured(tx, organization_id, experiment.id)
        return results(experiment, exposures, measured)


def results(experiment: Experiment, exposures: Mapping[str, int], measured: Sequence[Measured]) -> Results:
    """What these figures show."""
    samples = {(each.variant, each.metric): _sample(each) for each in measured}
    weights = [float(variant.weight) for variant in experiment.variants]
    counts = [exposures.get(variant.variant_id, 0) for variant in experiment.variants]
    p_value = mismatch_p_value(counts, weights)
    mismatch = p_value <= MISMATCH_ALPHA
    expected = [sum(counts) * weight / sum(weights) for weight in weights]
    shown = [
        VariantResult(variant, count, share, _metrics(samples, variant, experiment.alpha))
        for variant, count, share in zip(experiment.variants, counts, expected, strict=True)
    ]
    comparisons = _comparisons(experiment, samples)
    leader = "" if mismatch else _leader(experiment, comparisons)
    return Results(experiment, shown, comparisons, mismatch, p_value, leader, _advice(experiment, mismatch, leader))


def _sample(measured: Measured) -> Sample:
    if measured.metric is Metric.SUCCESS:
        return success_sample(measured.count, round(measured.mean * measured.count))
    return Sample(measured.count, measured.mean, measured.variance)


def _metrics(
    samples: Mapping[tuple[str, Metric], Sample], variant: Variant, alpha: float
) -> list[tuple[Metric, int, Interval]]:
    found = []
    for metric in Metric:
        sample = samples.get((variant.variant_id, metric))
        if sample is not None:
            found.append((metric, sample.count, mean_interval(sample, alpha)))
    return found


def _comparisons(experiment: Experiment, samples: Mapping[tuple[str, Metric], Sample]) -> list[Comparison]:
    control, *others = experiment.variants
    # Shared out among the variants (Bonferroni), so that the rate holds for all comparisons by one metric together.
    alpha = experiment.alpha / len(others)
    found = []
    for metric in Metric:
        first = samples.get((control.variant_id, metric))
        for variant in others:
            second = samples.get((variant.variant_id, metric))
            if first is None or second is None:
                continue
            interval = difference(first, second, alpha)
            enough = min(first.count, second.count) >= max(experiment.minimum, 2)
            significant = enough and interval.p_value <= alpha
            better = significant and (interval.estimate > 0) is metric.more_is_better
            found.append(Comparison(variant, metric, interval, significant, better, enough))
    return found


def _leader(experiment: Experiment, comparisons: Sequence[Comparison]) -> str:
    deciding = [each for each in comparisons if each.metric is experiment.metric and each.significant]
    better = [each for each in deciding if each.better]
    if better:
        sign = 1 if experiment.metric.more_is_better else -1
        return max(better, key=lambda each: sign * each.difference.estimate).variant.variant_id
    others = len(experiment.variants) - 1
    return experiment.variants[0].variant_id if others and len(deciding) == others else ""


def _advice(experiment: Experiment, mismatch: bool, leader: str) -> str:
    match experiment.state:
        case ExperimentState.DRAFT:
            return "start it"
        case ExperimentState.CONCLUDED:
            return f"it is concluded; {experiment.winner or 'none'} won"
        case ExperimentState.RUNNING | ExperimentState.STOPPED:
            pass
    if mismatch:
        return "the variants were not given as they should have been: find out why, and start another one"
    if leader:
        return f"conclude it: {leader} is the best by {experiment.metric}"
    if experiment.state is ExperimentState.STOPPED:
        return f"it showed no difference by {experiment.metric}: conclude it without a winner"
    return f"let it run: nothing can be said by {experiment.metric} yet"
