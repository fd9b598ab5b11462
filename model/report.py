"""The evaluation for people: a page with two pictures, and a model card. Every figure in them is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from model.dataset import Dataset
from model.learned import Evaluation
from model.measures import Labels, measure, reliability

mpl.use("Agg")


def write(
    directory: Path,
    data: Dataset,
    classifier: str,
    evaluation: Evaluation,
    manifest: Mapping[str, Any],
) -> None:
    """Write README.md, model-card.md, confusion.png and reliability.png. `classifier` is what it is, in words."""
    held, p = evaluation.labels, np.array([score.probabilities for score in evaluation.scores])
    names = np.unique(held)
    predicted = names[p.argmax(axis=1)]
    _draw_confusion(directory / "confusion.png", held, predicted)
    _draw_reliability(directory / "reliability.png", reliability(p, held))

    shares = np.unique(held, return_counts=True)[1] / len(held)
    majority = measure(np.tile(shares, (len(held), 1)), held)
    metrics, spread = manifest["metrics"], manifest["spread"]
    comparison = _table(
        ("model", "accuracy", "macro-F1", "ECE", "log loss"),
        [
            ("this model", *(f"{metrics[name]:.3f} ± {spread[name]:.3f}" for name in majority)),
            ("majority", *(f"{value:.3f}" for value in majority.values())),
        ],
    )
    scores = precision_recall_fscore_support(held, predicted, labels=names, zero_division=0)
    by_label = _table(
        ("label", "texts", "precision", "recall", "F1"),
        [
            (str(name), str(support), f"{precision:.3f}", f"{recall:.3f}", f"{f1:.3f}")
            for name, precision, recall, f1, support in zip(names, *scores, strict=True)
        ],
    )
    source = f"`{data.path.name}` (sha256 `{data.sha256}`, {len(data.texts):,} texts)"
    (directory / "README.md").write_text(
        f"""# Evaluation

Model {manifest["model_version"]}, trained on {source}. {evaluation.how}
The artifact that is served learned from all texts.
ECE is the expected calibration error, how far confidence and accuracy are apart.

{comparison}

## By label

{by_label}

![Confusion matrix: rows are what people said, columns what the model says](confusion.png)

![Reliability: accuracy by confidence](reliability.png)
""",
        encoding="utf-8",
    )
    (directory / "model-card.md").write_text(
        _card(data, classifier, manifest, source, len(evaluation.by_split)), encoding="utf-8"
    )


def _card(data: Dataset, classifier: str, manifest: Mapping[str, Any], source: str, splits: int) -> str:
    m, spread, tuning = manifest["metrics"], manifest["spread"], manifest["training"]
    counts = ", ".join(f"{label} {count}" for label, count in data.counts().items())
    libraries = ", ".join(f"{name} {number}" for name, number in manifest["libraries"].items())
    return f"""# Model card: {manifest["model_version"]}

**What it does.** Names one of {len(data.counts())} labels for a short text, with a probability for each.

**What it is.** {classifier} for each label on TF-IDF of words, signs and the words' first letters
({manifest["features"]:,} features), label weights to the power {tuning["rebalancing"]:g},
calibration by {tuning["calibration"]} with logits times {tuning["temperature"]:.3f}. Compiled to plain arrays, which
give the same label and probabilities on every text of the data (largest difference {manifest["parity"]:.1e}).

**Data.** {source}: {counts}.

**How good it is.** Accuracy {m["accuracy"]:.3f} ± {spread["accuracy"]:.3f}, macro-F1 {m["macro_f1"]:.3f} ±
{spread["macro_f1"]:.3f} on texts that it did not learn from (mean and standard deviation over {splits} splits);
README.md beside this file has each label. Its confidence can be read as a frequency: the expected calibration error is
{m["ece"]:.3f} ± {spread["ece"]:.3f}.

**What it is for.** Trends over many texts, routing, a first look. **What it is not for.** Decisions about a person: it
sees words, not people. It knows no context, no irony that needs it, no language but English, and it learned what its
annotators felt.

**Made with.** Python {manifest["python"]}, {libraries}; lock sha256 `{manifest["lock"]["sha256"]}`.
"""


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _draw_confusion(path: Path, held: Labels, predicted: Labels) -> None:
    names = np.unique(held)
    shares = confusion_matrix(held, predicted, labels=names, normalize="true")
    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.005:
            color = "white" if share > 0.5 else "black"
            axes.text(column, row, f"{share:.0%}", ha="center", va="center", fontsize=8, color=color)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="labelled", title="Where the texts of each label go")
    figure.savefig(path, dpi=110)


def _draw_reliability(path: Path, bins: Sequence[tuple[float, float, float]]) -> None:
    shares, confidences, accuracies = zip(*bins, strict=True)
    figure = Figure(figsize=(6, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.plot([0, 1], [0, 1], color="gray", linestyle="--", label="perfect")
    above.plot(confidences, accuracies, marker="o", label="this model")
    above.set(ylabel="accuracy", title="Accuracy by confidence", xlim=(0, 1), ylim=(0, 1))
    above.legend()
    below.bar(confidences, shares, width=0.05)
    below.set(xlabel="confidence", ylabel="share of texts")
    figure.savefig(path, dpi=110)
