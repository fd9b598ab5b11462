"""python -m model --data FILE: train, evaluate, compile. Makes model.joblib, report/ and artifacts/, or nothing."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from app.engines.artifact import sha256
from model import dataset, extremes, known_answers, large, manifest, measures, parity, report, signing, train, workers
from model.compile import compiled
from model.dataset import Dataset
from model.learned import Evaluation, Learned
from model.progress import Progress


def evaluate(data: Dataset, tuning: train.Tuning, progress: Progress) -> Evaluation:
    """Learns from four fifths and scores the rest, by the compiled scorer: what is measured is what is served."""
    how = f"""Measured on {train.SPLITS} stratified splits
(`random_state` 0 to {train.SPLITS - 1}): the recipe learned from four fifths and was asked for the rest.
Figures are means with the standard deviation over the splits.
Strength, calibration and temperature, three choices, were made once, by cross-validation on all texts."""
    made = Evaluation([], np.array([], dtype=str), [], [], how)
    for number in range(train.SPLITS):
        progress.detail(f"split {number + 1} of {train.SPLITS}")
        texts, held_texts, labels, held = train.split(data.texts, data.labels, number)
        with tempfile.TemporaryDirectory() as scratch:
            scores = compiled(train.fit(texts, labels, tuning), Path(scratch), data).score_batch(held_texts)
        measured = measures.measure(np.array([score.probabilities for score in scores]), held)
        made = Evaluation(
            made.texts + held_texts,
            np.concatenate([made.labels, held]),
            made.scores + list(scores),
            [*made.by_split, measured],
            how,
        )
    return made


def learn(data: Dataset, progress: Progress) -> Learned:
    """Learn by the recipe of model.train; large.learn() is for more rows than this has time for."""
    labels = np.array(data.labels)
    with progress.stage("Tuning"):
        tuning = train.tune(train.features(), train.RECIPE, data.texts, labels, report=progress.detail)
    with progress.stage(f"Evaluating on {train.SPLITS} held-out fifths"):
        evaluation = evaluate(data, tuning, progress)
    with progress.stage("Fitting on all texts"):
        pipeline = train.fit(data.texts, labels, tuning)
    return Learned(pipeline, f"A ridge regression with alpha 1/{tuning.strength:g}", tuning, evaluation)


def build(data: Dataset, output: Path, progress: Progress, name: str = "emotion") -> dict[str, Any]:
    """Make model.joblib, report/ and artifacts/ in `output`, all or none, and return the manifest.

    Raises Disparity should the compiled scorer not do what the pipeline does.
    """
    with manifest.staging(output) as made:
        way = large.learn if len(data.texts) > large.ROWS else learn
        pipeline, classifier, tuning, evaluation, compare_all = way(data, progress)
        metrics, spread = measures.mean_and_spread(evaluation.by_split)
        joblib.dump(pipeline, made / "model.joblib")
        with progress.stage("Compiling, and comparing with scikit-learn on every text"):
            (made / "artifacts").mkdir()
            engine = compiled(pipeline, made / "artifacts", data, signing.of_texts(pipeline, name))
            asked, largest = data.texts, 0.0
            if compare_all:
                asked, largest = evaluation.texts, compare_all(made / "artifacts")
            largest = max(largest, parity.check(pipeline, engine, [*asked, *extremes.texts(asked)]))
            known_answers.write(made / "artifacts", engine, data.texts)
            final = manifest.write(
                made / "artifacts",
                "compiled",
                engine.signature,
                data,
                scorer=engine.manifest["scorer"],
                metrics=metrics,
                spread=spread,
                baseline=measures.baseline(evaluation.texts, evaluation.scores, engine.signature),
                training={
                    "strength": tuning.strength,
                    "calibration": tuning.method,
                    "temperature": tuning.temperature,
                    "rebalancing": train.REBALANCING,
                },
                features=pipeline["classifier"].n_features_in_,
                parity=largest,
            )
        with progress.stage("Writing the report"):
            (made / "report").mkdir()
            report.write(made / "report", data, classifier, evaluation, final)
            # Not among the artifacts: scikit-learn pickles an address, so that no two files are the same.
            about = {"name": "model.joblib", "sha256": sha256(made / "model.joblib")}
            about |= {
                key: final[key]
                for key in ("model_version", "data", "lock", "libraries", "signature", "metrics", "spread")
            }
            (made / "report" / "pipeline.json").write_text(json.dumps(about, indent=1) + "\n")
    return final


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m model", description="Train, evaluate and compile.")
    parser.add_argument(
        "--data", type=Path, required=True, help="CSV or Parquet with a column of labels and one of texts"
    )
    parser.add_argument("--label", default=dataset.COLUMNS[0], help="column of the labels (default: %(default)s)")
    parser.add_argument("--text", default=dataset.COLUMNS[1], help="column of the texts (default: %(default)s)")
    parser.add_argument("--name", help="of the model (default: from the file's)")
    parser.add_argument("--output", type=Path, default=manifest.OUTPUT, help="directory (default: model)")
    workers.add_option(parser)
    arguments = parser.parse_args()
    try:
        data = dataset.read(arguments.data, arguments.label, arguments.text)
    except dataset.DataError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{data.path}: {len(data.texts):,} texts, {len(data.counts())} labels", file=sys.stderr)
    ours = tuple(data.counts()) == dataset.LABELS
    name = arguments.name or ("emotion" if ours else signing.slug(arguments.data))
    with train.one_thread(), workers.joblib_workers(arguments.on):
        made = build(data, arguments.output, Progress(), name)
    m, spread = made["metrics"], made["spread"]
    print(
        f"Model {made['model_version']}: accuracy {m['accuracy']:.3f} ± {spread['accuracy']:.3f}, "
        f"macro-F1 {m['macro_f1']:.3f} ± {spread['macro_f1']:.3f}, ECE {m['ece']:.3f} ± {spread['ece']:.3f} "
        f"on held-out texts, mean and spread of splits; see {arguments.output / 'report' / 'README.md'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
