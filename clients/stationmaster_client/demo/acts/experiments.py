"""An experiment with a prompt: who gets which version, what came of it, and what its end does to the label."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator

from stationmaster.v1 import prompt_pb2 as pb

from stationmaster_client.demo.acts.prompts import LABEL, NAME, VARIABLES
from stationmaster_client.demo.stage import Stage, some

UNITS = tuple(f"passengers/{number}" for number in range(1, 25))
SHORT, POLITE = "short", "polite"


async def play(stage: Stage) -> None:
    """Give passengers one of two versions, note what they understood, and conclude."""
    client, programme = stage.client, stage.programme
    programme.act("An experiment with the prompt")
    variants = [pb.ExperimentVariant(variant=SHORT, version=1), pb.ExperimentVariant(variant=POLITE, version=2)]
    wanted = pb.Experiment(
        prompt=f"prompts/{NAME}", label=LABEL, variants=variants, metric=pb.OUTCOME_METRIC_SUCCESS, traffic_share=1
    )
    experiment = (await client.experiments.start((await client.experiments.create(wanted)).name)).name
    first, again = await _given(stage), await _given(stage)
    shares = Counter(first.values())
    kept = first == again and set(shares) == {SHORT, POLITE}
    detail = ", ".join(f"{variant or 'none'} {count}" for variant, count in sorted(shares.items()))
    programme.check("Prompt", "an experiment gives a passenger the same version each time", kept, detail)
    for unit, variant in first.items():
        understood = float(variant == SHORT)
        await client.prompts.record(
            NAME, pb.OUTCOME_METRIC_SUCCESS, understood, experiment=experiment, unit=unit, label=LABEL
        )
    (counts,) = await some(lambda: _counted(stage, experiment), f"the outcomes of {experiment}")
    programme.check(
        "Prompt", "each outcome counts for the version that was given", counts == shares, f"{counts.total()} outcomes"
    )
    await client.experiments.conclude(experiment, SHORT)
    loser = next((unit for unit, variant in first.items() if variant == POLITE), UNITS[0])
    text = (await client.prompts.render(NAME, VARIABLES, label=LABEL, unit=loser)).text
    moved = text == "Aurora leaves from 7."
    programme.check("Prompt", "the winner is what the label says from then on", moved, f"“{text}”")


async def _given(stage: Stage) -> dict[str, str]:
    """The variant that each passenger is given."""
    given = {}
    for unit in UNITS:
        rendered = await stage.client.prompts.render(NAME, VARIABLES, label=LABEL, unit=unit)
        given[unit] = rendered.selection.variant
    return given


async def _counted(stage: Stage, experiment: str) -> AsyncIterator[Counter[str]]:
    """The outcomes of each variant, once all are counted: they are by the background."""
    results = await stage.client.experiments.results(experiment)
    counts = Counter(
        {
            each.variant: metric.count
            for each in results.variants
            for metric in each.metrics
            if metric.metric == pb.OUTCOME_METRIC_SUCCESS
        }
    )
    if counts.total() >= len(UNITS):
        yield counts
