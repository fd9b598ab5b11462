"""The compiled model: scikit-learn's linear text pipeline as memory-mapped arrays, in numpy alone.

The vocabularies of the pipeline's vectorizers are one trie over symbols (words or characters; each vectorizer has its
own). A node's number is its row in `idf` and `weights`: the symbols come first, then every longer n-gram, found by
binary search for the node of its first n - 1 symbols and its last one, 31 bits each, in `keys`. Only symbols are ever
compared as text, so a match is exact. A node that is the beginning of a feature but none itself has idf 0.
None of this lies on the Python heap: it costs nothing to load, and the workers of a machine share it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from math import exp
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from app.artifact import MANIFEST, ArtifactError
from app.engine import Score

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

UNKNOWN = 0x7FFF_FFFE  # the number of every symbol that is in no feature
END = 0x7FFF_FFFD  # after a text, and a word where n-grams may not cross it; neither of the two is in any key
NO_KEY = 0x7FFF_FFFF_FFFF_FFFF  # ends `keys`, so that every search stops inside
_LEXICON = ("text", "starts", "buckets")
_ROW = 0xFFFF_FFFF
_TINY = float(np.finfo(np.float64).tiny)
_CACHED_SYMBOLS = 4096  # by vectorizer: half a megabyte, and nine words of ten
_CHUNK = 64  # texts that are scored at once: bounds the memory of a batch
_SPACES = re.compile(r"\s\s+")  # as scikit-learn's: a single line feed stays one


def _strip_unicode(text: str) -> str:
    """As sklearn.feature_extraction.text.strip_accents_unicode."""
    if text.isascii():
        return text
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def _strip_ascii(text: str) -> str:
    """As sklearn.feature_extraction.text.strip_accents_ascii."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")


_STRIP: dict[str | None, Callable[[str], str] | None] = {
    None: None,
    "unicode": _strip_unicode,
    "ascii": _strip_ascii,
}


def _characters(text: str) -> str:
    return _SPACES.sub(" ", text)


def _characters_of_words(text: str) -> list[str]:
    """Each word between spaces, and then nothing, which is numbered END."""
    return [symbol for word in text.split() for symbol in (" ", *word, " ", "")]


def bucket(symbol: bytes, buckets: int) -> int:
    """Where a symbol, as UTF-8, is looked up; `buckets` is a power of two."""
    return crc32(symbol) & (buckets - 1)


class Lexicon(dict[str, int]):
    """Symbol to number. The dict is a bounded cache of it; the whole lies in three arrays.

    The symbols' UTF-8 is laid end to end in `text`, by bucket; symbol i is text[starts[i]:starts[i + 1]], and bucket b
    holds the symbols buckets[b] to buckets[b + 1]. Numbers start at `first`.
    """

    def __init__(self, first: int, text: NDArray[Any], starts: NDArray[Any], buckets: NDArray[Any]) -> None:
        self._first = first
        self._text, self._starts, self._buckets = text.data, starts.data, buckets.data
        self._mask = len(buckets) - 2  # a power of two of buckets, and where the last one ends

    def __missing__(self, symbol: str) -> int:
        key = symbol.encode("utf-8", "surrogatepass")
        home = crc32(key) & self._mask  # bucket(), without the call
        for i in range(self._buckets[home], self._buckets[home + 1]):
            if self._text[self._starts[i] : self._starts[i + 1]] == key:
                number = self._first + i
                if len(self) < _CACHED_SYMBOLS:
                    self[symbol] = number
                return number
        return UNKNOWN


class Vectorizer:
    """Text to symbols, as one of scikit-learn's vectorizers cuts it."""

    def __init__(self, spec: Mapping[str, Any], lexicon: Lexicon) -> None:
        self.lexicon = lexicon
        self.joint = " " if spec["analyzer"] == "word" else ""
        self._lowercase: bool = spec["lowercase"]
        self._strip = _STRIP[spec["strip_accents"]]
        self._stop_words = frozenset(spec["stop_words"])
        self._split: Callable[[str], Sequence[str]]
        if spec["analyzer"] == "word":
            self._split = re.compile(spec["token_pattern"]).findall
        else:
            self._split = {"char": _characters, "char_wb": _characters_of_words}[spec["analyzer"]]
            lexicon[""] = END

    def split(self, text: str) -> Sequence[str]:
        """The text's symbols in order."""
        if self._lowercase:
            text = text.lower()
        if self._strip:
            text = self._strip(text)
        symbols = self._split(text)
        if self._stop_words:
            return [symbol for symbol in symbols if symbol not in self._stop_words]
        return symbols

    def numbers(self, text: str) -> list[int]:
        """The text's symbols as numbers."""
        return list(map(self.lexicon.__getitem__, self.split(text)))


