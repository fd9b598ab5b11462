"""Many texts at once are scored as they are one by one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer

from app.engines.artifact import read_manifest
from app.engines.loading import load_engine
from batch.vectorised import VectorisedEngine, is_by_word, without_edges
from model.compile import compiled
from model.train import SIGNS_AND_WORDS, features
from tests.unit.batch.conftest import SMALL, TEXTS, fitted

VECTORIZERS = {
    "words": [TfidfVectorizer(ngram_range=(1, 3))],
    "the shipped ones": [vectorizer for _, vectorizer in features().transformer_list],
    "the beginning": [TfidfVectorizer(token_pattern=r"\A|\w+", ngram_range=(1, 2))],
    "the end": [TfidfVectorizer(token_pattern=r"\w+|\Z", ngram_range=(2, 2))],
    "characters": [TfidfVectorizer(analyzer="char", ngram_range=(2, 4))],
    "characters of words": [TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), norm="l1")],
    "words that look at white space": [TfidfVectorizer(token_pattern=r"\w+(?!\s)")],
    "folded in two ways": [
        TfidfVectorizer(strip_accents="unicode"),
        TfidfVectorizer(lowercase=False, strip_accents="ascii"),
    ],
    "no norm, present or not": [TfidfVectorizer(norm=None, binary=True, stop_words=["today"])],
}
# What folding and cutting stumble over: letters whose case depends on their neighbours, that fold into two or into
# capitals, white space of all kinds, marks without a letter, halves of surrogate pairs.
ODD = "ΑΣ ΣΑΣ İstanbul ᴬglad ﬁn\u2028sunny\u00a0party\x1flaugh win\u0301 \ud800 @glad !!! :) 👍🏽 I'll don't"


def both(directory: Path, **_: Any) -> tuple[Any, VectorisedEngine]:
    return load_engine(directory), VectorisedEngine(directory, read_manifest(directory))


def assert_alike(one_by_one: Any, at_once: VectorisedEngine, texts: list[str]) -> None:
    scores = one_by_one.score_batch(texts)
    labels, probabilities = at_once.scores(texts)
    for text, score, label, p in zip(texts, scores, labels, probabilities, strict=True):
        assert at_once.signature.labels[label] == score.label, text
        assert p == pytest.approx(score.probabilities, abs=1e-9), text


@pytest.mark.parametrize("kind", VECTORIZERS)
def test_any_vectorizer_and_any_text(kind: str, tmp_path: Path) -> None:
    union = fitted(*map(clone, VECTORIZERS[kind]))
    compiled(union, tmp_path, SMALL)
    one_by_one, at_once = both(tmp_path)
    assert_alike(
        one_by_one, at_once, [*TEXTS, "", " ", ODD, ODD.lower(), *ODD.split(), "glad " * 5000, "nothing known"]
    )

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(st.text(st.sampled_from([*"glad sunyΣİᴬﬁ\u2028\u00a0\ud800'!:)@", *"\n\t"]), max_size=40), max_size=9)
    )
    def test(texts: list[str]) -> None:
        assert_alike(one_by_one, at_once, texts)

    test()


def test_a_tie_is_decided_as_one_by_one(artifacts: Path) -> None:
    """Two labels as probable as each other: the order of a sum must not decide."""
    one_by_one, at_once = both(artifacts)
    at_once._intercept = one_by_one._intercept = [0.0] * len(at_once.signature.labels)
    assert_alike(one_by_one, at_once, ["unknown", "", "glad rain", "rain glad"] * 50)


def test_words_are_forgotten_when_they_are_many(artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batch.vectorised._CACHED_WORDS", 100)
    one_by_one, at_once = both(artifacts)
    for start in range(0, 3000, 50):
        assert_alike(
            one_by_one,
            at_once,
            [f"glad{number} glad {TEXTS[number % len(TEXTS)]}" for number in range(start, start + 50)],
        )
        assert len(at_once._words[0][0]) <= 400


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"(?u)\b\w\w+\b", True),
        (SIGNS_AND_WORDS, True),
        (r"\S+", True),
        (r"[^\s,]+", True),
        (r"(?:don't|\w)+", True),
        (r"(?<=@)\w+", True),
        (r"[^,]+", False),
        (r"\w+ \w+", False),
        (r"\w+.", False),
        (r"\D+", False),
        (r"^\w+", False),
        (r"\w+$", False),
        (r"\B\w", False),
        (r"\w+(?!\s)", False),
        (r"(?<![^a])\w+", False),
        (r"(\w)\1", False),
    ],
)
def test_patterns_that_cut_texts_as_they_cut_words(pattern: str, expected: bool) -> None:
    assert is_by_word(pattern) is expected


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from(list("aB1_'@!?:)(.<3&; \n\t\u00a0\u2028é😀")), max_size=60))
def test_such_patterns_do(text: str) -> None:
    for pattern in (SIGNS_AND_WORDS, r"(?u)\b\w\w+\b", r"(?<!@)\b\w{1,4}", r"\S+", r"(?<=@)\w+"):
        whole = re.findall(pattern, text)
        assert whole == [token for word in text.split() for token in re.findall(pattern, word)], pattern


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"\A|\w+|\Z", (r"\w+", True, True)),
        (r"\A|\w+", (r"\w+", True, False)),
        (r"\w+|\Z", (r"\w+", False, True)),
        (r"\w+", (r"\w+", False, False)),
        (r"\A|\w+\|\Z", (r"\w+\|\Z", True, False)),
        (r"\A|\w*|\Z", (r"\A|\w*|\Z", False, False)),
        (r"\A|\Z", (r"\A|\Z", False, False)),
        (r"(?x)\w+ # |\Z", (r"(?x)\w+ # |\Z", False, False)),
    ],
)
def test_patterns_that_match_the_edges_of_a_text(pattern: str, expected: tuple[str, bool, bool]) -> None:
    assert without_edges(pattern) == expected


def test_the_shipped_vectorizers_cut_words_and_not_texts(tmp_path: Path) -> None:
    """Which is what makes `make score` fast."""
    compiled(fitted(*map(clone, VECTORIZERS["the shipped ones"])), tmp_path, SMALL)
    assert not both(tmp_path)[1]._others


def test_the_shipped_models_probabilities_are_the_same_to_the_last_digits(artifacts: Path) -> None:
    one_by_one, at_once = both(artifacts)
    texts = [f"{a}, {b}!" for a in TEXTS for b in TEXTS]
    expected = np.array([score.probabilities for score in one_by_one.score_batch(texts)])
    assert np.abs(at_once.scores(texts).probabilities - expected).max() < 1e-12
