"""The Open Inference Protocol (REST), as published by the Open Inference working group under the name V2.

The model takes one tensor of texts, `sentence` BYTES [n], and gives `label` BYTES [n] and `probabilities`
FP64 [n, labels]. Errors are this project's problem documents with the member `error` that the protocol asks for.
"""

from __future__ import annotations

from math import prod
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Path, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from app.engines.engine import Engine
from app.http import openapi
from app.http.answers import JSON, Answer, to_json
from app.http.asgi import read_json
from app.http.openapi import respond
from app.http.predictor import Predictor
from app.http.problems import Problem
from app.http.schemas import Text
from app.http.sentences import BATCH_BODY_BYTES, BATCH_SENTENCES
from app.http.validation import parse

MODEL = "emotion"
INPUT = "sentence"
PREFIX = "/v2/"
HEADER_LENGTH = "inference-header-content-length"  # of a body with binary tensors after the JSON
NO_BINARY = "Binary tensors are not offered: send the data as JSON (binary_data=False)."
TAG = "Open Inference Protocol"

Output = Literal["label", "probabilities"]
_ALL: tuple[Output, ...] = ("label", "probabilities")


def flatten(data: Any) -> Any:
    """A tensor's data may be nested as its shape is, or flat."""
    while isinstance(data, list) and data and all(isinstance(row, list) for row in data):
        data = [item for row in data for item in row]
    return data


class InferInput(BaseModel):
    name: Literal["sentence"]
    shape: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1, max_length=2)]
    datatype: Literal["BYTES"]
    data: Annotated[list[Text], BeforeValidator(flatten), Field(min_length=1, max_length=BATCH_SENTENCES)]

    @model_validator(mode="after")
    def fits(self) -> InferInput:
        if prod(self.shape) != len(self.data):
            raise PydanticCustomError("shape", "has a shape that its data does not fill")
        return self


class InferOutput(BaseModel):
    name: Output


class InferRequest(BaseModel):
    """Parameters are accepted and mean nothing here."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "inputs": [
                        {"name": INPUT, "shape": [1], "datatype": "BYTES", "data": ["Oh yeah, that was soooo cool!"]}
                    ]
                }
            ]
        }
    )

    id: str | None = None
    inputs: Annotated[list[InferInput], Field(min_length=1, max_length=1)]
    outputs: list[InferOutput] | None = None


def model_metadata(engine: Engine) -> dict[str, Any]:
    return {
        "name": MODEL,
        "versions": [engine.model_version],
        "platform": f"vmlops_{engine.name}",
        "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP64", "shape": [-1, len(engine.labels)]},
        ],
        "parameters": {"labels": ",".join(engine.labels)},  # the order of the probabilities
    }


async def infer(predictor: Predictor, body: bytes) -> Answer:
    """Raises Problem 400, 413 and 422."""
    request = parse(InferRequest, body)
    scores = await predictor.score(request.inputs[0].data)
    tensors: dict[Output, dict[str, Any]] = {
        "label": {"datatype": "BYTES", "shape": [len(scores)], "data": [score.label for score in scores]},
        "probabilities": {
            "datatype": "FP64",
            "shape": [len(scores), len(predictor.engine.labels)],
            "data": [p for score in scores for p in score.probabilities],
        },
    }
    wanted = _ALL if request.outputs is None else [output.name for output in request.outputs]
    document: dict[str, Any] = {"model_name": MODEL, "model_version": predictor.engine.model_version}
    if request.id is not None:
        document["id"] = request.id
    document["outputs"] = [{"name": name, **tensors[name]} for name in wanted]
    return Answer.of(200, to_json(document))


def add_routes(app: FastAPI, predictor: Predictor) -> None:
    """The protocol's paths, with and without the version of the model."""

    @app.get("/v2", tags=[TAG], summary="Server metadata")
    async def server() -> dict[str, Any]:
        return {"name": "vmlops", "version": app.version, "extensions": []}

    @app.get("/v2/health/live", tags=[TAG], summary="As /health")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get("/v2/health/ready", tags=[TAG], summary="As /ready", responses=openapi.problems(503))
    async def ready() -> dict[str, bool]:
        predictor.check_ready()
        return {"ready": True}

    engine = predictor.engine
    unknown = f"This server has the model {MODEL} in version {engine.model_version} only."

    async def known(name: str = Path(openapi_examples={"this": {"value": MODEL}})) -> None:
        if name != MODEL:
            raise Problem(404, unknown)

    async def known_version(version: str = Path(openapi_examples={"this": {"value": engine.model_version}})) -> None:
        if version != engine.model_version:
            raise Problem(404, unknown)

    async def metadata() -> dict[str, Any]:
        return model_metadata(engine)

    async def model_ready() -> dict[str, Any]:
        predictor.check_ready()
        return {"name": MODEL, "ready": True}

    async def model_infer(request: Request) -> Response:
        if HEADER_LENGTH in request.headers:
            raise Problem(415, NO_BINARY)
        # The protocol does not ask for a media type, and its clients send none.
        body = await read_json(request.scope, request.receive, BATCH_BODY_BYTES, undeclared=JSON)
        return respond(await infer(predictor, body))

    for path, checks in (
        ("/v2/models/{name}", [Depends(known)]),
        ("/v2/models/{name}/versions/{version}", [Depends(known), Depends(known_version)]),
    ):
        shared: dict[str, Any] = {"tags": [TAG], "dependencies": checks}
        app.get(path, summary="Metadata", responses=openapi.problems(404), **shared)(metadata)
        app.get(f"{path}/ready", summary="As /ready", responses=openapi.problems(404, 503), **shared)(model_ready)
        app.post(f"{path}/infer", summary="Classify", **openapi.takes(InferRequest, 404), **shared)(model_infer)
