"""Who gets which variant: by hashing, so that every server says the same, always (vectors: docs/guides/experiments.md).

A unit is in an experiment when its slot of ten thousand is among the experiment's. Which variant it gets is decided by
weighted rendezvous: each variant draws a number for the unit, the best one wins. So a variant whose weight grows takes
units from the others and moves none between them, and one that shrinks gives units away and takes none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import log

from stationmaster_server.prompts.experiment_model import SLOTS, Experiment, Slots, Variant

TRAFFIC = "traffic"
"""What a slot is drawn with; no variant may be called so, for it would draw the same number."""


def draw(salt: str, key: str, unit: str) -> float:
    """A number above 0 and below 1: the first 53 bits of SHA-256 over `salt`, `key` and `unit`, each after its length.

    Each text is UTF-8, and stands behind its length in bytes as decimal digits and a colon.
    """
    digest = hashlib.sha256()
    for text in (salt, key, unit):
        encoded = text.encode(errors="surrogatepass")
        digest.update(b"%d:" % len(encoded))
        digest.update(encoded)
    return ((int.from_bytes(digest.digest()[:8], "big") >> 11) + 0.5) / 2**53


def slot(layer: str, unit: str) -> int:
    """The unit's ten thousandth in a layer: an experiment by itself, or an exclusion group."""
    return int(draw(layer, TRAFFIC, unit) * SLOTS)


def pick(salt: str, variants: Sequence[Variant], unit: str) -> Variant:
    """The variant that a unit gets, in proportion to the weights."""
    return max(variants, key=lambda each: each.weight / -log(draw(salt, each.variant_id, unit)))


def assign(experiment: Experiment, unit: str) -> Variant | None:
    """The variant that a unit gets; None when it is not in the experiment."""
    mine = slot(layer_of(experiment), unit)
    if not any(first <= mine < end for first, end in experiment.slots):
        return None
    return pick(str(experiment.id), experiment.variants, unit)


def layer_of(experiment: Experiment) -> str:
    """What the experiment shares the units out with."""
    return f"group/{experiment.exclusion_group}" if experiment.exclusion_group else str(experiment.id)


def free_slots(taken: Sequence[Slots], wanted: int) -> Slots | None:
    """So many slots that nobody has, from the smallest on; None when there are not so many."""
    ranges = sorted(each for slots in taken for each in slots)
    found: list[tuple[int, int]] = []
    at = 0
    for first, end in [*ranges, (SLOTS, SLOTS)]:
        if at < first and wanted:
            size = min(wanted, first - at)
            found.append((at, at + size))
            wanted -= size
        at = max(at, end)
    return found if not wanted else None
