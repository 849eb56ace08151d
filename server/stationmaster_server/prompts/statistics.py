"""Statistics that stay valid while people look: whenever an experiment is stopped, the promised error rates hold.

- Means and differences of means: the normal mixture confidence sequence (Robbins 1970; Johari and others, "Always valid
  inference", 2022; Waudby-Smith and others, "Time-uniform central limit theory", 2021). It is asymptotic, as every
  interval is that estimates a variance: a minimum of outcomes stands before the first look.
- Sample ratios: the sequential multinomial test (Lindon and Malek 2022), which is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, lgamma, log, sqrt

_BEST_AT = 1_000
"""The number of outcomes at which intervals are narrowest; they hold at every other as well."""
MISMATCH_ALPHA = 0.001
"""How often, at most, a sample ratio is called a mismatch that is none."""
_PRIOR = 1_000.0
"""Of the test of sample ratios: how closely to the weights the shares lie under the alternative."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What was measured of one variant: how often, the mean, the variance of one outcome."""

    count: int
    mean: float
    variance: float


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate, the bounds that hold at every look, and the always-valid p-value of no difference from zero."""

    estimate: float
    lower: float
    upper: float
    p_value: float


def success_sample(count: int, successes: float) -> Sample:
    """The sample of zeros and ones; its variance is never zero (the rule of succession)."""
    share = (successes + 1) / (count + 2)
    return Sample(count, successes / count if count else 0.0, share * (1 - share))


def mean_interval(sample: Sample, alpha: float) -> Interval:
    """The mean of a variant."""
    if not sample.count:
        return Interval(0.0, -inf, inf, 1.0)
    return _interval(sample.mean, sample.variance / sample.count, sample.count, alpha)


def difference(control: Sample, treatment: Sample, alpha: float) -> Interval:
    """How much more the treatment has than the control."""
    if not control.count or not treatment.count:
        return Interval(0.0, -inf, inf, 1.0)
    size = 1 / (1 / control.count + 1 / treatment.count)
    # The larger of two estimates: a small arm's variance alone is too often too small where outcomes are skewed, and
    # what is pooled is too small where the small arm varies more.
    apart = control.variance / control.count + treatment.variance / treatment.count
    variance = max(apart, _pooled(control, treatment) / size)
    return _interval(treatment.mean - control.mean, variance, size, alpha)


def _pooled(control: Sample, treatment: Sample) -> float:
    """The variance of one outcome, if both arms vary alike."""
    degrees = control.count + treatment.count - 2
    if degrees <= 0:
        return (control.variance + treatment.variance) / 2
    return ((control.count - 1) * control.variance + (treatment.count - 1) * treatment.variance) / degrees


def _interval(estimate: float, variance: float, size: float, alpha: float) -> Interval:
    """`variance` is the estimate's own; `size` the number of outcomes that it stands on."""
    if variance <= 0:
        return Interval(estimate, -inf, inf, 1.0)  # a variance that is not known yet is not nought
    # The mixing variance that makes intervals narrowest at _BEST_AT outcomes.
    hardest = -2 * log(alpha)
    mixing = variance * size * (hardest + log(hardest + 1)) / _BEST_AT
    total = variance + mixing
    radius = sqrt(2 * variance * total / mixing * (log(total / variance) / 2 - log(alpha)))
    log_ratio = mixing * estimate**2 / (2 * variance * total) - log(total / variance) / 2
    return Interval(estimate, estimate - radius, estimate + radius, min(1.0, exp(-max(log_ratio, 0.0))))


def mismatch_p_value(counts: Sequence[int], weights: Sequence[float]) -> float:
    """How likely these counts, or ones that tell as much, come of these weights at any time; small: they do not."""
    total = sum(weights)
    shares = [weight / total for weight in weights]
    number = sum(counts)
    log_ratio = lgamma(_PRIOR) - lgamma(_PRIOR + number)
    for count, share in zip(counts, shares, strict=True):
        log_ratio += lgamma(_PRIOR * share + count) - lgamma(_PRIOR * share) - count * log(share)
    return min(1.0, exp(-max(log_ratio, 0.0)))
