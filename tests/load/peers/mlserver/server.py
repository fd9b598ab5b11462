"""MLServer as its documentation has it: a runtime of one's own, since its runtime for scikit-learn knows no texts."""

from __future__ import annotations

import os

import joblib
from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Emotions(MLModel):  # type: ignore[misc]
    async def load(self) -> bool:
        self.model = joblib.load(os.environ["MODEL"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        labels = self.model.predict(StringCodec.decode_input(payload.inputs[0])).tolist()
        outputs = [StringCodec.encode_output("prediction", labels)]
        return InferenceResponse(model_name=self.name, outputs=outputs)