def _sigmoid(z: Floats) -> Floats:
    """One against the rest, normalised, as OneVsRestClassifier and Platt's calibration do it; z (n, k)."""
    p: Floats = 1 / (1 + np.exp(-z))
    p /= p.sum(axis=1, keepdims=True)
    return p


def _softmax(z: Floats) -> Floats:
    p: Floats = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return p


class CompiledEngine:
    """Serves what model.compile wrote. Its arithmetic is float64, in scikit-learn's order of steps."""

    name = "compiled"

    def __init__(self, directory: Path, manifest: Mapping[str, Any]) -> None:
        """Raises ArtifactError where the arrays are not those that the manifest describes."""

        def array(name: str) -> NDArray[Any]:
            if name not in manifest["files"]:
                raise ArtifactError(directory / MANIFEST, f"has no sha256 of {name}")
            try:
                mapped = np.load(directory / name, mmap_mode="r", allow_pickle=False)
            except ValueError as error:
                raise ArtifactError(directory / name, f"is not a plain array ({error})") from None
            # A plain view of the mapping: np.memmap's own bookkeeping costs more than the arithmetic.
            return np.asarray(mapped)

        self.manifest = manifest
        self.labels: tuple[str, ...] = tuple(manifest["labels"])
        self.model_version: str = manifest["model_version"]
        try:
            form = manifest["scorer"]
            self._depth: int = form["longest_ngram"]
            self._binary: bool = form["binary"]
            self._sublinear: bool = form["sublinear_tf"]
            self._norm: str | None = form["norm"]
            self._softmax = {"softmax": True, "sigmoid": False}[form["link"]]
            self._vectorizers = [
                Vectorizer(spec, Lexicon(spec["first"], *(array(f"{part}{i}.npy") for part in _LEXICON)))
                for i, spec in enumerate(form["vectorizers"])
            ]
        except (KeyError, TypeError, re.error) as error:
            raise ArtifactError(directory / MANIFEST, f"does not describe the scorer ({error!r})") from None
        self._keys: Ints = array("keys.npy")
        self._idf: Floats = array("idf.npy")
        self._of: NDArray[np.uint8] = array("vectorizer.npy")  # of each node, which vectorizer it belongs to
        self._weights: Floats = array("weights.npy")
        self._intercept: Floats = array("intercept.npy")
        self._symbols = len(self._idf) - len(self._keys) + 1
        if self._weights.shape != (len(self._idf), len(self.labels)) or self._intercept.shape != (len(self.labels),):
            raise ArtifactError(directory / MANIFEST, f"and weights.npy {self._weights.shape} disagree")

    def score(self, text: str) -> Score:
        symbols, tokens, unknown = self._read(text)
        rows, x = self._vector(np.concatenate([nodes for _, nodes in self._nodes(symbols)]))
        z = x @ self._weights.take(rows, axis=0) + self._intercept
        if not self._softmax:
            return self._answer(_sigmoid(z[np.newaxis])[0].tolist(), tokens, unknown)
        # A dozen numbers are cheaper without numpy.
        logits = z.tolist()
        top = max(logits)
        e = [exp(logit - top) for logit in logits]
        total = sum(e)
        return self._answer([part / total for part in e], tokens, unknown)

    def score_batch(self, texts: Sequence[str]) -> list[Score]:
        scores: list[Score] = []
        remaining = iter(texts)
        while chunk := list(islice(remaining, _CHUNK)):
            scores += self._score_chunk(chunk)
        return scores

    def explain(self, text: str, label: str, top: int = 10) -> list[tuple[str, float]]:
        if label not in self.labels:
            raise KeyError(label)
        cut = [symbol for vectorizer in self._vectorizers for symbol in (*vectorizer.split(text), "")]
        symbols, _, _ = self._read(text)
        levels = self._nodes(symbols)
        rows, x = self._vector(np.concatenate([nodes for _, nodes in levels]))
        adds = dict(zip(rows.tolist(), (x * self._weights[rows, self.labels.index(label)]).tolist(), strict=True))
        weights: dict[str, float] = {}
        for n, (places, nodes) in enumerate(levels, 1):
            for place, node in zip(places.tolist(), nodes.tolist(), strict=True):
                # Popped: an n-gram that occurs twice is one feature. Two vectorizers' features of one name add up.
                if add := adds.pop(node, 0.0):
                    ngram = self._vectorizers[self._of[node]].joint.join(cut[place : place + n])
                    weights[ngram] = weights.get(ngram, 0.0) + add
        return sorted(weights.items(), key=lambda item: -abs(item[1]))[:top]

    def _read(self, text: str) -> tuple[list[int], int, int]:
        """Numbers of the text's symbols, for all vectorizers; and the first one's counts: all, and unknown ones."""
        first, *others = self._vectorizers
        numbers = first.numbers(text)
        tokens, unknown = len(numbers) - numbers.count(END), numbers.count(UNKNOWN)
        for vectorizer in others:
            numbers.append(END)
            numbers += vectorizer.numbers(text)
        return numbers, tokens, unknown

    def _nodes(self, numbers: list[int]) -> list[tuple[Ints, Ints]]:
        """By length of n-gram, from 1: the places in numbers where one starts that is in the trie, and its node."""
        symbols = np.array(numbers, dtype=np.int64)
        level = symbols
        places = (symbols < END).nonzero()[0]
        found = [(places, symbols.take(places))]
        for n in range(2, min(self._depth, len(symbols)) + 1):
            keys = level[:-1] << 32 | symbols[n - 1 :]
            at = self._keys.searchsorted(keys)
            places = (self._keys.take(at) == keys).nonzero()[0]
            nodes = at.take(places) + self._symbols
            found.append((places, nodes))
            if n < self._depth:
                level = np.full(len(keys), UNKNOWN)
                level[places] = nodes
        return found

    def _vector(self, nodes: Ints) -> tuple[Ints, Floats]:
        """What the vectorizers make of the nodes found (m,), for any number of texts at once.

        Each row that there is (f,), in order of texts and rows, and its value (f,). The upper 32 bits of nodes and rows
        are the text's number.
        """
        nodes.sort()
        edge = np.empty(len(nodes) + 1, dtype=np.bool_)
        edge[0] = edge[-1] = True
        np.not_equal(nodes[1:], nodes[:-1], out=edge[1:-1])
        edges = edge.nonzero()[0]
        nodes = nodes.take(edges[:-1])
        rows = nodes & _ROW
        x = self._idf.take(rows)
        if not self._binary:
            counts = edges[1:] - edges[:-1]
            x *= np.log(counts) + 1 if self._sublinear else counts
        if self._norm:
            # One for each text and vectorizer; it is zero where nothing but beginnings of features was found.
            part = (nodes >> 32) * len(self._vectorizers) + self._of.take(rows)
            size = np.sqrt(np.bincount(part, x * x)) if self._norm == "l2" else np.bincount(part, x)
            x /= np.maximum(size, _TINY).take(part)
        return nodes, x

    def _score_chunk(self, chunk: Sequence[str]) -> Iterable[Score]:
        numbers: list[int] = []
        lengths, counts = [], []
        for text in chunk:
            of_text, tokens, unknown = self._read(text)
            numbers += of_text
            numbers.append(END)
            lengths.append(len(of_text) + 1)
            counts.append((tokens, unknown))
        text_at = np.repeat(np.arange(len(chunk)) << 32, lengths)
        found, x = self._vector(np.concatenate([text_at.take(at) | nodes for at, nodes in self._nodes(numbers)]))
        texts, rows = found >> 32, found & _ROW
        z = np.zeros((len(chunk), len(self.labels)))
        first = np.flatnonzero(np.diff(texts, prepend=-1))  # of each text that has any: reduceat knows no empty ones
        if len(first):
            z[texts.take(first)] = np.add.reduceat(x[:, np.newaxis] * self._weights.take(rows, axis=0), first)
        z += self._intercept
        p = _softmax(z) if self._softmax else _sigmoid(z)
        return [self._answer(row, *count) for row, count in zip(p.tolist(), counts, strict=True)]

    def _answer(self, probabilities: list[float], tokens: int, unknown: int) -> Score:
        confidence = max(probabilities)
        return Score(self.labels[probabilities.index(confidence)], confidence, probabilities, tokens, unknown)
