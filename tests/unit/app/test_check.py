"""`python -m app.check DIRECTORY` says in one line whether a release would serve a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from app import check
from app.engines.artifact import ArtifactError
from app.engines.engine import Score
from tests.unit.app.stub_api import StubEngine


class Broken(StubEngine):
    def score(self, text: str) -> Score:
        raise ZeroDivisionError


class Bare(StubEngine):
    manifest = {}  # noqa: RUF012


def test_a_good_model(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(check, "load_engine", lambda directory: StubEngine())
    assert check.main(["/some/model"]) == 0
    out, err = capsys.readouterr()
    label = StubEngine().score(StubEngine.signature.typical).label
    assert out.startswith(f"/some/model: stub model stub00000001 answers {label!r} (")
    assert (out.count("\n"), err) == (1, "")


@pytest.mark.parametrize(
    ("engine", "message"),
    [(Broken(), "ZeroDivisionError"), (Bare(), "no usable baseline")],
    ids=["no prediction", "no baseline"],
)
def test_a_bad_model(
    engine: StubEngine, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, "load_engine", lambda directory: engine)
    assert check.main(["/some/model"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("/some/model: refused: ")
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
