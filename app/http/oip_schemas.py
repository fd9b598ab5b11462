"""What the Open Inference Protocol's clients send and get whatever the model is; oip.py adds what depends on it."""

from __future__ import annotations

from math import prod
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator
from pydantic_core import PydanticCustomError

from app.http.schemas import Document, ProblemDocument

# Names that MLServer's clients give to what the data are in any case. Others say that they are to be decoded.
CONTENT_TYPES = ("str", "np", "pd")


class Parameters(BaseModel):
    """Any parameter is accepted; all but the content type are ignored."""

    content_type: Literal[CONTENT_TYPES] | None = None  # type: ignore[valid-type]


class Tensor(BaseModel):
    name: str
    shape: Annotated[
        list[Annotated[int, Field(ge=1)]],
        Field(min_length=1, max_length=2, description="Its product is the number of items in `data`."),
    ]
    datatype: str
    data: list[Any]
    parameters: Parameters | None = None

    @model_validator(mode="after")
    def fits(self) -> Tensor:
        if prod(self.shape) != len(self.data):
            raise PydanticCustomError("shape", "has a shape that its data does not fill")
        return self


class ServerMetadata(Document):
    name: str = Field(examples=["vmlops"])
    version: str = Field(examples=["v1"])
    extensions: list[str]


class Live(Document):
    live: bool


class Ready(Document):
    ready: bool


class ModelReady(Ready):
    name: str


class TensorMetadata(Document):
    name: str
    datatype: str = Field(examples=["BYTES"])
    shape: list[int] = Field(description="-1 stands for the number of inputs in a request.")


class ModelParameters(Document):
    labels: str = Field(description="The labels as a line of CSV, in the order of the probabilities.")


class ModelMetadata(Document):
    name: str
    versions: list[str]
    platform: str = Field(examples=["vmlops_compiled"])
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: ModelParameters | None = None


class InferProblem(ProblemDocument):
    """An error under /v2."""

    error: str = Field(description="The same as `detail`.")
