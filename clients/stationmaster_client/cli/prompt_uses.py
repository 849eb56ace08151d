"""stationmaster prompts analytics, outcome, customize, customizations, uncustomize."""

from __future__ import annotations

from typing import Annotated

import typer

from stationmaster_client.cli import given
from stationmaster_client.cli.command import Run, command
from stationmaster_client.cli.errors import CommandError
from stationmaster_client.cli.listing import show
from stationmaster_client.cli.options import Limit, query
from stationmaster_client.cli.output import age, plain
from stationmaster_client.cli.prompt_values import Aimed, Prompt, aim, variables_of
from stationmaster_client.cli.prompts import Unit, Variables, app
from stationmaster_client.cli.prompts_shown import analytics_row
from stationmaster_client.names import full

METRICS = ("success", "score", "latency", "cost")


@command(app, "analytics")
async def analytics(
    run: Run,
    prompt: Prompt,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="From then on, such as -7d or 2026-03-01.")
    ] = "",
    hourly: Annotated[bool, typer.Option("--hourly", help="By the hour.")] = False,
    total: Annotated[bool, typer.Option("--total", help="The whole span at once.")] = False,
) -> None:
    """Show how a prompt did, by day, version and label. Latencies are in milliseconds."""
    answer = await run.client.prompts.analytics(prompt, start=given.moment(since, "--since"), hourly=hourly)
    if run.out.as_json:
        run.out.json(answer)
        return
    columns = ("VERSION#", "LABEL", "RENDERS#", "ERRORS#", "P50#", "P99#", "TOKENS#", "COST#", "OUTCOMES")
    points = answer.totals if total else answer.points
    rows = [analytics_row(point, timed=not total) for point in points]
    run.out.table(columns if total else ("FROM", *columns), rows, empty="It was not used in this time.")


@command(app, "outcome")
async def outcome(
    run: Run,
    prompt: Aimed,
    metric: Annotated[str, typer.Argument(help=", ".join(METRICS), metavar="METRIC")],
    figure: Annotated[float, typer.Argument(help="1 or 0, a score, seconds, or millionths of a dollar.")],
    experiment: Annotated[str, typer.Option("--experiment", help="The experiment that it counts for.")] = "",
    unit: Unit = "",
    version: Annotated[int, typer.Option("--version", min=0, help="The version.", show_default=False)] = 0,
    label: Annotated[str, typer.Option("--label", help="The label that led to it.")] = "",
) -> None:
    """Note what came of a render."""
    if metric not in METRICS:
        raise CommandError(f"{metric!r} is no metric: write one of {', '.join(METRICS)}")
    if "@" in prompt:
        prompt, label, version = aim(prompt, label, version)
        version = version or (await run.client.prompts.get(prompt, label=label)).version
    noted = await run.client.prompts.record(
        prompt, metric, figure, experiment=experiment, unit=unit, version=version, label=label
    )
    counted = f", for {noted.variant}" if noted.counted else ""
    if experiment and not noted.counted:
        why = "the unit has one already" if noted.variant else "the unit was given no variant"
        counted = f", not for the experiment: {why}"
    run.out.done(noted, f"noted of {noted.prompt_version}{counted}")


@command(app, "customize")
async def customize(
    run: Run,
    prompt: Prompt,
    template: Annotated[str, typer.Option("--template", "-t", help="The text; @FILE reads it.")] = "",
    mode: Annotated[str, typer.Option("--mode", metavar="append|prepend|replace", help="Where it goes.")] = "append",
    agent: Annotated[str, typer.Option("--agent", help="With this agent only.")] = "",
    var: Variables = [],  # noqa: B006
) -> None:
    """Add what you want of a prompt, for yourself alone."""
    if mode not in ("append", "prepend", "replace"):
        raise CommandError(f"--mode {mode!r}: write append, prepend or replace")
    made = await run.client.prompts.customize(
        prompt,
        given.read_text(template),
        mode=mode,
        agent=agent,
        variables=await variables_of(run.client, var, prompt, "latest", 0, {}),
    )
    run.out.done(made, f"{made.name} is yours")


@command(app, "customizations")
async def customizations(run: Run, prompt: Prompt, limit: Limit = 50) -> None:
    """List what you want of a prompt."""
    from stationmaster.v1 import prompt_pb2 as pb

    def row(one: pb.PromptCustomization) -> tuple[str, ...]:
        mode = plain(pb.CustomizationMode.Name(one.mode), "CUSTOMIZATION_MODE")
        return one.name, one.agent or "all", mode, "no" if one.disabled else "yes", age(one.update_time)

    await show(
        run.out,
        run.client.prompts.customizations(prompt, **query("", "", limit)),
        pb.ListPromptCustomizationsResponse(),
        "customizations",
        limit=limit,
        columns=("CUSTOMIZATION", "AGENT", "MODE", "ON", "CHANGED"),
        row=row,
        empty="You want nothing of it.",
    )


@command(app, "uncustomize")
async def uncustomize(
    run: Run,
    name: Annotated[str, typer.Argument(help="The customization's full name.", metavar="CUSTOMIZATION")],
) -> None:
    """Delete a customization of yours."""
    from google.protobuf.empty_pb2 import Empty

    await run.client.prompts.uncustomize(full("prompts", name))
    run.out.done(Empty(), f"{name} is deleted")
