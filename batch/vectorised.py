"""The compiled model for thousands of texts at once: the arithmetic of app.engines.scorer in numpy's arrays.

A replica answers one sentence at a time and does without numpy. Here a batch of texts is one matrix product, and what the
vectorizers do with a word is done once for every word that differs, not once for every word.
"""

from __future__ import annotations

import importlib
import re
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import expit, softmax

from app.engines.scorer import END, CompiledEngine, Vectorizer

# How Python itself reads a pattern. The modules have no types and no documentation, but the same names since Python 3.11.
sre: Any = importlib.import_module("re._constants")
parser: Any = importlib.import_module("re._parser")

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Rows in which the two best probabilities are closer than the order of a sum can move them are scored one by one.
_TIE = 1e-9
_CACHED_WORDS = 1 << 20  # some 200 MB; a text of all different words does not grow it for ever
_WHITE_SPACE = [chr(c) for c in range(0x11_0000) if chr(c).isspace()]


class Scores(NamedTuple):
    """Scores of n texts and k labels."""

    labels: Integers  # (n,), places in the engine's labels
    probabilities: Floats  # (n, k)


def is_by_word(pattern: str) -> bool:
    """Whether a token pattern cuts a text as it cuts the text's words, between white space, one after the other.

    It does where no part of it can match white space, and where what it looks at beside a token (``\\b``, look-around by
    one character) is judged at the edge of a text as it is beside white space.
    """
    return _never_white_space(parser.parse(pattern))


def without_edges(pattern: str) -> tuple[str, bool, bool]:
    """A token pattern without ``\\A|`` at its beginning and ``|\\Z`` at its end, and whether they were there.

    They match the text's edges, which are empty, where the rest of the pattern matches no empty string.
    """
    before, behind = pattern.startswith(r"\A|"), pattern.endswith(r"|\Z") and not pattern.endswith(r"\|\Z")
    rest = pattern[3 if before else 0 : -3 if behind else None]
    if ("(?" in rest and re.compile(pattern).flags & re.VERBOSE) or not parser.parse(rest).getwidth()[0]:
        return pattern, False, False
    return rest, before, behind


def _never_white_space(nodes: Iterable[Any]) -> bool:
    return all(_node_never_white_space(kind, value) for kind, value in nodes)


def _node_never_white_space(kind: Any, value: Any) -> bool:
    if kind is sre.LITERAL:
        return not chr(value).isspace()
    if kind is sre.IN:
        one = re.compile(_class(value))
        return not any(one.fullmatch(space) for space in _WHITE_SPACE)
    if kind is sre.BRANCH:
        return all(map(_never_white_space, value[1]))
    if kind is sre.SUBPATTERN:
        _, add, remove, inside = value
        return not add and not remove and _never_white_space(inside)
    if kind in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
        return _never_white_space(value[2])
    if kind is sre.ATOMIC_GROUP:
        return _never_white_space(value)
    if kind is sre.AT:
        return bool(value is sre.AT_BOUNDARY)
    if kind in (sre.ASSERT, sre.ASSERT_NOT):
        inside = value[1]
        return inside.getwidth() == (1, 1) and _never_white_space(inside)
    return False


def _class(items: Sequence[tuple[Any, Any]]) -> str:
    """A character class as the parser understood it, as a pattern again."""
    escapes = {
        sre.CATEGORY_DIGIT: r"\d",
        sre.CATEGORY_NOT_DIGIT: r"\D",
        sre.CATEGORY_SPACE: r"\s",
        sre.CATEGORY_NOT_SPACE: r"\S",
        sre.CATEGORY_WORD: r"\w",
        sre.CATEGORY_NOT_WORD: r"\W",
    }
    parts = {
        sre.NEGATE: lambda _: "^",
        sre.LITERAL: lambda code: re.escape(chr(code)),
        sre.RANGE: lambda ends: f"{re.escape(chr(ends[0]))}-{re.escape(chr(ends[1]))}",
        sre.CATEGORY: escapes.__getitem__,
    }
    return f"[{''.join(parts[kind](value) for kind, value in items)}]"


