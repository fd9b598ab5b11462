"""A fitted scikit-learn pipeline as the arrays that app.engines.scorer maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.feature_selection import SelectorMixin
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import MaxAbsScaler

from app.engines.engine import Engine
from app.engines.loading import load_engine
from app.engines.scorer import bucket
from app.engines.signature import Signature
from model import manifest, signing
from model.arrays import Arrays, save
from model.dataset import Dataset
from model.linear import Floats, NotCompilable, linear
from model.parity import SINGLE_TOLERANCE, TOLERANCE


class Features(NamedTuple):
    """One vectorizer and how its counts become values."""

    vectorizer: CountVectorizer
    scale: float  # of FeatureUnion
    idf: Floats  # (f,), 1 where there is none
    sublinear_tf: bool
    norm: str | None

    def form(self) -> dict[str, Any]:
        """The options that must be the same for all vectorizers of a compiled model."""
        return {"binary": self.vectorizer.binary, "sublinear_tf": self.sublinear_tf, "norm": self.norm}


def compile_pipeline(pipeline: Pipeline, directory: Path) -> dict[str, Any]:
    """Write the arrays into `directory` and return the manifest's entry `scorer`.

    Raises NotCompilable, whatever it is that the arrays cannot express, before anything is written.
    """
    return save(directory, lambda: _compile(pipeline))


def _compile(pipeline: Any) -> tuple[dict[str, Any], Arrays]:
    """The manifest's entry, and the arrays. Raises NotCompilable."""
    pipeline = unwrapped(pipeline)
    if not isinstance(pipeline, Pipeline):
        raise NotCompilable(f"a {type(pipeline).__name__} is not a Pipeline")
    first, *others = [step for _, step in pipeline.steps[:-1] if step not in (None, "passthrough")] or [None]
    features = _features(first)
    if others and type(others[0]) is TfidfTransformer:
        features = [_weigh(features, others.pop(0))]
    coef, intercept, link, decides_by = linear(unwrapped(pipeline.steps[-1][1]))
    coef, intercept = coef.astype(np.float64), intercept.astype(np.float64)
    for step in reversed(others):
        coef = _unfold(coef, step)

    form = features[0].form()
    if any(other.form() != form for other in features):
        raise NotCompilable("vectorizers of one union that differ in binary, sublinear_tf or norm")
    if coef.shape[1] != sum(len(part.idf) for part in features):
        raise NotCompilable("a classifier that was not fitted on these vectorizers")
    coef = coef * np.repeat([part.scale for part in features], [len(part.idf) for part in features])
    if link == "softmax":
        # Softmax ignores what is added to all logits alike, but explanations would show it: it is subtracted here.
        coef, intercept = coef - coef.mean(axis=0), intercept - intercept.mean()

    if not (np.isfinite(coef).all() and np.isfinite(intercept).all()):
        raise NotCompilable("weights that are not finite")
    arrays, specs = _trie(features, coef)
    arrays["intercept"] = intercept
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise NotCompilable("an idf that is not finite")
    return {**form, "link": link, "decides_by": decides_by, "vectorizers": specs}, arrays


def unwrapped(estimator: Any) -> Any:
    """Return the best estimator of a fitted search; return any other estimator as it is."""
    return estimator.best_estimator_ if isinstance(estimator, BaseSearchCV) else estimator


def tolerance(pipeline: Any) -> float:
    """Return how far a probability may be from scikit-learn's, which is more where scikit-learn computes in 32 bits."""
    small = any(
        getattr(value, "dtype", None) == np.float32 and isinstance(value, np.ndarray)
        for value in _fitted(unwrapped(pipeline))
    )
    return SINGLE_TOLERANCE if small else TOLERANCE


def _fitted(step: Any) -> Iterator[Any]:
    """The attributes of an estimator and of the parts of a pipeline."""
    for _, part in [*getattr(step, "steps", ()), *getattr(step, "transformer_list", ())]:
        yield from _fitted(part)
    if isinstance(step, BaseEstimator):
        yield from vars(step).values()
        if isinstance(step, TfidfVectorizer) and step.use_idf:
            yield step.idf_


def compiled(pipeline: Any, directory: Path, data: Dataset, signature: Signature | None = None) -> Engine:
    """The engine of a fitted pipeline, with its artifacts in `directory`; their manifest lacks what only an evaluation
    can tell. Raises NotCompilable."""
    scorer = compile_pipeline(pipeline, directory)
    signature = signature or signing.of_texts(pipeline, "model")
    manifest.write(directory, "compiled", signature, data, scorer=scorer, metrics={}, baseline={})
    return load_engine(directory)


def _features(step: Any) -> list[Features]:
    if type(step) is FeatureUnion:
        scales = step.transformer_weights or {}
        named = [(name, part) for name, part in step.transformer_list if part not in (None, "drop")]
        return [part._replace(scale=scales.get(name, 1.0)) for name, union in named for part in _features(union)]
    if type(step) is Pipeline and len(step.steps) == 1:
        return _features(step.steps[0][1])
    if type(step) not in (TfidfVectorizer, CountVectorizer):
        raise NotCompilable(f"a pipeline that begins with {type(step).__name__}")
    for option in ("preprocessor", "tokenizer"):
        if getattr(step, option) is not None:
            raise NotCompilable(f"a vectorizer with a {option} of its own")
    if not isinstance(step.analyzer, str) or callable(step.strip_accents) or step.input != "content":
        raise NotCompilable("a vectorizer with an analyzer, strip_accents or input of its own")
    size = len(step.vocabulary_)
    idf = step.idf_.astype(np.float64) if type(step) is TfidfVectorizer and step.use_idf else np.ones(size)
    if type(step) is CountVectorizer:
        return [Features(step, 1.0, np.ones(size), False, None)]
    return [Features(step, 1.0, idf, step.sublinear_tf, step.norm)]


