"""Goals: a figure of ours, beside whose figure it stands, and the bound on the ratio of the two."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.stats import Spread, ratios

Figures = Mapping[str, float]
"""What one run of one side gave, by name."""

OURS = "ours"
ITSELF = ""
"""`against` of a goal that is a number in itself: the ratio is then ours, undivided."""

COMPARISON = "comparison only"
"""The text of a goal without a bound: a figure beside ours, which cannot be missed."""

_HOLDS = {">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True, slots=True)
class Goal:
    """`Goal("S2.agno", "rate", "agno", ">=", 5, "calls/s")`: our rate is at least five times Agno's."""

    id: str
    figure: str
    against: str
    bound: Literal[">=", "<=", ""]
    factor: float
    unit: str
    title: str = ""
    """What is measured, where it is not simply the measure's title."""
    their_figure: str = ""
    """Theirs, when it has another name than ours."""

    @property
    def text(self) -> str:
        """The goal for people."""
        if not self.bound:
            return COMPARISON
        if self.against == ITSELF:
            return f"{self.bound} {self.factor:g} {self.unit}"
        return f"{self.bound} {self.factor:.2f} x {self.against}"

    def met(self, ratio: float) -> bool:
        """Whether the median ratio is on the right side; without a bound, there is no wrong one."""
        return not self.bound or bool(_HOLDS[self.bound](ratio, self.factor))

    def judge(self, title: str, rounds: Mapping[str, Sequence[Figures]]) -> dict[str, Any] | None:
        """The entry of the results; None when one of the two sides did not run."""
        ours = [figures[self.figure] for figures in rounds.get(OURS, ())]
        theirs = [figures[self.their_figure or self.figure] for figures in rounds.get(self.against, ())]
        count = len(ours) if self.against == ITSELF else min(len(ours), len(theirs))
        if not count:
            return None
        spread = Spread.of(ours if self.against == ITSELF else ratios(ours[:count], theirs[:count]))
        return {
            "id": self.id,
            "title": self.title or title,
            "goal": self.text,
            "against": self.against or "itself",
            "ratio": {"median": spread.median, "min": spread.min, "max": spread.max},
            "ours": Spread.of(ours).median,
            "theirs": Spread.of(theirs).median if theirs else self.factor,
            "unit": self.unit,
            "rounds": count,
            "met": self.met(spread.median),
        }


def beside(goal_id: str, figure: str, against: str, unit: str, title: str = "") -> Goal:
    """A peer that no goal was set against: its figure and the ratio are reported, nothing is judged."""
    return Goal(goal_id, figure, against, "", 1, unit, title=title)
