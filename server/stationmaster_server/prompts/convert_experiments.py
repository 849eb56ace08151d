"""Experiments, their results, outcomes and analytics: protobuf to model and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import isfinite
from uuid import UUID

from stationmaster.v1 import prompt_pb2 as pb

from stationmaster_server.prompts.analytics import DAY, HOUR
from stationmaster_server.prompts.convert import prompt_id_of
from stationmaster_server.prompts.experiment_model import SLOTS, Experiment, ExperimentState, Metric, Variant
from stationmaster_server.prompts.figure_model import Outcome, Point
from stationmaster_server.prompts.histogram import percentile
from stationmaster_server.prompts.model import prompt_name
from stationmaster_server.prompts.outcomes import Noted
from stationmaster_server.prompts.results import Comparison, Results, VariantResult
from stationmaster_server.prompts.statistics import Interval
from stationmaster_server.wire.fields import duration, timestamp
from stationmaster_server.wire.names import parse

EXPERIMENT = "experiments/{experiment}"
DEFAULT_ALPHA = 0.05
DEFAULT_MINIMUM = 100
_NOBODY = UUID(int=0)
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
_FAR = 1e308

_METRICS = {metric: pb.OutcomeMetric.Value(f"OUTCOME_METRIC_{metric}") for metric in Metric}
_METRIC_OF = {number: metric for metric, number in _METRICS.items()}
_STATES = {state: pb.ExperimentState.Value(f"EXPERIMENT_STATE_{state}") for state in ExperimentState}


def experiment_id_of(name: str, field: str = "name") -> UUID:
    """The id in an experiment's name. Raises InvalidArgument(INVALID_NAME)."""
    return parse(EXPERIMENT, name, UUID, field=field)


def new_experiment(message: pb.Experiment) -> Experiment:
    """What is to be made; the service sets whose it is."""
    share = message.traffic_share if message.HasField("traffic_share") else 1.0
    return Experiment(
        id=_NOBODY,
        prompt_id=prompt_id_of(message.prompt, "experiment.prompt"),
        prompt_uid=_NOBODY,
        user_id=_NOBODY,
        display_name=message.display_name,
        description=message.description,
        label=message.label,
        variants=tuple(Variant(each.variant, each.version, each.weight or 1) for each in message.variants),
        traffic=round(share * SLOTS),
        exclusion_group=message.exclusion_group,
        metric=_METRIC_OF.get(message.metric, Metric.SUCCESS),
        alpha=message.false_alarm_rate if message.HasField("false_alarm_rate") else DEFAULT_ALPHA,
        minimum=message.minimum_outcomes or DEFAULT_MINIMUM,
        state=ExperimentState.DRAFT,
        slots=(),
        winner="",
        etag="",
        created_at=_NEVER,
    )


def experiment_to_proto(experiment: Experiment) -> pb.Experiment:
    """An experiment as its message."""
    return pb.Experiment(
        name=experiment.name,
        display_name=experiment.display_name,
        description=experiment.description,
        prompt=prompt_name(experiment.prompt_id),
        label=experiment.label,
        variants=[
            pb.ExperimentVariant(variant=each.variant_id, version=each.version, weight=each.weight)
            for each in experiment.variants
        ],
        traffic_share=experiment.traffic / SLOTS,
        exclusion_group=experiment.exclusion_group,
        metric=_METRICS[experiment.metric],
        false_alarm_rate=experiment.alpha,
        minimum_outcomes=experiment.minimum,
        state=_STATES[experiment.state],
        winner=experiment.winner,
        user=f"users/{experiment.user_id}",
        etag=experiment.etag,
        create_time=timestamp(experiment.created_at),
        start_time=timestamp(experiment.started_at),
        end_time=timestamp(experiment.ended_at),
    )


def results_to_proto(results: Results) -> pb.GetExperimentResultsResponse:
    """Results as their message."""
    return pb.GetExperimentResultsResponse(
        experiment=experiment_to_proto(results.experiment),
        variants=[_variant(each) for each in results.variants],
        comparisons=[_comparison(each) for each in results.comparisons],
        sample_ratio_mismatch=results.mismatch,
        sample_ratio_p_value=results.mismatch_p_value,
        leader=results.leader,
        advice=results.advice,
    )


def _variant(result: VariantResult) -> pb.VariantResult:
    return pb.VariantResult(
        variant=result.variant.variant_id,
        version=result.variant.version,
        exposures=result.exposures,
        expected_exposures=result.expected,
        metrics=[
            pb.VariantMetric(metric=_METRICS[metric], count=count, estimate=_estimate(interval))
            for metric, count, interval in result.metrics
        ],
    )


def _comparison(comparison: Comparison) -> pb.VariantComparison:
    return pb.VariantComparison(
        variant=comparison.variant.variant_id,
        metric=_METRICS[comparison.metric],
        difference=_estimate(comparison.difference),
        p_value=comparison.difference.p_value,
        significant=comparison.significant,
        better=comparison.better,
        enough=comparison.enough,
    )


def _estimate(interval: Interval) -> pb.Estimate:
    """Bounds that are not there are as far away as a number can be: JSON has no infinity."""
    lower = interval.lower if isfinite(interval.lower) else -_FAR
    upper = interval.upper if isfinite(interval.upper) else _FAR
    return pb.Estimate(mean=interval.estimate, lower=lower, upper=upper)


def outcome_from_proto(message: pb.RecordOutcomeRequest) -> Outcome:
    """What is to be noted; the service finds out of what."""
    return Outcome(
        id=_NOBODY,
        prompt_uid=_NOBODY,
        version=message.version,
        label=message.label,
        metric=_METRIC_OF[message.metric],
        outcome=message.outcome,
        experiment_id=experiment_id_of(message.experiment, "experiment") if message.experiment else None,
        unit=message.unit,
    )


def noted_to_proto(noted: Noted) -> pb.RecordOutcomeResponse:
    """What an outcome was noted of, as its message."""
    return pb.RecordOutcomeResponse(prompt_version=noted.prompt_version, variant=noted.variant, counted=noted.counted)


def interval_of(number: pb.AnalyticsInterval.ValueType) -> timedelta:
    """How far apart points are."""
    return HOUR if number == pb.ANALYTICS_INTERVAL_HOUR else DAY


def point_to_proto(point: Point) -> pb.AnalyticsPoint:
    """A point of an analysis as its message."""
    figures = point.figures
    p50, p95, p99 = (duration(timedelta(seconds=percentile(figures.latencies, share))) for share in (0.5, 0.95, 0.99))
    return pb.AnalyticsPoint(
        start_time=timestamp(point.start),
        version=point.version,
        label=point.label,
        renders=figures.renders,
        errors=figures.errors,
        latency_p50=p50,
        latency_p95=p95,
        latency_p99=p99,
        model_calls=figures.model_calls,
        input_tokens=figures.input_tokens,
        output_tokens=figures.output_tokens,
        cost_micros=figures.cost_micros,
        outcomes=[
            pb.OutcomeFigures(metric=_METRICS[metric], count=count, mean=mean) for metric, count, mean in point.outcomes
        ],
    )
