"""Any bytes, to any route: no 500, no exception, and every error a problem document.

`FUZZ=100000` sends so many bodies (`make fuzz`); the default is what a test run has time for. The seed is fixed: the
n-th body is the same in every run.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Callable

from tests.unit.app.stub_api import Client, make_app

BODIES = int(os.environ.get("FUZZ", "5000"))
PATHS = ("/predict", "/predict", "/predict/batch", "/v2/models/emotion/infer")
SEEDS: dict[str, list[object]] = {
    "/predict": [{"sentence": "Oh yeah, that was soooo cool!"}, {"sentence": "日本語 🙂 e\u0301", "id": 1.5e300}],
    "/predict/batch": [{"sentences": ["a", "b"]}, {"sentences": ["x" * 200] * 20}],
    "/v2/models/emotion/infer": [
        {"id": "1", "inputs": [{"name": "sentence", "shape": [2, 1], "datatype": "BYTES", "data": [["a"], ["b"]]}]},
        {
            "inputs": [{"name": "sentence", "shape": [1], "datatype": "BYTES", "data": ["a"]}],
            "outputs": [{"name": "label"}],
        },
    ],
}
PIECES = [
    *(b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"\\u0000", b"\\ud800", b"\\udc00", b"\xff", b"\xed\xa0\x80"),
    *(b"\x00", b"null", b"true", b"-0", b"1e999", b"NaN", b"9" * 400, b"[" * 300, b'{"a":' * 300, b" " * 9000),
    *(b'"sentence"', b'"sentences"', b'"inputs"', b'"\xf0\x9f\x99\x82"', b"\xef\xbb\xbf", b"x" * 9000, b"\r\n", b"/*"),
]
MEDIA_TYPES = ["application/json"] * 12 + [
    "application/json;charset=latin-1",
    "text/plain",
    "",
    "\x7f",
    "application/json,x",
]


def noise(rng: random.Random, body: bytes) -> bytes:
    return rng.randbytes(rng.randrange(200))


def flipped(rng: random.Random, body: bytes) -> bytes:
    changed = bytearray(body)
    for _ in range(rng.randrange(1, 5)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def cut(rng: random.Random, body: bytes) -> bytes:
    return body[: rng.randrange(len(body))]


def spliced(rng: random.Random, body: bytes) -> bytes:
    for _ in range(rng.randrange(1, 4)):
        start, end = sorted(rng.choices(range(len(body) + 1), k=2))
        body = body[:start] + rng.choice(PIECES) + body[end if rng.random() < 0.5 else start :]
    return body


def same(rng: random.Random, body: bytes) -> bytes:
    return body


WAYS: list[Callable[[random.Random, bytes], bytes]] = [noise, flipped, flipped, cut, spliced, spliced, spliced, same]


def test_any_bytes_get_a_well_formed_answer() -> None:
    rng = random.Random(20261121)
    clients = [Client(make_app("v1")), Client(make_app("v2"))]
    statuses: Counter[int] = Counter()
    for n in range(BODIES):
        path = rng.choice(PATHS)
        body = rng.choice(WAYS)(rng, json.dumps(rng.choice(SEEDS[path]), ensure_ascii=rng.random() < 0.5).encode())
        media_type = rng.choice(MEDIA_TYPES)
        answer = clients[n % 2].post(path, content=body, headers={"content-type": media_type})
        where = f"body {n}: POST {path}, {media_type!r}, {body[:200]!r}: {answer.status_code} {answer.text[:200]}"
        assert answer.status_code in (200, 400, 413, 415, 422), where
        document = json.loads(answer.content)
        if answer.status_code != 200:
            assert answer.headers["content-type"] == "application/problem+json", where
            assert document["status"] == answer.status_code, where
        statuses[answer.status_code] += 1
    print(statuses)
    assert set(statuses) == {200, 400, 413, 415, 422}
    assert all(client.app.metrics.in_flight == 0 for client in clients)
