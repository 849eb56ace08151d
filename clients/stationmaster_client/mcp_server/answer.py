"""What tools answer: fields for programs, and the same as text for models."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any

from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import BaseModel, Field

from stationmaster_client.structs import values

Limit = Annotated[int, Field(ge=1, le=100, description="How many to show at most.")]
PageToken = Annotated[
    str, Field(description="next_page_token of the call before, to see what follows; all else as in that call.")
]
SessionName = Annotated[str, Field(description="The session: sessions/{id}, or the id alone.")]
RequestId = Annotated[
    str,
    Field(description="A UUID of your own. A call that is repeated with the same one does nothing a second time."),
]


class Answer(BaseModel):
    """The answer of a tool."""

    def text(self) -> str:
        """The answer, to be read."""
        raise NotImplementedError

    def failed(self) -> bool:
        """Whether what was asked for was not done."""
        return False


class Paged(Answer):
    """A part of a list."""

    next_page_token: str = ""

    def more(self, lines: Iterable[str], empty: str) -> str:
        """The lines, and how to see what follows them."""
        shown = list(lines) or [empty]
        if self.next_page_token:
            shown.append(f"There is more: call again with page_token={self.next_page_token!r}.")
        return "\n".join(shown)


def facts(**values: object) -> str:
    """What is known, one fact a line; what is empty is left out."""
    return "\n".join(f"{name.replace('_', ' ')}: {value}" for name, value in values.items() if value not in ("", None))


def moment(timestamp: Timestamp) -> str:
    """A point in time (UTC); empty if there is none."""
    return timestamp.ToDatetime().isoformat(timespec="seconds") + "Z" if timestamp.seconds else ""


def plain(name: str, prefix: str) -> str:
    """`active` from `SESSION_STATE_ACTIVE`."""
    return name.removeprefix(prefix + "_").lower()


def dollars(micros: int) -> float:
    """Dollars from millionths."""
    return round(micros / 1_000_000, 6)


def struct(value: Struct) -> dict[str, Any]:
    """A JSON object."""
    return values(value)


def compact(value: dict[str, Any], most: int = 500) -> str:
    """JSON on one line."""
    return cut(json.dumps(value, ensure_ascii=False), most)


def cut(text: str, most: int) -> str:
    """The beginning of a long text, with a word about the rest."""
    return text if len(text) <= most else f"{text[:most]} … ({len(text) - most:,} more characters)"
