"""Whatever goes wrong is a problem document (RFC 9457) with the request's id."""

from __future__ import annotations

import asyncio
import codecs
import json
import logging
from typing import Any

import httpx
import pytest

from app.engines.engine import Score
from app.http import schemas, sentences
from tests.unit.app.stub_api import Client, StubEngine, make_app

JSON = {"content-type": "application/json"}
TOO_LONG = "x" * (sentences.SENTENCE_BYTES + 1)


@pytest.fixture
def client() -> Client:
    return Client(make_app())


def check_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    print(answer.status_code, answer.headers, answer.text[:500])
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    schemas.ProblemDocument.model_validate(document)
    assert document["type"] == "about:blank"
    assert document["status"] == status
    assert document["request_id"] == answer.headers["x-request-id"]
    return document


@pytest.mark.parametrize(
    ("body", "status", "field", "reason"),
    [
        (b"", 400, None, "EOF"),
        (b"{", 400, None, "EOF"),
        (b"sentence=hello", 400, None, "line 1 column 1"),
        (b'{"sentence": "x",}', 400, None, "trailing comma"),
        (b"{'sentence': 'x'}", 400, None, "line 1"),
        (b'{"sentence": "\xff\xfe"}', 400, None, "unicode"),
        (b'{"sentence": "\xed\xa0\x80"}', 400, None, "unicode"),
        (b'{"sentence": "\\ud800"}', 400, None, "hex escape"),
        ('{"sentence": "x"}'.encode("utf-16"), 400, None, "line 1"),
        (b"[" * 10_000, 400, None, "recursion"),
        (b'{"sentence": NaN', 400, None, "EOF"),
        (b"[]", 422, "body", "object"),
        (b"null", 422, "body", "object"),
        (b'"x"', 422, "body", "object"),
        (b"{}", 422, "sentence", "is required"),
        (b'{"text": "x"}', 422, "sentence", "is required"),
        (b'{"sentence": null}', 422, "sentence", "string"),
        (b'{"sentence": 3}', 422, "sentence", "string"),
        (b'{"sentence": 1' + b"0" * 5000 + b"}", 400, None, "number out of range"),
        (b'{"sentence": ["x"]}', 422, "sentence", "string"),
        (b'{"sentence": {"x": "y"}}', 422, "sentence", "string"),
        (b'{"sentence": ""}', 422, "sentence", "white space"),
        (b'{"sentence": " \\t\\n\\u00a0\\u3000"}', 422, "sentence", "white space"),
        (json.dumps({"sentence": TOO_LONG}).encode(), 413, "sentence", "8192 bytes"),
        (json.dumps({"sentence": "é" * 4097}).encode(), 413, "sentence", "8192 bytes"),
        (b" " * (sentences.PREDICT_BODY_BYTES + 1), 413, None, "65536 bytes"),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else None,
)
def test_a_bad_body_is_told_what_is_wrong(
    client: Client, body: bytes, status: int, field: str | None, reason: str
) -> None:
    document = check_problem(client.post("/predict", content=body, headers=JSON), status)
    if field is None:
        assert reason.lower() in document["detail"].lower()
        assert "errors" not in document
    else:
        assert [error["field"] for error in document["errors"]] == [field]
        assert reason in document["errors"][0]["reason"]
        assert document["detail"].startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("sentences", "status", "fields"),
    [
        (["a", " ", "b", 3], 422, ["sentences[1]", "sentences[3]"]),
        (["a", "b", TOO_LONG], 413, ["sentences[2]"]),
        ([], 422, ["sentences"]),
        (["a"] * 257, 422, ["sentences"]),
        ("a", 422, ["sentences"]),
        ([" "] * 256, 422, [f"sentences[{i}]" for i in range(16)]),
    ],
    ids=["two of four", "too long", "none", "too many", "no list", "all"],
)
def test_a_bad_sentence_of_a_batch_is_named(client: Client, sentences: Any, status: int, fields: list[str]) -> None:
    document = check_problem(client.post("/predict/batch", json={"sentences": sentences}), status)
    assert [error["field"] for error in document["errors"]] == fields


@pytest.mark.parametrize("media_type", [None, "", "text/plain", "application/x-www-form-urlencoded", "json", "*/*"])
def test_other_media_types_are_refused(client: Client, media_type: str | None) -> None:
    headers = {} if media_type is None else {"content-type": media_type}
    document = check_problem(client.post("/predict", content=b'{"sentence": "x"}', headers=headers), 415)
    assert "Content-Type: application/json" in document["detail"]


