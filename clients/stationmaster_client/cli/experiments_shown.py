"""Experiments and their results as people see them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from stationmaster_client.cli.output import age, moment, plain
from stationmaster_client.names import last

if TYPE_CHECKING:
    from rich.text import Text
    from stationmaster.v1 import prompt_pb2 as pb

    from stationmaster_client.cli.command import Run

_FAR = 1e300


def described(run: Run, experiment: pb.Experiment) -> None:
    """One experiment."""
    if run.out.as_json:
        run.out.json(experiment)
        return
    run.out.details(
        [
            ("experiment", experiment.name),
            ("name", experiment.display_name),
            ("description", experiment.description),
            ("prompt", experiment.prompt),
            ("label", experiment.label),
            ("state", _state(experiment)),
            ("variants", variants_of(experiment)),
            ("share", f"{experiment.traffic_share:.2%} of the units"),
            ("group", experiment.exclusion_group),
            ("metric", _metric(experiment.metric)),
            ("false alarms", f"at most {experiment.false_alarm_rate:.2%}"),
            ("winner", experiment.winner),
            ("created", moment(experiment.create_time)),
            ("started", moment(experiment.start_time)),
            ("ended", moment(experiment.end_time)),
        ]
    )


def row(experiment: pb.Experiment) -> tuple[str, ...]:
    """Of the list."""
    return (
        last(experiment.name),
        last(experiment.prompt),
        _state(experiment),
        variants_of(experiment),
        experiment.winner,
        age(experiment.create_time),
        experiment.display_name,
    )


def variants_of(experiment: pb.Experiment) -> str:
    """`control=1, short=2:3`."""
    return ", ".join(
        f"{each.variant}={each.version}" + (f":{each.weight}" if each.weight != 1 else "")
        for each in experiment.variants
    )


def variant_rows(shown: pb.GetExperimentResultsResponse) -> Iterator[tuple[str, ...]]:
    """A row for each variant and metric, or one without."""
    for variant in shown.variants:
        expected = f"{variant.expected_exposures:,.0f}"
        head = (variant.variant, str(variant.version), f"{variant.exposures:,}", expected)
        if not variant.metrics:
            yield (*head, "", "", "", "")
        for place, measured in enumerate(variant.metrics):
            estimate = measured.estimate
            figures = (_metric(measured.metric), f"{measured.count:,}", f"{estimate.mean:.4g}", interval(estimate))
            yield (*(("", "", "", "") if place else head), *figures)


def comparison_row(comparison: pb.VariantComparison) -> tuple[str | Text, ...]:
    """A variant held against the first."""
    from rich.text import Text

    difference = comparison.difference
    if not comparison.enough:
        said = Text("too few outcomes", style="dim")
    elif not comparison.significant:
        said = Text("no difference shown", style="dim")
    elif comparison.better:
        said = Text("better", style="bold green")
    else:
        said = Text("worse", style="bold red")
    return (
        comparison.variant,
        _metric(comparison.metric),
        f"{difference.mean:+.4g}",
        interval(difference),
        f"{comparison.p_value:.3f}",
        said,
    )


def interval(estimate: pb.Estimate) -> str:
    """`[0.41, 0.52]`; what has no bounds yet has none."""
    if estimate.lower < -_FAR or estimate.upper > _FAR:
        return ""
    return f"[{estimate.lower:.4g}, {estimate.upper:.4g}]"


def _metric(number: pb.OutcomeMetric.ValueType) -> str:
    from stationmaster.v1 import prompt_pb2 as pb

    return plain(pb.OutcomeMetric.Name(number), "OUTCOME_METRIC")


def _state(experiment: pb.Experiment) -> str:
    from stationmaster.v1 import prompt_pb2 as pb

    return plain(pb.ExperimentState.Name(experiment.state), "EXPERIMENT_STATE")
