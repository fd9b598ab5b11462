"""The OpenAPI document: valid, true to what is answered, and with examples that work."""

from __future__ import annotations

import re
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from app.http import docs_page
from app.settings import Version
from tests.unit.app.stub_api import Client, make_app, without_fast_path

VERSIONS: tuple[Version, ...] = ("v1", "v2")
REFUSALS = [400, 404, 405, 413, 415, 422]
# A shape must fit its data, which JSON Schema cannot say: of /infer not every valid body is accepted.
CHECKS = [
    schemathesis.checks.not_a_server_error,
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
]


def load(version: Version) -> Any:
    app = make_app(version)
    app.start()
    app.stop()  # it stays ready, and leaves v2's port alone
    config = SchemathesisConfig.from_dict({"checks": {"negative_data_rejection": {"expected-statuses": REFUSALS}}})
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=config)
    del schema.raw_schema["security"]  # the gateway's, which is not here
    return schema


v1 = load("v1")
v2 = load("v2")
FUZZ = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@v1.parametrize()  # type: ignore[untyped-decorator]
@FUZZ
def test_v1(case: Any) -> None:
    case.call_and_validate(checks=CHECKS, excluded_checks=[positive_data_acceptance] if "infer" in case.path else [])


@v2.parametrize()  # type: ignore[untyped-decorator]
@FUZZ
def test_v2(case: Any) -> None:
    case.call_and_validate(checks=CHECKS, excluded_checks=[positive_data_acceptance] if "infer" in case.path else [])


@pytest.mark.parametrize("version", VERSIONS)
def test_every_example_works(version: Version) -> None:
    client = Client(make_app(version))
    document = client.get("/openapi.json").json()
    posts = {path: methods["post"] for path, methods in document["paths"].items() if "post" in methods}
    assert set(posts) >= {"/predict", "/predict/batch", "/v2/models/{name}/infer"}
    for path, operation in posts.items():
        reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        examples = document["components"]["schemas"][reference.rpartition("/")[2]]["examples"]
        for parameter in operation.get("parameters", []):
            path = path.replace(f"{{{parameter['name']}}}", parameter["examples"]["this"]["value"])
        for example in examples:
            answer = client.post(path, json=example)
            print(path, example, answer.text[:200])
            assert answer.status_code == 200


def test_the_document_is_the_same_without_the_fast_path() -> None:
    """Both applications document every route that answers."""
    documents = [Client(app).get("/openapi.json").json() for app in (make_app(), without_fast_path(make_app()))]
    assert documents[0] == documents[1]
    assert {path for _, path in make_app().fast} - {"/metrics"} <= set(documents[0]["paths"])


def test_the_page_loads_nothing_from_elsewhere() -> None:
    client = Client(make_app())
    page = client.get("/docs")
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert page.headers["content-security-policy"] == docs_page.POLICY.decode()
    assert "<script>" not in page.text
    for link in links:
        if not link.startswith("data:"):
            answer = client.get(f"/{link}")
            print(link, answer.status_code, answer.headers)
            assert answer.status_code == 200
            assert "http://" not in link
    assert client.get("/docs/core.py").status_code == 404


@pytest.mark.parametrize("version", VERSIONS)
def test_the_gateway_s_answers_are_documented(version: Version) -> None:
    document = Client(make_app(version)).get("/openapi.json").json()
    (scheme,) = document["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["scheme"]) == ("http", "basic")
    assert document["security"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert "401" in operation["responses"], (method, path)
            assert ("429" in operation["responses"]) == (method == "post"), (method, path)