@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/v2/models/emotion/infer"])
@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "identity, gzip"])
def test_compressed_bodies_are_refused(client: Client, path: str, coding: str) -> None:
    """Also where the body is not compressed at all: what is declared counts."""
    headers = {"content-type": "application/json", "content-encoding": coding}
    answer = client.post(path, content=b'{"sentence": "x"}', headers=headers)
    document = check_problem(answer, 415)
    assert "Content-Encoding" in document["detail"]
    assert answer.headers["accept-encoding"] == "identity"


def test_identity_is_no_coding(client: Client) -> None:
    headers = {"content-type": "application/json", "content-encoding": "identity"}
    assert client.post("/predict", content=b'{"sentence": "x"}', headers=headers).status_code == 200


def test_a_byte_order_mark_is_passed_over(client: Client) -> None:
    headers = {"content-type": "application/json"}
    for mark in (b"", codecs.BOM_UTF8):
        answer = client.post("/predict", content=mark + b'{"sentence": "x"}', headers=headers)
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("media_type", ["application/json", "Application/JSON", "application/json;charset=UTF-8"])
def test_json_is_json_however_it_is_spelt(client: Client, media_type: str) -> None:
    answer = client.post("/predict", content=b'{"sentence": "x"}', headers={"content-type": media_type})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/predict", "POST"),
        ("DELETE", "/predict", "POST"),
        ("BREW", "/predict/batch", "POST"),
        ("POST", "/health", "GET"),
        ("PUT", "/metrics", "GET"),
        ("POST", "/v2/models/emotion", "GET"),
    ],
)
def test_other_methods_are_told_which(client: Client, method: str, path: str, allow: str) -> None:
    answer = client.request(method, path)
    check_problem(answer, 405)
    assert answer.headers["allow"] == allow


@pytest.mark.parametrize("path", ["/", "/predict/", "/Predict", "/predict/x", "/v2/models", "/docs/../app", "/redoc"])
def test_other_paths_do_not_exist(client: Client, path: str) -> None:
    check_problem(client.post(path, json={"sentence": "x"}), 404)


@pytest.mark.parametrize("given", ["0123456789abcdef0123456789abcdef", "A.b_c-d1", "abc", "7", "x" * 64])
def test_the_gateway_s_request_id_is_echoed(client: Client, given: str) -> None:
    for path in ("/health", "/version", "/nothing"):
        assert client.get(path, headers={"x-request-id": given}).headers.get_list("x-request-id") == [given]
    document = check_problem(client.post("/predict", content=b"", headers={**JSON, "x-request-id": given}), 400)
    assert document["request_id"] == given


@pytest.mark.parametrize("given", [None, "", "x" * 65, "a b c d e", "{}{}{}{}{}", "é" * 8, 'quote"quote'])
def test_an_ill_formed_request_id_is_replaced(client: Client, given: str | None) -> None:
    headers = {} if given is None else {"x-request-id": given.encode()}
    ids = {client.get("/health", headers=headers).headers["x-request-id"] for _ in range(3)}
    print(ids)
    assert len(ids) == 3
    assert all(len(made) == 32 and int(made, 16) >= 0 for made in ids)


class Broken(StubEngine):
    def score(self, text: str) -> Score:
        raise RuntimeError(f"cannot score {text}")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/predict", {"sentence": "my secret"}),
        ("/predict/batch", {"sentences": ["my secret"]}),
        (
            "/v2/models/emotion/infer",
            {"inputs": [{"name": "sentence", "shape": [1], "datatype": "BYTES", "data": ["my secret"]}]},
        ),
    ],
)
def test_an_internal_error_is_logged_once_and_not_shown_to_the_client(
    path: str, body: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    from app.observed.logs import JsonFormatter

    answer = Client(make_app("v1", Broken())).post(path, json=body, headers={"x-request-id": "trace-me-1234"})
    document = check_problem(answer, 500)
    assert "secret" not in answer.text
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    line = JsonFormatter().format(record)
    print(line)
    assert json.loads(line)["request_id"] == document["request_id"] == "trace-me-1234"
    assert json.loads(line)["exception"] == "RuntimeError"
    assert "test_errors.py" in line
    assert "secret" not in line


def test_a_client_that_leaves_is_counted_and_disturbs_nobody() -> None:
    client = Client(make_app())
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": [(b"content-type", b"application/json")]}
    asyncio.run(client.app(scope, receive, send))
    assert client.series()['vmlops_requests_total{code="499",route="/predict"}'] == 1
