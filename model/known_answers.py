"""Some inputs with the model's own answers: whoever loads it elsewhere can see that it answers as it did here.

The engine is asked, which is compared with scikit-learn on all of the data.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import isnan
from pathlib import Path

from app.check import KNOWN_ANSWERS
from app.engines.engine import Engine
from app.engines.signature import Input

COUNT = 50


def write(directory: Path, engine: Engine, inputs: Sequence[Input]) -> None:
    """COUNT inputs from all over `inputs`, each with its answer and the probability, null where the model gives none."""
    chosen = list(inputs[:: max(len(inputs) // COUNT, 1)][:COUNT])
    answers = [
        {"input": x, "label": score.label, "confidence": None if isnan(score.confidence) else score.confidence}
        for x, score in zip(chosen, engine.score_batch(chosen), strict=True)
    ]
    (directory / KNOWN_ANSWERS).write_text(json.dumps(answers, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
