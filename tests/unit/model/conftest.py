"""One model of the shipped data for all tests of this directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import joblib
import pytest

from app.engines.engine import Engine
from app.engines.loading import load_engine
from model import dataset, train
from model.__main__ import build
from model.dataset import Dataset
from model.manifest import ROOT
from model.progress import Progress

SHIPPED = ROOT / "data" / "tweet_emotions.csv"


class Built(NamedTuple):
    """What `make model` made."""

    directory: Path
    engine: Engine
    pipeline: Any


@pytest.fixture(scope="session")
def data() -> Dataset:
    return dataset.read(SHIPPED)


@pytest.fixture(scope="session")
def built(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Built:
    directory = tmp_path_factory.mktemp("model")
    with train.one_thread():
        build(data, directory, Progress())
    return Built(directory, load_engine(directory / "artifacts"), joblib.load(directory / "model.joblib"))


@pytest.fixture(scope="session")
def engine(built: Built) -> Engine:
    return built.engine
