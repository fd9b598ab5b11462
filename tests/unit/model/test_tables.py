"""Models of tables: imported with a signature, served by the engine that agrees, asked over HTTP as the signature says."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.base import is_regressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import BayesianRidge, LogisticRegression, PoissonRegressor, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from app import check
from app.engines.artifact import ArtifactError
from app.engines.engine import Engine
from app.engines.loading import load_engine
from app.factory import create_app
from app.http.oip import Inference
from model import importing, table
from model.sheet import DataError
from model.signing import Unservable
from tests.paths import ROOT
from tests.unit.app.stub_api import SETTINGS, Client
from tests.unit.app.test_errors import check_problem

IRIS = load_iris(as_frame=True)
SPECIES = IRIS.target_names[IRIS.target]
FLOWER = {"sepal length (cm)": 5.1, "sepal width (cm)": 3.5, "petal length (cm)": 1.4, "petal width (cm)": 0.2}


def brought(model: Any, frame: pd.DataFrame, target: Any, tmp_path: Path) -> Engine:
    """The engine of a model that was fitted on a table."""
    skops.io.dump(model.fit(frame, target), tmp_path / "theirs.skops")
    frame.assign(target=target).to_csv(tmp_path / "data.csv", index=False)
    return importing.build(tmp_path / "theirs.skops", table.read(tmp_path / "data.csv", "target"), tmp_path)


def passengers() -> tuple[pd.DataFrame, list[bool]]:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "class": random.integers(1, 4, 200),
            "sex": random.choice(["female", "male"], 200),
            "age": np.where(random.random(200) < 0.2, np.nan, random.normal(30, 10, 200).round(1)),
            "alone": random.random(200) < 0.5,
        }
    )
    return frame, [bool(sex == "female") for sex in frame["sex"]]


def survival() -> Any:
    columns = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), ["age"]),
            ("categories", OneHotEncoder(), ["class", "sex"]),
            ("rest", "passthrough", ["alone"]),
        ]
    )
    return make_pipeline(columns, LogisticRegression())


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    model = make_pipeline(StandardScaler(), LogisticRegression())
    return brought(model, IRIS.data, SPECIES, tmp_path_factory.mktemp("iris"))


@pytest.fixture(scope="module")
def titanic(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    frame, survived = passengers()
    return brought(survival(), frame, survived, tmp_path_factory.mktemp("titanic"))


def client(engine: Engine, version: Any = "v1") -> Client:
    return Client(create_app(SETTINGS._replace(version=version), engine))


def test_the_signature_is_what_model_and_data_say(iris: Engine, titanic: Engine) -> None:
    assert iris.name == "compiled"
    assert [column.name for column in iris.signature.columns] == list(IRIS.data)
    assert iris.signature.columns[0].range == (4.3, 7.9)
    assert iris.signature.labels == ("setosa", "versicolor", "virginica")
    types = {column.name: (column.type, column.values, column.nullable) for column in titanic.signature.columns}
    print(types)
    assert types == {
        "class": ("category", (1, 2, 3), False),
        "sex": ("category", ("female", "male"), False),
        "age": ("number", (), True),
        "alone": ("boolean", (), False),
    }
    assert titanic.signature.labels == (False, True)
    assert titanic.manifest["metrics"]["accuracy"] > 0.9


def test_v1_and_v2(iris: Engine) -> None:
    assert client(iris).post("/predict", json=FLOWER).json() == {
        "prediction": "setosa",
        "model_version": iris.model_version,
    }
    document = client(iris, "v2").post("/predict", json=FLOWER).json()
    print(document)
    assert sum(document["prediction_proba_dict"].values()) == pytest.approx(1)
    assert document["top_columns"][0]["column"].startswith("petal")
    batch = client(iris, "v2").post("/predict/batch", json=[FLOWER, FLOWER]).json()
    assert [row["prediction"] for row in batch["predictions"]] == ["setosa", "setosa"]


def test_a_linear_model_s_explanation_is_exact(iris: Engine, tmp_path: Path) -> None:
    model = LogisticRegression(max_iter=1000).fit(IRIS.data, SPECIES == "setosa")
    engine = brought(model, IRIS.data, SPECIES == "setosa", tmp_path)
    row = tuple(FLOWER.values())
    expected = {
        column.name: weight * (value - column.typical)  # type: ignore[operator]
        for column, weight, value in zip(engine.signature.columns, model.coef_[0], row, strict=True)
    }
    assert dict(engine.explain(row, True)) == pytest.approx({k: v for k, v in expected.items() if v}, abs=1e-4)


def test_the_parts_of_numbers_are_numbers(tmp_path: Path) -> None:
    """Of a model whose columns multiply: what the prediction loses where a column has its typical value."""
    frame = IRIS.data.iloc[:, :3]
    engine = brought(PoissonRegressor(), frame, IRIS.data.iloc[:, 3].to_numpy(), tmp_path)
    assert engine.name == "compiled"
    row = (6.0, 3.5, engine.signature.columns[2].typical)
    whole = float(engine.score(row).label)
    typical = [column.typical for column in engine.signature.columns]
    without = {0: (typical[0], *row[1:]), 1: (row[0], typical[1], row[2])}
    expected = {frame.columns[i]: whole - float(engine.score(changed).label) for i, changed in without.items()}
    assert dict(engine.explain(row, whole)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("changed", "field", "reason"),
    [
        ({"sex": "robot"}, "sex", "'female' or 'male'"),
        ({"class": 4}, "class", "1, 2 or 3"),
        ({"age": "thirty"}, "age", "valid number"),
        ({"age": float("nan")}, "age", "finite number"),
        ({"age": float("inf")}, "age", "finite number"),
        ({"age": 1e300}, "age", "less than or equal"),
        ({"alone": 1}, "alone", "valid boolean"),
        ({"alone": None}, "alone", "valid boolean"),
        ({"fare": 7}, "fare", "is no column of this model; its columns are class, sex, age, alone"),
        ({"age": ...}, "age", "is required"),
    ],
    ids=str,
)
def test_a_bad_row_is_told_which_column(titanic: Engine, changed: dict[str, Any], field: str, reason: str) -> None:
    row = {"class": 1, "sex": "male", "age": 30, "alone": True} | changed
    row = {name: value for name, value in row.items() if value is not ...}
    headers = {"content-type": "application/json"}
    document = check_problem(client(titanic).post("/predict", content=json.dumps(row), headers=headers), 422)
    assert document["errors"][0]["field"] == field
    assert reason in document["errors"][0]["reason"]
    many = check_problem(client(titanic).post("/predict/batch", content=json.dumps([row]), headers=headers), 422)
    assert many["errors"][0]["field"] == f"[0].{field}"


def test_labels_come_back_as_what_they_are(titanic: Engine) -> None:
    row = {"class": 1, "sex": "female", "age": None, "alone": True}
    assert client(titanic).post("/predict", json=row).json()["prediction"] is True
    probabilities = client(titanic, "v2").post("/predict", json=row).json()["prediction_proba_dict"]
    assert list(probabilities) == ["false", "true"]


def test_every_example_of_the_document_works(iris: Engine, titanic: Engine) -> None:
    for engine in (iris, titanic):
        asked = client(engine, "v2")
        document = asked.get("/openapi.json").json()
        for path in ("/predict", "/predict/batch", "/v2/models/{name}/infer"):
            body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
            (example, *_) = document["components"]["schemas"][body["$ref"].rpartition("/")[2]]["examples"]
            answer = asked.post(path.format(name=engine.signature.model), json=example)
            assert answer.status_code == 200, answer.text
        Inference(engine.signature).Response.model_validate(answer.json(), strict=True)


def test_tensors(titanic: Engine) -> None:
    asked = client(titanic)
    metadata = asked.get("/v2/models/theirs").json()
    assert [(tensor["name"], tensor["datatype"]) for tensor in metadata["inputs"]] == [
        ("class", "INT64"),
        ("sex", "BYTES"),
        ("age", "FP64"),
        ("alone", "BOOL"),
    ]
    data = {"class": [1, 3], "sex": ["female", "male"], "age": [30, None], "alone": [True, False]}
    types = {tensor["name"]: tensor["datatype"] for tensor in metadata["inputs"]}
    inputs = [{"name": name, "shape": [2], "datatype": types[name], "data": data[name]} for name in data]
    answer = asked.post("/v2/models/theirs/infer", json={"inputs": inputs, "outputs": []}).json()
    assert answer["outputs"][0] == {"name": "label", "datatype": "BOOL", "shape": [2], "data": [True, False]}
    assert answer["outputs"][1]["shape"] == [2, 2]
    document = check_problem(asked.post("/v2/models/theirs/infer", json={"inputs": inputs[1:]}), 422)
    assert document["detail"] == "inputs: lacks a tensor for class."


def test_drift_of_inputs_is_measured(titanic: Engine) -> None:
    asked = client(titanic)
    row = {"class": 1, "sex": "female", "age": None, "alone": True}
    for _ in range(3):
        asked.post("/predict/batch", json=[row] * 250)
    series = asked.series()
    psi = {name: value for name, value in series.items() if "vmlops_drift_psi" in name}
    print(psi)
    assert {f'distribution="column {name}"' in "".join(psi) for name in row} == {True}
    inputs = [value for name, value in psi.items() if "column" in name or "label" in name]
    assert all(value > 0.25 for value in inputs), "one row over and over is not as in the data"


NUMBERS = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler())
CATEGORIES = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(drop="first"))
EVERY_STEP = ColumnTransformer(
    [
        ("age", make_pipeline(RobustScaler(), NUMBERS), ["age"]),
        ("port", CATEGORIES, ["port", "class"]),
        ("sex", OrdinalEncoder(), ["sex"]),
        ("fare", make_pipeline(MinMaxScaler(), MaxAbsScaler()), ["fare"]),
    ],
    remainder="passthrough",
)
WITH_NAN = ColumnTransformer([("sex", OrdinalEncoder(), ["sex"]), ("numbers", "passthrough", ["age", "fare"])])
COMPILED: dict[str, Any] = {
    "linear": make_pipeline(EVERY_STEP, LogisticRegression()),
    "support vectors": make_pipeline(EVERY_STEP, CalibratedClassifierCV(LinearSVC(), ensemble=False)),
    "selected columns": make_pipeline(EVERY_STEP, SelectKBest(k=3), LogisticRegression()),
    "tree": make_pipeline(WITH_NAN, DecisionTreeClassifier(random_state=0)),
    "forest": make_pipeline(WITH_NAN, RandomForestClassifier(9, random_state=0)),
    "extra trees": make_pipeline(EVERY_STEP, ExtraTreesClassifier(9, random_state=0)),
    "boosting": make_pipeline(EVERY_STEP, GradientBoostingClassifier(n_estimators=9, random_state=0)),
    "boosting, exponential": make_pipeline(EVERY_STEP, GradientBoostingClassifier(n_estimators=9, loss="exponential")),
    "boosting by histograms": make_pipeline(WITH_NAN, HistGradientBoostingClassifier(max_iter=9)),
    "least squares": make_pipeline(EVERY_STEP, Ridge()),
    "counts": make_pipeline(EVERY_STEP, PoissonRegressor()),
    "tree of numbers": make_pipeline(WITH_NAN, DecisionTreeRegressor(random_state=0)),
    "forest of numbers": make_pipeline(EVERY_STEP, RandomForestRegressor(9, random_state=0)),
    "boosting of numbers": make_pipeline(EVERY_STEP, GradientBoostingRegressor(n_estimators=9)),
    "boosting of counts": make_pipeline(WITH_NAN, HistGradientBoostingRegressor(max_iter=9, loss="poisson")),
    "of three": GradientBoostingClassifier(n_estimators=9),
    "by histograms, of three": HistGradientBoostingClassifier(max_iter=9),
}


def fare(frame: pd.DataFrame) -> pd.DataFrame:
    random = np.random.default_rng(1)
    port = [("C", "Q", "S", None)[i] for i in random.integers(0, 4, len(frame))]
    return frame.assign(fare=random.exponential(30, len(frame)).round(2), port=port)


@pytest.mark.parametrize("name", COMPILED)
def test_what_is_compiled(name: str, tmp_path: Path) -> None:
    """The engine was compared with scikit-learn on every row and at the ends of every column when it was made; it is served
    by a release, which asks it again."""
    model = COMPILED[name]
    frame, target = fare(passengers()[0]), np.array(passengers()[1])
    if "three" in name:
        frame, target = IRIS.data, SPECIES
    elif is_regressor(model):
        target = frame["fare"] + 3 * frame["class"]
    else:
        target = target ^ (np.arange(len(target)) % 7 == 0)
    engine = brought(model, frame, target, tmp_path)
    assert engine.name == "compiled"
    assert engine.manifest["parity"] < 1e-9
    assert check.main([str(tmp_path / "artifacts")]) == 0
    row = engine.signature.typical
    changed = (*row[:-1], None) if engine.signature.columns[-1].nullable else row
    assert engine.explain(row, engine.score(row).label) == []
    assert len(engine.explain(changed, engine.score(changed).label)) <= 1


def test_a_replica_with_a_compiled_table_imports_no_numpy(tmp_path: Path) -> None:
    brought(RandomForestClassifier(9, random_state=0), IRIS.data, SPECIES, tmp_path)
    code = (
        "import sys; from pathlib import Path; from app.engines.loading import load_engine; "
        f"e = load_engine(Path({str(tmp_path / 'artifacts')!r})); s = e.score(e.signature.typical); "
        "e.explain((5.0, 3.0, 1.0, 0.1), s.label); print(e.name, 'numpy' in sys.modules, 'onnxruntime' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["compiled", "False", "False"]


def forest(trees: int) -> Any:
    return RandomForestClassifier(trees, random_state=0)


@pytest.mark.parametrize(
    ("model", "name", "said"),
    [
        (make_pipeline(PCA(2), LogisticRegression()), "onnx", "a PCA before the model"),
        (forest(400), "onnx", "comparisons for a row"),
        (make_pipeline(StandardScaler(), LinearSVC()), "sklearn", "no probabilities"),
        (HistGradientBoostingClassifier(max_iter=3, categorical_features=[3]), "sklearn", "categories within boosting"),
    ],
    ids=["components", "large forest", "no probabilities", "categories"],
)
def test_other_engines(model: Any, name: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = IRIS.data.assign(**{"petal width (cm)": IRIS.data["petal width (cm)"].round().astype(int)})
    engine = brought(model, frame, SPECIES, tmp_path)
    assert engine.name == name
    assert said in capsys.readouterr().err
    scores = engine.score_batch(list(map(tuple, frame.to_numpy().tolist())))
    assert [score.label for score in scores] == model.predict(frame).tolist()
    assert check.main([str(tmp_path / "artifacts")]) == 0


def test_onnxruntime_tells_nobody(tmp_path: Path) -> None:
    """Its telemetry, which is on unless it is told otherwise, would leave an id and a queue of events in the home folder."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", "import app.engines.onnx_engine"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.rglob("*")) == []