class WordVectorizer(NamedTuple):
    """A vectorizer that cuts a text as it cuts the text's words, with or without an empty token before and behind them all."""

    words: Vectorizer
    before: bool = False
    behind: bool = False

    @classmethod
    def of(cls, vectorizer: Vectorizer, spec: Mapping[str, Any]) -> Self | None:
        """The vectorizer that the manifest describes so, or None where it cuts texts in another way."""
        if spec["analyzer"] == "char_wb":
            return cls(vectorizer)
        if spec["analyzer"] != "word":
            return None
        pattern, before, behind = without_edges(spec["token_pattern"])
        if not is_by_word(pattern):
            return None
        return cls(Vectorizer({**spec, "token_pattern": pattern}, vectorizer.lexicon), before, behind)

    def with_edges(self, lengths: Integers, symbols: Integers, empty: NDArray[np.bool_]) -> tuple[Integers, Integers]:
        """Put the empty tokens around each text's symbols. An empty text has one of the two."""
        before = np.full(len(lengths), int(self.before))
        behind = np.where(empty & self.before, 0, int(self.behind))
        ends = np.cumsum(lengths)
        places = np.concatenate((np.repeat(ends - lengths, before), np.repeat(ends, behind)))
        return lengths + before + behind, np.insert(symbols, places, self.words.lexicon[""])


class Words(dict[str, int]):
    """Word to its number, in the order of their first sight, and the symbols that each vectorizer cuts each word into."""

    def __init__(self, vectorizers: Sequence[WordVectorizer]) -> None:
        super().__init__()
        self._vectorizers = vectorizers
        self.forget()

    def __missing__(self, word: str) -> int:
        for vectorizer, starts, symbols in zip(self._vectorizers, self._starts, self._symbols, strict=True):
            symbols.extend(vectorizer.words.numbers(vectorizer.words.cut(word)))
            starts.append(len(symbols))
        self[word] = number = len(self)
        return number

    def forget(self) -> None:
        self.clear()
        self._starts = [array("q", [0]) for _ in self._vectorizers]
        self._symbols = [array("q") for _ in self._vectorizers]

    def symbols(self, texts: Sequence[str]) -> list[tuple[Integers, Integers]]:
        """Return, for each vectorizer, the number of symbols of each text, and all symbols one after the other."""
        if len(self) > _CACHED_WORDS:
            self.forget()
        # Before the words are parted: what a letter's lower case is may depend on its neighbours.
        folded = list(map(self._vectorizers[0].words.fold, texts))
        words = [text.split() for text in folded]
        edges = np.concatenate(([0], np.cumsum(np.fromiter(map(len, words), np.int64, len(words)))))
        numbers = np.array(list(map(self.__getitem__, chain.from_iterable(words))), np.int64)
        empty = np.array([not text for text in folded], bool)
        found = []
        for vectorizer, starts, symbols in zip(self._vectorizers, self._starts, self._symbols, strict=True):
            # Copies, since an array that numpy looks into cannot grow.
            start = np.array(starts)
            lengths = start[numbers + 1] - start[numbers]
            ends = np.concatenate(([0], np.cumsum(lengths)))
            cut = np.diff(ends[edges]), np.array(symbols)[ranges(start[numbers], lengths)]
            found.append(vectorizer.with_edges(*cut, empty))
        return found


def ranges(starts: Integers, lengths: Integers) -> Integers:
    """The numbers starts[i] to starts[i] + lengths[i], for each i in order."""
    before = np.cumsum(lengths) - lengths
    found: Integers = np.arange(int(lengths.sum())) + np.repeat(starts - before, lengths)
    return found


def _one_by_one(vectorizer: Vectorizer, texts: Sequence[str]) -> tuple[Integers, Integers]:
    """Return what Words.symbols returns, for a vectorizer whose symbols may contain white space."""
    rows = [vectorizer.numbers(vectorizer.split(text)) for text in texts]
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    return lengths, np.fromiter(chain.from_iterable(rows), np.int64, int(lengths.sum()))


