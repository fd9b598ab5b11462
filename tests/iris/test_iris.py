"""A model of a table beside the texts': import, rollout to v2, predictions, page, drift, Open Inference Protocol."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.acceptance.conftest import SENTENCE, Machine, evidence
from tests.iris.conftest import README
from tests.readme import command_lines

DEBUG = {"X-Experiment-Group": "debug"}
SETOSA = {"sepal_length_cm": 5.1, "sepal_width_cm": 3.5, "petal_length_cm": 1.4, "petal_width_cm": 0.2}
VIRGINICA = {"sepal_length_cm": 6.3, "sepal_width_cm": 3.3, "petal_length_cm": 6.0, "petal_width_cm": 2.5}

# In a process of its own: the client's library, gevent, changes the interpreter that imports it.
CLIENT = """
import base64, json, ssl, sys
import numpy as np
from tritonclient.http import InferInput, InferenceServerClient, InferRequestedOutput

url, ca_file, account, flowers = json.loads(sys.argv[1])
context = ssl.create_default_context(cafile=ca_file)
client = InferenceServerClient(url.removeprefix("https://"), ssl=True, ssl_context_factory=lambda: context)
word = base64.b64encode(account.encode()).decode()
headers = {"X-Experiment-Group": "debug", "Authorization": f"Basic {word}"}
assert client.is_model_ready("iris", headers=headers)
inputs = []
for column in client.get_model_metadata("iris", headers=headers)["inputs"]:
    inputs.append(InferInput(column["name"], [len(flowers)], column["datatype"]))
    inputs[-1].set_data_from_numpy(np.array([flower[column["name"]] for flower in flowers]), binary_data=False)
outputs = [InferRequestedOutput(name, binary_data=False) for name in ("label", "probabilities")]
result = client.infer("iris", inputs, outputs=outputs, headers=headers)
print(json.dumps([result.as_numpy("label").tolist(), result.as_numpy("probabilities").shape]))
"""

pytestmark = pytest.mark.usefixtures("deployed")


def test_it_is_imported_and_rolled_out(deployed: list[str], client: httpx.Client) -> None:
    assert "takes 4 columns, gives 3 labels, engine compiled" in deployed[0]
    version = client.get("/version", headers=DEBUG).json()
    assert version["model_version"] in deployed[0], version


def test_the_curl_of_its_readme(machine: Machine) -> None:
    (command,) = [line for line in command_lines(README) if line.startswith("curl ")]
    command = command.replace("certs/ca.crt", str(machine.ca_file))
    command += f" --silent --show-error --fail --connect-to localhost:443:{':'.join(map(str, machine.https))}"
    done = subprocess.run(command, shell=True, check=False, capture_output=True, text=True)
    answer = json.loads(done.stdout)
    assert answer["prediction"] == "setosa", answer
    assert sum(answer["prediction_proba_dict"].values()) == pytest.approx(1)
    assert answer["top_columns"][0]["column"].startswith("petal"), answer


def test_v1_goes_on_with_the_texts(client: httpx.Client) -> None:
    answer = client.post("/predict", json=SENTENCE)
    assert answer.status_code == 200, evidence(answer)
    assert client.post("/predict", json=SETOSA).status_code == 422


def test_what_is_no_flower_is_told_which_column(client: httpx.Client) -> None:
    answer = client.post("/predict", json={**SETOSA, "petal_width_cm": "wide"}, headers=DEBUG)
    assert answer.status_code == 422, evidence(answer)
    assert answer.json()["errors"][0]["field"] == "petal_width_cm"


def test_the_page_asks_for_the_columns(machine: Machine, browser: Browser) -> None:
    user, password = machine.credentials
    context = browser.new_context(
        ignore_https_errors=True, http_credentials={"username": user, "password": password}, base_url=machine.url
    )
    try:
        page = context.new_page()
        page.goto("/")
        expect(page.get_by_role("heading", name="Ask the model “iris”")).to_be_visible()
        for column, value in VIRGINICA.items():
            page.get_by_label(column).fill(str(value))
        page.get_by_role("button", name="Ask").click()
        expect(page.locator("#label")).to_have_text("virginica")
        expect(page.locator("#bars tr")).to_have_count(3)
    finally:
        context.close()


def test_open_inference_protocol(machine: Machine) -> None:
    """With the public client library, through the gateway."""
    arguments = json.dumps([machine.url, str(machine.ca_file), ":".join(machine.credentials), [SETOSA, VIRGINICA]])
    done = subprocess.run([sys.executable, "-c", CLIENT, arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [["setosa", "virginica"], [2, 3]]


def test_drift_of_each_column(client: httpx.Client, host: Any, eventually: Callable[..., Any]) -> None:
    """The same flower over and over is not as in the data, and Prometheus says so, by column."""
    for _ in range(3):
        answer = client.post("/predict/batch", json=[SETOSA] * 250, headers=DEBUG)
        assert answer.status_code == 200, evidence(answer)
    query = "curl -s --data-urlencode 'query=vmlops_drift_psi{version=\"v2\"}' http://127.0.0.1:9090/api/v1/query"

    def drifted() -> set[str]:
        result = json.loads(host.check_output(query))["data"]["result"]
        found = {series["metric"]["distribution"] for series in result if float(series["value"][1]) > 0.25}
        return found if found >= {"label", *(f"column {column}" for column in SETOSA)} else set()

    assert eventually(drifted, "every column drifts", 60)
