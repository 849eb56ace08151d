"""Settings of prompts."""

from __future__ import annotations

from datetime import timedelta

from stationmaster_server.config.types import Duration, Group


class PromptSettings(Group):
    """Prompts, and what is counted of them."""

    keep_figures: Duration = timedelta(days=400)
    """Figures of renders, and outcomes that count for no experiment, are forgotten when they are older; units of an
    experiment and their outcomes, when it ended so long ago.
    """
