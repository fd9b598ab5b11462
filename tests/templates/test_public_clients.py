"""Clients that others wrote, with their defaults, against real replicas behind the gateway."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.settings import Version
from tests.replica import Server
from tests.templates.gateway_edge import Edge, running
from tests.templates.test_gateway import SENTENCE, UNLIMITED
from tests.unit.app.stub_api import StubEngine

PATIENCE = 300
VERSIONS: tuple[Version, ...] = ("v1", "v2")
GROUP = {"v1": "none", "v2": "debug"}
TEXT = str(SENTENCE["sentence"])
LABEL = StubEngine().score(TEXT).label
# JSON Schema cannot say that the product of a shape is the length of the data, so /infer refuses some of what it allows.
CONFIG = """
[[operations]]
include-path-regex = "/infer$"
checks.positive_data_acceptance.enabled = false
"""


@dataclass
class Stack:
    edge: Edge
    servers: dict[str, Server]

    @property
    def authority(self) -> str:
        return str(self.edge.directory / "server.crt")

    @property
    def url(self) -> str:
        return f"https://localhost:{self.edge.https}"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    servers: dict[str, Server] = {
        version: Server(tmp_path_factory.mktemp(version), VMLOPS_VERSION=version, VMLOPS_INSTANCE=f"{version}@0")
        for version in VERSIONS
    }
    try:
        for server in servers.values():
            server.wait_ready()
        endpoints = [
            {"name": f"{name}@0", "version": name, "address": "127.0.0.1", "port": server.port, "asked": True}
            for name, server in servers.items()
        ]
        # The first that is no prediction takes a replica half a second, and a busy processor more.
        patient = {"gateway_upstream_read_seconds": PATIENCE, **UNLIMITED}
        with running(tmp_path_factory.mktemp("edge"), vmlops_endpoints=endpoints, **patient) as edge:
            yield Stack(edge, servers)
    finally:
        for server in servers.values():
            server.close()


def run(directory: Path, *command: str) -> str:
    """Run a program in `directory` and return its output, which must not be that of a failure."""
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=PATIENCE, check=False, env=os.environ
    )
    print(*command, done.stdout, done.stderr, sep="\n")
    assert done.returncode == 0
    return done.stdout


def schemathesis(directory: Path, document: str, *options: str) -> str:
    """Run the command with its own defaults but for the number of examples."""
    (directory / "schemathesis.toml").write_text(CONFIG)
    return run(directory, "schemathesis", "run", document, "--max-examples", "5", "--seed", "1", *options)


@pytest.mark.parametrize("version", VERSIONS)
def test_schemathesis_through_the_gateway(stack: Stack, version: Version, tmp_path: Path) -> None:
    gateway = ["--auth", "admin:admin", "--tls-verify", stack.authority, "-H", f"X-Experiment-Group: {GROUP[version]}"]
    said = schemathesis(tmp_path, f"{stack.url}/openapi.json", *gateway)
    assert "14 selected / 14 total" in said


@pytest.mark.parametrize("version", VERSIONS)
def test_schemathesis_without_the_gateway(stack: Stack, version: Version, tmp_path: Path) -> None:
    server = stack.servers[version]
    document = json.loads(server.get("/openapi.json").body)  # type: ignore[attr-defined]
    del document["security"]  # it is the gateway that asks for a password
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    said = schemathesis(tmp_path, "openapi.json", "--url", f"http://127.0.0.1:{server.port}")
    assert "14 selected / 14 total" in said


# What somebody writes who has the generated package `emotions` and no other documentation.
PROGRAM = """
import ssl, sys
import httpx
from emotions import Client
from emotions.api.default import health, predict, predict_batch
from emotions.api.open_inference_protocol import model_infer, model_metadata
from emotions.models import (
    DebugPrediction, Health, InferInput, InferProblem, InferRequest, InferResponse, ModelMetadata, Prediction,
    Predictions, DebugPredictions, ProblemDocument, Sentence, Sentences,
)

url, authority, group, text, label = sys.argv[1:]
context = ssl.create_default_context(cafile=authority)
password = httpx.BasicAuth("admin", "admin")
client = Client(url, verify_ssl=context, headers={"X-Experiment-Group": group}, httpx_args={"auth": password})

assert isinstance(health.sync(client=client), Health)
one = predict.sync(client=client, body=Sentence(text))
assert isinstance(one, ANSWER) and one.prediction == label, one
both = predict_batch.sync(client=client, body=Sentences([text, text]))
assert isinstance(both, ANSWERS) and [item.prediction for item in both.predictions] == [label, label], both

