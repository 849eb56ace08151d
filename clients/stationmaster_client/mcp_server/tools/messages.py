"""Messages: what was said, page by page and by search."""

from __future__ import annotations

from typing import Annotated, Literal

from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, Field
from stationmaster.v1 import event_pb2

from stationmaster_client.mcp_server.answer import (
    Answer,
    Limit,
    Paged,
    PageToken,
    SessionName,
    compact,
    cut,
    moment,
    plain,
    struct,
)
from stationmaster_client.mcp_server.caller import Call
from stationmaster_client.mcp_server.tool import reads
from stationmaster_client.names import full, last

MOST_CHARACTERS = 60_000
"""Of all messages in one answer together."""


class Message(BaseModel):
    """One message of a session."""

    number: int
    role: str = Field(description="user, assistant, tool or system")
    text: str
    truncated: bool = Field(description="whether read_message has more of it")
    interrupted: bool = Field(description="whether the model was cut off")
    turn: str
    created: str


class Messages(Answer):
    """Some messages of a session, in the order asked for."""

    session: str
    messages: list[Message]
    next_start: int | None = Field(description="start of the call that shows what follows")

    def text(self) -> str:
        """What was said."""
        shown = [
            f"#{message.number} {message.role}, {message.created}{' (cut off)' if message.interrupted else ''}\n"
            f"{message.text}"
            for message in self.messages
        ]
        if self.next_start is not None:
            shown.append(f"There is more: call again with start={self.next_start}.")
        return "\n\n".join(shown) or "No messages here."


class Piece(Answer):
    """A part of the text of one message."""

    session: str
    number: int
    role: str
    piece: str
    length: int = Field(description="characters of the whole text")
    next_offset: int | None = Field(description="offset of the call that shows what follows")

    def text(self) -> str:
        """The part, and how to see what follows it."""
        more = "" if self.next_offset is None else f"\n\nThere is more: call again with offset={self.next_offset}."
        return f"#{self.number} {self.role}, {self.length:,} characters\n{self.piece}{more}"


class Hit(BaseModel):
    """A message that was found."""

    session: str
    number: int
    role: str
    snippet: str
    created: str


class Hits(Paged):
    """Messages that were found, best match first."""

    hits: list[Hit]

    def text(self) -> str:
        """One message each."""
        lines = (f"{hit.session} #{hit.number} {hit.role}, {hit.created}: {hit.snippet}" for hit in self.hits)
        return self.more(lines, "Nothing found.")


def as_text(message: event_pb2.Message) -> str:
    """All parts of a message as text; what is no text stands in brackets."""
    return "\n".join(_part(part) for part in message.parts)


def _part(part: event_pb2.MessagePart) -> str:
    if part.HasField("tool_call"):
        return f"[calls {part.tool_call.tool} {compact(struct(part.tool_call.arguments), 2_000)}]"
    if part.HasField("tool_result"):
        what = "error of" if part.tool_result.is_error else "result of"
        return f"[{what} {part.tool_result.tool}] {part.tool_result.content}"
    if part.HasField("thinking"):
        return f"[thinks] {part.thinking}"
    return part.text


def role_of(message: event_pb2.Message) -> str:
    """Who said it."""
    return plain(event_pb2.MessageRole.Name(message.role), "MESSAGE_ROLE")


@reads("List messages")
async def list_messages(
    call: Call,
    session: SessionName,
    order: Literal["newest_first", "oldest_first"] = "newest_first",
    start: Annotated[int, Field(ge=0, description="Number of the message to begin with; 0: the newest or oldest.")] = 0,
    limit: Limit = 20,
    max_characters: Annotated[int, Field(ge=1, le=20_000, description="Of each message; the rest is cut.")] = 2_000,
) -> Messages:
    """Show what was said in a session. Long messages are cut: read_message shows one wholly."""
    newest = order == "newest_first"
    condition = f"number {'<=' if newest else '>='} {start}" if start else ""
    listing = call.client.sessions.messages(
        session, filter=condition, order_by="create_time desc" if newest else "create_time", page_size=limit
    )
    page = await listing.page()
    shown: list[Message] = []
    left = MOST_CHARACTERS
    for found in page.messages:
        text = as_text(found)
        message = Message(
            number=int(last(found.name)),
            role=role_of(found),
            text=cut(text, max_characters),
            truncated=len(text) > max_characters,
            interrupted=found.interrupted,
            turn=found.turn,
            created=moment(found.create_time),
        )
        left -= len(message.text)
        if left < 0 and shown:
            break
        shown.append(message)
    step = -1 if newest else 1
    more = bool(page.next_page_token) or len(shown) < len(page.messages)
    return Messages(
        session=full("sessions", session), messages=shown, next_start=shown[-1].number + step if more else None
    )


@reads("Read a message")
async def read_message(
    call: Call,
    session: SessionName,
    number: Annotated[int, Field(ge=1, description="The message's number.")],
    offset: Annotated[int, Field(ge=0, description="How many of its characters to pass over.")] = 0,
    max_characters: Annotated[int, Field(ge=1, le=MOST_CHARACTERS)] = 20_000,
) -> Piece:
    """Read one message wholly, a long one part by part."""
    page = await call.client.sessions.messages(session, filter=f"number = {number}", page_size=1).page()
    name = full("sessions", session)
    if not page.messages:
        raise ToolError(f"{name} has no message {number}; list_messages shows which there are")
    text = as_text(page.messages[0])
    end = offset + max_characters
    return Piece(
        session=name,
        number=number,
        role=role_of(page.messages[0]),
        piece=text[offset:end],
        length=len(text),
        next_offset=end if end < len(text) else None,
    )


@reads("Search messages")
async def search_messages(
    call: Call,
    query: Annotated[str, Field(min_length=1, max_length=1000, description='Words, "phrases", or and -not.')],
    session: Annotated[str, Field(description="Only in this session; empty: in all.")] = "",
    limit: Limit = 10,
    page_token: PageToken = "",
) -> Hits:
    """Search the text of your sessions' messages, as in a web search; best match first."""
    page = await call.client.sessions.search(query, session=session, page_size=limit).page(page_token)
    hits = [
        Hit(
            session=hit.message.name.partition("/messages/")[0],
            number=int(last(hit.message.name)),
            role=role_of(hit.message),
            snippet=cut(hit.snippet, 1_000),
            created=moment(hit.message.create_time),
        )
        for hit in page.hits
    ]
    return Hits(hits=hits, next_page_token=page.next_page_token)
