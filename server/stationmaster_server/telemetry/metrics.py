"""Metrics for Prometheus: a registry of this server's own, and gauges that are read when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Reading = float | Mapping[str, float]
"""A number, or a number for each value of the reading's label."""


class Metrics:
    """Everything that is measured in this process. Names begin with `stationmaster_`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        """Make a counter."""
        return Counter(f"stationmaster_{name}", text, labels, registry=self.registry)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        """Make a gauge that is set."""
        return Gauge(f"stationmaster_{name}", text, labels, registry=self.registry)

    def histogram(
        self, name: str, text: str, *labels: str, buckets: Iterable[float] = Histogram.DEFAULT_BUCKETS
    ) -> Histogram:
        """Make a histogram; its unit stands in its name."""
        return Histogram(f"stationmaster_{name}", text, labels, registry=self.registry, buckets=tuple(buckets))

    def read(
        self, name: str, text: str, reading: Callable[[], Reading], *, label: str = "kind", total: bool = False
    ) -> None:
        """Report what `reading` returns when asked: as a counter if it only grows (`total`), else as a gauge."""
        self.registry.register(_Read(f"stationmaster_{name}", text, reading, label, total=total))

    def collect_from(self, collector: Collector) -> None:
        """Report what a collector of its own kind has."""
        self.registry.register(collector)

    def render(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)


class _Read(Collector):
    def __init__(self, name: str, text: str, reading: Callable[[], Reading], label: str, *, total: bool) -> None:
        self._name = name
        self._text = text
        self._reading = reading
        self._label = label
        self._family = CounterMetricFamily if total else GaugeMetricFamily

    def describe(self) -> Iterable[Metric]:
        return [self._family(self._name, self._text)]

    def collect(self) -> Iterable[Metric]:
        now = self._reading()
        if not isinstance(now, Mapping):
            yield self._family(self._name, self._text, value=now)
            return
        family = self._family(self._name, self._text, labels=[self._label])
        for key, value in now.items():
            family.add_metric([key], value)
        yield family
