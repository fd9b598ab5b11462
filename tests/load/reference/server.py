"""What public solutions of the task do: FastAPI, the pickled pipeline, one call of scikit-learn for each thing asked."""

from __future__ import annotations

import os

import joblib
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
model = joblib.load(os.environ["MODEL"])


class Request(BaseModel):
    sentence: str


@app.post("/predict")
async def predict(request: Request) -> dict[str, object]:
    label = model.predict([request.sentence])[0]
    probabilities = model.predict_proba([request.sentence])[0].tolist()
    return {"prediction": label, "prediction_proba_dict": dict(zip(model.classes_, probabilities, strict=True))}


@app.post("/predict/label")
async def predict_label(request: Request) -> dict[str, str]:
    return {"prediction": model.predict([request.sentence])[0]}
