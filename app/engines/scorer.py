"""The compiled model: scikit-learn's linear text pipeline as memory-mapped arrays, in plain Python.

A sentence has a few dozen n-grams. For so few numbers numpy is hardly faster than Python, and importing it takes more
time and memory than the rest of the application (docs/model.md).

The vocabularies of the pipeline's vectorizers are one trie over symbols (words or characters; each vectorizer has its
own). A node's number is its row in `idf` and `weights`: the symbols come first, then every longer n-gram. The nodes one
symbol longer than node i are the entries children[i] to children[i + 1] of `steps`, which has each one's last symbol,
in order; the entry's number, plus that of symbols, is the node's. Only symbols are ever compared as text, so a match is
exact. A node that is the beginning of a feature but none itself has idf 0. Weights have their idf in them: those of
what a text has once are only added up.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from math import log, sqrt
from operator import mul
from pathlib import Path
from struct import Struct
from typing import Any
from zlib import crc32

from app.engines import arrays
from app.engines.artifact import MANIFEST, ArtifactError, read_array, read_signature
from app.engines.engine import Score
from app.engines.links import sigmoid, softmax
from app.engines.occlusion import heaviest
from app.engines.signature import Scalar

try:
    from app.engines import kernel
except ImportError:  # it was not compiled, or for another processor or C library: Python does the same
    kernel = None  # type: ignore[assignment]

UNKNOWN = 0x7FFF_FFFE  # the number of every symbol that is in no feature
END = 0x7FFF_FFFD  # a word ends where n-grams may not cross it; neither of the two is ever in `steps`
_LEXICON = ("text", "starts", "buckets")
_CACHED_SYMBOLS = 4096  # in each vectorizer: half a megabyte, and nine of ten words are found here
_SPACES = re.compile(r"\s\s+")  # the same pattern as scikit-learn's: a single line feed is left as it is


def _strip_unicode(text: str) -> str:
    """Does the same as sklearn.feature_extraction.text.strip_accents_unicode."""
    if text.isascii():
        return text
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def _strip_ascii(text: str) -> str:
    """Does the same as sklearn.feature_extraction.text.strip_accents_ascii."""
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

    def __init__(self, first: int, text: arrays.Array, starts: arrays.Array, buckets: arrays.Array) -> None:
        self._first = first
        self._text, self._starts, self._buckets = text.items, starts.items, buckets.items
        self._mask = len(self._buckets) - 2  # a power of two of buckets, and where the last one ends

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
        self.longest: int = spec["longest_ngram"]
        self._lowercase: bool = spec["lowercase"]
        self._strip = _STRIP[spec["strip_accents"]]
        self._stop_words = frozenset(spec["stop_words"])
        self._split: Callable[[str], Sequence[str]]
        if spec["analyzer"] == "word":
            self._split = re.compile(spec["token_pattern"]).findall
        else:
            self._split = {"char": _characters, "char_wb": _characters_of_words}[spec["analyzer"]]
        if lexicon[""] == UNKNOWN:
            lexicon[""] = END  # of nothing there is nothing to know

    def split(self, text: str) -> Sequence[str]:
        """The text's symbols in order."""
        return self.cut(self.fold(text))

    def fold(self, text: str) -> str:
        """Return the text in lower case and without accents, where the vectorizer ignores case or accents."""
        if self._lowercase:
            text = text.lower()
        return self._strip(text) if self._strip else text

    def cut(self, folded: str) -> Sequence[str]:
        """The symbols of a folded text."""
        symbols = self._split(folded)
        if self._stop_words:
            return [symbol for symbol in symbols if symbol not in self._stop_words]
        return symbols

    def numbers(self, symbols: Sequence[str]) -> list[int]:
        return list(map(self.lexicon.__getitem__, symbols))


