"""The prompts' part, built: what is known of them, how they are checked, chosen and filled in."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta

from stationmaster_server.app.ground import Ground
from stationmaster_server.db.engine import Database
from stationmaster_server.maintenance.base import Routine
from stationmaster_server.maintenance.model import Scope
from stationmaster_server.prompts import figure_store
from stationmaster_server.prompts.analytics import Analytics
from stationmaster_server.prompts.checking import Checking
from stationmaster_server.prompts.comparing import Comparing
from stationmaster_server.prompts.customizations import Customizations
from stationmaster_server.prompts.expanding import Expanding
from stationmaster_server.prompts.experiments import Experiments
from stationmaster_server.prompts.heads import Heads
from stationmaster_server.prompts.outcomes import Outcomes
from stationmaster_server.prompts.recording import Recorder
from stationmaster_server.prompts.rendering import Rendering
from stationmaster_server.prompts.results import ExperimentResults
from stationmaster_server.prompts.service import PromptService
from stationmaster_server.prompts.servicer import PromptServicer, PromptServices
from stationmaster_server.prompts.standing import Standing
from stationmaster_server.templating.templates import Templates


@dataclass(frozen=True, slots=True)
class Prompts:
    """What the rooms above need of prompts, and their servicer."""

    servicer: PromptServicer
    rendering: Rendering
    recorder: Recorder


def build_prompts(stack: AsyncExitStack, on: Ground) -> Prompts:
    """Build everything about prompts."""
    database, audit = on.database, on.gate.audit
    heads, templates, recorder = Heads(database, on.listener), Templates(on.pools.cpu), Recorder(database)
    recorder.start()
    stack.push_async_callback(recorder.close)
    expanding = Expanding(heads, templates)
    checking = Checking(templates, expanding)
    prompts = PromptService(database, audit, heads, checking, Standing(database, heads, expanding))
    rendering = Rendering(heads, expanding, templates, recorder)
    customizations = Customizations(database, audit, heads, checking, expanding)
    experiments = Experiments(database, audit, heads, prompts)
    services = PromptServices(
        prompts,
        Comparing(prompts, on.pools.cpu),
        rendering,
        customizations,
        experiments,
        ExperimentResults(database, experiments, recorder),
        Outcomes(database, audit),
        Analytics(database, recorder),
    )
    on.background.add(_forgetting(database, on.settings.prompts.keep_figures))
    text = "Renders of prompts, by how they ended."
    on.metrics.read("prompt_renders", text, lambda: recorder.renders, label="outcome", total=True)
    lost = "Exposures of experiments that were not written: the database was away too long, or cannot store them."
    on.metrics.read("prompt_exposures_lost", lost, lambda: recorder.lost, total=True)
    uncounted = "Renders and model calls that are in no figures, for the database was away too long."
    on.metrics.read("prompt_figures_lost", uncounted, lambda: recorder.uncounted, total=True)
    return Prompts(PromptServicer(services, on.tokens), rendering, recorder)


def _forgetting(database: Database, keep: timedelta) -> Routine:
    """The service that forgets figures which are older than `keep`, and those of prompts that are gone."""

    async def forget() -> None:
        more = True
        while more:  # a transaction each, so that none holds many rows
            async with database.system() as tx:
                more = await figure_store.forget(tx, keep)

    what = "Forgets figures of prompts that are older than `prompts.keep_figures`, and of prompts that are gone."
    return Routine("prompt-figures-cleanup", what, timedelta(hours=1), forget, scope=Scope.ONE_SERVER)
