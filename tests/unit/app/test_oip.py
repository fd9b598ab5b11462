"""The Open Inference Protocol, as its specification has it."""

from __future__ import annotations

import csv
import json
from typing import Any

import pytest

from app.http.oip import Inference
from app.http.predictor import NOT_READY
from tests.unit.app.stub_api import LABELS, Client, StubEngine, make_app
from tests.unit.app.test_errors import check_problem

PATHS = ["/v2/models/emotion", "/v2/models/emotion/versions/stub00000001"]
TEXTS = ["so glad to be home", "what a day"]


def tensor(data: Any = TEXTS, **members: Any) -> dict[str, Any]:
    return {"name": "sentence", "shape": [2], "datatype": "BYTES", "data": data, **members}


@pytest.fixture
def client() -> Client:
    return Client(make_app())


def test_server_and_health(client: Client) -> None:
    assert client.get("/v2").json() == {"name": "vmlops", "version": "v1", "extensions": []}
    assert client.get("/v2/health/live").json() == {"live": True}
    assert check_problem(client.get("/v2/health/ready"), 503)["error"] == NOT_READY
    client.app.start()
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models/emotion/ready").json() == {"name": "emotion", "ready": True}


@pytest.mark.parametrize("path", PATHS)
def test_metadata(client: Client, path: str) -> None:
    document = client.get(path).json()
    assert (document["name"], document["versions"]) == ("emotion", ["stub00000001"])
    assert document["inputs"] == [{"name": "sentence", "datatype": "BYTES", "shape": [-1]}]
    assert [output["name"] for output in document["outputs"]] == ["label", "probabilities"]
    assert document["parameters"]["labels"].split(",") == list(LABELS)


def test_labels_with_commas_and_quotes_can_be_told_apart() -> None:
    labels = ("Food, Drink", "Home", 'Toys "and" Games')
    document = Inference(StubEngine.signature._replace(labels=labels)).metadata("stub", "stub00000001")
    assert next(csv.reader([document["parameters"]["labels"]])) == list(labels)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "given",
    [
        tensor(),
        tensor(shape=[2, 1]),
        tensor(shape=[1, 2]),
        tensor([[TEXTS[0]], [TEXTS[1]]], shape=[2, 1]),
        tensor(parameters={"content_type": "str"}),
    ],
    ids=["flat", "column", "row", "nested", "parameters"],
)
def test_inference(client: Client, path: str, given: dict[str, Any]) -> None:
    answer = client.post(f"{path}/infer", json={"id": "42", "inputs": [given], "parameters": {"x": 1}})
    document = answer.json()
    print(answer.text)
    scores = [StubEngine().score(text) for text in TEXTS]
    assert (document["model_name"], document["model_version"], document["id"]) == ("emotion", "stub00000001", "42")
    label, probabilities = document["outputs"]
    assert label == {"name": "label", "datatype": "BYTES", "shape": [2], "data": [score.label for score in scores]}
    assert probabilities["shape"] == [2, 13]
    assert probabilities["data"] == [p for score in scores for p in score.probabilities]


def test_the_media_type_need_not_be_said(client: Client) -> None:
    body = json.dumps({"inputs": [tensor()]}).encode()
    for headers, status in (({}, 200), ({"content-type": "application/octet-stream"}, 415)):
        assert client.post("/v2/models/emotion/infer", content=body, headers=headers).status_code == status


def test_only_the_wanted_outputs_are_given(client: Client) -> None:
    body = {"inputs": [tensor()], "outputs": [{"name": "label", "parameters": {"binary_data": False}}]}
    document = client.post("/v2/models/emotion/infer", json=body).json()
    assert [output["name"] for output in document["outputs"]] == ["label"]
    assert "id" not in document


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 422, "inputs"),
        ({"inputs": []}, 422, "inputs"),
        ({"inputs": [tensor(), tensor()]}, 422, "inputs"),
        ({"inputs": [tensor(name="text")]}, 422, "inputs[0].name"),
        ({"inputs": [tensor(datatype="FP32")]}, 422, "inputs[0].datatype"),
        ({"inputs": [tensor(shape=[3])]}, 422, "inputs[0]"),
        ({"inputs": [tensor(shape=[-1])]}, 422, "inputs[0].shape[0]"),
        ({"inputs": [tensor(shape=[])]}, 422, "inputs[0].shape"),
        ({"inputs": [tensor([TEXTS[0], " "])]}, 422, "inputs[0].data[1]"),
        ({"inputs": [tensor([TEXTS[0], 3])]}, 422, "inputs[0].data[1]"),
        ({"inputs": [tensor([TEXTS[0], "x" * 9000])]}, 413, "inputs[0].data[1]"),
        ({"inputs": [tensor(["x"] * 257, shape=[257])]}, 422, "inputs[0].data"),
        ({"inputs": [tensor()], "outputs": [{"name": "mood"}]}, 422, "outputs[0].name"),
    ],
)
def test_bad_requests(client: Client, body: Any, status: int, field: str) -> None:
    document = check_problem(client.post("/v2/models/emotion/infer", json=body), status)
    assert document["errors"][0]["field"] == field
    assert document["error"] == document["detail"]


@pytest.mark.parametrize("path", ["/v2/models/other", "/v2/models/emotion/versions/other"])
def test_other_models_do_not_exist(client: Client, path: str) -> None:
    for answer in (client.get(path), client.get(f"{path}/ready"), client.post(f"{path}/infer", json={})):
        assert "emotion" in check_problem(answer, 404)["error"]
