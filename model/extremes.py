"""Unusual inputs that the data do not contain but clients may send. Engine and estimator must agree on these too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from app.engines.signature import Input, Row, Signature
from app.http.sentences import SENTENCE_BYTES

_ODD = (
    *(
        ".",
        "a",
        "\x00",
        "\ufeff",
        "e\u0301 \ufb01 \u0130stanbul \u00df",
        "\u202e\u05e9\u05dc\u05d5\u05dd",
        "no\u00a0break\u2028line",
    ),
    *(
        "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f",
        "'" * 50 + "!" * 50 + "?!?!" * 20,
        "x" * SENTENCE_BYTES,
    ),
)
_REPEATED = 50  # words that are repeated up to the longest text: where floats overflow at all, they do so here


def texts(known: Sequence[str]) -> list[str]:
    """From the words of the data: each alone and repeated, all of them one after the other."""
    words = [word for word, _ in Counter(word for text in known for word in text.split()).most_common()]
    chosen = words[:: max(len(words) // _REPEATED, 1)][:_REPEATED]
    repeated = [(f"{word} " * (SENTENCE_BYTES // (len(word.encode()) + 1))).strip() for word in chosen]
    whole, line = [], ""
    for word in words:
        if len((line + word).encode()) >= SENTENCE_BYTES:
            whole.append(line)
            line = ""
        line += f"{word} "
    return [text for text in [*_ODD, *chosen, *repeated, *whole[:20], line] if text.strip()]


def rows(signature: Signature) -> list[Row]:
    """The typical row with one column changed: the ends of its range, zero, each of its values, a missing value; and
    rows of all least and all greatest values."""
    typical = signature.typical
    made = [typical]
    least, greatest = list(typical), list(typical)
    for i, column in enumerate(signature.columns):
        tried: list[Input] = list(column.values)
        if column.range:
            whole = int if column.type == "integer" else float
            least[i], greatest[i] = whole(column.range[0]), whole(column.range[1])
            width = column.range[1] - column.range[0] or 1.0
            tried += [least[i], greatest[i], whole(0), whole(column.range[0] - width), whole(column.range[1] + width)]
        if column.type == "boolean":
            tried += [False, True]
        if column.nullable:
            tried.append(None)
        made += [(*typical[:i], value, *typical[i + 1 :]) for value in tried]
    return [*made, tuple(least), tuple(greatest)]
