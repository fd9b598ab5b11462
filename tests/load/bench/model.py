"""python -m tests.load.bench.model --data CSV: what a prediction takes, by scikit-learn, the scorer and onnxruntime.

All in one process and one thread, over texts that differ, in turns and in CPU time, so that a busy machine does not tell. ONNX
knows no lookbehind, which the shipped model's tokens need, and no union of differently cut words; so a second pipeline,
of scikit-learn's default words and pairs, is measured with all three.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import joblib
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline

from app.engines.engine import Engine
from app.engines.loading import load_engine
from model import dataset, manifest, train
from model.compile import compiled
from model.dataset import Dataset

ROUNDS = 15
ONE_BY_ONE = 60  # texts of a round
BATCH = 1000

Predict = Callable[[Sequence[str]], Any]


def plain(data: Dataset) -> Pipeline:
    """Return the usual pipeline of tutorials: TF-IDF of words and pairs of words, and logistic regression."""
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2)
    return make_pipeline(vectorizer, LogisticRegression(C=0.25, max_iter=500)).fit(data.texts, data.labels)


def onnx(pipeline: Pipeline) -> Predict:
    """The pipeline in onnxruntime. Raises whatever skl2onnx and onnxruntime raise for what they cannot express."""
    import onnxruntime
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import StringTensorType

    cut: Any = pipeline[0]
    vectorizers = [part for _, part in cut.transformer_list] if isinstance(cut, FeatureUnion) else [cut]
    # onnxruntime's default locale, en_US, is not installed on every machine.
    forms: dict[int, dict[str, Any]] = {id(vectorizer): {"locale": "C.UTF-8"} for vectorizer in vectorizers}
    forms[id(pipeline[-1])] = {"zipmap": False}
    model = to_onnx(pipeline, initial_types=[("text", StringTensorType([None, 1]))], options=forms)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal errors only: the others are raised as exceptions anyway
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda texts: session.run(None, {"text": np.array(texts, dtype=object).reshape(-1, 1)})[0]


def measure(predictors: dict[str, Predict], texts: Sequence[str], size: int) -> dict[str, float]:
    """Microseconds a text, the median of rounds, by predictor; texts go in by `size` at a time."""
    took: dict[str, list[float]] = {name: [] for name in predictors}
    number = max(ONE_BY_ONE // size, 1)
    for turn in range(ROUNDS):
        start = turn * number * size % (len(texts) - number * size + 1)
        portions = [texts[at : at + size] for at in range(start, start + number * size, size)]
        for name, predict in predictors.items():
            began = time.process_time()
            for portion in portions:
                predict(portion)
            took[name].append((time.process_time() - began) / number / size * 1e6)
    return {name: median(times) for name, times in took.items()}


def compare(title: str, pipeline: Pipeline, engine: Engine, texts: Sequence[str], other: Predict | None) -> list[str]:
    """Lines of a Markdown table: microseconds a text, and each as many times faster than scikit-learn."""
    expected = pipeline.predict(texts[:BATCH])
    agree = {"compiled": np.array([score.label for score in engine.score_batch(texts[:BATCH])]) == expected}
    one: dict[str, Predict] = {
        "scikit-learn": pipeline.predict_proba,
        "compiled": lambda portion: engine.score(portion[0]),
    }
    many: dict[str, Predict] = {"scikit-learn": pipeline.predict_proba, "compiled": engine.score_batch}
    if other is not None:
        agree["onnxruntime"] = other(texts[:BATCH]) == expected
        one["onnxruntime"] = many["onnxruntime"] = other
    single, batch = measure(one, texts, 1), measure(many, texts, BATCH)
    return [
        f"| {title} | {name} | {single[name]:.0f} | {single['scikit-learn'] / single[name]:.1f} | {batch[name]:.1f} "
        f"| {batch['scikit-learn'] / batch[name]:.2f} | {agree[name].mean():.1%} |"
        if name in agree
        else f"| {title} | {name} | {single[name]:.0f} | 1 | {batch[name]:.1f} | 1 | |"
        for name in single
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load.bench.model", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="texts: CSV, columns sentiment and content")
    parser.add_argument("--model", type=Path, default=manifest.OUTPUT, help="where make model put it (default: model)")
    parser.add_argument("--output", type=Path, help="write the table there as well, in Markdown")
    arguments = parser.parse_args()
    try:
        data = dataset.read(arguments.data)
        shipped = joblib.load(arguments.model / "model.joblib")
    except (dataset.DataError, OSError) as error:
        print(f"{error}; make model first", file=sys.stderr)
        return 1
    with train.one_thread(), tempfile.TemporaryDirectory() as name:
        simple = plain(data)
        refused = ""
        try:
            other: Predict | None = onnx(shipped)
        except Exception as error:  # skl2onnx and onnxruntime raise many types of their own
            other, refused = None, f"{type(error).__name__}: {str(error).splitlines()[0]}"
        lines = compare("shipped", shipped, load_engine(arguments.model / "artifacts"), data.texts, other)
        lines += compare("words and pairs", simple, compiled(simple, Path(name), data), data.texts, onnx(simple))
    page = [
        "# What a prediction takes",
        "",
        f"Made by `make bench-model` on {data.path.name}: CPU time of one thread, medians of {ROUNDS} rounds in turns.",
        "",
        f"| pipeline | engine | µs, one text | times faster | µs a text, {BATCH} | times faster | same label |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *lines,
    ]
    if refused:
        page += ["", f"The shipped pipeline cannot be had in ONNX: `{refused}`"]
    print("\n".join(page))
    if arguments.output:
        arguments.output.write_text("\n".join(page) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
