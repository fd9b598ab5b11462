"""The shipped data: enough of every label, nothing twice, nothing given away."""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from model import dataset
from model.dataset import LABELS
from model.manifest import ROOT

SHIPPED = ROOT / "data" / "tweet_emotions.csv"
EVERYDAY = Path(__file__).parent / "everyday_sentences.csv"

FEWEST = 700
NEAR = 0.7  # Jaccard index of two texts' tokens

# The label's own word in any of its forms; a model must not live on these.
STEMS = {
    "anger": r"ang(er|r)",
    "boredom": r"bor(ed|ing)",
    "empty": r"empt",
    "enthusiasm": r"enthus",
    "fun": r"fun\b|funn",
    "happiness": r"happ[iy]",
    "hate": r"hat(e|ing)",
    "love": r"lov(e|ing)",
    "neutral": r"neutral",
    "relief": r"relie[fv]",
    "sadness": r"\bsad",
    "surprise": r"surpris",
    "worry": r"worr[iy]",
}

DATA = dataset.read(SHIPPED)
TEXTS = list(zip(DATA.labels, DATA.texts, strict=True))


def tokens(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[\w']+|[^\w\s]", text.lower()))


FREQUENCY = Counter(token for _, text in TEXTS for token in tokens(text))


class Index:
    """Texts by their rarest tokens: of two whose Jaccard index exceeds NEAR, one of these is in both."""

    def __init__(self) -> None:
        self._by_token: defaultdict[str, list[tuple[frozenset[str], str]]] = defaultdict(list)

    def add(self, text: str) -> None:
        for token in self._rarest(text):
            self._by_token[token].append((tokens(text), text))

    def near(self, text: str) -> list[str]:
        mine = tokens(text)
        others = {other for token in self._rarest(text) for other in self._by_token[token]}
        return [name for other, name in others if len(mine & other) / len(mine | other) > NEAR]

    @staticmethod
    def _rarest(text: str) -> list[str]:
        mine = sorted(tokens(text), key=lambda token: (FREQUENCY[token], token))
        return mine[: int((1 - NEAR) * len(mine)) + 1]


def test_columns() -> None:
    with SHIPPED.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["tweet_id", "sentiment", "content"]
    assert [row[0] for row in rows[1:]] == [str(number) for number in range(1, len(rows))]


def test_labels_are_balanced() -> None:
    counts = Counter(label for label, _ in TEXTS)
    assert set(counts) == set(LABELS)
    assert sum(counts.values()) >= 10_000, counts
    assert min(counts.values()) >= FEWEST, counts
    # What people try first is mostly without feeling: greetings, names, numbers, single words.
    assert counts.pop("neutral") <= 1.5 * min(counts.values()), counts
    assert max(counts.values()) <= 1.25 * min(counts.values()), counts


def test_the_index_finds_what_is_near() -> None:
    index = Index()
    index.add("one two three four five six seven eight nine ten")
    assert index.near("zero two three four five six seven eight nine ten")  # 9 of 11
    assert not index.near("zero zwei three four five six seven eight nine ten")  # 8 of 12


def test_no_near_duplicates() -> None:
    index = Index()
    near = []
    for _, text in TEXTS:
        near += [(text, other) for other in index.near(text)]
        index.add(text)
    assert not near, near


@pytest.mark.parametrize("label", LABELS)
def test_few_texts_contain_the_name_of_their_label(label: str) -> None:
    texts = [text for sentiment, text in TEXTS if sentiment == label]
    named = [text for text in texts if re.search(STEMS[label], text, re.IGNORECASE)]
    assert len(named) <= len(texts) / 4, f"{len(named)} of {len(texts)}"


def test_texts_are_as_people_type_them() -> None:
    texts = [text for _, text in TEXTS]
    assert max(map(len, texts)) <= 280
    for what, pattern, fewest in (
        ("one or two words", r"\A\W*\w+\W*(\w+\W*)?\Z", 500),
        ("question", r"\?", 500),
        ("mention", r"@\w", 100),
        ("hashtag", r"#\w", 50),
        ("emoji", r"[\u2600-\u27bf\U0001f300-\U0001faff]", 150),
        ("no capital", r"\A[^A-Z]*\Z", 2000),
        ("drawn out", r"([a-z])\1\1", 100),
        ("negation", r"\b(not|no|never|nothing|nobody|\w+n'?t)\b", 1000),
    ):
        found = sum(re.search(pattern, text) is not None for text in texts)
        assert found >= fewest, f"{what}: {found}"


def test_everyday_sentences_are_not_in_the_training_data() -> None:
    with EVERYDAY.open(encoding="utf-8", newline="") as file:
        everyday = list(csv.DictReader(file))
    assert set(Counter(row["sentiment"] for row in everyday).values()) == {12}
    index = Index()
    for _, text in TEXTS:
        index.add(text)
    for row in everyday:
        assert not index.near(row["content"]), row["content"]
