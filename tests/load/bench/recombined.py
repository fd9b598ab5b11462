"""As many tweets as wanted, of the words and labels of few: to train on more rows than there are.

A text is the first half of one tweet and the second half of another that has the same label, so that words, pairs of words and
their ties to labels are those of the tweets. Real text would also go on to have new words: a word that the tweets have once is
replaced by number k of an endless list of made-up words, where k is drawn by Zipf's law, p(k) ~ k^-(1/GROWTH), so that n texts
have about n^GROWTH different words (Heaps' law). Made-up words are the beginning of one such word and the end of another.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow.parquet import ParquetWriter

from model.dataset import COLUMNS

GROWTH = 0.7  # exponent of Heaps' law, as the tweets have it between 10,000 and 40,000 of them
_CHUNK = 10_000


class Recombined:
    """Makes texts of tweets: `texts` and their `labels`."""

    def __init__(self, texts: Sequence[str], labels: Sequence[str]) -> None:
        words = [text.split() for text in texts]
        counts = Counter(word for text in words for word in text)
        once = sorted(word for word, count in counts.items() if count == 1)
        self._once = set(once)
        self._beginnings = [word[: (len(word) + 1) // 2] for word in once]
        self._ends = [word[(len(word) + 1) // 2 :] for word in once]
        halves = [(text[: (len(text) + 1) // 2], text[(len(text) + 1) // 2 :]) for text in words]
        self._labels = sorted(set(labels))
        self._of_label = [
            [half for half, label in zip(halves, labels, strict=True) if label == name] for name in self._labels
        ]
        self._shares = np.array([len(own) for own in self._of_label]) / len(texts)

    def rows(self, count: int, seed: int = 0) -> Iterator[tuple[str, str]]:
        """`count` labels with their texts, the same ones for the same seed."""
        random = np.random.default_rng(seed)
        for start in range(0, count, _CHUNK):
            size = min(_CHUNK, count - start)
            labels = random.choice(len(self._labels), size, p=self._shares)
            own = np.array([len(self._of_label[label]) for label in labels])
            first, second = (random.random((2, size)) * own).astype(int)
            for label, one, other in zip(labels.tolist(), first.tolist(), second.tolist(), strict=True):
                tweets = self._of_label[label]
                words = [
                    self._made_up(random) if word in self._once else word for word in tweets[one][0] + tweets[other][1]
                ]
                if words:
                    yield self._labels[label], " ".join(words)

    def _made_up(self, random: np.random.Generator) -> str:
        # The inverse of Pareto's distribution function, from as many words as the tweets have once.
        many = len(self._once)
        number = int(many * (1 - random.random()) ** (-GROWTH / (1 - GROWTH)))
        return self._beginnings[number % many] + self._ends[(number * 7919 + number // many) % many]


def write_csv(path: Path, rows: Iterable[tuple[str, str]]) -> None:
    """Labels and texts, in the columns that make model knows."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def write_parquet(path: Path, labels: Sequence[str], texts: Sequence[str]) -> None:
    """The same."""
    with ParquetWriter(path, pa.schema([(name, pa.string()) for name in COLUMNS])) as parquet:
        for start in range(0, len(texts), 1 << 16):
            some = slice(start, start + (1 << 16))
            parquet.write_table(pa.table(dict(zip(COLUMNS, (labels[some], texts[some]), strict=True))))
