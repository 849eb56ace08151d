"""stationmaster agents: named specifications, and the models there are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stationmaster_client.cli import given
from stationmaster_client.cli.agent_limits import NAMES, described, set_limits
from stationmaster_client.cli.command import Run, command, group
from stationmaster_client.cli.errors import CommandError
from stationmaster_client.cli.files import read_message
from stationmaster_client.cli.listing import show
from stationmaster_client.cli.options import Filter, Limit, OrderBy, query, text_of
from stationmaster_client.cli.output import age, dollars, moment, plain
from stationmaster_client.names import full

if TYPE_CHECKING:
    from stationmaster.v1 import agent_pb2

app = group("Agents: what sessions run, and the models there are.")

Agent = Annotated[str, typer.Argument(help="The agent's id.", metavar="AGENT")]
File = Annotated[Path | None, typer.Option("--file", help="YAML, JSON or TOML with the agent's fields.")]
Model = Annotated[str, typer.Option("--model", help="The model, as provider:name, or demo.")]
Instructions = Annotated[
    str, typer.Option("--instructions", "-i", help="What the model is told first; @FILE reads it.")
]
Prompt = Annotated[
    str, typer.Option("--prompt", metavar="PROMPT[@LABEL]", help="The prompt that the instructions come from.")
]
PromptValues = Annotated[
    list[str], typer.Option("--prompt-var", metavar="NAME=TEXT", help="A value for the prompt; may be repeated.")
]
Tools = Annotated[list[str], typer.Option("--tool", help="A tool it may use, or a pattern; may be repeated.")]
McpServers = Annotated[
    list[str], typer.Option("--mcp-server", help="An MCP server whose tools it may use, or *; may be repeated.")
]
Allow = Annotated[list[str], typer.Option("--allow", metavar="PATTERN", help="Tools that run without asking.")]
Ask = Annotated[list[str], typer.Option("--ask", metavar="PATTERN", help="Tools that wait for permission.")]
Deny = Annotated[list[str], typer.Option("--deny", metavar="PATTERN", help="Tools that never run.")]
Limits = Annotated[
    list[str],
    typer.Option("--limit", metavar="NAME=N", help=f"A limit, or none: {', '.join(NAMES)}; may be repeated."),
]
AtLimit = Annotated[str, typer.Option("--at-limit", metavar="ask|end", help="What happens to a turn at a limit.")]
Credential = Annotated[
    str,
    typer.Option("--credential", help="The credential that holds the key for its model's provider; 'none' for none."),
]
Name = Annotated[str, typer.Option("--name", help="A name for people.")]
Description = Annotated[str, typer.Option("--description", help="What it is for.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, change nothing.")]


@command(app, "create")
async def create(
    run: Run,
    agent_id: Annotated[str, typer.Argument(help="The id; may stand in the file.", metavar="ID")] = "",
    file: File = None,
    model: Model = "",
    instructions: Instructions = "",
    prompt: Prompt = "",
    prompt_var: PromptValues = [],  # noqa: B006
    tool: Tools = [],  # noqa: B006
    mcp_server: McpServers = [],  # noqa: B006
    allow: Allow = [],  # noqa: B006
    ask: Ask = [],  # noqa: B006
    deny: Deny = [],  # noqa: B006
    limit: Limits = [],  # noqa: B006
    at_limit: AtLimit = "",
    credential: Credential = "",
    name: Name = "",
    description: Description = "",
    dry_run: DryRun = False,
) -> None:
    """Make an agent from options, from a file, or from a file with options on top."""
    agent_id, agent = _from_file(agent_id, file)
    _apply(agent, name, description, model, instructions, tool, mcp_server, allow, ask, deny)
    _instruct(agent.spec, prompt, prompt_var)
    set_limits(agent.spec.limits, limit, at_limit)
    _set_credential(agent, credential)
    if not agent_id or not agent.spec.model:
        raise CommandError("an id and a model are needed: stationmaster agents create helper --model demo")
    made = await run.client.agents.create(
        agent_id,
        agent.spec,
        display_name=agent.display_name,
        description=agent.description,
        validate_only=dry_run,
    )
    _describe(run, made)


@command(app, "update")
async def update(
    run: Run,
    agent: Agent,
    file: File = None,
    model: Model = "",
    instructions: Instructions = "",
    prompt: Prompt = "",
    prompt_var: PromptValues = [],  # noqa: B006
    tool: Tools = [],  # noqa: B006
    mcp_server: McpServers = [],  # noqa: B006
    allow: Allow = [],  # noqa: B006
    ask: Ask = [],  # noqa: B006
    deny: Deny = [],  # noqa: B006
    limit: Limits = [],  # noqa: B006
    at_limit: AtLimit = "",
    credential: Credential = "",
    name: Name = "",
    description: Description = "",
    dry_run: DryRun = False,
) -> None:
    """Change an agent. Lists that are given replace the old ones. Sessions that run keep what they started with."""
    current = await run.client.agents.get(agent)
    before = type(current).FromString(current.SerializeToString())
    if file is not None:
        _, wanted = read_message(file, type(current)(), "agents")
        for field, value in wanted.ListFields():
            if field.message_type:
                getattr(current, field.name).CopyFrom(value)
            else:
                setattr(current, field.name, value)
    _apply(current, name, description, model, instructions, tool, mcp_server, allow, ask, deny)
    _instruct(current.spec, prompt, prompt_var)
    set_limits(current.spec.limits, limit, at_limit)
    _set_credential(current, credential)
    changed = [
        path for path in ("display_name", "description", "spec") if getattr(current, path) != getattr(before, path)
    ]
    if not changed:
        raise CommandError("nothing to change: give options or --file")
    _describe(run, await run.client.agents.update(current, changed, validate_only=dry_run))


@command(app, "list")
async def list_agents(run: Run, condition: Filter = "", order_by: OrderBy = "", limit: Limit = 50) -> None:
    """List agents."""
    from stationmaster.v1 import agent_pb2

    def row(agent: agent_pb2.Agent) -> tuple[str, ...]:
        tools = ", ".join(agent.spec.tools)
        return agent.name.removeprefix("agents/"), agent.spec.model, tools, age(agent.update_time), agent.display_name

    await show(
        run.out,
        run.client.agents.list(**query(condition, order_by, limit)),
        agent_pb2.ListAgentsResponse(),
        "agents",
        limit=limit,
        columns=("AGENT", "MODEL", "TOOLS", "CHANGED", "NAME"),
        row=row,
        empty="No agents. Make one: stationmaster agents create helper --model demo --tool 'files.*'",
    )


@command(app, "show", also="get")
async def get(run: Run, agent: Agent) -> None:
    """Show one agent."""
    _describe(run, await run.client.agents.get(agent))


@command(app, "delete")
async def delete(
    run: Run,
    agent: Agent,
    force: Annotated[bool, typer.Option("--force", help="Even while open sessions name it.")] = False,
) -> None:
    """Delete an agent. Its sessions keep their specification."""
    from google.protobuf.empty_pb2 import Empty

    await run.client.agents.delete(agent, force=force)
    run.out.done(Empty(), f"agents/{agent.removeprefix('agents/')} is deleted")


@command(app, "models")
async def models(
    run: Run,
    provider: Annotated[str, typer.Option("--provider", help="Only this provider's.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Those of providers that are not configured, too.")] = False,
    limit: Limit = 200,
) -> None:
    """List the models that the server reaches, with prices per million tokens."""
    from stationmaster.v1 import agent_pb2

    async def wanted() -> AsyncIterator[agent_pb2.Model]:
        async for model in run.client.agents.models(provider=provider, page_size=1000):
            if model.available or everything:
                yield model

    def row(model: agent_pb2.Model) -> tuple[str, ...]:
        return (
            model.model_id,
            "yes" if model.available else model.unavailable_reason or "no",
            dollars(model.input_micros_per_million_tokens),
            dollars(model.output_micros_per_million_tokens),
            f"{model.context_window_tokens:,}" if model.context_window_tokens else "",
        )

    await show(
        run.out,
        wanted(),
        agent_pb2.ListModelsResponse(),
        "models",
        limit=limit,
        columns=("MODEL", "AVAILABLE", "INPUT#", "OUTPUT#", "CONTEXT#"),
        row=row,
        empty="No models; --all shows those of providers that are not configured.",
    )


def _from_file(agent_id: str, file: Path | None) -> tuple[str, agent_pb2.Agent]:
    from stationmaster.v1 import agent_pb2

    if file is None:
        return agent_id, agent_pb2.Agent()
    named, agent = read_message(file, agent_pb2.Agent(), "agents")
    return agent_id or named, agent


def _set_credential(agent: agent_pb2.Agent, credential: str) -> None:
    if credential == "none":
        agent.spec.credential = ""
    elif credential:
        agent.spec.credential = full("credentials", credential)


def _instruct(spec: agent_pb2.AgentSpec, prompt: str, values: list[str]) -> None:
    """Let the instructions come from a prompt, with these values."""
    if prompt:
        spec.prompt = prompt
    if values:
        spec.prompt_variables.update(given.values(values, "--prompt-var"))


def _apply(
    agent: agent_pb2.Agent,
    name: str,
    description: str,
    model: str,
    instructions: str,
    tools: list[str],
    mcp_servers: list[str],
    allow: list[str],
    ask: list[str],
    deny: list[str],
) -> None:
    """Put what the options say over what is there."""
    from stationmaster.v1 import agent_pb2

    agent.display_name = name or agent.display_name
    agent.description = description or agent.description
    agent.spec.model = model or agent.spec.model
    if instructions:
        agent.spec.text = text_of(Path(instructions[1:])) if instructions.startswith("@") else instructions
    if tools:
        agent.spec.tools[:] = tools
    if mcp_servers:
        agent.spec.mcp_servers[:] = mcp_servers
    if allow or ask or deny:
        effects = ((allow, "ALLOW"), (ask, "ASK"), (deny, "DENY"))
        agent.spec.ClearField("tool_policies")
        for patterns, effect in effects:
            for pattern in patterns:
                agent.spec.tool_policies.add(
                    pattern=pattern, effect=agent_pb2.ToolEffect.Value(f"TOOL_EFFECT_{effect}")
                )


def _describe(run: Run, agent: agent_pb2.Agent) -> None:
    from stationmaster.v1 import agent_pb2

    if run.out.as_json:
        run.out.json(agent)
        return
    spec = agent.spec
    policies = (
        f"{plain(agent_pb2.ToolEffect.Name(policy.effect), 'TOOL_EFFECT')} {policy.pattern}"
        for policy in spec.tool_policies
    )
    run.out.details(
        [
            ("agent", agent.name),
            ("name", agent.display_name),
            ("description", agent.description),
            ("model", spec.model),
            ("instructions", spec.text or spec.prompt),
            ("tools", ", ".join(spec.tools)),
            ("MCP servers", ", ".join(spec.mcp_servers)),
            ("policies", ", ".join(policies)),
            ("limits", described(spec.limits)),
            ("created", moment(agent.create_time)),
            ("changed", moment(agent.update_time)),
        ]
    )
