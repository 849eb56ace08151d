"""Prompts with what they include: followed to the end, circles refused with their path, the text put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from stationmaster_server.db.model import Tenant
from stationmaster_server.errors import FailedPrecondition, PreconditionViolation, Reason
from stationmaster_server.prompts.heads import Filled, Head, Heads
from stationmaster_server.prompts.model import Version, prompt_name, version_name
from stationmaster_server.prompts.reference import FORMS, parse
from stationmaster_server.templating.model import Variable
from stationmaster_server.templating.templates import Ready, Templates

MOST_LEVELS = 10
MOST_PARTS = 100
_Node = tuple[str, int]


@dataclass(slots=True)
class _Whole:
    """A version with what it includes in its place."""

    text: str
    variables: dict[str, Variable]
    parts: frozenset[str]


@dataclass(slots=True)
class _Walk:
    """One walk: `instead` are prompts as they are about to be, `done` versions that are put together already."""

    tenant: Tenant
    instead: Mapping[str, Head] = field(default_factory=dict)
    done: dict[_Node, _Whole] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    path: list[_Node] = field(default_factory=list)


class Expanding:
    """Puts versions together with what they include."""

    def __init__(self, heads: Heads, templates: Templates) -> None:
        self._heads = heads
        self._templates = templates

    async def filled(self, tenant: Tenant, head: Head, version: Version) -> Filled:
        """A version ready to be filled in.

        Raises FailedPrecondition (PROMPT_CYCLE, PROMPT_MISSING), InvalidArgument when it becomes too long.
        """
        known = head.filled.get(version.version)
        if known is None:
            generation = self._heads.generation
            whole = await self._whole(_Walk(tenant), head, version)
            known = await self._ready(whole, version_name(version.prompt_id, version.version))
            if generation == self._heads.generation:
                head.filled[version.version] = known
                self._heads.grew(tenant.organization_id, head, known, lasting=known.is_lasting)
        return known

    async def _ready(self, whole: _Whole, path: str) -> Filled:
        optional = (await self._templates.outlines({path: whole.text}))[path].optional
        variables = tuple(whole.variables.values())
        absent = {each.name for each in variables if not each.required and not each.has_default} & optional
        return Filled(Ready.of(whole.text), variables, whole.parts, frozenset(absent))

    async def check(self, tenant: Tenant, head: Head, version: Version) -> Mapping[str, Variable]:
        """Whether a prompt could stand like this; returns the variables of the version and of what it includes."""
        walk = _Walk(tenant, {head.prompt.prompt_id: head})
        return (await self._whole(walk, head, version)).variables

    async def parts(self, tenant: Tenant, head: Head, version: Version) -> Mapping[str, str]:
        """As `check`; returns the prompts that it is made of besides, with their etags."""
        walk = _Walk(tenant, {head.prompt.prompt_id: head})
        await self._whole(walk, head, version)
        return walk.etags

    async def _whole(self, walk: _Walk, head: Head, version: Version) -> _Whole:
        node = (version.prompt_id, version.version)
        if node in walk.done:
            return walk.done[node]
        if node in walk.path or len(walk.path) >= MOST_LEVELS or len(walk.done) >= MOST_PARTS:
            raise _circle([*walk.path, node], again=node in walk.path)
        walk.path.append(node)
        texts: dict[str, str] = {}
        variables: dict[str, Variable] = {each.name: each for each in version.variables}
        parts = {version.prompt_id}
        for name in version.includes:
            part = await self._part(walk, head, version, name)
            texts[name] = part.text
            variables = part.variables | variables
            parts |= part.parts
        walk.path.pop()
        text = version.template
        if texts:
            text = await self._templates.expand(text, texts, version_name(*node))
        whole = walk.done[node] = _Whole(text, variables, frozenset(parts))
        return whole

    async def _part(self, walk: _Walk, head: Head, version: Version, name: str) -> _Whole:
        reference = parse(name)
        if reference is None:
            raise _missing(version, name, f"an include is written as {FORMS}")
        of = walk.instead.get(reference.prompt_id)
        if of is None:
            of = await self._heads.get(walk.tenant, reference.prompt_id)
            if of is None:
                raise _missing(version, name, f"there is no {prompt_name(reference.prompt_id)}")
            walk.etags[reference.prompt_id] = of.prompt.etag
        number = of.prompt.version_of(reference.target)
        found = await self._heads.version(walk.tenant, of, number) if number else None
        if found is None:
            raise _missing(version, name, f"{prompt_name(reference.prompt_id)} has no such version or label")
        return await self._whole(walk, of, found)


def _missing(version: Version, name: str, why: str) -> FailedPrecondition:
    subject = prompt_name(version.prompt_id)
    text = f"version {version.version} includes {name[:100]!r}: {why}"
    return FailedPrecondition(
        Reason.PROMPT_MISSING, f"{subject}: {text}", PreconditionViolation("PROMPT", subject, text)
    )


def _circle(path: list[_Node], *, again: bool) -> FailedPrecondition:
    shown = " -> ".join(f"{prompt_id}@{version}" for prompt_id, version in path)
    text = "it includes itself" if again else f"includes are more than {MOST_LEVELS} deep, or more than {MOST_PARTS}"
    subject = prompt_name(path[0][0])
    error = FailedPrecondition(
        Reason.PROMPT_CYCLE, f"{subject}: {text}: {shown}", PreconditionViolation("PROMPT", subject, f"{text}: {shown}")
    )
    error.metadata["path"] = shown
    return error