def test_arrays_that_are_not_the_manifest_s_are_refused(tmp_path: Path) -> None:
    brought(LogisticRegression(max_iter=1000), IRIS.data, SPECIES, tmp_path)
    path = tmp_path / "artifacts" / "manifest.json"
    manifest = json.loads(path.read_text())
    for changes, said in (
        ({"scorer": manifest["scorer"] | {"link": "none"}}, "does not describe the scorer"),
        ({"scorer": manifest["scorer"] | {"features": manifest["scorer"]["features"][1:]}}, "the arrays disagree"),
        ({"signature": manifest["signature"] | {"labels": ["a", "b"]}}, "names other labels"),
        ({"files": {}}, "has no sha256 of intercept.npy"),
    ):
        path.write_text(json.dumps(manifest | changes))
        with pytest.raises(ArtifactError, match=said):
            load_engine(path.parent)


@pytest.mark.parametrize(
    ("model", "spread"),
    [
        (Ridge(), None),
        (BayesianRidge(), lambda model, x: float(np.asarray(model.predict(x, return_std=True)[1])[0])),
        (RandomForestRegressor(9), lambda model, x: np.std([t.predict(x.to_numpy()) for t in model.estimators_])),
        (
            make_pipeline(PCA(2), ExtraTreesRegressor(9)),
            lambda model, x: np.std([t.predict(model[0].transform(x)) for t in model[1].estimators_]),
        ),
    ],
    ids=["none", "Bayesian", "forest", "forest, by scikit-learn"],
)
def test_numbers_and_their_spread(model: Any, spread: Any, tmp_path: Path) -> None:
    frame = IRIS.data.iloc[:, :3]
    engine = brought(model, frame, IRIS.data.iloc[:, 3].to_numpy(), tmp_path)
    x = frame.iloc[[7]]
    row = dict(zip(frame, x.iloc[0], strict=True))
    document = client(engine, "v2").post("/predict", json=row).json()
    print(engine.name, document)
    assert document["prediction"] == pytest.approx(model.predict(x)[0])
    assert list(client(engine).post("/predict", json=row).json()) == ["prediction", "model_version"]
    if spread is None:
        assert "prediction_spread" not in document
    else:
        assert document["prediction_spread"] == pytest.approx(spread(model, x))
        (item,) = client(engine, "v2").post("/predict/batch", json=[row]).json()["predictions"]
        assert item["prediction_spread"] == document["prediction_spread"]


