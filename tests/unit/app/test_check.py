"""`python -m app.check DIRECTORY` says in one line whether a release would serve a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app import check
from app.engines.artifact import ArtifactError
from app.engines.engine import Score
from tests.unit.app.stub_api import StubEngine

TEXTS = ("a b", "c d e", "")


def write_answers(directory: Path, engine: StubEngine, **changes: object) -> None:
    """known_answers.json as the model's build leaves it; `changes` are made to the last answer."""
    scores = [(text, engine.score(text)) for text in TEXTS]
    known: list[dict[str, object]] = [
        {"input": text, "label": score.label, "confidence": score.confidence} for text, score in scores
    ]
    known[-1].update(changes)
    (directory / check.KNOWN_ANSWERS).write_text(json.dumps(known))


class Broken(StubEngine):
    def score(self, text: str) -> Score:
        raise ZeroDivisionError


class Bare(StubEngine):
    manifest = {}  # noqa: RUF012


def test_a_good_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(check, "load_engine", lambda directory: StubEngine())
    write_answers(tmp_path, StubEngine())
    assert check.main([str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    label = StubEngine().score(StubEngine.signature.typical).label
    assert out.startswith(
        f"{tmp_path}: stub model stub00000001 answers {label!r}, and {len(TEXTS)} texts as when it was made ("
    )
    assert (out.count("\n"), err) == (1, "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": "nonsense"}, "says '' is nonsense at "),
        ({"confidence": 0.5}, "says '' is "),
        ({"confidence": StubEngine().score("").confidence + 2e-5}, "says '' is "),
        ({"confidence": float("nan")}, "says '' is "),
        ({"confidence": "high"}, "says '' is "),
    ],
    ids=["label", "probability", "a little", "no number", "no answers"],
)
def test_a_model_that_answers_otherwise_than_when_it_was_made(
    changes: dict[str, object],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(check, "load_engine", lambda directory: StubEngine())
    write_answers(tmp_path, StubEngine(), **changes)
    assert check.main([str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"{tmp_path}: refused: {tmp_path / check.KNOWN_ANSWERS}: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("text", [None, "[]", "{}"])
def test_a_model_whose_answers_are_not_known(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, "load_engine", lambda directory: StubEngine())
    if text is not None:
        (tmp_path / check.KNOWN_ANSWERS).write_text(text)
    assert check.main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.endswith("; make the model again\n")


@pytest.mark.parametrize(
    ("engine", "message"),
    [(Broken(), "ZeroDivisionError"), (Bare(), "no usable baseline")],
    ids=["no prediction", "no baseline"],
)
def test_a_bad_model(
    engine: StubEngine,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(check, "load_engine", lambda directory: engine)
    write_answers(tmp_path, StubEngine())
    assert check.main([str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"{tmp_path}: refused: ")
    assert message in err
    assert err.count("\n") == 1


def test_a_refused_artifact(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def load(directory: Path) -> StubEngine:
        raise ArtifactError(directory / "weights.npy", "is missing")

    monkeypatch.setattr(check, "load_engine", load)
    assert check.main(["/some/model"]) == 1
    assert "/some/model/weights.npy: is missing; " in capsys.readouterr().err


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([]) == 2
    assert capsys.readouterr().err.startswith("usage: ")
