"""Tasks and their dependencies as a graph of RDF, in files of Oxigraph, which SPARQL asks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from itertools import groupby, islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO
from uuid import UUID

from pyoxigraph import DefaultGraph, Literal, NamedNode, Quad, Store

from stationmaster_server.tasks.sync.model import About, Cursor, Key, Position, TaskState
from stationmaster_server.tasks.sync.stores.base import StoreTarget
from stationmaster_server.tasks.sync.stores.readable_copy import ReadableCopy

BASE = "urn:stationmaster:"
COPY_EVERY = timedelta(minutes=1)
"""At most so often is the copy for readers made anew."""
_CURSOR = f"<{BASE}cursor>"
_DEPENDS, _ON_FAILURE = f"{BASE}dependsOn", f"{BASE}onFailure/"
_SAYS = {"kind": f"{BASE}kind", "display_name": f"{BASE}displayName", "state": f"{BASE}state"}


class GraphStore(StoreTarget):
    """One named graph for each organization; an update of many statements is one transaction, cursor included."""

    about = (About.TASK, About.EDGE)

    def __init__(self, path: Path, copy_every: timedelta = COPY_EVERY) -> None:
        super().__init__(path)
        self.copy = ReadableCopy(path, copy_every)
        self._store: Store | None = None

    @property
    def _graph(self) -> Store:
        if self._store is None:
            raise OSError("it is closed")
        return self._store

    def _start(self) -> None:
        if self._store is None:
            self.path.mkdir(mode=0o700, exist_ok=True)
            self._store = Store(str(self.path))
            self.copy.stale = True
        cursor = self._cursor()
        if cursor is None or cursor.filling is None:  # until it is filled, readers have what there was before
            self.copy.renew(self._store.backup)

    def _stop(self) -> None:
        self._store = None  # closes its files with its last reference

    def _cursor(self) -> Cursor | None:
        for quad in self._graph.quads_for_pattern(NamedNode(f"{BASE}cursor"), None, None, None):
            source, transaction, number, *filling = str(getattr(quad.object, "value", "")).split(" ")
            position = Position(int(transaction), int(number))
            return Cursor(source, position, Key(UUID(filling[0]), filling[1]) if filling else None)
        return None

    def _apply(self, states: Sequence[TaskState], cursor: Cursor) -> None:
        statements = [f"DELETE WHERE {{ GRAPH {_of(state.key)} {{ {_task(state.key)} ?p ?o }} }}" for state in states]
        inserted = [f"GRAPH {_of(state.key)} {{ {' '.join(_triples(state))} }}" for state in states if state.text]
        statements.append(f"DELETE WHERE {{ {_CURSOR} ?p ?o }}")
        inserted.append(_at(cursor))
        statements.append(f"INSERT DATA {{ {' '.join(inserted)} }}")
        self.copy.stale = True
        self._graph.update(" ;\n".join(statements))

    def _reset(self, cursor: Cursor) -> None:
        self.copy.stale = True
        self._graph.update(f"CLEAR ALL ;\nINSERT DATA {{ {_at(cursor)} }}")

    async def keys(self, at_once: int) -> AsyncIterator[Sequence[Key]]:
        """Of each statement but the cursor."""
        with TemporaryFile("w+", encoding="utf-8") as file:
            await self._off_loop(lambda: self._list(file))
            while keys := await self._off_loop(lambda: [_key(line.rstrip("\n")) for line in islice(file, at_once)]):
                yield keys

    def _list(self, file: IO[str]) -> None:
        # Oxigraph's iterator stays in its thread, and ends there: the keys wait in a file, not in memory.
        subjects = (quad.subject for quad in self._quads(None))
        file.writelines(f"{getattr(subject, 'value', '')}\n" for subject, _ in groupby(subjects))
        file.seek(0)

    def _quads(self, subject: NamedNode | None) -> Iterator[Quad]:
        found = self._graph.quads_for_pattern(subject, None, None, None)
        return (quad for quad in found if not isinstance(quad.graph_name, DefaultGraph))  # there is the cursor

    def _held(self, key: Key) -> object:
        quads = self._quads(NamedNode(_task(key)[1:-1]))
        return {(quad.predicate.value, str(getattr(quad.object, "value", ""))) for quad in quads} or None

    def _wanted(self, state: TaskState) -> object:
        return set(_facts(state)) if state.text else None


def _facts(state: TaskState) -> Iterator[tuple[str, str]]:
    for name, predicate in _SAYS.items():
        yield predicate, str(getattr(state.text, name))
    for depends_on, on_failure in state.edges:
        other = _task(Key(state.key.organization_id, depends_on))[1:-1]
        yield _DEPENDS, other
        yield f"{_ON_FAILURE}{on_failure}", other


def _triples(state: TaskState) -> Iterator[str]:
    said = set(_SAYS.values())
    for predicate, value in _facts(state):
        yield f"{_task(state.key)} <{predicate}> {Literal(value) if predicate in said else f'<{value}>'} ."


def _of(key: Key) -> str:
    return f"<{BASE}organizations/{key.organization_id}>"


def _task(key: Key) -> str:
    # An id of a task has nothing in it that an IRI may not have.
    return f"<{BASE}organizations/{key.organization_id}/tasks/{key.task_id}>"


def _key(subject: str) -> Key:
    organization, _, task_id = subject.removeprefix(f"{BASE}organizations/").partition("/tasks/")
    return Key(UUID(organization), task_id)


def _at(cursor: Cursor) -> str:
    filling = f" {cursor.filling.organization_id} {cursor.filling.task_id}" if cursor.filling else ""
    said = f"{cursor.source} {cursor.position.transaction} {cursor.position.number}{filling}"
    return f"{_CURSOR} <{BASE}at> {Literal(said)} ."
