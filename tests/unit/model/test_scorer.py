"""The compiled scorer on the shipped model: what it says besides labels. Parity is in test_compile and test_build."""

from __future__ import annotations

from array import array
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engines import scorer
from app.engines.engine import Engine
from app.engines.scorer import _CACHED_SYMBOLS, CompiledEngine


def test_probabilities(engine: Engine) -> None:
    score = engine.score("Oh yeah, that was soooo cool!")
    assert score.label in engine.signature.labels
    assert sum(score.probabilities) == pytest.approx(1)
    assert score.confidence == max(score.probabilities)
    assert engine.signature.labels[score.probabilities.index(score.confidence)] == score.label


def test_counts_words_and_those_never_seen(engine: Engine) -> None:
    assert engine.score("I love xqzzwv and @somebody!!")[3:5] == (6, 1)  # i love xqzzwv and @ !!
    assert engine.score("")[3:5] == (0, 0)


def test_a_text_without_known_tokens_scores_the_intercept(engine: Engine) -> None:
    assert engine.score("xqzzwv").probabilities == pytest.approx(engine.score("").probabilities)


def test_empty_batch(engine: Engine) -> None:
    assert engine.score_batch([]) == []


def test_batches_of_any_size(engine: Engine) -> None:
    texts = [f"love {'hate ' * (n % 7)} {n}" if n % 5 else "" for n in range(200)]
    alone = [engine.score(text) for text in texts]
    for size in (1, 2, 63, 64, 65, 200):
        batch = engine.score_batch(texts[:size])
        assert [score.label for score in batch] == [score.label for score in alone[:size]]
        assert batch[-1].probabilities == pytest.approx(alone[size - 1].probabilities)


def test_explanation(engine: Engine) -> None:
    text = "I love my sweet dog"
    weights = engine.explain(text, "love", top=5)
    assert len(weights) == 5
    assert [abs(weight) for _, weight in weights] == sorted((abs(weight) for _, weight in weights), reverse=True)
    assert weights[0][0] == "love"
    assert weights[0][1] > 0
    assert dict(engine.explain(text, "hate", 100))["love"] < 0
    with pytest.raises(KeyError):
        engine.explain(text, "no such label")


def test_explanation_names_parts_of_the_text(engine: Engine) -> None:
    text = "@anna can't wait!!! #hyped :)"
    for ngram, _ in engine.explain(text, "enthusiasm", 100):
        assert ngram
        assert all(part in text.lower() for part in ngram.split(" ")), ngram


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=()), max_size=300))
def test_any_text(engine: Engine, text: str) -> None:
    score = engine.score(text)
    assert sum(score.probabilities) == pytest.approx(1)
    assert 0 <= score.unknown <= score.tokens
    assert engine.score_batch([text])[0].probabilities == pytest.approx(score.probabilities)
    engine.explain(text, score.label)


@pytest.mark.parametrize("letter", ["a", "!", "\u0301", "\U0001f600", " ", "\n", "@", "&", "'"])
def test_a_megabyte_of_one_letter(engine: Engine, letter: str) -> None:
    assert sum(engine.score(letter * 2**20).probabilities) == pytest.approx(1)


def test_the_cache_of_words_is_bounded(engine: Engine) -> None:
    assert isinstance(engine, CompiledEngine)
    for n in range(3 * _CACHED_SYMBOLS):
        engine.score(f"word{n} w{n}")
    assert all(len(vectorizer.lexicon) <= _CACHED_SYMBOLS for vectorizer in engine._vectorizers)
    assert "word7" not in engine._vectorizers[0].lexicon, "what nobody knows is not kept"


# Two symbols and the pair of them: node 0 is followed by symbol 1, which makes node 2.
ARRAYS: dict[str, array[Any]] = {
    "children": array("I", [0, 1, 1, 1]),
    "steps": array("I", [1]),
    "idf": array("d", [1, 1, 1]),
    "weights": array("d", [1, 0, 0, 1, 3, 3]),
    "intercept": array("d", [0, 0]),
}


def kernel_of(**changes: array[Any]) -> Any:
    return vars(scorer)["kernel"].Kernel(*(ARRAYS | changes).values(), False, False, None)


def test_kernel_finds_pairs() -> None:
    assert kernel_of().logits([[0, 1, scorer.UNKNOWN, 0, 0]], [2]) == [6, 4]
    assert kernel_of().logits([[]], [2]) == [0, 0]


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("children", array("I", [0, 1, 1]), "different lengths"),
        ("weights", array("d", [1, 0, 0, 1]), "different lengths"),
        ("children", array("I", [1, 0, 1, 1]), "not in order"),
        ("children", array("I", [0, 2, 2, 2]), "leads out of"),
    ],
)
def test_kernel_refuses_arrays_that_it_would_read_beyond(name: str, wrong: array[Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        kernel_of(**{name: wrong})
