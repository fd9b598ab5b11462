"""The Open Inference Protocol (REST), as published by the Open Inference working group under the name V2.

The tensors come from the signature. A model of texts takes one, `sentence` BYTES [n]; a model of tables one for each
column. A model of classes gives `label` [n] and, where it has them, `probabilities` FP64 [n, labels]; one of numbers
`prediction` FP64 [n] and, where it has it, `spread` FP64 [n]. Errors are this project's problem documents with the
member `error` that the protocol asks for.
"""

from __future__ import annotations

import csv
from functools import reduce
from io import StringIO
from operator import or_
from typing import Annotated, Any, Literal, cast

from fastapi import Depends, FastAPI, Path, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

from app.engines.engine import Score
from app.engines.signature import SENTENCE, Column, Input, Scalar, Signature, text_of
from app.http import openapi
from app.http.answers import JSON, Answer, to_json
from app.http.asgi import read_json
from app.http.oip_schemas import (
    InferProblem,
    Live,
    ModelMetadata,
    ModelReady,
    Parameters,
    Ready,
    ServerMetadata,
    Tensor,
)
from app.http.openapi import respond
from app.http.predictor import Predictor
from app.http.problems import FieldError, Problem
from app.http.schemas import Document, type_of
from app.http.sentences import BATCH_BODY_BYTES, BATCH_SENTENCES
from app.http.validation import parse

PREFIX = "/v2/"
HEADER_LENGTH = "inference-header-content-length"  # of a body with binary tensors after the JSON
NO_BINARY = "Binary tensors are not offered: send the data as JSON (binary_data=False)."
TAG = "Open Inference Protocol"

_TEXT = Column("sentence", "text", SENTENCE)
_INTEGERS = ("INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16", "UINT8")
# What a column may be sent as, by the Python type of its values; the first is what the metadata say.
_DATATYPES: dict[type, tuple[str, ...]] = {
    str: ("BYTES",),
    bool: ("BOOL",),
    int: _INTEGERS,
    float: ("FP64", "FP32", "FP16", *_INTEGERS),
}


def flatten(data: Any) -> Any:
    """A tensor's data may be nested as its shape is, or flat."""
    while isinstance(data, list) and data and all(isinstance(row, list) for row in data):
        data = [item for row in data for item in row]
    return data