def test_what_cannot_be_served(tmp_path: Path) -> None:
    with pytest.raises(Unservable, match="a KMeans is neither a classifier nor a regressor"):
        brought(KMeans(2, n_init=1), IRIS.data, SPECIES, tmp_path)
    model = LogisticRegression(max_iter=1000).fit(IRIS.data, SPECIES)
    skops.io.dump(model, tmp_path / "theirs.skops")
    with (tmp_path / "other.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["sepal length (cm)", "colour"], [5.1, "red"]])
    with pytest.raises(Unservable, match=r"takes the column 'sepal width \(cm\)', which other\.csv does not have"):
        importing.build(tmp_path / "theirs.skops", table.read(tmp_path / "other.csv"), tmp_path)
    (tmp_path / "empty.csv").write_text("a,b\n")
    with pytest.raises(DataError, match="has no rows"):
        table.read(tmp_path / "empty.csv")


@pytest.mark.parametrize(
    ("model", "name", "reason"),
    [
        (make_pipeline(FunctionTransformer(np.log), Ridge()), "sklearn", "Input X contains NaN"),
        (PoissonRegressor(max_iter=1000), "compiled", "it predicts NaN or infinity"),
    ],
    ids=["logarithm", "overflow"],
)
def test_what_the_model_itself_cannot_answer_is_422(model: Any, name: str, reason: str, tmp_path: Path) -> None:
    """Such rows are none of the data's, so the model is served, and they are the client's mistake."""
    engine = brought(model, IRIS.data.iloc[:, :3], IRIS.data.iloc[:, 3].to_numpy(), tmp_path)
    assert engine.name == name
    good = {column.name: column.typical for column in engine.signature.columns}
    bad = dict.fromkeys(good, 1e6 if reason != "Input X contains NaN" else -1.0)
    for version in ("v1", "v2"):
        asked = client(engine, version)
        assert asked.post("/predict", json=good).status_code == 200
        document = check_problem(asked.post("/predict", json=bad), 422)
        assert reason in document["detail"]
        many = check_problem(asked.post("/predict/batch", json=[good, bad]), 422)
        assert reason in many["detail"]
    tensors = [{"name": key, "shape": [1], "datatype": "FP64", "data": [value]} for key, value in bad.items()]
    check_problem(client(engine).post("/v2/models/theirs/infer", json={"inputs": tensors}), 422)
