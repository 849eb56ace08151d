"""The prompts' part, built: what is known of them, how they are checked, chosen and filled in."""

from __future__ import annotations

from dataclasses import dataclass

from stationmaster_server.app.ground import Ground
from stationmaster_server.prompts.checking import Checking
from stationmaster_server.prompts.comparing import Comparing
from stationmaster_server.prompts.customizations import Customizations
from stationmaster_server.prompts.expanding import Expanding
from stationmaster_server.prompts.heads import Heads
from stationmaster_server.prompts.recording import Recorder
from stationmaster_server.prompts.rendering import Rendering
from stationmaster_server.prompts.service import PromptService
from stationmaster_server.prompts.servicer import PromptServicer, PromptServices
from stationmaster_server.templating.templates import Templates


@dataclass(frozen=True, slots=True)
class Prompts:
    """What the rooms above need of prompts, and their servicer."""

    servicer: PromptServicer
    rendering: Rendering


def build_prompts(on: Ground) -> Prompts:
    """Build everything about prompts."""
    database, audit = on.database, on.gate.audit
    heads, templates, recorder = Heads(database, on.listener), Templates(on.pools.cpu), Recorder()
    expanding = Expanding(heads, templates)
    checking = Checking(templates, expanding)
    prompts = PromptService(database, audit, heads, checking, expanding)
    rendering = Rendering(heads, expanding, templates, recorder)
    customizations = Customizations(database, audit, heads, checking, expanding)
    services = PromptServices(prompts, Comparing(prompts, on.pools.cpu), rendering, customizations)
    text = "Renders of prompts, by how they ended."
    on.metrics.read("prompt_renders", text, lambda: recorder.renders, label="outcome", total=True)
    return Prompts(PromptServicer(services, on.tokens), rendering)