def _weigh(features: list[Features], step: TfidfTransformer) -> Features:
    if len(features) > 1 or type(features[0].vectorizer) is not CountVectorizer:
        raise NotCompilable("a TfidfTransformer that follows anything but one CountVectorizer")
    idf = step.idf_.astype(np.float64) if step.use_idf else features[0].idf
    return features[0]._replace(idf=idf, sublinear_tf=step.sublinear_tf, norm=step.norm)


def _unfold(coef: Floats, step: Any) -> Floats:
    """The coefficients on the features before `step`."""
    if isinstance(step, SelectorMixin):
        support = step.get_support()
        before = np.zeros((len(coef), len(support)))
        before[:, support] = coef
        return before
    if type(step) is MaxAbsScaler:
        scaled: Floats = coef / step.scale_
        return scaled
    raise NotCompilable(f"a {type(step).__name__} between the vectorizers and the classifier")


def _symbols(term: str, vectorizer: CountVectorizer) -> tuple[str, ...]:
    shortest, longest = vectorizer.ngram_range
    symbols = tuple(term.split(" ")) if vectorizer.analyzer == "word" else tuple(term)
    whole_word = vectorizer.analyzer == "char_wb" and term.startswith(" ") and term.endswith(" ")
    if not (shortest <= len(symbols) <= longest or (whole_word and len(symbols) < shortest)):
        raise NotCompilable(f"the feature {term!r}, which has not {shortest} to {longest} parts")
    return symbols


def _trie(features: Sequence[Features], coef: Floats) -> tuple[Arrays, list[dict[str, Any]]]:
    """Arrays, and each vectorizer's entry in the manifest. See app.engines.scorer."""
    arrays: Arrays = {}
    specs: list[dict[str, Any]] = []
    numbers: list[dict[str, int]] = []  # of each vectorizer's symbols
    ngrams: list[tuple[int, tuple[str, ...]]] = []  # in the order of coef's columns: vectorizer, symbols
    first = 0
    for i, part in enumerate(features):
        vectorizer = part.vectorizer
        vocabulary = vectorizer.vocabulary_
        terms = [_symbols(term, vectorizer) for term in sorted(vocabulary, key=vocabulary.__getitem__)]
        ngrams += [(i, term) for term in terms]
        text, starts, buckets, order = _lexicon({symbol for term in terms for symbol in term})
        arrays |= {f"text{i}": text, f"starts{i}": starts, f"buckets{i}": buckets}
        numbers.append({symbol: first + place for place, symbol in enumerate(order)})
        stop_words = vectorizer.get_stop_words() if vectorizer.analyzer == "word" else None
        spec = {name: getattr(vectorizer, name) for name in ("analyzer", "lowercase", "strip_accents", "token_pattern")}
        spec |= {"stop_words": sorted(stop_words or ()), "longest_ngram": max(map(len, terms), default=1)}
        specs.append({**spec, "first": first})
        first += len(order)

    # Level by level, in the order of their parents, so that the children of a node lie side by side.
    nodes: dict[tuple[int, tuple[str, ...]], int] = {
        (i, (symbol,)): number for i, table in enumerate(numbers) for symbol, number in table.items()
    }
    parents: list[int] = []
    steps: list[int] = []
    for n in range(2, max(len(symbols) for _, symbols in ngrams) + 1):
        beginnings = {(i, symbols[:n]) for i, symbols in ngrams if len(symbols) >= n}
        level = sorted((nodes[i, symbols[:-1]], numbers[i][symbols[-1]], i, symbols) for i, symbols in beginnings)
        for parent, step, i, symbols in level:
            nodes[i, symbols] = first + len(steps)
            parents.append(parent)
            steps.append(step)

    rows = np.array([nodes[ngram] for ngram in ngrams])
    idf, weights = np.zeros(len(nodes)), np.zeros((len(nodes), len(coef)))
    idf[rows] = np.concatenate([part.idf for part in features])
    weights[rows] = coef.T * idf[rows, np.newaxis]
    children = np.searchsorted(parents, np.arange(len(nodes) + 1)).astype(np.uint32)
    return {**arrays, "children": children, "steps": np.array(steps, np.uint32), "idf": idf, "weights": weights}, specs


def _lexicon(symbols: set[str]) -> tuple[NDArray[np.uint8], NDArray[np.uint32], NDArray[np.uint32], list[str]]:
    """Text, starts and buckets of app.engines.scorer.Lexicon, and the symbols in their order there."""
    size = 1 << max(len(symbols) - 1, 1).bit_length()
    homes = {symbol: bucket(symbol.encode("utf-8", "surrogatepass"), size) for symbol in symbols}
    order = sorted(symbols, key=lambda symbol: (homes[symbol], symbol))
    encoded = [symbol.encode("utf-8", "surrogatepass") for symbol in order]
    starts = np.cumsum([0, *map(len, encoded)]).astype(np.uint32)
    buckets = np.searchsorted([homes[symbol] for symbol in order], np.arange(size + 1)).astype(np.uint32)
    return np.frombuffer(b"".join(encoded), dtype=np.uint8), starts, buckets, order
