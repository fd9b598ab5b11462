"""The OpenAPI document; tests/templates/test_public_clients.py has schemathesis hold it against what is answered."""

from __future__ import annotations

import re

import pytest

from app.http import docs_page
from app.settings import Version
from tests.unit.app.stub_api import Client, make_app, without_fast_path

VERSIONS: tuple[Version, ...] = ("v1", "v2")


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
            print(method, path, operation)
            assert "429" in operation["responses"]
            # Monitoring asks for it without a password.
            assert (path == "/health") == (operation.get("security") == []) == ("401" not in operation["responses"])


@pytest.mark.parametrize("version", VERSIONS)
def test_every_answer_has_a_schema_of_this_project(version: Version) -> None:
    document = Client(make_app(version)).get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for status, answer in operation["responses"].items():
                (content,) = answer["content"].values()
                print(method, path, status, content)
                assert content["schema"]["$ref"].removeprefix("#/components/schemas/") in schemas
    assert not {name for name in schemas if "Validation" in name}


def test_operations_have_the_names_that_a_generated_client_gives_its_functions() -> None:
    document = Client(make_app()).get("/openapi.json").json()
    names = {operation["operationId"] for methods in document["paths"].values() for operation in methods.values()}
    assert names == {
        *("predict", "predict_batch", "health", "ready", "version", "server_metadata", "server_live", "server_ready"),
        *("model_metadata", "model_ready", "model_infer"),
        *("model_version_metadata", "model_version_ready", "model_version_infer"),
    }
