"""`make model-import` with models of texts: opened without trust, told apart, served by the engine that agrees."""

from __future__ import annotations

import asyncio
import functools
import html
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import joblib
import numpy as np
import pytest
import skops.io
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.svm import LinearSVC

from app.check import KNOWN_ANSWERS
from app.engines.artifact import ArtifactError, sha256
from app.engines.loading import load_engine
from app.engines.occlusion import MOST_PARTS
from app.engines.sklearn_engine import SklearnEngine
from app.factory import create_app
from model import importing
from model.dataset import Dataset
from model.signing import Unservable
from tests.unit.app.stub_api import SETTINGS
from tests.unit.model.conftest import SHIPPED


@pytest.fixture(scope="module")
def few(data: Dataset) -> Dataset:
    return Dataset(data.path, data.sha256, data.texts[:400], data.labels[:400])


def save(pipeline: Any, tmp_path: Path, data: Dataset, labels: Any = None) -> Path:
    path = tmp_path / "theirs.skops"
    skops.io.dump(pipeline.fit(data.texts, data.labels if labels is None else labels), path)
    return path


def linear() -> Pipeline:
    return make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=1000))


def curved() -> Pipeline:
    return make_pipeline(TfidfVectorizer(), TruncatedSVD(20, random_state=0), LogisticRegression(max_iter=1000))


def test_compilable(few: Dataset, tmp_path: Path) -> None:
    engine = importing.build(save(linear(), tmp_path, few), few, tmp_path)
    assert engine.name == "compiled"
    assert engine.signature.model == "theirs"
    assert engine.manifest["source"]["sha256"] == sha256(tmp_path / "theirs.skops")
    assert engine.manifest["metrics"]["accuracy"] > 0.5


def test_search_of_a_compilable_pipeline(few: Dataset, tmp_path: Path) -> None:
    search = GridSearchCV(linear(), {"logisticregression__C": [0.1, 1]}, cv=2)
    assert importing.build(save(search, tmp_path, few), few, tmp_path).name == "compiled"


