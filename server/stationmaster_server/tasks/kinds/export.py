"""The kind `export`: sessions, messages, audit, tasks and executions as files in a workspace."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field

from stationmaster_server.config.export import ExportSettings
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.errors import FieldViolation, InvalidArgument
from stationmaster_server.identity.roles import require_scopes
from stationmaster_server.resilience.pools import Pools
from stationmaster_server.sessions import store as session_store
from stationmaster_server.sessions.model import ENDED, owner_scope, session_name
from stationmaster_server.sessions.workspaces import Workspaces
from stationmaster_server.storage.file_store import changed_otherwise
from stationmaster_server.storage.paths import PathRefused
from stationmaster_server.storage.places.place import Home
from stationmaster_server.storage.workspace import Workspace
from stationmaster_server.tasks.exports.files import TooLarge, write_file
from stationmaster_server.tasks.exports.formats import FormatUnavailable, writer
from stationmaster_server.tasks.exports.model import ExportedFile, Format, Wanted, What
from stationmaster_server.tasks.exports.sources import SOURCES, Pages
from stationmaster_server.tasks.kinds.base import Done, Job, KindFailed, Payload
from stationmaster_server.tasks.model import Execution, execution_name
from stationmaster_server.tasks.owners import owner_of
from stationmaster_server.tasks.reports.figures import count, size
from stationmaster_server.tasks.reports.model import Section, Table
from stationmaster_server.tasks.workspaces import ExecutionWorkspaces, exports_folder
from stationmaster_server.templating.templates import is_template

WRITES_INTO = "writes_into"
"""In the checkpoint: the session whose workspace gets the files."""
MANIFEST = "manifest.json"
_WRITE_LIMIT = timedelta(minutes=1)


class ExportPayload(Payload):
    """What is exported: as much as the owner of the execution sees, administrators all of the organization."""

    what: Annotated[tuple[What, ...], Field(min_length=1, max_length=5)]
    """A file for each."""
    format: Format = Format.JSONL
    """Parquet needs the extra `parquet` on the server."""
    session: Annotated[str, Field(pattern=r"^(sessions/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})?$")] = ""
    """Whose workspace gets the files (`exports/{execution}/…`); without it the execution has one of its own."""
    filters: Annotated[dict[What, Annotated[str, Field(max_length=4000)]], Field(default_factory=dict)]
    """As the lists of the services take them, for each of `what`."""
    start_time: AwareDatetime | None = None
    """What was made before is left out."""
    end_time: AwareDatetime | None = None
    """What was made then or later is left out; without it: when the export begins."""
    limit: Annotated[int, Field(ge=1, le=10_000_000)] = 1_000_000
    """Rows in each file, the oldest."""
    csv_formulas: bool = False
    """CSV: texts that spreadsheets take for formulas are written as they are, without a `'` before them."""


class ExportKind:
    """Exports under the execution's id; an attempt after a crash begins anew and replaces what is there."""

    name: ClassVar[str] = "export"
    payload: ClassVar[type[BaseModel]] = ExportPayload

    def __init__(
        self,
        database: Database,
        sessions: Workspaces | None,
        own: ExecutionWorkspaces,
        pools: Pools,
        settings: ExportSettings,
    ) -> None:
        """`sessions`: None where workspaces of sessions are no folders of this host."""
        self._database = database
        self._sessions = sessions
        self._own = own
        self._pools = pools
        self._settings = settings

    def admit(self, caller: Caller, payload: Mapping[str, Any]) -> None:
        """Who submits an export needs the scopes to read what it exports. Raises PermissionDenied(SCOPE_MISSING)."""
        what = payload.get("what")
        asked = [source for name, source in SOURCES.items() if isinstance(what, list) and name in what]
        # A template may become anything.
        plain = isinstance(what, list) and all(isinstance(one, str) and one in set(What) for one in what)
        scopes = {source.scope for source in (asked if plain else SOURCES.values())}
        require_scopes(caller, frozenset(scopes), "export this")

    async def faults(self, caller: Caller, payload: Mapping[str, Any]) -> Sequence[FieldViolation]:
        """Filters that cannot be read."""
        filters = payload.get("filters")
        found = []
        for what, text in filters.items() if isinstance(filters, Mapping) else ():
            if isinstance(text, str) and text.strip() and not is_template(text) and what in SOURCES:
                try:
                    SOURCES[What(what)].check(text)
                except InvalidArgument as error:
                    said = error.violations[0].description if error.violations else error.message
                    found.append(FieldViolation(f"filters.{what}", said))
        return found

    async def run(self, job: Job[ExportPayload]) -> Done:
        """Export. Raises KindFailed, PermissionDenied, InvalidArgument (INVALID_FILTER), NotFound (the session)."""
        payload = job.payload
        owner = await owner_of(self._database, job.caller)
        require_scopes(owner, frozenset(SOURCES[what].scope for what in payload.what), "export this")
        workspace, where, whose = await self._workspace(job, owner)
        until = payload.end_time or datetime.now(UTC)
        files: list[ExportedFile] = []
        for what in dict.fromkeys(payload.what):
            filter_text = payload.filters.get(what, "")
            wanted = Wanted(filter_text, payload.start_time, until, payload.limit)
            files.append(await self._exported(job, owner, workspace, what, wanted, files))
        manifest = {
            "workspace": where,
            "format": payload.format.value,
            "end_time": until.isoformat(),
            "files": [asdict(file) for file in files],
        }
        path = f"{_folder(job)}/{MANIFEST}"
        content = json.dumps(manifest, indent=2).encode()
        await self._pools.blocking(workspace.write, path, content, timeout=_WRITE_LIMIT)
        if whose is not None:
            home = Home(owner.tenant.organization_id, UUID(payload.session.removeprefix("sessions/")))
            async with self._database.system() as tx:
                await changed_otherwise(tx, home, whose)
        return Done({**manifest, "manifest": path})

    async def sections(self, caller: Caller, execution: Execution) -> Sequence[Section]:
        """The files, and where they are."""
        result = execution.result
        if not result:
            return ()
        rows = tuple(
            (
                str(file["path"]),
                str(file["what"]),
                count(int(file["rows"])),
                size(int(file["size_bytes"])),
                "yes" if file["complete"] else "no: there are more rows than `limit`",
            )
            for file in result["files"]
        )
        text = f"In the workspace of `{result['workspace']}`, with those made before {result['end_time']}."
        columns = ("File", "What", "Rows", "Size", "Complete")
        return (Section("Files", text, Table(columns, rows, frozenset({2, 3}))),)

    async def _workspace(self, job: Job[ExportPayload], owner: Caller) -> tuple[Workspace, str, UUID | None]:
        """The workspace, its name for people and, of a session's, the session's owner."""
        if not job.payload.session:
            folder = self._own.open(owner.tenant.organization_id, job.execution_id)
            return Workspace(folder), execution_name(job.execution_id), None
        if self._sessions is None:
            text = "files of sessions are in object storage here, and exports are written to a disk: name no session"
            raise KindFailed(text, reason="NO_FOLDER", retryable=False)
        session_id = UUID(job.payload.session.removeprefix("sessions/"))
        async with self._database.tenant(owner.tenant, read=True) as tx:
            session = await session_store.get_session(tx, owner.tenant.organization_id, session_id, owner_scope(owner))
        if session.state in ENDED:
            text = f"{session_name(session_id)} is {session.state}: name one that is open, or none"
            raise KindFailed(text, reason="SESSION_CLOSED", retryable=False)
        await job.save({WRITES_INTO: str(session_id)})  # by it the files are found when the execution is forgotten
        return Workspace(self._sessions.open(session_id)), session_name(session_id), session.user_id

    async def _exported(
        self,
        job: Job[ExportPayload],
        owner: Caller,
        workspace: Workspace,
        what: What,
        wanted: Wanted,
        before: list[ExportedFile],
    ) -> ExportedFile:
        payload, source = job.payload, SOURCES[what]
        path = f"{_folder(job)}/{what}.{payload.format}"
        counters = {str(file.what): file.rows for file in before}

        def tell(rows: int) -> None:
            counters[str(what)] = counters.get(str(what), 0) + rows
            job.progress(None, f"{counters[str(what)]} {what}", counters)

        pages = Pages(self._database, source, owner, wanted)
        try:
            rows, size, sha256 = await write_file(
                self._pools,
                workspace,
                path,
                aiter(pages),
                lambda file: writer(file, payload.format, source.columns, formulas=payload.csv_formulas),
                most_bytes=self._settings.max_bytes - sum(file.size_bytes for file in before),
                tell=tell,
            )
        except FormatUnavailable as error:
            raise KindFailed(str(error), reason="FORMAT_UNAVAILABLE", retryable=False) from None
        except PathRefused as error:
            raise KindFailed(f"{path} cannot be written: {error}", reason="PATH_REFUSED", retryable=False) from None
        except TooLarge:
            most = f"{self._settings.max_bytes:,} bytes, which this server allows (its setting export.max_bytes)"
            text = f"the files would be larger than {most}: export a shorter time, or with a filter or limit"
            raise KindFailed(text, reason="EXPORT_TOO_LARGE", retryable=False) from None
        return ExportedFile(path, what, rows, size, sha256, pages.complete)


def _folder(job: Job[ExportPayload]) -> str:
    return exports_folder(job.execution_id)
