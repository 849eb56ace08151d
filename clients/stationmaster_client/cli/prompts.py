"""stationmaster prompts: versions, labels, and what they become filled in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stationmaster_client.cli import given
from stationmaster_client.cli.command import Run, command, group
from stationmaster_client.cli.editing import edited
from stationmaster_client.cli.errors import CommandError
from stationmaster_client.cli.files import read_message
from stationmaster_client.cli.listing import show
from stationmaster_client.cli.options import Filter, Limit, OrderBy, query
from stationmaster_client.cli.prompt_values import Aimed, Prompt, aim, context_of, variables_of
from stationmaster_client.cli.prompts_shown import described, difference, row, version_row
from stationmaster_client.names import last

if TYPE_CHECKING:
    from stationmaster.v1 import prompt_pb2 as pb

app = group("Prompts: versions, labels, and what they become filled in.")

Template = Annotated[str, typer.Option("--template", "-t", metavar="TEXT", help="The template; @FILE reads it.")]
Message = Annotated[str, typer.Option("--message", "-m", help="Why the version is made.")]
Labels = Annotated[list[str], typer.Option("--label", "-l", help="A label for the new version; may be repeated.")]
Label = Annotated[str, typer.Option("--label", "-l", help="The version that this label points to.")]
Version = Annotated[int, typer.Option("--version", "-v", min=0, help="This version.", show_default=False)]
Variables = Annotated[list[str], typer.Option("--var", "-p", metavar="NAME=TEXT", help=f"A variable: {given.HOW}.")]
Context = Annotated[list[str], typer.Option("--context-value", "-c", metavar="NAME=TEXT", help="An attribute.")]
Unit = Annotated[str, typer.Option("--unit", help="Whom experiments tell apart.")]
File = Annotated[Path | None, typer.Option("--file", help="YAML, JSON or TOML with the prompt's fields.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, change nothing.")]


@command(app, "create")
async def create(
    run: Run,
    prompt_id: Annotated[str, typer.Argument(help="The id; may stand in the file.", metavar="ID")] = "",
    template: Template = "",
    file: File = None,
    message: Message = "",
    label: Labels = [],  # noqa: B006
    name: Annotated[str, typer.Option("--name", help="A name for people.")] = "",
    dry_run: DryRun = False,
) -> None:
    """Make a prompt from a template, or from a file with all its fields."""
    prompt_id, new = _from_file(prompt_id, file)
    new.template = given.read_text(template) or new.template
    new.display_name = name or new.display_name
    if not prompt_id or not new.template:
        raise CommandError(
            "an id and a template are needed: stationmaster prompts create greeting -t 'Hello {{ name }}'"
        )
    made = await run.client.prompts.create(prompt_id, new, labels=label, message=message, validate_only=dry_run)
    described(run, made)


@command(app, "update")
async def update(
    run: Run,
    prompt: Prompt,
    template: Template = "",
    file: File = None,
    message: Message = "",
    label: Labels = [],  # noqa: B006
    name: Annotated[str, typer.Option("--name", help="A name for people.")] = "",
    dry_run: DryRun = False,
) -> None:
    """Change a prompt; a new template is a new version, for the labels that are given."""
    _, changed = _from_file(prompt, file)
    changed.name = f"prompts/{last(prompt)}"
    changed.template = given.read_text(template) or changed.template
    changed.display_name = name or changed.display_name
    changed.message = message or changed.message
    described(run, await run.client.prompts.update(changed, labels=label, validate_only=dry_run))


@command(app, "edit")
async def edit(run: Run, prompt: Prompt, message: Message = "", label: Labels = []) -> None:  # noqa: B006
    """Open the newest version in $EDITOR; what is saved is the next version."""
    current = await run.client.prompts.get(prompt)
    text = await edited(current.template, f"{last(current.name)}.jinja")
    if text == current.template:
        run.out.note("nothing was changed")
        return
    changed = type(current)(name=current.name, template=text, message=message, etag=current.etag)
    made = await run.client.prompts.update(changed, ["template", "message"], labels=label)
    if run.out.as_json:
        run.out.json(made)
        return
    run.out.print(difference(await run.client.prompts.diff(prompt, current.version, made.version)))
    pointing = f", {', '.join(label)} points to it" if label else "; no label points to it yet"
    run.out.note(f"{made.name} has version {made.version}{pointing}")


@command(app, "list")
async def list_prompts(run: Run, condition: Filter = "", order_by: OrderBy = "", limit: Limit = 50) -> None:
    """List prompts."""
    from stationmaster.v1 import prompt_pb2 as pb

    await show(
        run.out,
        run.client.prompts.list(**query(condition, order_by, limit)),
        pb.ListPromptsResponse(),
        "prompts",
        limit=limit,
        columns=("PROMPT", "VERSION#", "LABELS", "CHANGED", "NAME"),
        row=row,
        empty="No prompts. Make one: stationmaster prompts create greeting -t 'Hello {{ name }}' -l production",
    )


@command(app, "show", also="get")
async def show_prompt(run: Run, prompt: Aimed, label: Label = "", version: Version = 0) -> None:
    """Show a prompt with the template of its newest version, or of another."""
    prompt, label, version = aim(prompt, label, version)
    described(run, await run.client.prompts.get(prompt, label=label, version=version))


@command(app, "versions")
async def versions(run: Run, prompt: Prompt, limit: Limit = 50) -> None:
    """List the versions of a prompt, newest first."""
    from stationmaster.v1 import prompt_pb2 as pb

    await show(
        run.out,
        run.client.prompts.versions(prompt, **query("", "", limit)),
        pb.ListPromptVersionsResponse(),
        "versions",
        limit=limit,
        columns=("VERSION#", "LABELS", "MADE", "MESSAGE"),
        row=version_row,
        empty="",
    )


@command(app, "diff")
async def diff(
    run: Run,
    prompt: Prompt,
    old: Annotated[int, typer.Argument(min=0, help="From this version; the one before.", metavar="[FROM]")] = 0,
    new: Annotated[int, typer.Argument(min=0, help="To this version; the newest.", metavar="[TO]")] = 0,
) -> None:
    """Show what changed between two versions."""
    answer = await run.client.prompts.diff(prompt, old, new)
    if run.out.as_json:
        run.out.json(answer)
    elif not answer.lines and not answer.variables:
        run.out.note(f"versions {answer.from_version} and {answer.to_version} say the same")
    else:
        run.out.print(difference(answer))


@command(app, "label")
async def set_label(
    run: Run,
    prompt: Prompt,
    label: Annotated[str, typer.Argument(help="The label.", metavar="LABEL")],
    version: Annotated[
        str, typer.Argument(help="The version, `latest`, or `none` to take it away.", metavar="VERSION")
    ],
) -> None:
    """Point a label to a version: the next render sees it."""
    if version == "latest":
        number = (await run.client.prompts.get(prompt)).latest_version
    elif version == "none":
        number = 0
    elif version.isdecimal() and int(version):
        number = int(version)
    else:
        raise CommandError(f"{version!r} is no version: write a number, latest, or none")
    changed = await run.client.prompts.label(prompt, label, number)
    where = f"points to version {number}" if number else "is gone"
    run.out.done(changed, f"{label} of {changed.name} {where}")


@command(app, "render")
async def render(
    run: Run,
    prompt: Aimed,
    var: Variables = [],  # noqa: B006
    label: Label = "",
    version: Version = 0,
    context_value: Context = [],  # noqa: B006
    unit: Unit = "",
    agent: Annotated[str, typer.Option("--agent", help="The agent whose customizations count.")] = "",
) -> None:
    """Fill a prompt in."""
    prompt, label, version = aim(prompt, label, version)
    context = await context_of(run.client, context_value, prompt)
    rendered = await run.client.prompts.render(
        prompt,
        await variables_of(run.client, var, prompt, label, version, context, unit),
        label=label,
        version=version,
        context=context,
        unit=unit,
        agent=agent,
    )
    if run.out.as_json:
        run.out.json(rendered)
        return
    run.out.print(rendered.text)
    run.out.note(_why(rendered.selection))


@command(app, "select")
async def select(run: Run, prompt: Prompt, context_value: Context = [], unit: Unit = "") -> None:  # noqa: B006
    """Show which version a context chooses, and how the rules fared."""
    context = await context_of(run.client, context_value, prompt)
    answer = await run.client.prompts.select(prompt, context, unit=unit)
    if run.out.as_json:
        run.out.json(answer)
        return
    run.out.print(_why(answer.selection))
    for outcome in answer.rules:
        fared = "matches" if outcome.matched else outcome.error or "does not match"
        run.out.print(f"rule {outcome.rule}: {fared}", style=None if outcome.matched else "dim")


@command(app, "delete")
async def delete(
    run: Run,
    prompt: Prompt,
    force: Annotated[bool, typer.Option("--force", help="Even while it is used.")] = False,
) -> None:
    """Delete a prompt with all its versions."""
    from google.protobuf.empty_pb2 import Empty

    await run.client.prompts.delete(prompt, force=force)
    run.out.done(Empty(), f"prompts/{last(prompt)} is deleted")


def _from_file(prompt_id: str, file: Path | None) -> tuple[str, pb.Prompt]:
    from stationmaster.v1 import prompt_pb2 as pb

    if file is None:
        return prompt_id, pb.Prompt()
    named, prompt = read_message(file, pb.Prompt(), "prompts")
    return prompt_id or named, prompt


def _why(selection: pb.PromptSelection) -> str:
    from stationmaster.v1 import prompt_pb2 as pb

    reasons = {
        pb.SELECTION_REASON_VERSION: "asked for",
        pb.SELECTION_REASON_LABEL: f"label {selection.label}",
        pb.SELECTION_REASON_RULE: f"rule {selection.rule}",
        pb.SELECTION_REASON_DEFAULT: f"default: {selection.label}",
        pb.SELECTION_REASON_EXPERIMENT: f"variant {selection.variant} of {selection.experiment}",
    }
    return f"{selection.prompt_version} ({reasons.get(selection.reason, '')})"
