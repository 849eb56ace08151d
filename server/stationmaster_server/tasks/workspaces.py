"""Workspaces of executions that have no session's: one folder each, below those of sessions."""

from __future__ import annotations

import shutil
from pathlib import Path
from uuid import UUID


class ExecutionWorkspaces:
    """The folders `{root}/{organization}/{execution}`: callers may choose the ids of executions."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, organization_id: UUID, execution_id: UUID) -> Path:
        """Where the files of an execution are, whether or not there are any."""
        return self._root / str(organization_id) / str(execution_id)

    def open(self, organization_id: UUID, execution_id: UUID) -> Path:
        """The folder of an execution; made when it is missing."""
        path = self.path(organization_id, execution_id)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def remove(self, organization_id: UUID, execution_id: UUID) -> bool:
        """Remove a folder with all that is in it; whether there was one."""
        return remove_tree(self.path(organization_id, execution_id))


def exports_folder(execution_id: UUID) -> str:
    """Where in a workspace the files of an export are."""
    return f"exports/{execution_id}"


def remove_tree(path: Path) -> bool:
    """Remove a folder with all that is in it, following no link; whether there was one."""
    if not path.is_dir():
        return False
    shutil.rmtree(path)
    return True
