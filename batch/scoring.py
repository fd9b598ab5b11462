"""What happens to a piece of a file, in a Dask worker: decoded, scored, encoded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from distributed import Worker, WorkerPlugin

from app.engines.engine import Engine
from app.engines.loading import load_engine
from app.engines.scorer import CompiledEngine
from app.engines.signature import text_of
from batch.tables import Bad, Decoder, Encoder, Piece, Row
from batch.vectorised import VectorisedEngine

_engine: Engine  # of this process, put here by Model


class Scored(NamedTuple):
    """A piece of the output."""

    data: bytes
    records: int  # good and bad ones
    bad: list[Bad]


class Model(WorkerPlugin):
    """Brings the model to every worker, to those that start later too."""

    name = "vmlops-model"

    def __init__(self, directory: Path) -> None:
        self._files = {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}

    def setup(self, worker: Worker) -> None:
        """Raises ArtifactError where the files are not those of their manifest."""
        global _engine
        directory = Path(worker.local_directory) / "model"
        directory.mkdir(exist_ok=True)
        for name, content in self._files.items():
            (directory / name).write_bytes(content)
        engine = load_engine(directory)
        _engine = VectorisedEngine(directory, engine.manifest) if isinstance(engine, CompiledEngine) else engine


class Task(NamedTuple):
    """How every piece is scored: the columns to read and to write."""

    decoder: Decoder
    encoder: Encoder
    column: str  # that has the text
    all_probabilities: bool

    def score(self, piece: Piece) -> Scored:
        rows, bad = self.decoder.rows(piece)
        records = len(rows) + len(bad)
        good = []
        for number, row in rows:
            if wrong := self._flaw(row):
                bad.append(Bad(number, wrong, str(row)[:1000]))
            else:
                good.append((number, row))
        for (_, row), answer in zip(good, self._answers([row[self.column] for _, row in good]), strict=True):
            row.update(answer)
        try:
            data = self.encoder.encode([row for _, row in good])
        except (ValueError, TypeError):
            data = self._one_by_one(good, bad)
        return Scored(data, records, sorted(bad))

    def _flaw(self, row: Row) -> str:
        if self.column not in row:
            return f"has no {self.column!r}"
        text = row[self.column]
        if not isinstance(text, str):
            return f"{self.column!r} is no text but {type(text).__name__}"
        return "" if text.strip() else f"{self.column!r} is empty"

    def _answers(self, texts: Sequence[str]) -> list[Row]:
        if not texts:
            return []
        if isinstance(_engine, VectorisedEngine):
            labels, probabilities = _engine.scores(texts)
            names = [text_of(_engine.signature.labels[number]) for number in labels]
            rows = probabilities.tolist()
            confidences = probabilities[np.arange(len(labels)), labels].tolist()
        else:
            scores = _engine.score_batch(texts)
            names = [text_of(score.label) for score in scores]
            rows = [score.probabilities for score in scores]
            confidences = [score.confidence for score in scores]
        return [
            self.answer(name, confidence, p, _engine)
            for name, confidence, p in zip(names, confidences, rows, strict=True)
        ]

    def answer(self, label: str, confidence: float, probabilities: Sequence[float], engine: Any) -> Row:
        """The columns that are added to a row."""
        added: Row = {"prediction": label, "confidence": confidence}
        if self.all_probabilities:
            added |= {
                probability_column(name): p
                for name, p in zip(map(text_of, engine.signature.labels), probabilities, strict=False)
            }
        return {**added, "model_version": engine.model_version}

    def _one_by_one(self, rows: Sequence[tuple[int, Row]], bad: list[Bad]) -> bytes:
        """Encode rows one by one, and count those that cannot be encoded among the bad."""
        parts = []
        for number, row in rows:
            try:
                parts.append(self.encoder.encode([row]))
            except (ValueError, TypeError) as error:
                bad.append(
                    Bad(number, f"cannot be written: {error}", str(row)[:1000].encode(errors="replace").decode())
                )
        return b"".join(parts)


def probability_column(label: str) -> str:
    return f"probability_{label}"
