"""BentoML as its documentation has it, one worker for each of our replicas."""

from __future__ import annotations

import os

import bentoml
import joblib


@bentoml.service(workers=int(os.environ["WORKERS"]), logging={"access": {"enabled": False}})
class Emotions:
    def __init__(self) -> None:
        self.model = joblib.load(os.environ["MODEL"])

    @bentoml.api  # type: ignore[untyped-decorator]
    def predict(self, sentence: str) -> dict[str, str]:
        return {"prediction": str(self.model.predict([sentence])[0])}