refused = predict.sync(client=client, body=Sentence(" "))
assert isinstance(refused, ProblemDocument) and refused.status == 422, refused
assert refused.errors and refused.errors[0].field == "sentence", refused
stranger = predict.sync(client=Client(url, verify_ssl=context), body=Sentence(text))
assert isinstance(stranger, ProblemDocument) and stranger.status == 401, stranger

about = model_metadata.sync("emotion", client=client)
assert isinstance(about, ModelMetadata), about
tensor = InferInput(name="sentence", shape=[2], datatype="BYTES", data=[text, text])
answer = model_infer.sync("emotion", client=client, body=InferRequest([tensor]))
assert isinstance(answer, InferResponse) and answer.outputs[0].data == [label, label], answer
tensor.shape = [3]
misfit = model_infer.sync("emotion", client=client, body=InferRequest([tensor]))
assert isinstance(misfit, InferProblem) and misfit.status == 422 and misfit.error, misfit
"""
ANSWERS = {"v1": ("Prediction", "Predictions"), "v2": ("DebugPrediction", "DebugPredictions")}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_generated_client(stack: Stack, version: Version, tmp_path: Path) -> None:
    document = stack.edge.client().get("/openapi.json", headers={"X-Experiment-Group": GROUP[version]})
    assert document.status_code == 200, document.text
    (tmp_path / "openapi.json").write_bytes(document.content)
    generate = [
        "generate",
        "--path",
        "openapi.json",
        "--output-path",
        "emotions",
        "--meta",
        "none",
        "--fail-on-warning",
    ]
    run(tmp_path, "openapi-python-client", *generate)
    one, many = ANSWERS[version]
    unused = {name for names in ANSWERS.values() for name in names} - {one, many}
    program = PROGRAM.replace("ANSWERS", many).replace("ANSWER", one)
    for name in sorted(unused, key=len, reverse=True):
        program = program.replace(f" {name},", "")
    (tmp_path / "program.py").write_text(program)
    typed = ["mypy", "--config-file", os.devnull, "--strict", "--follow-imports", "silent", "program.py"]
    run(tmp_path, sys.executable, "-m", *typed)
    run(tmp_path, sys.executable, "program.py", stack.url, stack.authority, GROUP[version], TEXT, str(LABEL))


def curl(stack: Stack, path: str, *options: str) -> tuple[str, Any]:
    """Version and status of the answer, and its body."""
    written = ["--silent", "--show-error", "--write-out", "\n%{http_version} %{http_code}"]
    trusted = ["--cacert", stack.authority, "--user", "admin:admin"]
    said = run(stack.edge.directory, "curl", *written, *trusted, f"{stack.url}{path}", *options)
    body, _, status = said.rpartition("\n")
    return status, json.loads(body)


@pytest.mark.parametrize(
    ("option", "version"),
    [("--http1.0", "1.1"), ("--http1.1", "1.1"), ("--http2", "2"), ("--http2-prior-knowledge", "2")],
)
def test_curl(stack: Stack, option: str, version: str) -> None:
    sent = ["-H", "Content-Type: application/json", "-d"]
    status, answer = curl(stack, "/predict", option, *sent, json.dumps(SENTENCE))
    assert (status, answer["prediction"]) == (f"{version} 200", LABEL)
    status, answer = curl(stack, "/predict", option, *sent, "{}")
    assert (status, answer["errors"][0]["field"]) == (f"{version} 422", "sentence")
    status, answer = curl(stack, "/v2/models/emotion", option)
    assert (status, answer["name"]) == (f"{version} 200", "emotion")
    # What nginx answers by itself.
    assert curl(stack, "/health", option) == (f"{version} 200", {"status": "ok"})
    assert curl(stack, "/predict", option)[0] == f"{version} 405"


# In a process of its own: the client's library, gevent, changes the interpreter that imports it.
TRITON = """
import base64, json, ssl, sys
import numpy as np
from tritonclient.http import InferInput, InferenceServerClient

host, authority, text = sys.argv[1:]
trusted = {"ssl": True, "ssl_context_factory": lambda: ssl.create_default_context(cafile=authority)}
client = InferenceServerClient(host, **trusted)
headers = {"Authorization": "Basic " + base64.b64encode(b"admin:admin").decode()}
tensor = InferInput("sentence", [1], "BYTES")
tensor.set_data_from_numpy(np.array([text], dtype=object), binary_data=False)
assert client.is_server_ready(headers=headers) and client.is_model_ready("emotion", headers=headers)
print(json.dumps(client.infer("emotion", [tensor], headers=headers).as_numpy("label").tolist()))
"""


def test_tritonclient(stack: Stack, tmp_path: Path) -> None:
    host = stack.url.removeprefix("https://")
    said = run(tmp_path, sys.executable, "-c", TRITON, host, stack.authority, TEXT)
    assert json.loads(said) == [LABEL]
