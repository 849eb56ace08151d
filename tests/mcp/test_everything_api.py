"""The official reference server through the API: everything that it offers works, over each transport."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.json_format import MessageToDict
from stationmaster.v1 import mcp_pb2 as pb

from tests.fixtures.server import running, server_settings
from tests.mcp import everything
from tests.mcp.served import calling, connected, open_session, refusal, register

KINDS = {
    "text": "TextContent",
    "image": "BlobContent",
    "audio": "BlobContent",
    "resource": "ResourceContent",
    "resource_link": "ResourceContent",
}
PARENT = "mcpServers/everything"


@pytest_asyncio.fixture(params=["stdio", "http"])
async def stub(request: pytest.FixtureRequest, database_url: str, tmp_path: Path) -> AsyncIterator[Any]:
    """The API of a server where the reference server is registered as `everything`."""
    settings = server_settings(
        tmp_path / "data",
        database_url,
        mcp={"stdio_commands": [str(everything.NODE)]},
        outbound={"allow": ["127.0.0.1"]},
    )
    async with AsyncExitStack() as stack:
        if request.param == "stdio":
            ours = everything.stdio()
            transport: dict[str, Any] = {"stdio": pb.McpStdio(command=ours.command, arguments=ours.arguments)}
        else:
            transport = {"http": pb.McpHttp(url=(await stack.enter_async_context(everything.http())).url)}
        server = await stack.enter_async_context(running(settings))
        made = await stack.enter_async_context(connected(server))
        await register(made, "everything", **transport)
        yield made


def texts(contents: Any) -> str:
    """The texts in contents, in lower case."""
    return "\n".join(one.text for one in contents if one.WhichOneof("content") == "text").lower()


async def test_it_is_healthy_and_tells_what_it_is(stub: Any) -> None:
    check = await stub.CheckMcpServer(pb.CheckMcpServerRequest(name=PARENT))
    assert (check.healthy, check.problem, list(check.warnings)) == (True, "", [])
    assert check.info.name == "mcp-servers/everything"
    counted = (len(everything.TOOLS), len(everything.RESOURCES) + len(everything.TEMPLATES), len(everything.PROMPTS))
    assert (check.tools, check.resources, check.prompts) == counted
    assert check.ping_latency.ToMicroseconds() > 0


@pytest.mark.parametrize("over", ["server", "session"])
async def test_every_tool_answers(stub: Any, over: str) -> None:
    parent = PARENT if over == "server" else (await open_session(stub, "everything")).name
    tools = (await stub.ListTools(pb.ListToolsRequest(parent=parent))).tools
    assert {tool.tool for tool in tools} == set(everything.TOOLS)
    assert {tool.qualified_name for tool in tools} == {f"everything.{name}" for name in everything.TOOLS}
    assert not [tool for tool in tools if tool.unusable_reason or not tool.HasField("input_schema")]
    for name, case in everything.TOOLS.items():
        answer = await stub.CallTool(calling(name, parent, **case.arguments))
        assert answer.is_error is case.is_error, (name, answer)
        assert tuple(KINDS[str(one.WhichOneof("content"))] for one in answer.content) == case.kinds, (name, answer)
        for text in case.texts:
            assert text.lower() in texts(answer.content), (name, answer)
        if case.structured is not None:
            assert case.structured.items() <= MessageToDict(answer.structured_content).items()
        assert not answer.truncated


async def test_every_resource_and_template_is_read(stub: Any) -> None:
    resources = (await stub.ListResources(pb.ListResourcesRequest(parent=PARENT))).resources
    assert {one.uri for one in resources if not one.is_template} == set(everything.RESOURCES)
    assert {one.uri for one in resources if one.is_template} == set(everything.TEMPLATES)
    cases = dict.fromkeys(everything.RESOURCES, "text") | dict(everything.TEMPLATES.values())
    for uri, kind in cases.items():
        answer = await stub.ReadResource(pb.ReadResourceRequest(parent=PARENT, uri=uri))
        (content,) = answer.contents
        assert content.resource.uri == uri
        assert content.resource.WhichOneof("content") == kind
        assert getattr(content.resource, kind)
        assert not answer.truncated


async def test_every_prompt_is_filled_in(stub: Any) -> None:
    prompts = (await stub.ListMcpPrompts(pb.ListMcpPromptsRequest(parent=PARENT))).prompts
    assert {one.prompt for one in prompts} == set(everything.PROMPTS)
    for name, (arguments, text) in everything.PROMPTS.items():
        request = pb.GetMcpPromptRequest(parent=PARENT, prompt=name, arguments=arguments)
        filled = await stub.GetMcpPrompt(request)
        assert text.lower() in texts(message.content for message in filled.messages), (name, filled)
        assert {message.role for message in filled.messages} <= {"user", "assistant"}


async def test_an_image_arrives_as_its_bytes(stub: Any) -> None:
    answer = await stub.CallTool(calling("get-tiny-image", PARENT))
    (image,) = [one.image for one in answer.content if one.WhichOneof("content") == "image"]
    assert (image.mime_type, image.data[:4]) == ("image/png", b"\x89PNG")


async def test_what_it_does_not_have_and_wrong_arguments_are_told(stub: Any) -> None:
    refused = await refusal(stub.CallTool(calling("get-sum", PARENT, a=2, b="three")))
    assert refused.code == "INVALID_ARGUMENT"
    assert "arguments.b" in refused.text
    assert (await refusal(stub.CallTool(calling("nothing", PARENT)))).code == "NOT_FOUND"
    prompt = pb.GetMcpPromptRequest(parent=PARENT, prompt="args-prompt")
    assert "arguments.city" in (await refusal(stub.GetMcpPrompt(prompt))).text
