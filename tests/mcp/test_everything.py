"""The official reference server: everything that it offers works, over each transport."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio
from stationmaster_server.errors import InvalidArgument, NotFound
from stationmaster_server.mcp.connections import Connections, Target
from stationmaster_server.mcp.model import BlobContent, ResourceContent, TextContent

from tests.mcp import everything
from tests.mcp.connected import Heard, connections, target, texts
from tests.waiting import until


@pytest_asyncio.fixture
async def pool() -> AsyncIterator[Connections]:
    async with connections() as made:
        yield made


@pytest_asyncio.fixture(params=["stdio", "http"])
async def reference(request: pytest.FixtureRequest) -> AsyncIterator[Target]:
    """The reference server."""
    if request.param == "stdio":
        yield target(everything.stdio(), server_id="everything")
    else:
        async with everything.http() as transport:
            yield target(transport, server_id="everything")


async def test_every_tool_answers(pool: Connections, reference: Target) -> None:
    tools = await pool.tools(reference)
    assert {tool.name for tool in tools} == set(everything.TOOLS)
    assert not [tool for tool in tools if tool.unusable_reason]
    for name, case in everything.TOOLS.items():
        result = await pool.call(reference, name, case.arguments)
        assert result.is_error is case.is_error, (name, result)
        assert tuple(type(content).__name__ for content in result.content) == case.kinds, (name, result)
        for text in case.texts:
            assert text.lower() in texts(result).lower(), (name, result)
        if case.structured is not None:
            assert result.structured is not None
            assert case.structured.items() <= result.structured.items()
        assert not result.truncated


async def test_every_resource_and_template_is_read(pool: Connections, reference: Target) -> None:
    resources = await pool.resources(reference)
    assert {one.uri for one in resources if not one.is_template} == set(everything.RESOURCES)
    assert {one.uri for one in resources if one.is_template} == set(everything.TEMPLATES)
    for uri in everything.RESOURCES:
        [content], truncated = await pool.read(reference, uri)
        assert isinstance(content, ResourceContent)
        assert content.uri == uri
        assert content.text
        assert not truncated
    for uri, kind in everything.TEMPLATES.values():
        [content], _ = await pool.read(reference, uri)
        assert isinstance(content, ResourceContent)
        assert content.text if kind == "text" else content.blob


async def test_every_prompt_is_filled_in(pool: Connections, reference: Target) -> None:
    assert {prompt.name for prompt in await pool.prompts(reference)} == set(everything.PROMPTS)
    for name, (arguments, text) in everything.PROMPTS.items():
        filled = await pool.prompt(reference, name, arguments)
        said = [message.content.text for message in filled.messages if isinstance(message.content, TextContent)]
        assert text.lower() in " ".join(said).lower(), (name, filled)


async def test_it_is_healthy_and_tells_what_it_is(pool: Connections, reference: Target) -> None:
    check = await pool.check(reference)
    assert (check.healthy, check.problem, check.warnings) == (True, "", ())
    assert check.info is not None
    assert check.info.name == "mcp-servers/everything"
    assert set(check.info.capabilities) == {"tools", "resources", "prompts", "logging", "completions"}
    assert (check.tools, check.resources, check.prompts) == (14, 9, 4)
    assert check.connect_latency is not None
    assert check.ping_latency is not None
    assert check.ping_latency > timedelta()


async def test_progress_reaches_the_call_that_waits(pool: Connections, reference: Target) -> None:
    heard = Heard()
    await pool.call(reference, "trigger-long-running-operation", {"duration": 0.3, "steps": 3}, listener=heard)
    assert heard.fractions
    assert all(fraction is not None and 0 < fraction <= 1 for fraction in heard.fractions)


async def test_an_image_arrives_as_its_bytes(pool: Connections, reference: Target) -> None:
    result = await pool.call(reference, "get-tiny-image", {})
    [image] = [content for content in result.content if isinstance(content, BlobContent)]
    assert (image.kind, image.mime_type, image.data[:4]) == ("image", "image/png", b"\x89PNG")


async def test_wrong_arguments_are_refused_before_the_call_naming_the_place(
    pool: Connections, reference: Target
) -> None:
    with pytest.raises(InvalidArgument, match=r"arguments\.b: .*'three'") as refused:
        await pool.call(reference, "get-sum", {"a": 2, "b": "three"})
    assert refused.value.violations[0].field == "arguments.b"


async def test_what_it_does_not_have_is_not_found(pool: Connections, reference: Target) -> None:
    with pytest.raises(NotFound, match="MCP tool 'nothing'"):
        await pool.call(reference, "nothing", {})
    with pytest.raises(NotFound, match="MCP prompt 'nothing'"):
        await pool.prompt(reference, "nothing", {})
    with pytest.raises((NotFound, InvalidArgument)):
        await pool.read(reference, "demo://resource/static/document/nothing.md")


async def test_a_new_resource_is_listed_after_the_server_told_of_the_change(
    pool: Connections, reference: Target
) -> None:
    before = await pool.resources(reference)
    assert await pool.resources(reference) is before
    arguments = {"name": "new.gz", "data": "data:text/plain;base64,aGVsbG8=", "outputType": "resourceLink"}
    [link] = (await pool.call(reference, "gzip-file-as-resource", arguments)).content
    assert isinstance(link, ResourceContent)

    async def is_listed() -> bool:
        return link.uri in {one.uri for one in await pool.resources(reference)}

    await until(is_listed)
    [content], _ = await pool.read(reference, link.uri)
    assert isinstance(content, ResourceContent)
    assert content.blob is not None
    assert content.blob[:2] == b"\x1f\x8b"


async def test_the_environment_that_it_is_given_is_masked_in_what_it_answers(pool: Connections) -> None:
    secret = target(everything.stdio({"TOKEN": "tell-nobody-of-this"}), server_id="everything")
    told = texts(await pool.call(secret, "get-env", {}))
    assert '"TOKEN": "***"' in told
    assert "tell-nobody" not in told
    assert "STATIONMASTER" not in told
