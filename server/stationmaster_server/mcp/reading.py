"""The library's types as our model, within bounds, masked and cleaned."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import mcp_types as types

from stationmaster_server.mcp import cleaning, schemas
from stationmaster_server.mcp.bounds import Bounds
from stationmaster_server.mcp.faults import Fault
from stationmaster_server.mcp.masking import Mask
from stationmaster_server.mcp.model import (
    BlobContent,
    CallResult,
    Content,
    FilledPrompt,
    Prompt,
    PromptArgument,
    PromptMessage,
    Resource,
    ResourceContent,
    ServerInfo,
    TextContent,
    Tool,
)

_NAMEABLE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_LONGEST_QUALIFIED = 128
_URI_CHARS = 2048
_TITLE_CHARS = 256


class Reader:
    """Reads what one server tells."""

    def __init__(self, server_id: str, mask: Mask, bounds: Bounds) -> None:
        self._server_id = server_id
        self._mask = mask
        self._bounds = bounds

    def label(self, text: str | None, limit: int | None = None) -> str:
        """A name or description of the server's."""
        return cleaning.label(self._mask.text(text or ""), limit or self._bounds.description_chars)

    def info(self, info: types.Implementation | None, version: str, has: Any, instructions: str | None) -> ServerInfo:
        """What the server says about itself."""
        names = ("tools", "resources", "prompts", "logging", "completions")
        return ServerInfo(
            name=self.label(info.name if info else "", _TITLE_CHARS),
            version=self.label(info.version if info else "", _TITLE_CHARS),
            protocol_version=version,
            instructions=self.label(instructions),
            capabilities=tuple(name for name in names if getattr(has, name, None) is not None),
        )

    def tools(self, tools: Sequence[types.Tool], unreadable: Iterable[tuple[str, str]]) -> tuple[Tool, ...]:
        """The tools; those that cannot be used say why."""
        seen: dict[str, int] = {}
        for tool in tools:
            seen[tool.name] = seen.get(tool.name, 0) + 1
        work = schemas.Work(self._bounds.schemas_work)
        read = [self._tool(tool, work, twice=seen[tool.name] > 1) for tool in tools]
        read += [
            Tool(
                name=self.label(name, _TITLE_CHARS) or "?",
                description="",
                input_schema={},
                unusable_reason=f"it is no MCP: {self.label(problem, 300)}",
            )
            for name, problem in unreadable
        ]
        return tuple(read)

    def _tool(self, tool: types.Tool, work: schemas.Work, *, twice: bool) -> Tool:
        problem = self._name_problem(tool.name) or schemas.problem_of(tool.input_schema, self._bounds, work)
        if twice:
            problem = "another tool has the same name"
        hints = tool.annotations or types.ToolAnnotations()
        output = tool.output_schema
        if output is not None and schemas.problem_of(output, self._bounds, work):
            output = None
        return Tool(
            name=self.label(tool.name, _TITLE_CHARS),
            description=self.label(tool.description),
            input_schema={} if problem else cleaning.value(self._mask.value(tool.input_schema)),
            title=self.label(tool.title or hints.title, _TITLE_CHARS),
            output_schema=None if output is None else cleaning.value(self._mask.value(output)),
            read_only=hints.read_only_hint,
            destructive=hints.destructive_hint,
            idempotent=hints.idempotent_hint,
            open_world=hints.open_world_hint,
            unusable_reason=self.label(problem, 500),
        )

    def _name_problem(self, name: str) -> str:
        if not _NAMEABLE.fullmatch(name):
            return "policies cannot name it: a name has 1 to 64 letters, digits, dots, hyphens and underscores"
        if len(self._server_id) + 1 + len(name) > _LONGEST_QUALIFIED:
            return f"its name with the server's is longer than {_LONGEST_QUALIFIED} characters"
        return ""

    def resources(
        self, resources: Iterable[types.Resource], templates: Iterable[types.ResourceTemplate]
    ) -> tuple[Resource, ...]:
        """The resources and the templates of them; those with an address beyond bounds are left out."""
        plain = [
            Resource(
                uri=self._mask.text(str(one.uri)),
                name=self.label(one.name, _TITLE_CHARS),
                title=self.label(one.title, _TITLE_CHARS),
                description=self.label(one.description),
                mime_type=self.label(one.mime_type, _TITLE_CHARS),
                size_bytes=max(one.size or 0, 0),
            )
            for one in resources
            if _is_uri(str(one.uri))
        ]
        patterns = [
            Resource(
                uri=self._mask.text(one.uri_template),
                name=self.label(one.name, _TITLE_CHARS),
                title=self.label(one.title, _TITLE_CHARS),
                description=self.label(one.description),
                mime_type=self.label(one.mime_type, _TITLE_CHARS),
                is_template=True,
            )
            for one in templates
            if _is_uri(one.uri_template)
        ]
        return (*plain, *patterns)

    def prompts(self, prompts: Iterable[types.Prompt]) -> tuple[Prompt, ...]:
        """The prompts; of two with one name the first."""
        read: dict[str, Prompt] = {}
        for one in prompts:
            if not one.name or self.label(one.name, _TITLE_CHARS) != one.name:
                continue
            arguments = tuple(
                PromptArgument(self.label(a.name, _TITLE_CHARS), self.label(a.description), bool(a.required))
                for a in (one.arguments or ())[: self._bounds.arguments]
            )
            title, about = self.label(one.title, _TITLE_CHARS), self.label(one.description)
            read.setdefault(one.name, Prompt(one.name, title, about, arguments))
        return tuple(read.values())

    def result(self, result: types.CallToolResult) -> CallResult:
        """What a tool answered."""
        kept = _Kept(self._bounds)
        content = kept.all(self._content(one) for one in result.content)
        structured = result.structured_content
        if isinstance(structured, dict):
            structured = cleaning.value(self._mask.value(structured))
            if not kept.takes(len(json.dumps(structured))):
                structured = None
        else:
            structured = None
        return CallResult(content, structured, bool(result.is_error), kept.truncated)

    def contents(self, result: types.ReadResourceResult) -> tuple[tuple[Content, ...], bool]:
        """The content of a resource, and whether some was left out."""
        kept = _Kept(self._bounds)
        return kept.all(self._resource(one) for one in result.contents), kept.truncated

    def filled(self, result: types.GetPromptResult) -> FilledPrompt:
        """A prompt that was filled in."""
        kept = _Kept(self._bounds)
        messages: list[PromptMessage] = []
        for message in result.messages:
            content = kept.all([self._content(message.content)])
            messages.extend(PromptMessage(message.role, one) for one in content)
        return FilledPrompt(self.label(result.description), tuple(messages), kept.truncated)

    def text(self, text: str) -> str:
        """A text of the server's."""
        return cleaning.content(self._mask.text(text))

    def _content(self, content: Any) -> Content:
        match content:
            case types.TextContent():
                return TextContent(self.text(content.text))
            case types.ImageContent():
                return BlobContent("image", _decoded(content.data), self.label(content.mime_type, _TITLE_CHARS))
            case types.AudioContent():
                return BlobContent("audio", _decoded(content.data), self.label(content.mime_type, _TITLE_CHARS))
            case types.ResourceLink():
                return ResourceContent(
                    uri=self.label(str(content.uri), _URI_CHARS),
                    name=self.label(content.name, _TITLE_CHARS),
                    description=self.label(content.description),
                    mime_type=self.label(content.mime_type, _TITLE_CHARS),
                )
            case types.EmbeddedResource():
                return self._resource(content.resource)
            case _:
                raise Fault(f"it answered with content of an unknown kind: {type(content).__name__}")

    def _resource(self, resource: types.TextResourceContents | types.BlobResourceContents) -> ResourceContent:
        uri = self.label(str(resource.uri), _URI_CHARS)
        mime_type = self.label(resource.mime_type, _TITLE_CHARS)
        if isinstance(resource, types.TextResourceContents):
            return ResourceContent(uri, mime_type=mime_type, text=self.text(resource.text))
        return ResourceContent(uri, mime_type=mime_type, blob=_decoded(resource.blob))


