"""What clients send and get, in one place: these models validate the input and are the OpenAPI document.

The answers are written by hand in predictor.py, for speed; a test holds them against these models.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from app import __version__
from app.http.sentences import BATCH_SENTENCES, BLANK, FLAWS, SENTENCE_BYTES, flaw


def check_sentence(text: str) -> str:
    """Raises PydanticCustomError on what the types cannot say."""
    if found := flaw(text):
        raise PydanticCustomError(found, FLAWS[found])
    return text


Text = Annotated[
    str,
    AfterValidator(check_sentence),
    Field(json_schema_extra={"minLength": 1, "maxLength": SENTENCE_BYTES, "pattern": r"\S"}),
]
Share = Annotated[float, Field(ge=0, le=1)]


class Sentence(BaseModel):
    """A text to classify."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"sentence": "Oh yeah, that was soooo cool!"}]},
    )

    sentence: Text = Field(description=f"At most {SENTENCE_BYTES} bytes in UTF-8, and not only white space.")


class Sentences(BaseModel):
    """Texts to classify in one request."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"sentences": ["Oh yeah, that was soooo cool!", "my train is late again"]}]},
    )

    sentences: Annotated[list[Text], Field(min_length=1, max_length=BATCH_SENTENCES)]


class Document(BaseModel):
    """What we answer: nothing is validated by it, so what pydantic makes of it is made with the OpenAPI document."""

    model_config = ConfigDict(defer_build=True)


class Label(Document):
    prediction: str = Field(description="The most probable of the model's labels.", examples=["happiness"])


class Prediction(Label):
    """The answer of v1."""

    model_version: str = Field(examples=["3f9c2a7be014"])


class NGram(Document):
    ngram: str
    weight: float = Field(description="What it adds to the logit of the predicted label.")


class Explained(Label):
    """A label and the probabilities behind it."""

    prediction_proba_dict: dict[str, Share] = Field(description="Every label; they sum to 1.")


class DebugPrediction(Prediction, Explained):
    """The answer of v2."""

    top_ngrams: list[NGram] = Field(description="Those that weighed most for or against the label, heaviest first.")
    engine: str = Field(examples=["compiled"])
    instance: str = Field(description="The replica that answered.", examples=["v2@8101"])
    elapsed_ms: float = Field(ge=0, description="Validation and scoring.")


class Predictions(Document):
    """The answer of v1 to a batch, in the order of the sentences."""

    predictions: list[Label]
    model_version: str


class DebugPredictions(Document):
    """The answer of v2 to a batch, in the order of the sentences."""

    predictions: list[Explained]
    model_version: str
    engine: str
    instance: str
    elapsed_ms: float = Field(ge=0)


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
