"""What people write of prompts: `greeting@staging`, and values that are read as what the prompt declares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from stationmaster_client.cli import given
from stationmaster_client.cli.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stationmaster.v1 import prompt_pb2 as pb

    from stationmaster_client import Client


def _whole(prompt: str) -> str:
    if "@" in prompt:
        bare = prompt.partition("@")[0]
        raise typer.BadParameter(f"{prompt!r} names one version, and this is about the whole prompt: write {bare}")
    return prompt


Prompt = Annotated[str, typer.Argument(help="The prompt's id.", metavar="PROMPT", callback=_whole)]
Aimed = Annotated[str, typer.Argument(help="The prompt's id; greeting@LABEL, greeting@VERSION.", metavar="PROMPT")]


def aim(prompt: str, label: str, version: int) -> tuple[str, str, int]:
    """The prompt, label and version that are meant, from `id`, `id@label` or `id@version`. Raises CommandError."""
    bare, at, where = prompt.partition("@")
    if not at:
        return prompt, label, version
    if label or version:
        raise CommandError(f"{prompt!r} names a version already: leave out {'--label' if label else '--version'}")
    return (bare, "", int(where)) if where.isdecimal() and int(where) else (bare, where, 0)


async def variables_of(
    client: Client, texts: list[str], prompt: str, label: str, version: int, context: dict[str, Any], unit: str = ""
) -> dict[str, Any]:
    """Values of variables, read as the version declares them that a render takes, and what it includes."""
    found = given.values(texts, "--var")
    if not any(isinstance(value, str) for value in found.values()):
        return found
    if not label and not version:
        answer = await client.prompts.select(prompt, context, unit=unit)
        version = int(answer.selection.prompt_version.rpartition("/")[2])
    return given.read_as(found, await _declarations(client, prompt, label, version))


async def context_of(client: Client, texts: list[str], prompt: str) -> dict[str, Any]:
    """Attributes of a context, read as the prompt declares them."""
    found = given.values(texts, "--context-value")
    if not any(isinstance(value, str) for value in found.values()):
        return found
    return given.read_as(found, (await client.prompts.get(prompt)).context_attributes)


async def _declarations(client: Client, prompt: str, label: str, version: int) -> Iterable[Any]:
    """The variables of a version, after those of what it includes: its own count."""
    ahead, seen, declared = [(prompt, label, version)], set(), []
    while ahead:
        one = ahead.pop()
        if one in seen:
            continue
        seen.add(one)
        found: pb.Prompt = await client.prompts.get(one[0], label=one[1], version=one[2])
        declared.append(found.variables)
        ahead += [aim(name, "", 0) for name in found.includes]
    return [each for variables in reversed(declared) for each in variables]
