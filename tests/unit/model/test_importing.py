"""`make model-import`: pipelines of other people."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import joblib
import pytest
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.svm import LinearSVC

from app.engines.artifact import ArtifactError, sha256
from app.engines.loading import load_engine
from app.engines.sklearn_engine import SklearnEngine
from model import importing
from model.dataset import Dataset
from model.importing import Unservable
from tests.unit.model.conftest import SHIPPED


@pytest.fixture(scope="module")
def few(data: Dataset) -> Dataset:
    return Dataset(data.path, data.sha256, data.texts[:400], data.labels[:400])


def save(pipeline: Any, tmp_path: Path, data: Dataset) -> Path:
    path = tmp_path / "theirs.joblib"
    joblib.dump(pipeline.fit(data.texts, data.labels), path)
    return path


def linear() -> Pipeline:
    return make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=1000))


def curved() -> Pipeline:
    return make_pipeline(TfidfVectorizer(), TruncatedSVD(20, random_state=0), LogisticRegression(max_iter=1000))


def test_compilable(few: Dataset, tmp_path: Path) -> None:
    engine = importing.build(save(linear(), tmp_path, few), few, tmp_path)
    assert engine.name == "compiled"
    assert engine.manifest["source"]["sha256"] == sha256(tmp_path / "theirs.joblib")
    assert not (tmp_path / "artifacts" / "model.joblib").exists(), "no pickle goes to the target"
    assert engine.manifest["metrics"]["accuracy"] > 0.5


def test_not_compilable(few: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline = curved()
    engine = importing.build(save(pipeline, tmp_path, few), few, tmp_path)
    assert "served by scikit-learn itself" in capsys.readouterr().err
    assert engine.name == "sklearn"
    assert set(engine.manifest["files"]) == {"model.joblib"}
    assert engine.manifest["libraries"].keys() >= {"scikit-learn", "scipy", "joblib", "numpy"}
    expected = pipeline.predict_proba(few.texts[:20])
    for text, score, p in zip(few.texts, engine.score_batch(few.texts[:20]), expected, strict=False):
        assert score.probabilities == pytest.approx(p)
        assert engine.score(text).label == pipeline.predict([text])[0]
    assert engine.score_batch([]) == []
    assert engine.score("work xqzzwv")[3:] == (2, 1)
    weights = engine.explain("I love my dog, I love her", "love", 3)
    assert weights[0][0] == "love"
    assert len(weights) == 3
    assert engine.explain("", "love") == []
    with pytest.raises(KeyError):
        engine.explain("text", "no such label")


def test_labels_of_their_own(few: Dataset, tmp_path: Path) -> None:
    labels = ["good" if label in ("love", "fun", "happiness") else "bad" for label in few.labels]
    theirs = Dataset(few.path, few.sha256, few.texts, labels)
    engine = importing.build(save(linear(), tmp_path, theirs), few, tmp_path)
    assert engine.labels == ("bad", "good")
    assert engine.manifest["metrics"] == {}, "their accuracy cannot be told from our labels"
    assert sum(engine.manifest["baseline"]["labels"].values()) == pytest.approx(1)


def imported(few: Dataset, tmp_path: Path) -> Path:
    importing.build(save(curved(), tmp_path, few), few, tmp_path)
    return tmp_path / "artifacts"


def test_tampered_pickle_is_not_loaded(few: Dataset, tmp_path: Path) -> None:
    directory = imported(few, tmp_path)
    with (directory / "model.joblib").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ArtifactError, match="has sha256"):
        load_engine(directory)


@pytest.mark.parametrize(("library", "found"), [("scikit-learn", "1."), ("no-such-library", "not installed")])
def test_other_versions_are_refused(few: Dataset, tmp_path: Path, library: str, found: str) -> None:
    path = imported(few, tmp_path) / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["libraries"][library] = "0.1"
    path.write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=rf"wants {library} 0\.1, here it is {found}.*install {library}==0\.1"):
        load_engine(path.parent)


def test_saved_by_another_scikit_learn(few: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sklearn.base.__version__", "1.0.2")
    path = save(linear(), tmp_path, few)
    monkeypatch.undo()
    with pytest.raises(ArtifactError, match=r"was saved by scikit-learn 1\.0\.2, here is .*; fit it again with"):
        importing.build(path, few, tmp_path)
    assert not (tmp_path / "artifacts").exists()


def shout(text: str) -> str:
    return text.upper()


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            make_pipeline(TfidfVectorizer(), LinearSVC()),
            "has no predict_proba; wrap its classifier in CalibratedClassifierCV",
        ),
        (
            make_pipeline(TfidfVectorizer(preprocessor=shout), LogisticRegression(max_iter=1000)),
            "needs the module tests, which targets do not have",
        ),
    ],
)
def test_unservable(model: Pipeline, said: str, few: Dataset, tmp_path: Path) -> None:
    with pytest.raises(Unservable, match=said):
        importing.build(save(model, tmp_path, few), few, tmp_path)


def test_no_texts_taken(few: Dataset, tmp_path: Path) -> None:
    joblib.dump(LogisticRegression().fit([[0.0], [1.0]], ["a", "b"]), tmp_path / "m.joblib")
    with pytest.raises(Unservable, match=r"does not take texts .*save the whole pipeline"):
        importing.build(tmp_path / "m.joblib", few, tmp_path)


def test_not_fitted(few: Dataset, tmp_path: Path) -> None:
    joblib.dump(linear(), tmp_path / "m.joblib")
    with pytest.raises(Unservable, match="does not take texts"):
        importing.build(tmp_path / "m.joblib", few, tmp_path)


def test_no_pickle(few: Dataset, tmp_path: Path) -> None:
    (tmp_path / "m.joblib").write_bytes(b"not a pickle")
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        importing.build(tmp_path / "m.joblib", few, tmp_path)


def test_command(
    few: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(linear(), tmp_path, few)
    arguments = ["importing", "--data", str(SHIPPED), "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*arguments, "--model", str(path)])
    assert importing.main() == 0
    assert "13 labels, engine compiled" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*arguments, "--model", str(tmp_path / "none.joblib")])
    assert importing.main() == 1
    assert "there is no such file; make model-import MODEL=path" in capsys.readouterr().err


def test_engine_checks_labels(few: Dataset, tmp_path: Path) -> None:
    directory = imported(few, tmp_path)
    manifest = json.loads((directory / "manifest.json").read_text()) | {"labels": ["a", "b"]}
    with pytest.raises(ArtifactError, match="names other labels than the pipeline"):
        SklearnEngine(directory, manifest)
