"""Whether a prompt can be: its template, variables, includes, attributes and rules, all told at once where they can."""

from __future__ import annotations

from dataclasses import replace

from stationmaster_server.db.model import Tenant
from stationmaster_server.errors import FieldViolation, InvalidArgument, Reason
from stationmaster_server.prompts.expanding import Expanding
from stationmaster_server.prompts.heads import Head
from stationmaster_server.prompts.model import LATEST, Customization, Prompt, Version
from stationmaster_server.prompts.selection import rule_faults
from stationmaster_server.templating.engine import MOST_TEXT
from stationmaster_server.templating.model import Variable, VariableType
from stationmaster_server.templating.templates import Templates
from stationmaster_server.templating.variables import MOST_VARIABLES, check_declarations, check_values, names_fault

_MOST_VIOLATIONS = 20


class Checking:
    """Looks at what is about to be written."""

    def __init__(self, templates: Templates, expanding: Expanding) -> None:
        self._templates = templates
        self._expanding = expanding

    async def version(self, version: Version) -> Version:
        """A version with what its template includes, and with declarations of what it uses besides.

        Raises InvalidArgument.
        """
        path = "prompt.template"
        if not version.template:
            raise InvalidArgument.field(path, "is required")
        if "\0" in version.template:
            raise InvalidArgument.field(path, "holds the character NUL")
        if len(version.template) > MOST_TEXT:
            raise InvalidArgument.field(path, f"is longer than {MOST_TEXT} characters")
        check_declarations(version.variables, "prompt.variables")
        return replace(version, includes=await self._templates.includes(version.template, path))

    async def whole(self, tenant: Tenant, prompt: Prompt) -> Prompt:
        """The prompt as it would stand, its version put together with what it includes.

        Raises InvalidArgument, FailedPrecondition (PROMPT_CYCLE, PROMPT_MISSING).
        """
        shown, path = prompt.shown, "prompt.template"
        known = await self._expanding.check(tenant, Head.of(prompt), shown)
        without = await self._templates.expand(shown.template, dict.fromkeys(shown.includes, ""), path)
        outline = (await self._templates.outlines({path: without}))[path]
        new = sorted(outline.names - known.keys())
        if len(shown.variables) + len(new) > MOST_VARIABLES:
            raise InvalidArgument.field(path, f"it uses more than {MOST_VARIABLES} variables")
        found = tuple(Variable(name, VariableType.ANY, required=name in outline.required) for name in new)
        check_declarations(found, path)
        return replace(prompt, shown=replace(shown, variables=shown.variables + found))

    def rest(self, prompt: Prompt) -> None:
        """Attributes, rules and labels. Raises InvalidArgument naming all that is wrong."""
        check_declarations(prompt.attributes, "prompt.context_attributes")
        names = [attribute.name for attribute in prompt.attributes]
        faults = rule_faults(prompt.rules, names, "prompt.rules")
        for place, rule in enumerate(prompt.rules):
            if rule.version > prompt.latest_version:
                faults.append(FieldViolation(f"prompt.rules[{place}].version", prompt.lack_of(rule.version)))
        if LATEST in (*prompt.labels, *prompt.protected_labels):
            faults.append(FieldViolation("labels", f"{LATEST!r} always stands for the newest version"))
        if faults:
            text = "; ".join(f"{fault.field}: {fault.description}" for fault in faults[:_MOST_VIOLATIONS])
            raise InvalidArgument(Reason.INVALID_FIELD, text, *faults[:_MOST_VIOLATIONS])

    async def customization(self, one: Customization, variables: tuple[Variable, ...]) -> None:
        """A customization of a version with these variables. Raises InvalidArgument."""
        path = "customization.template"
        if await self._templates.includes(one.template, path):
            raise InvalidArgument.field(path, "a customization includes nothing")
        outline = (await self._templates.outlines({path: one.template}))[path]
        if fault := names_fault(outline.names, (variable.name for variable in variables)):
            raise InvalidArgument.field(path, fault)
        optional = [replace(variable, required=False) for variable in variables]
        check_values(optional, one.variables, "customization.variables")
