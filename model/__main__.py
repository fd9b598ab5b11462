"""python -m model --data CSV: train, evaluate, compile. Makes model.joblib, report/ and artifacts/, or nothing."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np

from app.engines.artifact import sha256
from app.engines.engine import Score
from model import dataset, extremes, known_answers, manifest, measures, parity, report, signing, train
from model.compile import compiled
from model.dataset import Dataset
from model.progress import Progress


class Evaluation(NamedTuple):
    """What the held-out fifths of all splits said: m texts in total, by k labels."""

    texts: list[str]
    labels: measures.Labels  # (m,)
    scores: list[Score]
    by_split: list[dict[str, float]]  # the measures of each


def evaluate(data: Dataset, tuning: train.Tuning, progress: Progress) -> Evaluation:
    """Learns from four fifths and scores the rest, by the compiled scorer: what is measured is what is served."""
    made = Evaluation([], np.array([], dtype=str), [], [])
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
        )
    return made


def build(data: Dataset, output: Path, progress: Progress, name: str = "emotion") -> dict[str, Any]:
    """Make model.joblib, report/ and artifacts/ in `output`, all or none, and return the manifest.

    Raises Disparity should the compiled scorer not do what the pipeline does.
    """
    with manifest.staging(output) as made:
        with progress.stage("Tuning"):
            tuning = train.tune(
                train.features(), train.RECIPE, data.texts, np.array(data.labels), report=progress.detail
            )
        with progress.stage(f"Evaluating on {train.SPLITS} held-out fifths"):
            evaluation = evaluate(data, tuning, progress)
            metrics, spread = measures.mean_and_spread(evaluation.by_split)
        with progress.stage("Fitting on all texts"):
            pipeline = train.fit(data.texts, np.array(data.labels), tuning)
            joblib.dump(pipeline, made / "model.joblib")
        with progress.stage("Compiling, and comparing with scikit-learn on every text"):
            (made / "artifacts").mkdir()
            engine = compiled(pipeline, made / "artifacts", data, signing.of_texts(pipeline, name))
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
                parity=parity.check(pipeline, engine, [*data.texts, *extremes.texts(data.texts)]),
            )
        with progress.stage("Writing the report"):
            (made / "report").mkdir()
            p = np.array([score.probabilities for score in evaluation.scores])
            report.write(made / "report", data, evaluation.labels, p, final)
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
    parser.add_argument("--data", type=Path, required=True, help="CSV with a column of labels and one of texts")
    parser.add_argument("--label", default=dataset.COLUMNS[0], help="column of the labels (default: %(default)s)")
    parser.add_argument("--text", default=dataset.COLUMNS[1], help="column of the texts (default: %(default)s)")
    parser.add_argument("--name", help="of the model (default: from the file's)")
    parser.add_argument("--output", type=Path, default=manifest.OUTPUT, help="directory (default: model)")
    arguments = parser.parse_args()
    try:
        data = dataset.read(arguments.data, arguments.label, arguments.text)
    except dataset.DataError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{data.path}: {len(data.texts):,} texts, {len(data.counts())} labels", file=sys.stderr)
    ours = tuple(data.counts()) == dataset.LABELS
    name = arguments.name or ("emotion" if ours else signing.slug(arguments.data))
    with train.one_thread():
        made = build(data, arguments.output, Progress(), name)
    m, spread = made["metrics"], made["spread"]
    print(
        f"Model {made['model_version']}: accuracy {m['accuracy']:.3f} ± {spread['accuracy']:.3f}, "
        f"macro-F1 {m['macro_f1']:.3f} ± {spread['macro_f1']:.3f}, ECE {m['ece']:.3f} ± {spread['ece']:.3f} "
        f"on held-out texts of {train.SPLITS} splits; see {arguments.output / 'report' / 'README.md'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
