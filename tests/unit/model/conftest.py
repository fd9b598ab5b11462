"""One model of the shipped data for all tests of this directory."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import pytest

from app.engines import scorer
from app.engines.engine import Engine
from app.engines.loading import load_engine
from model import dataset, train
from model.__main__ import build
from model.dataset import Dataset
from model.kernel import compile_kernel
from model.manifest import ROOT
from model.progress import Progress

SHIPPED = ROOT / "data" / "tweet_emotions.csv"


class Built(NamedTuple):
    """What `make model` made."""

    directory: Path
    engine: Engine
    pipeline: Any


@pytest.fixture(scope="session", autouse=True)
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The scorer's arithmetic in C as kernel.pyx has it now, whether or not this clone has compiled it."""
    file = tmp_path_factory.mktemp("kernel") / "kernel.abi3.so"
    compile_kernel(file)
    spec = spec_from_file_location("app.engines.kernel", file)
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scorer, "kernel", module)
        yield


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
