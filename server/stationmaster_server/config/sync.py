"""Where tasks are kept as well."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import field_validator, model_validator

from stationmaster_server.config.types import Group


class _StoreSettings(Group):
    path: Path | None = None

    @field_validator("path")
    @classmethod
    def _is_absolute(cls, path: Path | None) -> Path | None:
        if path is None:
            return None
        if not path.expanduser().is_absolute():
            raise ValueError("must be an absolute path: every start must find the same files")
        return path.expanduser()


class VectorTargetSettings(_StoreSettings):
    """A store of the vectors of tasks, beside PostgreSQL."""

    store: Literal["sqlite-vec"] = "sqlite-vec"
    """SQLite with the extension sqlite-vec (the extra `sync`)."""
    path: Path | None = None
    """Its file, on a disk of this host. Absent: there is none."""


class GraphTargetSettings(_StoreSettings):
    """A store of tasks and their dependencies as a graph, beside PostgreSQL."""

    store: Literal["oxigraph"] = "oxigraph"
    """Oxigraph, which SPARQL asks (the extra `sync`)."""
    path: Path | None = None
    """Its folder, on a disk of this host. Absent: there is none."""


class TextTargetSettings(_StoreSettings):
    """A store of the texts of tasks, beside PostgreSQL."""

    store: Literal["sqlite-fts5"] = "sqlite-fts5"
    """SQLite with FTS5 (the extra `sync`)."""
    path: Path | None = None
    """Its file, on a disk of this host. Absent: there is none."""


class SyncTargets(Group):
    """Stores that are kept in step with tasks."""

    vectors: VectorTargetSettings = VectorTargetSettings()
    graph: GraphTargetSettings = GraphTargetSettings()
    text: TextTargetSettings = TextTargetSettings()

    @model_validator(mode="after")
    def _are_different(self) -> Self:
        paths = [one.path for one in (self.vectors, self.graph, self.text) if one.path is not None]
        if len(set(paths)) < len(paths):
            raise ValueError("two targets have the same path: give each its own")
        return self


class SyncSettings(Group):
    """Copies of tasks in other stores, each kept exactly in step by a background service."""

    targets: SyncTargets = SyncTargets()
