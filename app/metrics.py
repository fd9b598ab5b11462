"""What the replica counts, and its exposition; docs/api.md has the table of names.

The counts are plain numbers. One event loop in one thread changes them and reads them, so they need none of the locks
that make prometheus-client's own types several times as dear (docs/api-benchmarks.md). The exposition and the process
metrics are that library's.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.utils import floatToGoString

from app.drift import Baseline, Drift
from app.engine import Engine, Score
from app.settings import Settings

# A sentence takes about 100 µs, a batch of the longest ones about a second.
DURATION_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
LENGTH_CHARACTERS = (8, 16, 32, 64, 96, 140, 280, 1024, 4096, 8192)
NOT_COUNTED = frozenset({"/health", "/ready", "/metrics", "/v2/health/live", "/v2/health/ready"})
MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4.encode()


Labels = tuple[str, ...]  # the values of a series' labels, but for those that all have


class Histogram:
    """Counts by bin: the i-th holds bounds[i-1] < x <= bounds[i], the last what exceeds every bound."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, x: float) -> None:
        self.counts[bisect_left(self.bounds, x)] += 1
        self.sum += x

    def buckets(self) -> list[tuple[str, int]]:
        """Cumulative, as Prometheus has them."""
        return list(zip([*map(floatToGoString, self.bounds), "+Inf"], accumulate(self.counts), strict=True))


class Metrics(Collector):
    """Everything that /metrics shows of one replica."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._common = (settings.version, engine.model_version)
        self._info = (engine.name, settings.release, settings.instance)
        self.baseline = Baseline.of(engine)
        self.drift = Drift(self.baseline)
        self.in_flight = 0
        self.requests: defaultdict[tuple[str, int], int] = defaultdict(int)  # by route and status
        self.durations: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(DURATION_SECONDS))  # by route
        self.labels = dict.fromkeys(engine.labels, 0)
        self.confidence = Histogram(self.baseline.confidence.bounds)
        self.unknown = Histogram(self.baseline.unknown.bounds)
        self.length = Histogram(LENGTH_CHARACTERS)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def answered(self, route: str, status: int, seconds: float) -> None:
        self.requests[route, status] += 1
        self.durations[route].observe(seconds)

    def predicted(self, text: str, score: Score) -> None:
        self.labels[score.label] += 1
        self.confidence.observe(score.confidence)
        # Nothing is known of a text without tokens.
        self.unknown.observe(score.unknown / score.tokens if score.tokens else 1.0)
        self.length.observe(len(text))

    def exposition(self) -> bytes:
        """Prometheus' text format, version 0.0.4."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        yield from self._traffic()
        yield from self._predictions()
        yield from self._drift()
        yield self._gauge(
            "model_info", "The model and release that run here", {self._info: 1}, "engine", "release", "replica"
        )

    def _traffic(self) -> Iterator[Metric]:
        requests: dict[Labels, int] = {(route, str(status)): count for (route, status), count in self.requests.items()}
        durations: dict[Labels, Histogram] = {(route,): histogram for route, histogram in self.durations.items()}
        yield self._counter("requests", "Requests answered", requests, "route", "code")
        yield self._histogram("request_duration_seconds", "From head to last byte of the answer", durations, "route")
        yield self._gauge("requests_in_flight", "Requests being answered", {(): self.in_flight})

    def _predictions(self) -> Iterator[Metric]:
        labels: dict[Labels, int] = {(label,): count for label, count in self.labels.items()}
        yield self._counter("predictions", "Sentences classified", labels, "label")
        yield self._histogram(
            "prediction_confidence_ratio", "Probability of the predicted label", {(): self.confidence}
        )
        yield self._histogram("prediction_unknown_ratio", "Share of tokens the model does not know", {(): self.unknown})
        yield self._histogram("sentence_length_characters", "Characters a sentence", {(): self.length})

    def _drift(self) -> Iterator[Metric]:
        shares: dict[Labels, float] = {
            (label,): share for label, share in zip(self.labels, self.baseline.labels, strict=True)
        }
        yield self._gauge("baseline_label_ratio", "Share of the label in the model's baseline", shares, "label")
        self.drift.update(list(self.labels.values()), self.confidence.counts, self.unknown.counts)
        psi: dict[Labels, float] = {(name,): value for name, value in self.drift.psi().items()}
        yield self._gauge("drift_psi", "Population stability index against the baseline", psi, "distribution")
        yield self._gauge("drift_window_predictions", "Predictions behind vmlops_drift_psi", {(): self.drift.size})

    def _counter(self, name: str, text: str, counts: dict[Labels, int], *labels: str) -> Metric:
        family = CounterMetricFamily(f"vmlops_{name}", text, labels=("version", "model_version", *labels))
        for values, count in counts.items():
            family.add_metric((*self._common, *values), count)
        return family

    def _gauge(self, name: str, text: str, gauges: dict[Labels, float], *labels: str) -> Metric:
        family = GaugeMetricFamily(f"vmlops_{name}", text, labels=("version", "model_version", *labels))
        for values, value in gauges.items():
            family.add_metric((*self._common, *values), value)
        return family

    def _histogram(self, name: str, text: str, histograms: dict[Labels, Histogram], *labels: str) -> Metric:
        family = HistogramMetricFamily(f"vmlops_{name}", text, labels=("version", "model_version", *labels))
        for values, histogram in histograms.items():
            family.add_metric((*self._common, *values), histogram.buckets(), histogram.sum)
        return family
