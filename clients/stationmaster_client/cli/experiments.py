"""stationmaster experiments: which version of a prompt does better."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stationmaster_client.cli import resolve
from stationmaster_client.cli.command import Run, command, group
from stationmaster_client.cli.errors import CommandError
from stationmaster_client.cli.experiments_shown import comparison_row, described, row, variant_rows
from stationmaster_client.cli.files import read_message
from stationmaster_client.cli.listing import show
from stationmaster_client.cli.options import Filter, Limit, OrderBy, query
from stationmaster_client.cli.prompt_uses import METRICS
from stationmaster_client.names import full

if TYPE_CHECKING:
    from stationmaster.v1 import prompt_pb2 as pb

app = group("Experiments: which version of a prompt does better.")

Experiment = Annotated[
    str, typer.Argument(help="Id or name; the end of an id is enough, - is the newest.", metavar="EXPERIMENT")
]


@command(app, "create")
async def create(
    run: Run,
    prompt: Annotated[str, typer.Argument(help="The prompt's id; may stand in the file.", metavar="PROMPT")] = "",
    variant: Annotated[
        list[str],
        typer.Option("--variant", metavar="NAME=VERSION[:WEIGHT]", help="The first is the control; may be repeated."),
    ] = [],  # noqa: B006
    file: Annotated[Path | None, typer.Option("--file", help="YAML, JSON or TOML with its fields.")] = None,
    label: Annotated[str, typer.Option("--label", help="The label whose renders it takes.")] = "",
    share: Annotated[float, typer.Option("--share", min=0, max=1, help="Of the units; all.", show_default=False)] = 0,
    exclusion_group: Annotated[str, typer.Option("--group", help="Shares the units out with others of it.")] = "",
    metric: Annotated[str, typer.Option("--metric", help=f"What decides: {', '.join(METRICS)}.")] = "",
    name: Annotated[str, typer.Option("--name", help="A name for people.")] = "",
    start: Annotated[bool, typer.Option("--start", help="Start it at once.")] = False,
) -> None:
    """Make an experiment."""
    from stationmaster.v1 import prompt_pb2 as pb

    new = pb.Experiment()
    if file is not None:
        _, new = read_message(file, new, "experiments")
    new.prompt = full("prompts", prompt) if prompt else new.prompt
    new.label, new.display_name = label or new.label, name or new.display_name
    new.exclusion_group = exclusion_group or new.exclusion_group
    if share:
        new.traffic_share = share
    if metric:
        if metric not in METRICS:
            raise CommandError(f"--metric {metric!r}: write one of {', '.join(METRICS)}")
        new.metric = pb.OutcomeMetric.Value(f"OUTCOME_METRIC_{metric.upper()}")
    if variant:
        new.ClearField("variants")
        new.variants.extend(map(_variant, variant))
    made = await run.client.experiments.create(new)
    described(run, await run.client.experiments.start(made.name) if start else made)


def _variant(text: str) -> pb.ExperimentVariant:
    from stationmaster.v1 import prompt_pb2 as pb

    name, _, rest = text.partition("=")
    version, _, weight = rest.partition(":")
    if not name or not version.isdecimal() or (weight and not weight.isdecimal()):
        raise CommandError(f"--variant {text!r}: write NAME=VERSION or NAME=VERSION:WEIGHT")
    return pb.ExperimentVariant(variant=name, version=int(version), weight=int(weight or 1))


@command(app, "list")
async def list_experiments(run: Run, condition: Filter = "", order_by: OrderBy = "", limit: Limit = 50) -> None:
    """List experiments, the newest first."""
    from stationmaster.v1 import prompt_pb2 as pb

    await show(
        run.out,
        run.client.experiments.list(**query(condition, order_by, limit)),
        pb.ListExperimentsResponse(),
        "experiments",
        limit=limit,
        columns=("EXPERIMENT", "PROMPT", "STATE", "VARIANTS", "WINNER", "CREATED", "NAME"),
        row=row,
        empty="No experiments. Make one: stationmaster experiments create PROMPT --variant a=1 --variant b=2",
    )


@command(app, "show", also="get")
async def show_experiment(run: Run, experiment: Experiment) -> None:
    """Show one experiment."""
    described(run, await run.client.experiments.get(await resolve.experiment(run.client, experiment)))


@command(app, "start")
async def start(run: Run, experiment: Experiment) -> None:
    """Assign its variants from now on."""
    described(run, await run.client.experiments.start(await resolve.experiment(run.client, experiment)))


@command(app, "stop")
async def stop(
    run: Run, experiment: Experiment, reason: Annotated[str, typer.Option("--reason", help="Why.")] = ""
) -> None:
    """Give its label to all again."""
    described(run, await run.client.experiments.stop(await resolve.experiment(run.client, experiment), reason))


@command(app, "conclude")
async def conclude(
    run: Run,
    experiment: Experiment,
    winner: Annotated[str, typer.Option("--winner", help="The variant whose version the label moves to.")] = "",
) -> None:
    """End it; its label moves to the winner, if there is one."""
    described(run, await run.client.experiments.conclude(await resolve.experiment(run.client, experiment), winner))


@command(app, "results")
async def results(run: Run, experiment: Experiment) -> None:
    """Show what it has shown so far, with intervals that hold however often you look."""
    shown = await run.client.experiments.results(await resolve.experiment(run.client, experiment))
    if run.out.as_json:
        run.out.json(shown)
        return
    columns = ("VARIANT", "VERSION#", "UNITS#", "EXPECTED#", "METRIC", "OUTCOMES#", "MEAN#", "INTERVAL")
    run.out.table(columns, variant_rows(shown), empty="No variants.")
    if shown.comparisons:
        run.out.print()
        heads = ("AGAINST THE FIRST", "METRIC", "DIFFERENCE#", "INTERVAL", "P#", "")
        run.out.table(heads, map(comparison_row, shown.comparisons), empty="")
    run.out.print()
    if shown.sample_ratio_mismatch:
        run.out.print(f"sample ratio mismatch (p = {shown.sample_ratio_p_value:.2g})", style="bold red")
    run.out.print(shown.advice, style="bold" if shown.leader else None)