class Inference:
    """The protocol for one signature: its metadata, its request, its answer."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.columns = signature.columns or (_TEXT,)
        self.outputs = self._outputs()
        self.Request = self._request()
        self.Response = self._response()

    def _outputs(self) -> list[dict[str, Any]]:
        """Return the outputs that the metadata list."""
        signature = self.signature
        if signature.kind == "number":
            names = ("prediction", "spread") if signature.spread else ("prediction",)
            return [{"name": name, "datatype": "FP64", "shape": [-1]} for name in names]
        label = {"name": "label", "datatype": _datatypes(signature.labels)[0], "shape": [-1]}
        probabilities = {"name": "probabilities", "datatype": "FP64", "shape": [-1, len(signature.labels)]}
        return [label, probabilities] if signature.probabilities else [label]

    def _request(self) -> type[BaseModel]:
        tensors: list[Any] = []
        example: list[Any] = []
        for i, column in enumerate(self.columns):
            datatypes = _datatypes_of(column)
            kind: Any = type_of(column)
            many: Any = list[kind]
            data: Any = Annotated[many, BeforeValidator(flatten), Field(min_length=1, max_length=BATCH_SENTENCES)]
            fields: dict[str, Any] = {"name": Literal[column.name], "datatype": Literal[datatypes], "data": data}
            tensors.append(create_model("InferInput" if i == 0 else f"InferInput{i}", __base__=Tensor, **fields))
            example.append({"name": column.name, "shape": [1], "datatype": datatypes[0], "data": [column.typical]})
        one: Any = tensors[0]
        if len(tensors) > 1:
            one = Annotated[reduce(or_, tensors), Field(discriminator="name")]
        names: Any = Literal[tuple(output["name"] for output in self.outputs)]
        output: Any = create_model("InferOutput", name=names)
        several: Any = list[one]
        fields = {
            "id": (str | None, None),
            "parameters": (Parameters | None, None),
            "inputs": Annotated[several, Field(min_length=1, max_length=len(self.columns))],
            "outputs": (
                list[output] | None,
                Field(None, description="Those that are wanted; all where there are none."),
            ),
        }
        config = ConfigDict(json_schema_extra={"examples": [{"inputs": example}]})
        return cast(type[BaseModel], create_model("InferRequest", __config__=config, **fields))

    def _response(self) -> type[BaseModel]:
        tensors: list[Any] = []
        for output in self.outputs:
            labels = {type(label) for label in self.signature.labels} if output["name"] == "label" else {float}
            kind: Any = str if output["datatype"] == "BYTES" else labels.pop()
            fields: dict[str, Any] = {
                "name": Literal[output["name"]],
                "datatype": Literal[output["datatype"]],
                "shape": list[int],
                "data": list[kind],
            }
            tensors.append(create_model(f"Infer{output['name'].title()}", __base__=Document, **fields))
        one: Any = reduce(or_, tensors)
        if len(tensors) > 1:
            one = Annotated[one, Field(discriminator="name")]
        several: Any = list[one]
        fields = {"model_name": str, "model_version": str, "id": (str | None, None), "outputs": several}
        return cast(type[BaseModel], create_model("InferResponse", __base__=Document, **fields))

    def metadata(self, engine: str, version: str) -> dict[str, Any]:
        """Return the metadata of the model."""
        document: dict[str, Any] = {
            "name": self.signature.model,
            "versions": [version],
            "platform": f"vmlops_{engine}",
            "inputs": [
                {"name": column.name, "datatype": _datatypes_of(column)[0], "shape": [-1]} for column in self.columns
            ],
            "outputs": self.outputs,
        }
        if self.signature.labels:
            document["parameters"] = {"labels": _line([text_of(label) for label in self.signature.labels])}
        return document

    def inputs(self, request: Any) -> list[Input]:
        """Texts or rows. Raises Problem 422 where a column is missing or there twice, or lengths differ."""
        tensors = {tensor.name: tensor.data for tensor in request.inputs}
        missing = [column.name for column in self.columns if column.name not in tensors]
        if missing or len(tensors) < len(request.inputs):
            reason = f"lacks a tensor for {', '.join(missing)}" if missing else "has two tensors of one name"
            raise _problem(reason)
        if len({len(data) for data in tensors.values()}) > 1:
            raise _problem("has tensors of different lengths")
        if self.signature.takes_text:
            return cast(list[Input], tensors[_TEXT.name])
        return list(zip(*(tensors[column.name] for column in self.columns), strict=True))

    def answer(self, request: Any, scores: list[Score], version: str) -> Answer:
        labels = [score.label for score in scores]
        if self.outputs[0]["datatype"] == "BYTES":
            labels = [text_of(label) for label in labels]
        data: dict[str, list[Any]] = {
            "label": labels,
            "prediction": labels,
            "spread": [score.spread for score in scores],
            "probabilities": [p for score in scores for p in score.probabilities],
        }
        known = {output["name"]: output for output in self.outputs}
        wanted = [known[output.name] for output in request.outputs or ()] or self.outputs
        document: dict[str, Any] = {"model_name": self.signature.model, "model_version": version}
        if request.id is not None:
            document["id"] = request.id
        document["outputs"] = [
            {**output, "shape": [len(scores), *output["shape"][1:]], "data": data[output["name"]]} for output in wanted
        ]
        return Answer.of(200, to_json(document))


def _datatypes(values: tuple[Scalar, ...]) -> tuple[str, ...]:
    """Return the datatype of values of one type; values of several types are sent as texts."""
    kinds = {type(value) for value in values}
    return _DATATYPES[kinds.pop()] if len(kinds) == 1 else _DATATYPES[str]


def _datatypes_of(column: Column) -> tuple[str, ...]:
    kinds = {"number": float, "integer": int, "boolean": bool, "text": str}
    return _datatypes(column.values) if column.type == "category" else _DATATYPES[kinds[column.type]]


def _line(labels: list[str]) -> str:
    """Return values as a line of CSV: a label that contains a comma is quoted, so it cannot be taken for two."""
    line = StringIO()
    csv.writer(line, lineterminator="").writerow(labels)
    return line.getvalue()


def _problem(reason: str) -> Problem:
    return Problem(422, f"inputs: {reason}.", [FieldError(field="inputs", reason=reason)])


def add_routes(app: FastAPI, predictor: Predictor, inference: Inference) -> None:
    """The protocol's paths, with and without the version of the model."""

    @app.get("/v2", tags=[TAG], name="server_metadata", summary="Server metadata", response_model=ServerMetadata)
    async def server() -> dict[str, Any]:
        return {"name": "vmlops", "version": app.version, "extensions": []}

    @app.get("/v2/health/live", tags=[TAG], name="server_live", summary="As /health", response_model=Live)
    async def live() -> dict[str, bool]:
        return {"live": True}

    unready: dict[str, Any] = {"summary": "As /ready", "response_model": Ready, "responses": _problems(503)}

    @app.get("/v2/health/ready", tags=[TAG], name="server_ready", **unready)
    async def ready() -> dict[str, bool]:
        predictor.check_ready()
        return {"ready": True}

    engine = predictor.engine
    model = inference.signature.model
    unknown = f"This server has the model {model} in version {engine.model_version} only."

    async def known(name: str = Path(openapi_examples={"this": {"value": model}})) -> None:
        if name != model:
            raise Problem(404, unknown)

    async def known_version(version: str = Path(openapi_examples={"this": {"value": engine.model_version}})) -> None:
        if version != engine.model_version:
            raise Problem(404, unknown)

    async def metadata() -> dict[str, Any]:
        return inference.metadata(engine.name, engine.model_version)

    async def model_ready() -> dict[str, Any]:
        predictor.check_ready()
        return {"name": model, "ready": True}

    async def model_infer(request: Request) -> Response:
        if HEADER_LENGTH in request.headers:
            raise Problem(415, NO_BINARY)
        # The protocol does not ask for a media type, and its clients send none.
        body = await read_json(request.scope, request.receive, BATCH_BODY_BYTES, undeclared=JSON)
        wanted: Any = parse(inference.Request, body)
        scores = await predictor.score(inference.inputs(wanted))
        return respond(inference.answer(wanted, scores, engine.model_version))

    for name, path, checks in (
        ("model", "/v2/models/{name}", [Depends(known)]),
        ("model_version", "/v2/models/{name}/versions/{version}", [Depends(known), Depends(known_version)]),
    ):
        shared: dict[str, Any] = {"tags": [TAG], "dependencies": checks}
        described: dict[str, Any] = {
            "summary": "Metadata",
            "response_model": ModelMetadata,
            "response_model_exclude_unset": True,
            "responses": _problems(404),
        }
        is_ready: dict[str, Any] = {**unready, "response_model": ModelReady, "responses": _problems(404, 503)}
        taken = openapi.takes(inference.Request, 404, problem=InferProblem)
        infers: dict[str, Any] = {"summary": "Predict", "response_model": inference.Response, **taken}
        app.get(path, name=f"{name}_metadata", **described, **shared)(metadata)
        app.get(f"{path}/ready", name=f"{name}_ready", **is_ready, **shared)(model_ready)
        app.post(f"{path}/infer", name=f"{name}_infer", **infers, **shared)(model_infer)


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return openapi.problems(*statuses, problem=InferProblem)
