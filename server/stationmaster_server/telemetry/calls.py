"""Counts and times calls. Kept in plain integers, since every call passes here."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
"""Upper ends of the latency buckets, in seconds."""


class MethodCalls:
    """The calls of one method."""

    __slots__ = ("buckets", "codes", "open", "seconds")

    def __init__(self) -> None:
        self.open = 0
        self.codes: dict[str, int] = {}
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0

    def begin(self) -> None:
        """Count a call that begins."""
        self.open += 1

    def end(self, code: str, seconds: float) -> None:
        """Count a call that ended with this status code after so long."""
        self.open -= 1
        self.codes[code] = self.codes.get(code, 0) + 1
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds


class CallMetrics(Collector):
    """The calls of all methods."""

    def __init__(self) -> None:
        self._methods: dict[tuple[str, str], MethodCalls] = {}

    def of(self, service: str, method: str) -> MethodCalls:
        """Return the counters of a method."""
        return self._methods.setdefault((service, method), MethodCalls())

    def describe(self) -> Iterable[Metric]:
        """Name the families without reading them."""
        return self._families()

    def collect(self) -> Iterator[Metric]:
        """Report every method that was called."""
        handled, open_now, latency = self._families()
        for (service, method), calls in self._methods.items():
            if not calls.codes and not calls.open:
                continue
            open_now.add_metric([service, method], calls.open)
            for code, count in calls.codes.items():
                handled.add_metric([service, method, code], count)
            latency.add_metric([service, method], buckets=_cumulative(calls.buckets), sum_value=calls.seconds)
        yield from (handled, open_now, latency)

    def _families(self) -> tuple[CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily]:
        labels = ("service", "method")
        return (
            CounterMetricFamily(
                "stationmaster_rpc_handled", "Calls that ended, by status code.", labels=(*labels, "code")
            ),
            GaugeMetricFamily("stationmaster_rpc_in_flight", "Calls under way.", labels=labels),
            HistogramMetricFamily("stationmaster_rpc_duration_seconds", "How long calls took.", labels=labels),
        )


def _cumulative(counts: list[int]) -> list[tuple[str, float]]:
    total = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip((*BOUNDS, "+Inf"), counts, strict=True):
        total += count
        buckets.append((str(bound), total))
    return buckets
