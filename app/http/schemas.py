"""What clients send and get, in one place: these models validate the input and are the OpenAPI document.

The answers are written by hand in predictor.py, for speed; a test holds them against these models.
"""

from __future__ import annotations

from functools import cache, reduce
from operator import or_
from typing import Annotated, Any, Literal, NamedTuple, Optional

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, RootModel, Strict, create_model
from pydantic_core import PydanticCustomError

from app import __version__
from app.engines.signature import Column, Row, Signature
from app.http.sentences import BATCH_SENTENCES, BLANK, FLAWS, SENTENCE_BYTES, flaw


def check_sentence(text: str) -> str:
    """Raises PydanticCustomError on what the types cannot say."""
    if found := flaw(text):
        raise PydanticCustomError(found, FLAWS[found])
    return text


# The bound is in words: JSON Schema's maxLength counts characters, not bytes.
Text = Annotated[
    str,
    AfterValidator(check_sentence),
    Field(
        description=f"At most {SENTENCE_BYTES} bytes in UTF-8, and not only white space.",
        json_schema_extra={"minLength": 1, "pattern": r"\S"},
    ),
]
Share = Annotated[float, Field(ge=0, le=1)]


class Sentence(BaseModel):
    """A text to classify."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"sentence": "Oh yeah, that was soooo cool!"}]},
    )

    sentence: Text


class Sentences(BaseModel):
    """Texts to classify in one request."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"sentences": ["Oh yeah, that was soooo cool!", "my train is late again"]}]},
    )

    sentences: Annotated[list[Text], Field(min_length=1, max_length=BATCH_SENTENCES)]


class LabelledRequest(BaseModel):
    """The right label of an earlier prediction."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"request_id": "2b41…", "label": "happiness"}]})

    request_id: str = Field(pattern="^[A-Za-z0-9._-]{1,64}$", description="The header X-Request-ID of its answer.")
    label: str | int | float | bool = Field(description="One of the model's labels.")


class Document(BaseModel):
    """What we answer: nothing is validated by it, so what pydantic makes of it is made with the OpenAPI document."""

    model_config = ConfigDict(defer_build=True)


class NGram(Document):
    ngram: str
    weight: float = Field(description="What it adds to the logit of the predicted label.")


class Forms(NamedTuple):
    """The bodies that a model takes, and its answers."""

    one: type[BaseModel]
    many: type[BaseModel]
    prediction: type[BaseModel]
    debug: type[BaseModel]
    predictions: type[BaseModel]
    debug_predictions: type[BaseModel]


# The greatest number that a column takes. Its square is still one in 32 bits, which most trees compute in.
GREATEST = 2**63


@cache
def forms_of(signature: Signature) -> Forms:
    """Make the forms from the signature."""
    one, many = (Sentence, Sentences) if signature.takes_text else _rows(signature)
    kinds = tuple(dict.fromkeys(type(label) for label in signature.labels)) or (float,)
    description = "One of the model's labels." if signature.labels else "The predicted number."
    prediction = (reduce(or_, kinds), Field(description=description, examples=_examples(signature)))
    made: Any = create_model("Label", __base__=Document, prediction=prediction)
    details: dict[str, Any] = {}
    if signature.probabilities:
        details["prediction_proba_dict"] = (dict[str, Share], Field(description="Every label; they sum to 1."))
    if signature.spread:
        details["prediction_spread"] = (float, Field(ge=0, description="The standard deviation of the prediction."))
    explained: Any = create_model("Explained", __base__=made, **details)
    origin: dict[str, Any] = {
        "engine": (str, Field(examples=["compiled"])),
        "instance": (str, Field(description="The replica that answered.", examples=["v2@8101"])),
        "elapsed_ms": (float, Field(ge=0, description="Validation and scoring.")),
    }
    version: dict[str, Any] = {"model_version": (str, Field(examples=["3f9c2a7be014"]))}
    name, part = ("top_ngrams", NGram) if signature.takes_text else ("top_columns", ColumnWeight)
    most = "Those that weighed most for or against the prediction, heaviest first."
    weighed: dict[str, Any] = {name: (list[part], Field(description=most))}  # type: ignore[valid-type]
    return Forms(
        one,
        many,
        create_model("Prediction", __base__=made, **version),
        create_model("DebugPrediction", __base__=explained, **version, **weighed, **origin),
        create_model("Predictions", __base__=Document, predictions=list[made], **version),
        create_model("DebugPredictions", __base__=Document, predictions=list[explained], **version, **origin),
    )


def row_of(body: BaseModel) -> Row:
    """The values of a body in the order of the columns, which is that of the model's fields."""
    return tuple(body.__dict__.values())


class ColumnWeight(Document):
    column: str
    weight: float = Field(description="What it adds, beside its typical value, to the label's logit or to the number.")


def _rows(signature: Signature) -> tuple[type[BaseModel], type[BaseModel]]:
    """A row as an object of its columns, and a list of such rows."""
    example: Any = {column.name: column.typical for column in signature.columns}
    config = ConfigDict(extra="forbid", json_schema_extra={"examples": [example]})
    fields: dict[str, Any] = {
        # The fields' own names must be identifiers, and none of pydantic's; clients see only the aliases.
        f"column_{i}": (
            type_of(column),
            Field(alias=column.name, description=_description(column), examples=[column.typical]),
        )
        for i, column in enumerate(signature.columns)
    }
    row: Any = create_model("Row", __config__=config, __doc__="The columns of one row.", **fields)

    class Rows(RootModel[Annotated[list[row], Field(min_length=1, max_length=BATCH_SENTENCES)]]):
        """Rows, in order."""

        model_config = ConfigDict(json_schema_extra={"examples": [[example, example]]})

    return row, Rows


def type_of(column: Column) -> Any:
    """The type of a column's values, for pydantic."""
    number = Field(ge=-GREATEST, le=GREATEST)
    kind: Any = {
        "number": Annotated[float, Strict(), number, Field(allow_inf_nan=False)],
        "integer": Annotated[int, Strict(), Field(ge=-GREATEST, lt=GREATEST), BeforeValidator(_whole)],
        "boolean": Annotated[bool, Strict()],
        "category": Literal[column.values] if column.values else None,
        "text": Text,
    }[column.type]
    return Optional[kind] if column.nullable else kind  # noqa: UP045


def _whole(value: Any) -> Any:
    """In JSON 3.0 is an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _description(column: Column) -> str:
    missing = " null where it is missing." if column.nullable else ""
    if column.range:
        return f"From {column.range[0]:g} to {column.range[1]:g} in the data.{missing}"
    return missing.strip()


def _examples(signature: Signature) -> list[Any]:
    return list(signature.labels[:1]) or [1.5]


class FieldReason(Document):
    field: str = Field(examples=["sentences[3]"])
    reason: str = Field(examples=[FLAWS[BLANK]])


class ProblemDocument(Document):
    """Every error (RFC 9457)."""

    type: str = Field(examples=["about:blank"])
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[FieldReason] | None = None


class Health(Document):
    status: str = Field(examples=["ok"])


class VersionDocument(Document):
    """What runs here."""

    vmlops: str = Field(examples=[__version__])
    version: str = Field(examples=["v1"])
    model_version: str
    release: str
    engine: str
    instance: str
