"""pytest tests/public --data CSV: what is promised of the public data set, which the project does not ship."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import pytest

from app.engines.engine import Engine
from app.engines.loading import load_engine
from model import dataset, train
from model.__main__ import build
from model.dataset import Dataset
from model.progress import Progress

SHA256 = "53f24b7392442b36acbf302db9f89caa8f3efa44cfe32dc6e8659f81705b01bb"


class Built(NamedTuple):
    """What `make model` made of the public data, and how long it took in seconds of one core."""

    engine: Engine
    pipeline: Any
    seconds: float


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--data", type=Path, required=True, help="the public data set, tweet_emotions.csv")


@pytest.fixture(scope="session")
def data(request: pytest.FixtureRequest) -> Dataset:
    data = dataset.read(request.config.getoption("--data"))
    assert data.sha256 == SHA256, f"{data.path} is not the public data set"
    return data


@pytest.fixture(scope="session")
def built(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Built:
    directory = tmp_path_factory.mktemp("model")
    started = time.process_time()
    with train.one_thread():
        build(data, directory, Progress())
    seconds = time.process_time() - started
    return Built(load_engine(directory / "artifacts"), joblib.load(directory / "model.joblib"), seconds)
