"""LitServe as its documentation has it, one worker for each of our replicas. BATCH=n collects up to n requests."""

from __future__ import annotations

import os
from typing import Any

import joblib
import litserve


class Emotions(litserve.LitAPI):  # type: ignore[misc]
    def setup(self, device: str) -> None:
        self.model = joblib.load(os.environ["MODEL"])

    def decode_request(self, request: dict[str, str]) -> str:
        return request["sentence"]

    def predict(self, sentences: str | list[str]) -> Any:
        if isinstance(sentences, str):
            return self.model.predict([sentences])[0]
        return self.model.predict(list(sentences)).tolist()

    def encode_response(self, label: str) -> dict[str, str]:
        return {"prediction": str(label)}


if __name__ == "__main__":
    batch = int(os.environ.get("BATCH", "1"))
    api = Emotions(max_batch_size=batch, batch_timeout=0.002 if batch > 1 else 0.0)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=int(os.environ["WORKERS"]))
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), generate_client_file=False, log_level="warning")
