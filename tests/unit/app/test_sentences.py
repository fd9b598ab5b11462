"""The short way from a body to a sentence takes nothing that pydantic does not take, and gives the same."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.http import validation
from app.http.problems import Problem
from app.http.sentences import SENTENCE_BYTES, sentence_of
from model.manifest import ROOT
from tests.unit.app.test_fuzz import BODIES, SEEDS, WAYS

TAKEN = [
    b'{"sentence":"a"}',
    b' { "sentence" :\t"so \\u00fcbel \\ud83d\\ude42 \\n"}\r\n',
    '{"sentence": "ü 🙂 e\u0301"}'.encode(),
    b'{"sentence": "' + b"x" * SENTENCE_BYTES + b'"}',
    b'{"\\u0073entence": "a"}',
]
LEFT = [
    *(b'{"sentence": "a", "id": 1}', b'{"sentence": "\\ud800", "sentence": "a"}', b'{"sentence": "\\ud800"}'),
    *(b'{"sentence": " "}', b'{"sentence": ""}', b'{"sentence": "' + b"x" * (SENTENCE_BYTES + 1) + b'"}', b"{}", b""),
    *(b'[["sentence", "a"]]', b'"sentence"', b'{"sentence": {"sentence": "a"}}', b"[" * 100_000, b"\xff", b"1" * 5000),
    *(b"\xef\xbb\xbf" + TAKEN[0], '{"sentence":"a"}'.encode("utf-16"), b'{"sentence": "\xed\xa0\x80"}'),
    *(
        b'{"sentence": "a\nb"}',
        b'{"sentence": "a"}}',
        b'{"sentence": "a",}',
        b"{'sentence': 'a'}",
        b'{"Sentence": "a"}',
    ),
]


def check(body: bytes) -> bool:
    """Whether it was taken."""
    short = sentence_of(body)
    if short is None:
        return False
    try:
        assert short == validation.sentence(body)
    except Problem as problem:
        pytest.fail(f"{body!r} was taken, which pydantic refuses: {problem}")
    return True


@pytest.mark.parametrize("body", TAKEN)
def test_taken(body: bytes) -> None:
    assert check(body)


@pytest.mark.parametrize("body", LEFT)
def test_unusual_bodies_are_left_to_pydantic(body: bytes) -> None:
    assert sentence_of(body) is None


@settings(max_examples=500, deadline=None)
@given(text=st.text(st.characters(exclude_categories=())), ascii_only=st.booleans())
@example(text="\ud83d\ude42", ascii_only=True)
def test_any_text(text: str, ascii_only: bool) -> None:
    body = json.dumps({"sentence": text}, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    check(body)


def test_broken_bodies() -> None:
    rng = random.Random(1)
    seeds = [json.dumps(seed, ensure_ascii=bool(i % 2)).encode() for i, seed in enumerate(SEEDS["/predict"] * 2)]
    seeds += TAKEN
    taken = sum(check(rng.choice(WAYS)(rng, rng.choice(seeds))) for _ in range(BODIES))
    print(f"{taken} of {BODIES} were taken")
    assert taken > BODIES // 100


def test_a_usual_request_needs_little() -> None:
    program = """
import sys
from app import factory, worker
from app.http import predictor
assert predictor.parse_sentence(b'{"sentence": "so happy"}') == "so happy"
print(sorted(name for name in sys.modules if name.partition(".")[0] in ("fastapi", "numpy", "pydantic")))
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("[]\n", "")
