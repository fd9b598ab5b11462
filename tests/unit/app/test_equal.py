"""The routes that skip FastAPI and FastAPI's own give the same answers, byte for byte."""

from __future__ import annotations

import json
import re

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.http import schemas
from app.settings import Version
from tests.unit.app.stub_api import Client, StubEngine, make_app, without_fast_path

ID = {"x-request-id": "0123456789abcdef"}
JSON = {"content-type": "application/json", **ID}
PAIRS: dict[Version, tuple[Client, Client]] = {
    version: (Client(make_app(version)), Client(without_fast_path(make_app(version)))) for version in ("v1", "v2")
}
ODD_BODIES = [
    *(b"", b"{", b"[]", b"null", b"{}", b'{"sentence": 3}', b'{"sentence": ""}', b'{"sentence": "\xff"}'),
    *(b'{"sentence": "\\ud800"}', b'{"sentence": "a", "sentence": "b"}', b'{"sentence": "a"} ', b'{"sentence": "a"}x'),
    *(b'{"sentence": "' + b"x" * n + b'"}' for n in (1, 8192, 8193, 65520, 65536)),
    *(b'{"sentences": ["a"]}', b'{"sentences": ["a", ""]}', b'{"sentences": []}', b'{"sentence": "\\u0000"}'),
    *("{'sentence': 'ü'}".encode(), '{"sentence": "ü 🙂 e\u0301"}'.encode(), b"\xef\xbb\xbf{}", b"[" * 5000),
]


def shown(answer: httpx.Response) -> tuple[int, list[tuple[str, str]], str]:
    """Without the time that v2 took, and its digits in the length."""
    body = re.sub(r'"elapsed_ms":[0-9.e-]+', "", answer.text)
    headers = [(name, value) for name, value in answer.headers.multi_items() if name != "content-length"]
    if answer.request.method != "HEAD":
        assert answer.headers["content-length"] == str(len(answer.content))
    return answer.status_code, headers, body


def check_equal(version: Version, method: str, path: str, body: bytes, headers: dict[str, str]) -> int:
    fast, slow = (shown(client.request(method, path, content=body, headers=headers)) for client in PAIRS[version])
    assert fast == slow
    return fast[0]


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
def test_odd_bodies(version: Version, path: str) -> None:
    statuses = [check_equal(version, "POST", path, body, JSON) for body in ODD_BODIES]
    print(statuses)
    assert {200, 400, 422} <= set(statuses)


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize(
    "media_type", ["", "application/json;x=y", "APPLICATION/JSON", "text/plain", "application/xml"]
)
def test_odd_media_types(version: Version, media_type: str) -> None:
    status = check_equal(version, "POST", "/predict", b'{"sentence": "a"}', {**ID, "content-type": media_type})
    assert status == (200 if media_type.lower().startswith("application/json") else 415)


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "get", "QUERY"])
@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/health", "/ready"])
def test_every_method(method: str, path: str) -> None:
    check_equal("v1", method, path, b'{"sentence": "a"}', JSON)


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=60), batch=st.booleans(), version=st.sampled_from(["v1", "v2"]))
def test_any_text(text: str, batch: bool, version: Version) -> None:
    body = json.dumps({"sentences": [text]} if batch else {"sentence": text})
    check_equal(version, "POST", "/predict/batch" if batch else "/predict", body.encode(), JSON)


@settings(max_examples=300, deadline=None)
@given(body=st.binary(max_size=60) | st.builds(lambda x: b'{"sentence": "' + x + b'"}', st.binary(max_size=40)))
def test_any_bytes(body: bytes) -> None:
    assert check_equal("v1", "POST", "/predict", body, JSON) in (200, 400, 413, 422)


def test_hand_written_answers_are_what_the_models_say() -> None:
    forms = schemas.forms_of(StubEngine.signature)
    for client, single, batch in (
        (Client(make_app("v1")), forms.prediction, forms.predictions),
        (Client(make_app("v2")), forms.debug, forms.debug_predictions),
    ):
        for model, path, body in (
            (single, "/predict", {"sentence": "a b"}),
            (batch, "/predict/batch", {"sentences": ["a", "b"]}),
        ):
            answer = client.post(path, json=body)
            assert model.model_validate_json(answer.content, strict=True).model_dump() == answer.json()