def test_not_compilable(few: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline = curved()
    engine = importing.build(save(pipeline, tmp_path, few), few, tmp_path)
    assert "not served by the engine compiled: a TruncatedSVD between" in capsys.readouterr().err
    assert engine.name == "sklearn"
    assert set(engine.manifest["files"]) == {"model.skops", KNOWN_ANSWERS}
    assert engine.manifest["libraries"].keys() >= {"scikit-learn", "scipy", "joblib", "numpy"}
    expected = pipeline.predict_proba(few.texts[:20])
    for text, score, p in zip(few.texts, engine.score_batch(few.texts[:20]), expected, strict=False):
        assert score.probabilities == pytest.approx(p)
        assert engine.score(text).label == pipeline.predict([text])[0]
    assert engine.score_batch([]) == []
    score = engine.score("work xqzzwv")
    assert (score.tokens, score.unknown) == (2, 1)
    weights = engine.explain("I love my dog, I love her", "love", 3)
    assert weights[0][0] == "love"
    assert len(weights) == 3
    assert engine.explain("", "love") == []
    with pytest.raises(KeyError):
        engine.explain("text", "no such label")


def test_an_explanation_is_bounded(few: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many words a text has, the model reads no more than a fixed number of bytes for it."""
    engine = importing.build(save(curved(), tmp_path, few), few, tmp_path)
    assert isinstance(engine, SklearnEngine)
    read: list[int] = []
    predict = engine.predict

    def counting(texts: list[str]) -> Any:
        read.extend(map(len, texts))
        return predict(texts)

    monkeypatch.setattr(engine, "predict", counting)
    for text in (" ".join(f"w{i}" for i in range(300)), " ".join(f"w{i}" for i in range(1600))[:8192]):
        read.clear()
        engine.explain(text, "love")
        assert len(read) <= MOST_PARTS + 1
        assert sum(read) <= 150_000, f"{len(text)}: {len(read)} texts of {sum(read)} characters"


def test_health_is_answered_while_a_long_text_is_explained(
    few: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The explanation goes on only when twenty answers of /health are there, so they cannot wait for it."""
    engine = importing.build(save(curved(), tmp_path, few), few, tmp_path)
    explaining, healthy = threading.Event(), threading.Event()
    explain = engine.explain

    def waiting(*arguments: Any) -> Any:
        explaining.set()
        assert healthy.wait(20), "no answer of /health while the text was explained"
        return explain(*arguments)

    monkeypatch.setattr(engine, "explain", waiting)
    text = " ".join(f"w{i}" for i in range(1600))[:8192]

    async def ask() -> tuple[list[int], httpx.Response]:
        transport = httpx.ASGITransport(create_app(SETTINGS._replace(version="v2", instance="v2@8101"), engine))
        async with httpx.AsyncClient(transport=transport, base_url="http://replica") as client:
            slow = asyncio.create_task(client.post("/predict", json={"sentence": text}))
            assert await asyncio.to_thread(explaining.wait, 20)
            answers = [(await client.get("/health")).status_code for _ in range(20)]
            assert not slow.done()
            healthy.set()
            return answers, await slow

    answers, slow = asyncio.run(ask())
    assert answers == [200] * 20
    assert slow.status_code == 200, slow.text
    assert slow.json()["top_ngrams"]


@pytest.mark.parametrize(
    "model",
    [
        FixedThresholdClassifier(linear(), threshold=0.4, pos_label="good"),
        make_pipeline(TfidfVectorizer(), SGDClassifier(loss="modified_huber", random_state=0)),
        make_pipeline(TfidfVectorizer(), LinearSVC(random_state=0)),
    ],
    ids=["threshold", "modified Huber", "no probabilities"],
)
def test_the_label_is_what_predict_says(model: Any, few: Dataset, tmp_path: Path) -> None:
    labels = ["good" if label in ("love", "fun", "happiness") else "bad" for label in few.labels]
    engine = importing.build(save(model, tmp_path, few, labels), few, tmp_path)
    expected = model.predict(few.texts).tolist()
    assert [score.label for score in engine.score_batch(few.texts)] == expected
    assert set(expected) == {"good", "bad"}
    assert engine.manifest["metrics"] == {}, "their accuracy cannot be told from our labels"
    assert sum(engine.manifest["baseline"]["labels"].values()) == pytest.approx(1)


@pytest.mark.parametrize("labels", [[0, 1], [False, True], [-1, 1]], ids=str)
def test_labels_come_back_as_what_they_are(labels: list[Any], few: Dataset, tmp_path: Path) -> None:
    engine = importing.build(save(linear(), tmp_path, few, np.array(labels * 200)), few, tmp_path)
    assert engine.signature.labels == tuple(labels)
    assert type(engine.score("hello").label) is type(labels[0])


def test_numbers(few: Dataset, tmp_path: Path) -> None:
    model = make_pipeline(TfidfVectorizer(), Ridge())
    engine = importing.build(save(model, tmp_path, few, [float(len(text)) for text in few.texts]), few, tmp_path)
    assert engine.signature.kind == "number"
    assert engine.score(few.texts[0]).label == pytest.approx(model.predict(few.texts[:1])[0])
    assert engine.explain("very very long", 0.0)


def imported(few: Dataset, tmp_path: Path) -> Path:
    importing.build(save(curved(), tmp_path, few), few, tmp_path)
    return tmp_path / "artifacts"


def test_tampered_estimator_is_not_loaded(few: Dataset, tmp_path: Path) -> None:
    directory = imported(few, tmp_path)
    with (directory / "model.skops").open("ab") as file:
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


def test_engine_checks_labels(few: Dataset, tmp_path: Path) -> None:
    directory = imported(few, tmp_path)
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["signature"]["labels"] = ["a", "b"]
    with pytest.raises(ArtifactError, match="names other labels than the estimator"):
        SklearnEngine(directory, manifest)


two = np.array([[0, 1], [1, 1], [0, 0], [1, 0]] * 100)


@pytest.mark.parametrize(
    ("model", "labels", "said"),
    [
        (make_pipeline(CountVectorizer(), RandomForestClassifier(2)), two, "gives several labels at once"),
        (
            make_pipeline(TfidfVectorizer(), MultiOutputClassifier(LogisticRegression())),
            two,
            "gives several labels at once",
        ),
        (make_pipeline(TfidfVectorizer(), ClassifierChain(LogisticRegression())), two, "gives several labels at once"),
        (
            make_pipeline(TfidfVectorizer(), TruncatedSVD(3)),
            None,
            "without predict: a step before a model; save the whole",
        ),
        (TfidfVectorizer(), None, "is a TfidfVectorizer without predict"),
    ],
    ids=["multilabel", "multioutput", "chain", "transformer", "vectorizer"],
)
def test_models_that_are_told_apart(model: Any, labels: Any, said: str, few: Dataset, tmp_path: Path) -> None:
    with pytest.raises(Unservable, match=said):
        importing.build(save(model, tmp_path, few, labels), few, tmp_path)
    assert not (tmp_path / "artifacts").exists()


class _Loud(LogisticRegression):  # type: ignore[misc]
    """Judged by what it does with the data, and not by its class."""

    factor = 1.5

    def predict_proba(self, x: Any) -> Any:
        return super().predict_proba(x) * self.factor


@pytest.mark.parametrize("factor", [1.5, np.nan])
def test_probabilities_that_are_none(factor: float, few: Dataset, tmp_path: Path) -> None:
    model = make_pipeline(TfidfVectorizer(), _Loud(max_iter=1000)).fit(few.texts, few.labels)
    model[-1].factor = factor
    with pytest.raises(Unservable, match=r"of 400 of 400 inputs do not sum to 1 .*CalibratedClassifierCV"):
        importing.serve(model, tmp_path / "m", few, tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none(value: float, few: Dataset, tmp_path: Path) -> None:
    model = make_pipeline(TfidfVectorizer(), Ridge()).fit(few.texts, [float(len(text)) for text in few.texts])
    model[-1].intercept_ = value
    with pytest.raises(Unservable, match="predicts NaN or infinity"):
        importing.serve(model, tmp_path / "m", few, tmp_path)


def test_labels_that_read_the_same(few: Dataset, tmp_path: Path) -> None:
    model = linear().fit(few.texts, few.labels)
    model[-1].classes_ = np.array(["1", 1, *model.classes_[2:]], dtype=object)
    with pytest.raises(Unservable, match="two of its labels read the same"):
        importing.serve(model, tmp_path / "m", few, tmp_path)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("directory", "is a directory; give the model's file in it"),
        ("pointer", "is a Git LFS pointer, not the model; run git lfs pull"),
        ("nothing", "there is no such file; make model-import MODEL=path"),
    ],
)
def test_files_that_are_no_model(made: str, said: str, few: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    if made == "directory":
        path.mkdir()
    elif made == "pointer":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.raises(Unservable, match=said):
        importing.build(path, few, tmp_path)


# --- pickles ---


def pickled(found: Any, tmp_path: Path, **options: Any) -> Path:
    path = tmp_path / "theirs.joblib"
    joblib.dump(found, path, **options)
    return path


class Attack:
    """What a pickle may do as soon as it is opened."""

    def __init__(self, *command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (" ".join(self.command),)


def test_a_pickle_is_opened_only_by_who_trusts_it(
    few: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pickled(linear().fit(few.texts, few.labels), tmp_path, compress=3)
    with pytest.raises(Unservable, match=r"opening a pickle runs what is in it.*TRUST=1.*skops\.io\.dump"):
        importing.build(path, few, tmp_path)
    said = capsys.readouterr().err
    assert "sklearn.pipeline.Pipeline" in said
    assert not (tmp_path / "artifacts").exists()
    assert importing.build(path, few, tmp_path, trust=True).name == "compiled"
    assert not list((tmp_path / "artifacts").glob("*.joblib")), "no pickle goes to the target"


def test_what_a_pickle_would_do_is_shown_and_not_done(
    few: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = tmp_path / "mark"
    path = pickled([np.array([Attack("touch", str(mark))], dtype=object)], tmp_path)
    with pytest.raises(Unservable, match="TRUST=1"):
        importing.build(path, few, tmp_path)
    assert "which imports posix.system" in capsys.readouterr().err
    assert not mark.exists()


def test_the_sandbox_holds_what_a_pickle_does(few: Dataset, tmp_path: Path) -> None:
    """It runs, and can neither write where it likes nor open a connection."""
    mark = tmp_path / "mark"
    connect = f"{sys.executable} -c 'import socket; socket.socket()'"
    attack = Attack(
        f"touch {mark}; touch model.skops; {connect} && touch {mark}; kill -0 {os.getpid()} && touch {mark}; true"
    )
    with pytest.raises(Unservable, match=r"is a int, not an estimator"):
        importing.build(pickled(attack, tmp_path), few, tmp_path, trust=True)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            {"vectorizer": TfidfVectorizer(), "model": Ridge()},
            "a dictionary of vectorizer .TfidfVectorizer., model .Ridge.",
        ),
        ([Ridge()], "is a list of 1 objects"),
        (linear(), "was not fitted; call fit, then save it"),
    ],
    ids=["dictionary", "list", "not fitted"],
)
def test_objects_that_are_no_model(found: Any, said: str, few: Dataset, tmp_path: Path) -> None:
    with pytest.raises(Unservable, match=said):
        importing.build(pickled(found, tmp_path), few, tmp_path, trust=True)


def shout(text: str) -> str:
    return text.upper()


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(TfidfVectorizer(preprocessor=shout), LogisticRegression()),
        make_pipeline(TfidfVectorizer(preprocessor=functools.partial(shout)), LogisticRegression()),
        GridSearchCV(linear(), {"tfidfvectorizer__preprocessor": [shout]}, cv=2),
    ],
    ids=["function", "partial", "parameter grid"],
)
def test_modules_that_targets_do_not_have(model: Any, few: Dataset, tmp_path: Path) -> None:
    with pytest.raises(Unservable, match=r"needs the module tests \(tests\.unit\.model\.test_importing\.shout\)"):
        importing.build(pickled(model, tmp_path), few, tmp_path, trust=True)


