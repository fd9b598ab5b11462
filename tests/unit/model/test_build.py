"""`make model`, from data to artifacts."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.check import KNOWN_ANSWERS, compare
from app.engines.artifact import ArtifactError, sha256
from model import __main__ as command
from model import measures, parity, report, train
from model.dataset import Dataset
from model.manifest import LOCK, ROOT
from model.progress import Progress
from tests.unit.model.conftest import SHIPPED, Built

SINGLE = """the a an and or but of to in on at by for with from as is was are were be been it that this these those
i you he she we they my your his her their our its not do did have has had will would can could"""
FUNCTION_WORDS = [*SINGLE.split(), "of the", "in the", "that was", "it is", "to be"]
EVERYDAY = Path(__file__).parent / "everyday_sentences.csv"


def contents(directory: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in directory.iterdir()}


def test_manifest(built: Built, data: Dataset) -> None:
    manifest: dict[str, Any] = json.loads((built.directory / "artifacts" / "manifest.json").read_text())
    assert manifest["engine"] == "compiled"
    assert manifest["signature"]["labels"] == sorted(set(data.labels))
    assert (manifest["signature"]["model"], manifest["signature"]["columns"]) == ("emotion", [])
    assert manifest["data"]["sha256"] == sha256(SHIPPED)
    assert manifest["lock"]["sha256"] == sha256(LOCK)
    assert set(manifest["libraries"]) >= {"numpy", "scipy", "scikit-learn"}
    pipeline = json.loads((built.directory / "report" / "pipeline.json").read_text())
    assert pipeline["sha256"] == sha256(built.directory / "model.joblib")
    arrays = {path.name for path in (built.directory / "artifacts").glob("*.npy")}
    assert set(manifest["files"]) == arrays | {KNOWN_ANSWERS}, "every file is vouched for"
    metrics = manifest["metrics"]
    assert metrics["accuracy"] > 0.70, metrics
    assert metrics["macro_f1"] > 0.70, metrics
    assert metrics["ece"] < 0.05, metrics
    assert set(manifest["spread"]) == set(metrics)
    assert all(0 < spread < 0.03 for name, spread in manifest["spread"].items()), manifest["spread"]
    baseline = manifest["baseline"]
    assert sum(baseline["labels"].values()) == pytest.approx(1)
    for name in ("confidence", "oov", "length"):
        assert len(baseline[name]["edges"]) == len(baseline[name]["shares"]) + 1
        assert sum(baseline[name]["shares"]) == pytest.approx(1)


def test_the_artifacts_know_their_own_answers(built: Built, data: Dataset, tmp_path: Path) -> None:
    """scikit-learn's answers are among the artifacts; the release's check compares them, and refuses what has changed."""
    known = json.loads((built.directory / "artifacts" / KNOWN_ANSWERS).read_text())
    assert len(known) == 50
    assert {one["input"] for one in known} <= set(data.texts)
    assert len({one["label"] for one in known}) > 5
    assert compare(built.engine, built.directory / "artifacts" / KNOWN_ANSWERS) == 50
    known[49]["confidence"] += 1e-4
    (tmp_path / KNOWN_ANSWERS).write_text(json.dumps(known))
    with pytest.raises(ArtifactError, match="here it is"):
        compare(built.engine, tmp_path / KNOWN_ANSWERS)


def test_same_data_same_bytes(built: Built, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "model", "--data", str(SHIPPED), "--output", str(tmp_path)]
    # Another seed of str's hash: sets then come in another order.
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert f"Model {built.engine.model_version}: accuracy" in run.stdout
    assert "Tuning: " in run.stderr, "long work says where it is"
    assert contents(tmp_path / "artifacts") == contents(built.directory / "artifacts")


def test_parity_on_every_text(built: Built, data: Dataset) -> None:
    assert parity.check(built.pipeline, built.engine, data.texts) < 1e-12
    one_by_one = [built.engine.score(text) for text in data.texts]
    for score, batched in zip(one_by_one, built.engine.score_batch(data.texts), strict=True):
        assert score.label == batched.label
        assert score.probabilities == pytest.approx(batched.probabilities, abs=1e-12)
        assert score[3:] == batched[3:]


def test_everyday_sentences(built: Built) -> None:
    with EVERYDAY.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    scores = built.engine.score_batch([row["content"] for row in rows])
    wrong = [
        (row["sentiment"], s.label, row["content"])
        for row, s in zip(rows, scores, strict=True)
        if s.label != row["sentiment"]
    ]
    assert len(wrong) <= 0.1 * len(rows), wrong
    for label in built.engine.signature.labels:
        mine = sum(row["sentiment"] == label for row in rows)
        missed = [row for row in wrong if row[0] == label]
        assert len(missed) <= 0.5 * mine, missed


@pytest.mark.parametrize("text", ["", "zqxv", "zqxv vxqz", "\u8fd9\u662f\u4ec0\u4e48"])
def test_what_the_model_knows_nothing_of_is_neutral_with_little_confidence(built: Built, text: str) -> None:
    score = built.engine.score(text)
    assert (score.label, score.confidence < 0.5) == ("neutral", True), score


def test_function_words_alone_tell_nothing(built: Built) -> None:
    scores = dict(zip(FUNCTION_WORDS, built.engine.score_batch(FUNCTION_WORDS), strict=True))
    told = {words: score for words, score in scores.items() if score.label != "neutral" and score.confidence > 0.6}
    assert len(told) <= 0.1 * len(FUNCTION_WORDS), {
        words: (score.label, score.confidence) for words, score in told.items()
    }


@pytest.mark.parametrize(
    ("text", "head"),
    [
        ("Oh yeah, that was soooo cool!", "cool"),
        ("that was so cool", "cool"),
        ("oh yeah that was sooooo awesome!!", "awes"),  # the first letters of the word
    ],
)
def test_delight_is_told_by_its_words(built: Built, text: str, head: str) -> None:
    score = built.engine.score(text)
    assert score.label in {"happiness", "enthusiasm", "fun"}, score
    ngrams = [ngram for ngram, _ in built.engine.explain(text, score.label)]
    assert ngrams[0] == head, ngrams


def test_report(built: Built) -> None:
    page = (built.directory / "report" / "README.md").read_text()
    card = (built.directory / "report" / "model-card.md").read_text()
    for label in built.engine.signature.labels:
        assert isinstance(label, str)
        assert f"| {label} |" in page
        assert label in card
    metrics = built.engine.manifest["metrics"]
    assert f"| this model | {metrics['accuracy']:.3f} ± " in page
    assert "| majority |" in page
    for picture in ("confusion.png", "reliability.png"):
        assert f"]({picture})" in page
        assert (built.directory / "report" / picture).read_bytes().startswith(b"\x89PNG")


def test_a_failure_leaves_what_was_there(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = Dataset(data.path, data.sha256, data.texts[:600], data.labels[:600])
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "manifest.json").write_text("old")

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "tune", lambda *_, **__: train.Tuning(0.2, "temperature", 5.0, np.zeros(0), "softmax"))
    monkeypatch.setattr(report, "write", fail)
    with pytest.raises(KeyboardInterrupt):
        command.build(few, tmp_path, Progress())
    assert [path.name for path in tmp_path.iterdir()] == ["artifacts"]
    assert [path.read_text() for path in (tmp_path / "artifacts").iterdir()] == ["old"]


def test_two_labels(data: Dataset, tmp_path: Path) -> None:
    """scikit-learn's classifiers have one column of margins for two labels, not two."""
    rows = [(text, label) for text, label in zip(data.texts, data.labels, strict=True) if label in ("love", "hate")]
    two = Dataset(data.path, data.sha256, [text for text, _ in rows], [label for _, label in rows])
    with train.one_thread():
        made = command.build(two, tmp_path, Progress(), "two")
    assert list(made["signature"]["labels"]) == ["hate", "love"]
    assert made["metrics"]["accuracy"] > 0.85, made["metrics"]
    assert made["metrics"]["ece"] < 0.1, made["metrics"]
    assert made["parity"] < 1e-9


def test_command_refuses_broken_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.csv").write_text("sentiment,content\njoy,hello\njoy\n")
    monkeypatch.setattr(sys, "argv", ["model", "--data", str(tmp_path / "bad.csv"), "--output", str(tmp_path / "out")])
    assert command.main() == 1
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert f"{tmp_path / 'bad.csv'}:3: the row ends after 1 of 2 fields" in said.err
    assert not (tmp_path / "out").exists()


def test_ece_by_hand() -> None:
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    labels = np.array(["a", "b", "b", "b"])
    # Confidence 0.9 is right once in two, 0.6 always.
    assert measures.measure(p, labels)["ece"] == pytest.approx(0.5 * 0.4 + 0.5 * 0.4)
    assert measures.measure(p, labels)["accuracy"] == 0.75


def test_histogram_bins_hold_their_upper_edge() -> None:
    assert measures.histogram([0.0, 0.1, 0.11, 1.0], [0.0, 0.1, 0.5, 1.0])["shares"] == [0.5, 0.25, 0.25]
