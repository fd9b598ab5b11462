"""A replica without a trained model: a stub engine, and `app` for gunicorn and in-process clients."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from math import exp
from pathlib import Path
from typing import Any
from zlib import crc32

import httpx

from app.engines.engine import Score
from app.engines.signature import Scalar, Signature
from app.factory import create_app
from app.http.asgi import Application
from app.settings import FeedbackSettings, Settings, Version

LABELS: tuple[str, ...] = (
    *("anger", "boredom", "empty", "enthusiasm", "fun", "happiness", "hate"),
    *("love", "neutral", "relief", "sadness", "surprise", "worry"),
)
TENTHS = [i / 10 for i in range(11)]
MANIFEST: Mapping[str, Any] = {
    "metrics": {"accuracy": 0.6},
    "baseline": {
        "labels": dict.fromkeys(LABELS, 1 / len(LABELS)),
        "confidence": {"edges": TENTHS, "shares": [0.0, 0.2, 0.3, 0.2, 0.1, 0.1, 0.05, 0.05, 0.0, 0.0]},
        "oov": {"edges": TENTHS, "shares": [0.5, 0.2, 0.1, 0.1, 0.05, 0.05, 0.0, 0.0, 0.0, 0.0]},
    },
}
SETTINGS = Settings("v1", "127.0.0.1:0", "v1@8001", Path("/nowhere"), "0123456789ab", "info", Path("/dev/shm"))


class StubEngine:
    """Scores by the hashes of a text's words: quick, the same everywhere, and different from text to text."""

    name = "stub"
    signature = Signature("emotion", "classes", (), LABELS, probabilities=True)
    slow = False
    model_version = "stub00000001"
    manifest = MANIFEST

    def score(self, text: str) -> Score:
        words = text.lower().split()
        logits = [0.0] * len(LABELS)
        for word in words:
            key = crc32(word.encode("utf-8", "surrogatepass"))
            logits[key % len(LABELS)] += 1 + key % 7 / 7
        total = sum(map(exp, logits))
        probabilities = [exp(logit) / total for logit in logits]
        best = max(range(len(LABELS)), key=probabilities.__getitem__)
        return Score(LABELS[best], probabilities[best], probabilities, len(words), len(words) // 3)

    def score_batch(self, texts: Sequence[str]) -> list[Score]:
        return [self.score(text) for text in texts]

    def explain(self, text: str, label: Scalar, top: int = 10) -> list[tuple[str, float]]:
        words = dict.fromkeys(text.lower().split())
        return sorted(((word, 1 / (i + 1)) for i, word in enumerate(words)), key=lambda pair: -pair[1])[:top]


def make_app(
    version: Version = "v1", engine: StubEngine | None = None, feedback: FeedbackSettings | None = None
) -> Application:
    instance = "v1@8001" if version == "v1" else "v2@8101"
    return create_app(SETTINGS._replace(version=version, instance=instance, feedback=feedback), engine or StubEngine())


def without_fast_path(app: Application) -> Application:
    """The same replica, with FastAPI answering every route."""
    app.fast = {}
    return app


class Client:
    """Requests to an application in this process."""

    def __init__(self, app: Application) -> None:
        self.app = app
        self._transport = httpx.ASGITransport(app)

    def request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Arguments as of httpx.Request."""
        return asyncio.run(self._request(httpx.Request(method, f"http://replica{path}", **arguments)))

    async def _request(self, request: httpx.Request) -> httpx.Response:
        response = await self._transport.handle_async_request(request)
        response.request = request
        await response.aread()
        return response

    def get(self, path: str, **arguments: Any) -> httpx.Response:
        return self.request("GET", path, **arguments)

    def post(self, path: str, **arguments: Any) -> httpx.Response:
        return self.request("POST", path, **arguments)

    def predict(self, *sentences: str) -> list[httpx.Response]:
        return [self.post("/predict", json={"sentence": sentence}) for sentence in sentences]

    def series(self) -> dict[str, float]:
        """Everything on /metrics, by name and labels as they are printed, without those that all series have."""
        text = re.sub(r',?(model_version="stub00000001"|version="v[12]")', "", self.get("/metrics").text)
        lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {name.replace("{,", "{").replace("{}", ""): float(value) for name, _, value in lines}


def __getattr__(name: str) -> Application:
    """`tests.unit.app.stub_api:app` for gunicorn, in the version that its environment names."""
    if name != "app":
        raise AttributeError(name)
    import os

    from app.settings import read_settings

    return create_app(read_settings(os.environ), StubEngine())
