"""How cost grows: sentence, batch, connections and replicas through the whole path, the vocabulary in one process."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import log
from pathlib import Path
from time import process_time
from typing import Any

from tests.load.bench import load
from tests.load.bench.machine import WORK, Machine
from tests.load.bench.stacks import GATEWAY_UNIT, Stack

Point = dict[str, float]
FIRST_GATEWAY_PORT = 9600  # port 960n is the gateway of n replicas
LENGTHS = (10, 30, 100, 300, 1000, 3000, 8000)
BATCHES = (1, 4, 16, 64, 256)
CONNECTIONS = (1, 10, 100, 1000)
REPLICAS = (1, 2, 3, 4, 5, 6)
FEATURES = (10_000, 30_000, 100_000, 300_000)
LABELS = 13
CURVES = ("length", "batch", "connections", "replicas", "vocabulary")


def texts_of(length: int, sentences: Sequence[str], count: int) -> list[str]:
    """`count` texts of `length` characters, cut from running text."""
    running = " ".join(sentences)
    running *= 1 + 2 * length // len(running)
    return [running[at : at + length].strip().ljust(length, "x") for at in range(0, count * 7, 7)]


def measured(machine: Machine, ours: Stack, target: load.Target, connections: int, seconds: float) -> Point:
    """One run of wrk: what it found, and µs of CPU a request in the application and in nginx."""
    before = machine.cpu([*ours.units, *ours.gateway_units])
    found = load.wrk(target, connections, seconds)
    after = machine.cpu([*ours.units, *ours.gateway_units])
    used = {unit: after[unit] - before[unit] for unit in after}
    return {
        **found,
        "rate": found["requests"] / found["seconds"],
        "app_us": sum(used[unit] for unit in ours.units) / found["requests"],
        "gateway_us": sum(used[unit] for unit in ours.gateway_units) / found["requests"],
    }


@dataclass(frozen=True)
class Curves:
    """Our stack's. A point through the gateway takes `seconds`."""

    machine: Machine
    ours: Stack
    target: load.Target
    sentences: Sequence[str]
    seconds: float

    def measured(self, name: str, documents: list[Any], connections: int = 8, **changes: Any) -> Point:
        bodies = load.write_bodies(WORK / "bodies" / name, documents)
        return measured(
            self.machine, self.ours, self.target._replace(bodies=bodies, **changes), connections, self.seconds
        )

    def by_length(self) -> list[Point]:
        points = []
        for length in LENGTHS:
            texts = texts_of(length, self.sentences, 200 if length < 1000 else 40)
            points.append({"x": length, **self.measured("length", [{"sentence": text} for text in texts])})
        return points

    def by_batch(self) -> list[Point]:
        count = len(self.sentences)
        points = []
        for size in BATCHES:
            batches = [{"sentences": [self.sentences[(i + j) % count] for j in range(size)]} for i in range(40)]
            points.append({"x": size, **self.measured("batch", batches, path="/predict/batch")})
        return points

    def by_connections(self) -> list[Point]:
        points = []
        for count in CONNECTIONS:
            # The first seconds of a thousand connections go to handshakes.
            seconds = self.seconds + (5 if count > 100 else 0)
            points.append({"x": count, **measured(self.machine, self.ours, self.target, count, seconds)})
        return points

    def by_replicas(self) -> list[Point]:
        """Through the copy of our gateway that has an upstream of each size; those added run for this alone."""
        ports = [8000 + n for n in REPLICAS]
        every = [f"vmlops-api-v1@{port}.service" for port in ports]
        added = every[len(self.ours.units) :]
        points = []
        try:
            self.machine.ask("units", verb="start", units=added)
            for unit, port in zip(every, ports, strict=True):
                self.machine.ask("ready", unit=unit, port=port)
            for count in REPLICAS:
                gateway = FIRST_GATEWAY_PORT + count
                stack = Stack("replicas", "", gateway, tuple(every[:count]), gateway_units=(GATEWAY_UNIT,))
                at = self.target._replace(port=gateway)
                load.wrk(at, 4, 1)  # the added ones have answered nothing yet
                points.append({"x": count, **measured(self.machine, stack, at, 32, self.seconds)})
            for point in points:  # at last, when each has answered: PSS shares what the added ones map as well
                point["pss_mb"] = self.machine.ask("memory", units=every[: int(point["x"])])["pss_kb"] / 1024
        finally:
            self.machine.ask("units", verb="stop", units=added)
        return points

    def by_vocabulary(self) -> list[Point]:
        """A process for each size, so that none has what another left behind."""
        points = []
        for features in FEATURES:
            command = [sys.executable, "-m", "tests.load.bench.growth", str(features)]
            result = subprocess.run(command, check=False, capture_output=True, text=True)
            if result.returncode:
                raise RuntimeError(result.stderr.strip().splitlines()[-1])
            points.append(json.loads(result.stdout))
        return points


def exponent(points: Sequence[Point], cost: str) -> float:
    """The largest slope between neighbours on log-log axes: 1 is linear, less is better."""
    pairs = pairwise(points)
    return max(log(b[cost] / a[cost]) / log(b["x"] / a["x"]) for a, b in pairs)


def vocabulary(features: int) -> Point:
    """Compiles a model with so many words and pairs of words, and scores texts of 16 words with it."""
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    from app.engines.artifact import sha256
    from app.engines.loading import load_engine
    from model.compile import compiled
    from model.dataset import Dataset

    chance = np.random.default_rng(0)
    syllables = ["".join(pair) for pair in product("bdfgklmnprst", "aeiou")]
    every = ["".join(triple) for triple in product(syllables, repeat=3)]
    words = [every[i] for i in chance.permutation(len(every))[: features // 2]]
    pairs: dict[str, None] = {}
    while len(words) + len(pairs) < features:
        a, b = chance.integers(0, len(words), 2)
        pairs[f"{words[a]} {words[b]}"] = None
    terms = [*words, *pairs]
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), vocabulary=terms)
    vectorizer.fit(terms[:1000])
    vectorizer.idf_ = chance.uniform(1, 10, len(terms))
    classifier = LogisticRegression()
    classifier.classes_ = np.array([f"label{i}" for i in range(LABELS)])
    classifier.coef_ = chance.normal(size=(LABELS, len(terms)))
    classifier.intercept_ = chance.normal(size=LABELS)
    classifier.n_features_in_ = len(terms)
    texts = [" ".join(terms[i] for i in chance.integers(0, len(terms), 11)) for _ in range(2000)]
    labels = ["label0"] * len(texts)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        source = directory / "texts"
        source.write_text("\n".join(texts))
        compiled(make_pipeline(vectorizer, classifier), directory, Dataset(source, sha256(source), texts, labels))
        size = sum(file.stat().st_size for file in directory.glob("*.npy"))
        began = process_time()
        engine = load_engine(directory)
        loading = process_time() - began
        best = float("inf")
        for _ in range(3):  # the first round fills the cache of words, as a replica's first minute does
            began = process_time()
            for text in texts:
                engine.score(text)
            best = min(best, (process_time() - began) / len(texts) * 1e6)
    return {"x": len(terms), "score_us": best, "model_mb": size / 1e6, "load_ms": loading * 1e3}


if __name__ == "__main__":
    print(json.dumps(vocabulary(int(sys.argv[1]))))