class CompiledEngine:
    """Serves what model.compile wrote. Its arithmetic is float64, in scikit-learn's order of steps."""

    name = "compiled"
    slow = False

    def __init__(self, directory: Path, manifest: Mapping[str, Any]) -> None:
        """Raises ArtifactError where the arrays are not those that the manifest describes."""

        def array(name: str) -> arrays.Array:
            return read_array(directory, manifest, name)

        self.manifest = manifest
        self.signature = read_signature(directory, manifest)
        self._labels = self.signature.labels
        self.model_version: str = manifest["model_version"]
        try:
            form = manifest["scorer"]
            self._binary: bool = form["binary"]
            self._sublinear: bool = form["sublinear_tf"]
            self._norm: str | None = form["norm"]
            # Rounding can give the greatest probability to another label than the greatest logit. The classifier's own
            # way of choosing the label is used, so that both choose the same.
            self._decides_by_logits: bool = form["decides_by"] == "logits"
            self._link = {"softmax": softmax, "sigmoid": sigmoid}[form["link"]]
            self._vectorizers = [
                Vectorizer(spec, Lexicon(spec["first"], *(array(f"{part}{i}.npy") for part in _LEXICON)))
                for i, spec in enumerate(form["vectorizers"])
            ]
        except (KeyError, TypeError, re.error) as error:
            raise ArtifactError(directory / MANIFEST, f"does not describe the scorer ({error!r})") from None
        self._empty = self._vectorizers[0].lexicon[""]  # which is no word, though it may be a feature
        self._children = array("children.npy").items
        self._steps = array("steps.npy").items
        self._idf = array("idf.npy").items
        weights, intercept = array("weights.npy"), array("intercept.npy")
        if weights.shape != (len(self._idf), len(self._labels)) or intercept.shape != (len(self._labels),):
            raise ArtifactError(directory / MANIFEST, f"and weights.npy {weights.shape} disagree")
        self._weights = weights.items
        self._row = Struct(f"{len(self._labels)}d")
        self._intercept = [float(value) for value in intercept.items]
        self._symbols = len(self._idf) - len(self._steps)
        self._longest = [vectorizer.longest for vectorizer in self._vectorizers]
        self._to_logits = self._in_python
        if kernel:
            read = (self._children, self._steps, self._idf, self._weights, intercept.items)
            try:
                self._to_logits = kernel.Kernel(*read, self._binary, self._sublinear, self._norm).logits
            except ValueError as error:
                raise ArtifactError(directory / MANIFEST, f"cannot be served ({error})") from None

    def score(self, text: str) -> Score:
        numbers = [vectorizer.numbers(vectorizer.split(text)) for vectorizer in self._vectorizers]
        z = self._to_logits(numbers, self._longest)
        probabilities = self._link(z)
        decisive = z if self._decides_by_logits else probabilities
        best = decisive.index(max(decisive))
        first = numbers[0]
        tokens, unknown = len(first) - first.count(self._empty), first.count(UNKNOWN)
        return Score(self._labels[best], probabilities[best], probabilities, tokens, unknown)

    def score_batch(self, texts: Sequence[str]) -> list[Score]:
        return [self.score(text) for text in texts]

    def explain(self, text: str, label: Scalar, top: int = 10) -> list[tuple[str, float]]:
        if label not in self._labels:
            raise KeyError(label)
        column = self._labels.index(label)
        adds: dict[str, float] = {}
        for vectorizer in self._vectorizers:
            cut = vectorizer.split(text)
            symbols = vectorizer.numbers(cut)
            nodes = self._nodes(symbols, vectorizer.longest)
            features, scale = self._features(nodes)
            places = (place for place, symbol in enumerate(symbols) if symbol < END)
            place, n = 0, 0
            for node in nodes:
                place, n = (next(places), 1) if node < self._symbols else (place, n + 1)
                # Popped: an n-gram that occurs twice is one feature. Two vectorizers' features of one name add up.
                if times := features.pop(node, 0):
                    # A token may be empty: a pattern that matches the beginning of a text.
                    ngram = vectorizer.joint.join(filter(None, cut[place : place + n]))
                    weight = self._weights[node * len(self._labels) + column]
                    adds[ngram] = adds.get(ngram, 0.0) + times * scale * weight
        return heaviest(((ngram, weight) for ngram, weight in adds.items() if weight), top)

    def _in_python(self, numbers: Sequence[Sequence[int]], longest: Sequence[int]) -> list[float]:
        """What kernel.pyx does, where it could not be compiled or loaded. Each vectorizer's symbols, and its longest n-gram."""
        z = self._intercept
        unpack, size, weights = self._row.unpack_from, self._row.size, self._weights
        for symbols, length in zip(numbers, longest, strict=True):
            features, scale = self._features(self._nodes(symbols, length))
            rows: list[Sequence[float]] = []
            for node, times in features.items():
                row = unpack(weights, node * size)
                rows.append(row if times == 1 else [times * weight for weight in row])
            if rows:
                z = [b + scale * total for b, total in zip(z, map(sum, zip(*rows, strict=True)), strict=True)]
        return z

    def _nodes(self, symbols: Sequence[int], longest: int) -> list[int]:
        """Yield, for each place in symbols, the nodes of the n-grams that start there, from the shortest."""
        children, steps, shift = self._children, self._steps, self._symbols
        nodes = []
        for place, node in enumerate(symbols):
            if node >= END:
                continue
            nodes.append(node)
            for symbol in symbols[place + 1 : place + longest]:
                end = children[node + 1]
                at = bisect_left(steps, symbol, children[node], end)
                if at == end or steps[at] != symbol:
                    break
                node = at + shift
                nodes.append(node)
        return nodes

    def _features(self, nodes: Sequence[int]) -> tuple[dict[int, float], float]:
        """Of the nodes found by a vectorizer, those that are features, each with its term frequency; and the scale that
        the norm gives to all of them."""
        idf, binary, sublinear = self._idf, self._binary, self._sublinear
        counts: dict[int, int] = {}
        for node in nodes:
            counts[node] = counts.get(node, 0) + 1
        features: dict[int, float] = {}
        values = []
        for node, count in counts.items():
            if weight := idf[node]:
                times = 1 if count == 1 or binary else log(count) + 1 if sublinear else count
                features[node] = times
                values.append(times * weight)
        if not values or not self._norm:
            return features, 1.0
        return features, 1 / (sqrt(sum(map(mul, values, values))) if self._norm == "l2" else sum(values))
