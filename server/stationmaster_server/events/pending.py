"""What waits for the next flush: grouped by stream and fence, text deltas merged as they come."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from uuid import UUID

from stationmaster_server.db.ids import new_id
from stationmaster_server.events.model import Event, NewEvent
from stationmaster_server.events.store import Group, Written, encode_body

# A reply that piles up during an outage must still fit into a message of 4 MiB.
_MERGED_CHARACTERS = 65_536


class Write:
    """One event to be, of one write or of several that were merged."""

    __slots__ = ("body", "encoded", "futures", "kind", "merge_key", "size", "texts")

    def __init__(self, event: NewEvent, future: Future[int]) -> None:
        self.kind = event.kind
        self.body = event.body
        self.merge_key = event.merge_key
        self.encoded = encode_body(event.body)
        self.futures = [future]
        self.texts: list[str] | None = None
        self.size = 0

    def merge(self, event: NewEvent, future: Future[int]) -> bool:
        """Take in an event that continues this one; False when it does not, or would make it too long."""
        if self.merge_key is None or self.merge_key != event.merge_key or self.kind != event.kind:
            return False
        text: str = event.body["text"]
        if self.texts is None:
            self.texts = [self.body["text"]]
            self.size = len(self.body["text"])
        if self.size + len(text) > _MERGED_CHARACTERS:
            return False
        self.texts.append(text)
        self.size += len(text)
        self.futures.append(future)
        return True

    def seal(self) -> None:
        """Make the body and its JSON text of what was merged."""
        if self.texts is not None and len(self.texts) > 1:
            self.body = self.body | {"text": "".join(self.texts)}
            self.encoded = encode_body(self.body)
            self.texts = None


@dataclass(slots=True)
class StreamWrites:
    """The writes of one stream under one fence, in order."""

    organization_id: UUID
    stream_id: UUID
    fence: UUID
    writes: list[Write] = field(default_factory=list)
    told: bool = False  # the producers know

    def add(self, event: NewEvent, future: Future[int]) -> None:
        """Put an event at the end, or into the one at the end."""
        if not (self.writes and self.writes[-1].merge(event, future)):
            self.writes.append(Write(event, future))

    def group(self) -> Group:
        """What the store writes."""
        for write in self.writes:
            write.seal()
        kinds = [write.kind for write in self.writes]
        return Group(self.organization_id, self.stream_id, self.fence, kinds, [write.encoded for write in self.writes])

    def events(self, written: Written) -> list[Event]:
        """The events as they now stand in the log."""
        if written.at is None:
            return []
        at = written.at
        return [
            Event(self.stream_id, sequence, write.kind, write.body, at)
            for sequence, write in enumerate(self.writes, written.before + 1)
        ]

    def succeed(self, written: Written) -> None:
        """Tell each producer its sequence."""
        self.told = True
        for sequence, write in enumerate(self.writes, written.before + 1):
            for future in write.futures:
                if not future.done():
                    future.set_result(sequence)

    def fail(self, make_error: Callable[[], BaseException]) -> None:
        """Tell each producer that nothing was written."""
        self.told = True
        for write in self.writes:
            for future in write.futures:
                if not future.done():
                    future.set_exception(make_error())
                    future.exception()  # a producer that awaits only its last write is not an error to be logged

    def count(self) -> int:
        """How many writes of producers these are."""
        return sum(len(write.futures) for write in self.writes)


@dataclass(slots=True)
class Flush:
    """What one statement writes; its id tells a repeat from a first try."""

    groups: list[StreamWrites]
    streams: Iterable[UUID]  # to be notified: of the groups, and of transactions that committed meanwhile
    id: UUID = field(default_factory=new_id)
    uncertain: bool = False  # an earlier try may have been committed, or may still be

    def part(self, groups: list[StreamWrites]) -> Flush:
        """Some of the groups, in a flush that is known by the same id: what is written already is not written again."""
        return Flush(groups, self.streams, self.id, self.uncertain)


class Pending:
    """The queue before the writer."""

    def __init__(self) -> None:
        self._groups: dict[tuple[UUID, UUID], StreamWrites] = {}
        self._notified: set[UUID] = set()
        self.size = 0

    def __bool__(self) -> bool:
        return bool(self._groups or self._notified)

    def add(self, organization_id: UUID, stream_id: UUID, fence: UUID, event: NewEvent, future: Future[int]) -> None:
        """Queue an event."""
        key = (stream_id, fence)
        group = self._groups.get(key)
        if group is None:
            group = StreamWrites(organization_id, stream_id, fence)
            group.add(event, future)
            self._groups[key] = group
        else:
            group.add(event, future)
        self.size += 1

    def notify(self, stream_id: UUID) -> None:
        """Queue a notification of a stream that a transaction wrote to."""
        self._notified.add(stream_id)

    def take(self) -> Flush:
        """Everything that waits."""
        groups = list(self._groups.values())
        flush = Flush(groups, self._notified.union(group.stream_id for group in groups))
        self._groups = {}
        self._notified = set()
        self.size = 0
        return flush

    def put_back(self, groups: Iterable[StreamWrites]) -> None:
        """Queue groups again, before what came after them."""
        for group in groups:
            key = (group.stream_id, group.fence)
            later = self._groups.get(key)
            if later is not None:
                group.writes.extend(later.writes)
            self._groups[key] = group
            self.size += group.count() if later is None else group.count() - later.count()
