"""What happens to a piece of a file, in a Dask worker: decoded, scored, encoded."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from app.engines.engine import Engine, Score, Unanswerable
from app.engines.loading import load_engine
from app.engines.scorer import CompiledEngine
from app.engines.signature import Input, Scalar, Signature, text_of
from batch.code import OtherCode, kind
from batch.inputs import Inputs
from batch.tables import Bad, Decoder, Encoder, Piece, Row
from batch.vectorised import VectorisedEngine

_engines: dict[str, Engine] = {}  # of this process, by the hash of their files; the last that was asked for at the end
_KEPT = 2  # runs of several models may share the workers


class Scored(NamedTuple):
    """A piece of the output."""

    data: bytes
    records: int  # good and bad ones
    bad: list[Bad]


class Model(NamedTuple):
    """The files of a model, as they travel to the workers."""

    sha256: str  # of the files' names and contents
    files: Mapping[str, bytes]

    @classmethod
    def read(cls, directory: Path) -> Model:
        files = {path.name: path.read_bytes() for path in sorted(directory.iterdir()) if path.is_file()}
        digest = hashlib.sha256()
        for name, content in files.items():
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
        return cls(digest.hexdigest(), files)

    def engine(self) -> Engine:
        """Loaded once in a process. Raises ArtifactError where the files are not those of their manifest."""
        engine = _engines.pop(self.sha256, None) or self._loaded()
        while len(_engines) >= _KEPT:
            del _engines[next(iter(_engines))]
        _engines[self.sha256] = engine
        return engine

    def _loaded(self) -> Engine:
        # What an engine maps into its memory stays there when the files are gone.
        with TemporaryDirectory(prefix="vmlops-model-") as name:
            directory = Path(name)
            for file, content in self.files.items():
                (directory / file).write_bytes(content)
            engine = load_engine(directory)
            return VectorisedEngine(directory, engine.manifest) if isinstance(engine, CompiledEngine) else engine


class Task(NamedTuple):
    """How every piece is scored: the columns to read and to write."""

    decoder: Decoder
    encoder: Encoder
    inputs: Inputs
    all_probabilities: bool
    kind: str  # of the code that asks

    def score(self, piece: Piece, model: Model) -> Scored:
        """Raises OtherCode where this process would answer by other rules than the one that asks."""
        if kind() != self.kind:
            raise OtherCode(f"a worker on {socket.gethostname()} has Python {kind()}, and this computer {self.kind}")
        engine = model.engine()
        rows, bad = self.decoder.rows(piece)
        records = len(rows) + len(bad)
        read = self.inputs.reader()
        good = []
        inputs = []
        for number, row in rows:
            try:
                inputs.append(read(row))
            except ValueError as error:
                bad.append(Bad(number, str(error), str(row)[:1000]))
            else:
                good.append((number, row))
        good = self._answered(engine, good, inputs, bad)
        try:
            data = self.encoder.encode([row for _, row in good])
        except (ValueError, TypeError):
            data = self._one_by_one(good, bad)
        return Scored(data, records, sorted(bad))

    def _answered(
        self, engine: Engine, rows: list[tuple[int, Row]], inputs: Sequence[Input], bad: list[Bad]
    ) -> list[tuple[int, Row]]:
        """Return the rows with their answers; those that the model cannot answer are bad."""
        try:
            answers = self._answers(engine, inputs)
        except Unanswerable as error:
            if len(rows) > 1:
                return [
                    row for one, x in zip(rows, inputs, strict=True) for row in self._answered(engine, [one], [x], bad)
                ]
            ((number, row),) = rows
            bad.append(Bad(number, f"the model cannot answer this: {error}", str(row)[:1000]))
            return []
        for (_, row), answer in zip(rows, answers, strict=True):
            row.update(answer)
        return rows

    def _answers(self, engine: Engine, inputs: Sequence[Input]) -> list[Row]:
        if not inputs:
            return []
        if isinstance(engine, VectorisedEngine):
            labels, probabilities = engine.scores(inputs)
            confidences = probabilities[np.arange(len(labels)), labels].tolist()
            names = [engine.signature.labels[number] for number in labels]
            scores = [Score(*one) for one in zip(names, confidences, probabilities.tolist(), strict=True)]
        else:
            scores = engine.score_batch(inputs)
        written = text_of if _kind(engine.signature) is None else None
        return [self._answer(score, engine, written) for score in scores]

    def _answer(self, score: Score, engine: Engine, written: Callable[[Scalar], str] | None) -> Row:
        """The columns that are added to a row; the label as it is, or as `written`."""
        signature = engine.signature
        answer: Row = {"prediction": written(score.label) if written else score.label}
        if signature.spread:
            answer["prediction_spread"] = score.spread
        if signature.probabilities:
            answer["confidence"] = score.confidence
        if self.all_probabilities:
            names = map(_probability_column, signature.labels)
            answer |= dict(zip(names, score.probabilities, strict=True))
        return {**answer, "model_version": engine.model_version}

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


def added_columns(signature: Signature, all_probabilities: bool) -> dict[str, pa.DataType]:
    """Return what is added to the columns of the input, and its types."""
    types = {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    kind = _kind(signature)
    added = {"prediction": types.get(kind, pa.string()) if kind else pa.string()}
    if signature.spread:
        added["prediction_spread"] = pa.float64()
    if signature.probabilities:
        added["confidence"] = pa.float64()
    if all_probabilities:
        added |= dict.fromkeys(map(_probability_column, signature.labels), pa.float64())
    return {**added, "model_version": pa.string()}


def _kind(signature: Signature) -> type[Scalar] | None:
    """Return the type of the predictions, or None where they are of several and so are written as texts."""
    kinds = {type(label) for label in signature.labels} or {float}
    return kinds.pop() if len(kinds) == 1 else None


def _probability_column(label: Scalar) -> str:
    return f"probability_{text_of(label)}"
