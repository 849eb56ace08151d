"""stationmaster policies: which tools run, ask or are denied, for a user or the whole organization."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from stationmaster_client.cli import resolve
from stationmaster_client.cli.command import Run, command, group
from stationmaster_client.cli.errors import CommandError, ExitCode
from stationmaster_client.cli.output import plain

if TYPE_CHECKING:
    from stationmaster.v1 import identity_pb2

    Subject: TypeAlias = identity_pb2.User | identity_pb2.Organization

app = group("Which tools run, ask or are denied, for a user or the organization. The strictest rule wins.")


class Effect(StrEnum):
    """What happens when a tool is about to be called."""

    ALLOW = "allow"
    ASK = "ask"
    DENY = "deny"


OfUser = Annotated[str, typer.Option("--user", "-u", help="Of this user; without it of your organization.")]
Pattern = Annotated[str, typer.Argument(help="A tool or a pattern, such as files.*", metavar="PATTERN")]


@command(app, "list")
async def list_policies(run: Run, user: OfUser = "") -> None:
    """List the rules of a user or the organization."""
    _show(run, await _subject(run, user))


@command(app, "set")
async def set_policy(
    run: Run,
    pattern: Pattern,
    effect: Annotated[Effect, typer.Argument(help="What happens when a tool that matches is about to be called.")],
    user: OfUser = "",
) -> None:
    """Set the rule of a pattern."""
    from stationmaster.v1 import agent_pb2

    subject = await _subject(run, user)
    _drop(subject, pattern)
    subject.tool_policies.add(pattern=pattern, effect=agent_pb2.ToolEffect.Value(f"TOOL_EFFECT_{effect.name}"))
    _show(run, await _write(run, subject))


@command(app, "remove")
async def remove(run: Run, pattern: Pattern, user: OfUser = "") -> None:
    """Remove the rule of a pattern."""
    subject = await _subject(run, user)
    if not _drop(subject, pattern):
        raise CommandError(f"{subject.name} has no rule {pattern!r}", ExitCode.NOT_FOUND)
    _show(run, await _write(run, subject))


async def _subject(run: Run, user: str) -> Subject:
    if user:
        return await run.client.users.get(await resolve.user(run.client, user))
    return await run.client.organizations.get(await resolve.owner(run.client, "organization"))


async def _write(run: Run, subject: Subject) -> Subject:
    """With the etag that was read: a rule that somebody else set meanwhile is not lost."""
    from stationmaster.v1 import identity_pb2

    if isinstance(subject, identity_pb2.User):
        return await run.client.users.update(subject, ["tool_policies"])
    return await run.client.organizations.update(subject, ["tool_policies"])


def _drop(subject: Subject, pattern: str) -> bool:
    """Take the rules of a pattern out; whether there was one."""
    kept = [policy for policy in subject.tool_policies if policy.pattern != pattern]
    found = len(kept) < len(subject.tool_policies)
    del subject.tool_policies[:]
    subject.tool_policies.extend(kept)
    return found


def _show(run: Run, subject: Subject) -> None:
    from stationmaster.v1 import agent_pb2

    if run.out.as_json:
        run.out.json(subject)
        return
    rows = [
        (policy.pattern, plain(agent_pb2.ToolEffect.Name(policy.effect), "TOOL_EFFECT"))
        for policy in subject.tool_policies
    ]
    run.out.table(("PATTERN", "EFFECT"), rows, empty=f"{resolve.brief(subject.name)} has no rules about tools.")