def test_the_standard_library_is_not_missing(few: Dataset, tmp_path: Path) -> None:
    model = make_pipeline(TfidfVectorizer(preprocessor=html.unescape), LogisticRegression(max_iter=1000))
    engine = importing.build(pickled(model.fit(few.texts, few.labels), tmp_path), few, tmp_path, trust=True)
    assert engine.name == "sklearn"


def test_functions_that_could_do_harm_are_not_served(few: Dataset, tmp_path: Path) -> None:
    model = make_pipeline(TfidfVectorizer(preprocessor=os.popen), LogisticRegression())
    model[0].preprocessor = None
    model.fit(few.texts, few.labels)[0].preprocessor = os.popen
    with pytest.raises(ArtifactError, match=r"holds os\.popen, which is not on the list of trusted types"):
        importing.build(pickled(model, tmp_path), few, tmp_path, trust=True)


def test_saved_by_another_scikit_learn(few: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sklearn.base.__version__", "1.0.2")
    path = pickled(linear().fit(few.texts, few.labels), tmp_path)
    monkeypatch.undo()
    with pytest.raises(Unservable, match=r"was saved by scikit-learn 1\.0\.2, here is .*; fit it again with"):
        importing.build(path, few, tmp_path, trust=True)


def test_no_pickle(few: Dataset, tmp_path: Path) -> None:
    (tmp_path / "m.joblib").write_bytes(b"not a pickle")
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        importing.build(tmp_path / "m.joblib", few, tmp_path, trust=True)


def test_command(
    few: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(linear(), tmp_path, few)
    arguments = ["importing", "--data", str(SHIPPED), "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*arguments, "--model", str(path)])
    assert importing.main() == 0
    assert "(theirs): takes texts, gives 13 labels, engine compiled" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*arguments, "--model", str(tmp_path / "none.joblib")])
    assert importing.main() == 1
    assert "there is no such file; make model-import MODEL=path" in capsys.readouterr().err
