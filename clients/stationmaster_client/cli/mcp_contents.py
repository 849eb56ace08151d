"""stationmaster mcp-servers, continued: tools, resources and prompts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stationmaster_client.cli.command import Run, command
from stationmaster_client.cli.errors import CommandError, ExitCode
from stationmaster_client.cli.listing import show
from stationmaster_client.cli.mcp_servers import app
from stationmaster_client.cli.mcp_shown import arguments_of, hints_of, note_cut, plain_data, print_contents
from stationmaster_client.cli.options import Limit, pairs, piped
from stationmaster_client.cli.transcript import shorten

if TYPE_CHECKING:
    from stationmaster.v1 import mcp_pb2

Parent = Annotated[str, typer.Argument(help="The server's id, or a session: mcpSessions/…", metavar="SERVER")]
Pattern = Annotated[str, typer.Option("--filter", "-f", metavar="PATTERN", help="A name, or a pattern with *.")]
_MOST = 1000


@command(app, "tools")
async def tools(run: Run, server: Parent, pattern: Pattern = "", limit: Limit = 200) -> None:
    """List a server's tools and their arguments; those in brackets may be left out."""
    from stationmaster.v1 import mcp_pb2

    def row(tool: mcp_pb2.McpTool) -> tuple[str, ...]:
        about = f"cannot be used: {tool.unusable_reason}" if tool.unusable_reason else tool.description or tool.title
        return tool.tool, arguments_of(tool), hints_of(tool), shorten(about)

    await show(
        run.out,
        run.client.mcp.tools(server, filter=pattern, page_size=min(limit, _MOST)),
        mcp_pb2.ListToolsResponse(),
        "tools",
        limit=limit,
        columns=("TOOL", "ARGUMENTS", "SAYS IT IS", "DESCRIPTION"),
        row=row,
        empty="No tools.",
    )


@command(app, "call")
async def call(
    run: Run,
    server: Parent,
    tool: Annotated[str, typer.Argument(help="The tool's name on its server.", metavar="TOOL")],
    arguments: Annotated[str, typer.Argument(help="Its arguments as JSON; - reads them.", metavar="JSON")] = "{}",
) -> None:
    """Call a tool and print its answer: 1 when the tool says that it failed."""
    answer = await run.client.mcp.call(server, tool, _parsed(arguments))
    if run.out.as_json:
        run.out.json(answer)
    else:
        print_contents(run.out, answer.content)
        if not answer.content and answer.HasField("structured_content"):
            run.out.print(json.dumps(plain_data(answer.structured_content), indent=2, ensure_ascii=False))
        note_cut(run.out, answer.truncated)
    if answer.is_error:
        raise CommandError(f"{tool} failed", ExitCode.UNEXPECTED)


@command(app, "resources")
async def resources(run: Run, server: Parent, pattern: Pattern = "", limit: Limit = 200) -> None:
    """List a server's resources, and templates of resources."""
    from stationmaster.v1 import mcp_pb2

    def row(one: mcp_pb2.McpResource) -> tuple[str, ...]:
        kind = "template" if one.is_template else one.mime_type
        size = f"{one.size_bytes:,}" if one.size_bytes else ""
        return one.uri, kind, size, shorten(one.description or one.title or one.resource_name)

    await show(
        run.out,
        run.client.mcp.resources(server, filter=pattern, page_size=min(limit, _MOST)),
        mcp_pb2.ListResourcesResponse(),
        "resources",
        limit=limit,
        columns=("URI", "TYPE", "BYTES#", "DESCRIPTION"),
        row=row,
        empty="No resources.",
    )


@command(app, "read")
async def read(
    run: Run, server: Parent, uri: Annotated[str, typer.Argument(help="The resource's URI.", metavar="URI")]
) -> None:
    """Print a resource."""
    answer = await run.client.mcp.read(server, uri)
    if run.out.as_json:
        run.out.json(answer)
        return
    print_contents(run.out, answer.contents)
    note_cut(run.out, answer.truncated)


@command(app, "prompts")
async def prompts(run: Run, server: Parent, pattern: Pattern = "", limit: Limit = 200) -> None:
    """List a server's prompts and their arguments; those in brackets may be left out."""
    from stationmaster.v1 import mcp_pb2

    def row(prompt: mcp_pb2.McpPrompt) -> tuple[str, ...]:
        names = (one.name if one.required else f"[{one.name}]" for one in prompt.arguments)
        return prompt.prompt, " ".join(names), shorten(prompt.description or prompt.title)

    await show(
        run.out,
        run.client.mcp.prompts(server, filter=pattern, page_size=min(limit, _MOST)),
        mcp_pb2.ListMcpPromptsResponse(),
        "prompts",
        limit=limit,
        columns=("PROMPT", "ARGUMENTS", "DESCRIPTION"),
        row=row,
        empty="No prompts.",
    )


@command(app, "prompt")
async def prompt(
    run: Run,
    server: Parent,
    name: Annotated[str, typer.Argument(help="The prompt's name.", metavar="PROMPT")],
    arguments: Annotated[list[str], typer.Argument(help="Its arguments.", metavar="[NAME=VALUE]...")] = [],  # noqa: B006
) -> None:
    """Print a prompt with its arguments filled in."""
    answer = await run.client.mcp.prompt(server, name, pairs(arguments, "NAME=VALUE"))
    if run.out.as_json:
        run.out.json(answer)
        return
    for message in answer.messages:
        run.out.print(f"{message.role}:", style="bold")
        print_contents(run.out, [message.content])
    note_cut(run.out, answer.truncated)


def _parsed(text: str) -> dict[str, Any]:
    try:
        found = json.loads(piped() if text == "-" else text)
    except ValueError as error:
        raise CommandError(f"the arguments are no JSON: {error}") from error
    if not isinstance(found, dict):
        raise CommandError('the arguments are no JSON object, such as \'{"city": "Basel"}\'')
    return found