class VectorisedEngine(CompiledEngine):
    """Scores many texts at once: the same labels as one by one, and probabilities to 1e-9."""

    def __init__(self, directory: Path, manifest: Mapping[str, Any]) -> None:
        super().__init__(directory, manifest)
        form = manifest["scorer"]
        self._links: Callable[[Floats], Floats] = _softmax if form["link"] == "softmax" else _one_against_the_rest
        by_word: dict[tuple[Any, Any], list[WordVectorizer]] = {}  # those that fold texts alike share their words
        self._others: list[Vectorizer] = []
        for vectorizer, spec in zip(self._vectorizers, form["vectorizers"], strict=True):
            if found := WordVectorizer.of(vectorizer, spec):
                by_word.setdefault((spec["lowercase"], spec["strip_accents"]), []).append(found)
            else:
                self._others.append(vectorizer)
        self._words = [(Words(vectorizers), vectorizers) for vectorizers in by_word.values()]
        self._idfs = np.asarray(self._idf)
        self._rows = np.asarray(self._weights).reshape(len(self._idfs), len(self._labels))
        # Each step of the trie as one number, in order: the node it starts from, and the symbol.
        children = np.asarray(self._children, np.int64)
        parents = np.repeat(np.arange(len(children) - 1), np.diff(children))
        self._numbered_steps = (parents << 32) | np.asarray(self._steps, np.int64)

    def scores(self, texts: Sequence[str]) -> Scores:
        """Any texts; none raises."""
        z = np.tile(np.array(self._intercept), (len(texts), 1))
        for words, vectorizers in self._words:
            for vectorizer, cut in zip(vectorizers, words.symbols(texts), strict=True):
                z += self._logits(len(texts), *self._ngrams(*cut, vectorizer.words.longest))
        for other in self._others:
            z += self._logits(len(texts), *self._ngrams(*_one_by_one(other, texts), other.longest))
        probabilities = self._links(z)
        labels = probabilities.argmax(axis=1)
        best = np.partition(probabilities, -2, axis=1)
        sure = best[:, -1] - best[:, -2] >= _TIE  # false for NaN as well
        for row in np.flatnonzero(~sure).tolist():
            alone = self.score(texts[row])
            labels[row] = self._labels.index(alone.label)
            probabilities[row] = alone.probabilities
        return Scores(labels, probabilities)

    def _ngrams(self, lengths: Integers, symbols: Integers, longest: int) -> tuple[Integers, Integers]:
        """Return, for all n-grams in all texts, the index of the text and the node of the trie."""
        text = np.repeat(np.arange(len(lengths)), lengths)
        ends = np.repeat(np.cumsum(lengths), lengths)
        place = np.flatnonzero(symbols < END)
        node = symbols[place]
        found = [(text[place], node)]
        for n in range(1, longest):
            inside = place + n < ends[place]
            place, node = place[inside], node[inside]
            wanted = (node << 32) | symbols[place + n]
            at = np.minimum(np.searchsorted(self._numbered_steps, wanted), max(len(self._numbered_steps) - 1, 0))
            there = self._numbered_steps[at] == wanted if len(self._numbered_steps) else np.zeros(len(at), bool)
            place, node = place[there], at[there] + self._symbols
            found.append((text[place], node))
        texts, nodes = zip(*found, strict=True)
        return np.concatenate(texts), np.concatenate(nodes)

    def _logits(self, n: int, text: Integers, node: Integers) -> Floats:
        """What the features of a vectorizer add to the logits of n texts, (n, k)."""
        feature = self._idfs[node] != 0
        keys, counts = np.unique(text[feature] * len(self._idfs) + node[feature], return_counts=True)
        text, node = np.divmod(keys, len(self._idfs))
        times = np.ones(len(keys)) if self._binary else np.log(counts) + 1 if self._sublinear else counts.astype(float)
        if self._norm:
            value = times * self._idfs[node]
            norm = np.bincount(text, value**2 if self._norm == "l2" else value, minlength=n)
            times /= (np.sqrt(norm) if self._norm == "l2" else norm)[text]
        rows = np.concatenate(([0], np.cumsum(np.bincount(text, minlength=n))))
        z: Floats = csr_array((times, node, rows), shape=(n, len(self._idfs))) @ self._rows
        return z


def _softmax(z: Floats) -> Floats:
    p: Floats = softmax(z, axis=1)
    return p


def _one_against_the_rest(z: Floats) -> Floats:
    p: Floats = expit(z)
    p /= p.sum(axis=1, keepdims=True)
    return p