class _Kept:
    """Content as long as there is room; a text is cut where the room ends, a blob left out."""

    def __init__(self, bounds: Bounds) -> None:
        self._room = bounds.result_bytes
        self._places = bounds.contents
        self.truncated = False

    def takes(self, size: int) -> bool:
        """Whether so much still fits; then the room is taken."""
        if size > self._room:
            self.truncated = True
            return False
        self._room -= size
        return True

    def all(self, contents: Iterable[Content]) -> tuple[Content, ...]:
        """Those that fit."""
        kept = []
        for content in contents:
            self._places -= 1
            if self._places < 0:
                self.truncated = True
                break
            if self.takes(_size(content)):
                kept.append(content)
            elif isinstance(content, TextContent) and self._room > 0:
                cut = content.text.encode()[: self._room].decode(errors="ignore")
                self._room = 0
                kept.append(TextContent(cut))
        return tuple(kept)


_OVERHEAD_BYTES = 64
"""Of an item of content besides its text: many empty ones are large too."""


def _size(content: Content) -> int:
    match content:
        case TextContent():
            return len(content.text.encode()) + _OVERHEAD_BYTES
        case BlobContent():
            return len(content.data) + _OVERHEAD_BYTES
        case ResourceContent():
            texts = (content.uri, content.name, content.description, content.text or "")
            return sum(len(text.encode()) for text in texts) + len(content.blob or b"") + _OVERHEAD_BYTES


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise Fault("it answered with a blob that is no base64") from None


def _is_uri(text: str) -> bool:
    return 0 < len(text) <= _URI_CHARS and cleaning.label(text, _URI_CHARS) == text
