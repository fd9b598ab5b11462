"""What the replica counts, and its exposition; docs/api.md has the table of names.

The counts are plain numbers. One event loop in one thread changes them and reads them, so they need none of the locks
that make prometheus-client's own types several times as dear (docs/api-benchmarks.md).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from app.engines.engine import Engine, Score
from app.engines.signature import Input, Scalar, text_of
from app.observed.accuracy import EstimatedAccuracy
from app.observed.drift import Baseline, Drift
from app.observed.exposition import Sample, family, process
from app.observed.histogram import DURATION_SECONDS, Histogram
from app.observed.shadow import Shadow
from app.settings import Settings

if TYPE_CHECKING:
    from app.observed.feedback import Feedback

LENGTH_CHARACTERS = (8, 16, 32, 64, 96, 140, 280, 1024, 4096, 8192)
TENTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
NOT_COUNTED = frozenset({"/health", "/ready", "/metrics", "/v2/health/live", "/v2/health/ready"})

SIDES = ("reference", "candidate")  # of a pair in the shadow metrics: v1 and v2

Labels = tuple[str, ...]  # the values of a series' labels, but for those that all have


class Metrics:
    """Everything that /metrics shows of one replica."""

    def __init__(self, settings: Settings, engine: Engine, feedback: Feedback | None = None) -> None:
        self.feedback = feedback
        self._common = {"version": settings.version, "model_version": engine.model_version}
        self._info = (engine.name, settings.release, settings.instance)
        self.baseline = Baseline.of(engine)
        self.drift = Drift(self.baseline)
        self.in_flight = 0
        self.requests: defaultdict[tuple[str, int], int] = defaultdict(int)  # by route and status
        self.durations: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(DURATION_SECONDS))  # by route
        self.accuracy = EstimatedAccuracy()
        self.held_out_accuracy: float | None = engine.manifest.get("metrics", {}).get("accuracy")
        self.confidence_squares = 0.0
        signature, baseline = engine.signature, self.baseline
        self.labels: dict[Scalar, int] = dict.fromkeys(signature.labels, 0)
        self.confidence = Histogram(baseline.confidence.bounds if baseline.confidence else TENTHS)
        self.unknown = Histogram(baseline.unknown.bounds if baseline.unknown else TENTHS)
        self.length = Histogram(LENGTH_CHARACTERS)
        self.shadow = Shadow() if settings.version == "v2" else None
        self.numbers = Histogram(baseline.prediction.bounds if baseline.prediction else ())
        self.columns = {name: [0] * len(places.shares) for name, places in baseline.columns.items()}
        self._signature = signature
        usual = signature.takes_text and signature.probabilities
        self.predicted: Callable[[Input, Score], None] = self._usual if usual else self._any

    def answered(self, route: str, status: int, seconds: float) -> None:
        self.requests[route, status] += 1
        self.durations[route].observe(seconds)

    def _any(self, x: Input, score: Score) -> None:
        signature = self._signature
        if signature.kind == "classes":
            self.labels[score.label] += 1
        else:
            self.numbers.observe(float(score.label))
        if signature.probabilities:
            self.confidence.observe(score.confidence)
            self.confidence_squares += score.confidence * score.confidence
        if signature.takes_text:
            self.unknown.observe(score.unknown / score.tokens if score.tokens else 1.0)
            self.length.observe(len(x))
        else:
            for value, places, counts in zip(x, self.baseline.columns.values(), self.columns.values(), strict=False):
                counts[places.place(value)] += 1

    def _usual(self, text: str, score: Score) -> None:
        """A text and its label, which is what most models are asked for; the others are `_any`."""
        self.labels[score.label] += 1
        self.confidence.observe(score.confidence)
        self.confidence_squares += score.confidence * score.confidence
        # A text without tokens counts as entirely unknown.
        self.unknown.observe(score.unknown / score.tokens if score.tokens else 1.0)
        self.length.observe(len(text))

    def exposition(self) -> bytes:
        """Prometheus' text format, version 0.0.4."""
        return "".join(self._lines()).encode()

    def _lines(self) -> Iterator[str]:
        yield from self._traffic()
        yield from self._predictions()
        yield from self._drift()
        yield from self._accuracy()
        if self.shadow:
            self.shadow.collect()
            yield from self._shadow(self.shadow)
        if self.feedback:
            yield from self._feedback(self.feedback)
        yield from self._gauge(
            "model_info", "The model and release that run here", {self._info: 1}, "engine", "release", "replica"
        )
        yield from process()

    def _traffic(self) -> Iterator[str]:
        requests: dict[Labels, int] = {(route, str(status)): count for (route, status), count in self.requests.items()}
        durations: dict[Labels, Histogram] = {(route,): histogram for route, histogram in self.durations.items()}
        yield from self._counter("requests", "Requests answered", requests, "route", "code")
        yield from self._histogram(
            "request_duration_seconds", "From head to last byte of the answer", durations, "route"
        )
        yield from self._gauge("requests_in_flight", "Requests being answered", {(): self.in_flight})

    def _predictions(self) -> Iterator[str]:
        signature = self._signature
        labels: dict[Labels, int] = {(text_of(label),): count for label, count in self.labels.items()}
        if signature.kind == "number":
            labels = {("number",): sum(self.numbers.counts)}
        yield from self._counter("predictions", "Inputs that a label or a number was predicted for", labels, "label")
        for name, text, histogram, has in (
            (
                "prediction_confidence_ratio",
                "Probability of the predicted label",
                self.confidence,
                signature.probabilities,
            ),
            ("prediction_value", "The predicted number", self.numbers, signature.kind == "number"),
            ("prediction_unknown_ratio", "Share of tokens the model does not know", self.unknown, signature.takes_text),
            ("sentence_length_characters", "Characters a sentence", self.length, signature.takes_text),
        ):
            if has:
                yield from self._histogram(name, text, {(): histogram})

    def totals(self) -> list[Sequence[int]]:
        """Counts since the start, in the order of Baseline.shares."""
        baseline = self.baseline
        histograms = (
            (baseline.confidence, self.confidence),
            (baseline.unknown, self.unknown),
            (baseline.prediction, self.numbers),
        )
        return [
            *([list(self.labels.values())] if baseline.labels else []),
            *(live.counts for bins, live in histograms if bins),
            *self.columns.values(),
        ]

    def _drift(self) -> Iterator[str]:
        shares: dict[Labels, float] = {
            (text_of(label),): share for label, share in zip(self.labels, self.baseline.labels, strict=False)
        }
        yield from self._gauge("baseline_label_ratio", "Share of the label in the model's baseline", shares, "label")
        self.drift.update(*self.totals())
        psi: dict[Labels, float] = {(name,): value for name, value in self.drift.psi().items()}
        yield from self._gauge("drift_psi", "Population stability index against the baseline", psi, "distribution")
        yield from self._gauge("drift_window_predictions", "Predictions behind vmlops_drift_psi", {(): self.drift.size})

    def _accuracy(self) -> Iterator[str]:
        made = sum(self.confidence.counts)
        found = self.accuracy.update(made, self.confidence.sum, self.confidence_squares)
        values: dict[Labels, float] = {(name,): value for name, value in found._asdict().items()} if found else {}
        yield from self._gauge(
            "estimated_accuracy_ratio", "Share of the latest predictions that are probably right", values, "bound"
        )
        held_out: dict[Labels, float] = {} if self.held_out_accuracy is None else {(): self.held_out_accuracy}
        yield from self._gauge("held_out_accuracy_ratio", "Accuracy on held-out data when the model was made", held_out)

    def _shadow(self, shadow: Shadow) -> Iterator[str]:
        """By the model of v1 that was the reference."""
        by = "reference_model_version"
        labels: dict[Labels, float] = {}
        confidence: dict[Labels, float] = {}
        durations: dict[Labels, Histogram] = {}
        agreements: dict[Labels, float] = {}
        failures: dict[Labels, float] = {}
        changes: dict[Labels, Histogram] = {}
        squares: dict[Labels, float] = {}
        for reference, pairs in shadow.comparisons.items():
            labels |= {(reference, *both): count for both, count in pairs.labels.items()}
            agreements[(reference,)] = sum(count for (one, other), count in pairs.labels.items() if one == other)
            failures[(reference,)] = pairs.failures
            changes[(reference,)] = pairs.change
            squares[(reference,)] = pairs.change_squares
            for side, total, seconds in zip(SIDES, pairs.confidence, pairs.durations, strict=True):
                confidence[reference, side] = total
                durations[reference, side] = seconds
        yield from self._counter(
            "shadow_pairs", "Copies answered as well as v1's", labels, by, "reference", "candidate"
        )
        yield from self._counter("shadow_agreements", "Of these, those with the same label", agreements, by)
        yield from self._counter("shadow_failures", "Copies not answered where v1 answered", failures, by)
        yield from self._counter("shadow_confidence", "Sum of the confidence of paired answers", confidence, by, "side")
        yield from self._histogram(
            "shadow_confidence_change_ratio", "Confidence of the candidate less the reference's", changes, by
        )
        yield from self._counter("shadow_confidence_change_squares", "Sum of the squares of that change", squares, by)
        yield from self._histogram("shadow_duration_seconds", "Parsing and scoring, by side", durations, by, "side")
        yield from self._counter("shadow_unpaired", "Answers of v1 without a copy", {(): shadow.unpaired})

    def _feedback(self, feedback: Feedback) -> Iterator[str]:
        """By the version that predicted, which may be another than the one that took the label."""
        labels: dict[Labels, float] = {
            (one.version, one.model_version, str(one.right).lower()): count for one, count in feedback.counts.items()
        }
        by = ("version", "model_version", "right")
        yield from self._counter("feedback", "Predictions that got a label, by whether they had it", labels, *by)
        yield from self._counter(
            "feedback_dropped", "Predictions that could not be kept for a label", {(): feedback.dropped}
        )

    def _counter(self, name: str, text: str, counts: Mapping[Labels, float], *labels: str) -> Iterator[str]:
        samples = [("", self._labels(labels, values), count) for values, count in counts.items()]
        return family(f"vmlops_{name}_total", "counter", text, samples)

    def _gauge(self, name: str, text: str, gauges: Mapping[Labels, float], *labels: str) -> Iterator[str]:
        samples = [("", self._labels(labels, values), value) for values, value in gauges.items()]
        return family(f"vmlops_{name}", "gauge", text, samples)

    def _histogram(self, name: str, text: str, histograms: Mapping[Labels, Histogram], *labels: str) -> Iterator[str]:
        samples: list[Sample] = []
        for values, histogram in histograms.items():
            own = self._labels(labels, values)
            buckets = histogram.buckets()
            samples += [("_bucket", {**own, "le": bound}, count) for bound, count in buckets]
            samples += [("_count", own, buckets[-1][1]), ("_sum", own, histogram.sum)]
        return family(f"vmlops_{name}", "histogram", text, samples)

    def _labels(self, names: Sequence[str], values: Labels) -> dict[str, str]:
        return self._common | dict(zip(names, values, strict=True))
