"""The contract with existing clients: requests, answers, headers, limits."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.acceptance.conftest import SENTENCE, Machine, evidence

# Written out once more on purpose: what clients were promised must not follow a change of the code that is tested.
LABELS = {
    "anger",
    "boredom",
    "empty",
    "enthusiasm",
    "fun",
    "happiness",
    "hate",
    "love",
    "neutral",
    "relief",
    "sadness",
    "surprise",
    "worry",
}


@pytest.fixture
def predict(client: httpx.Client, eventually: Callable[..., Any]) -> Callable[..., httpx.Response]:
    """Post a sentence; where an earlier test has used the rate up, wait until it is free again."""

    def post(headers: dict[str, str] | None = None, **options: Any) -> httpx.Response:
        def attempt() -> httpx.Response | None:
            response = client.post("/predict", json=SENTENCE, headers=headers, **options)
            return None if response.status_code == 429 else response

        answered: httpx.Response = eventually(attempt, "an answer that is not limited")
        return answered

    return post


def test_v1_answers_with_one_of_the_labels(predict: Callable[..., httpx.Response]) -> None:
    response = predict()
    assert response.status_code == 200, evidence(response)
    assert response.json()["prediction"] in LABELS, evidence(response)
    assert response.json()["model_version"], evidence(response)
    assert "prediction_proba_dict" not in response.json(), evidence(response)


def test_debug_header_leads_to_v2_with_all_probabilities(predict: Callable[..., httpx.Response]) -> None:
    response = predict({"X-Experiment-Group": "debug"})
    assert response.status_code == 200, evidence(response)
    probabilities = response.json()["prediction_proba_dict"]
    assert set(probabilities) == LABELS, evidence(response)
    assert sum(probabilities.values()) == pytest.approx(1, abs=1e-6), evidence(response)
    assert response.json()["prediction"] == max(probabilities, key=probabilities.get), evidence(response)


@pytest.mark.parametrize("group", ["", "Debug", "debug2", "xdebug", "DEBUG", "control"])
def test_any_other_group_leads_to_v1(predict: Callable[..., httpx.Response], group: str) -> None:
    response = predict({"X-Experiment-Group": group})
    assert response.status_code == 200, evidence(response)
    assert "prediction_proba_dict" not in response.json(), evidence(response)


@pytest.mark.parametrize("auth", [("admin", "wrong"), ("nobody", "admin"), None])
def test_wrong_password_is_refused(predict: Callable[..., httpx.Response], auth: tuple[str, str] | None) -> None:
    response = predict(auth=auth)
    assert response.status_code == 401, evidence(response)
    assert response.headers["www-authenticate"].startswith("Basic "), evidence(response)


def test_v1_requests_reach_every_replica(host: Any, machine: Machine, predict: Callable[..., httpx.Response]) -> None:
    replicas = [name for name in machine.instances if name.startswith("v1@")]
    before = {name: served(host, name) for name in replicas}
    for _ in range(12):
        assert predict().status_code == 200
    grown = {name: served(host, name) - before[name] for name in replicas}
    assert all(grown.values()), grown


def served(host: Any, name: str) -> float:
    """Predictions that an instance has answered, by its own count."""
    metrics = host.check_output("curl -sf http://127.0.0.1:%s/metrics", name.partition("@")[2])
    lines = [line for line in metrics.splitlines() if line.startswith("vmlops_predictions_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_more_than_ten_a_second_are_limited_and_recover(
    machine: Machine, rested: None, eventually: Callable[..., Any]
) -> None:
    with machine.client() as client:
        started = time.monotonic()
        codes = Counter(client.post("/predict", json=SENTENCE).status_code for _ in range(40))
        seconds = time.monotonic() - started
        assert set(codes) == {200, 429}, codes
        # 10 a second, and a burst of at most one second's worth.
        assert codes[200] <= 10 * seconds + 11, (codes, seconds)
        eventually(lambda: client.post("/predict", json=SENTENCE).status_code == 200, "200 again after a pause", 5)


def test_http_redirects_to_https(machine: Machine) -> None:
    response = httpx.get("http://{}:{}/predict?a=b".format(*machine.http))
    assert response.status_code in (301, 308), evidence(response)
    assert response.headers["location"] == f"{machine.url}/predict?a=b", evidence(response)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "address", "hostname"])
def test_certificate_is_verified_for_every_name(machine: Machine, host: Any, name: str) -> None:
    name = {"address": machine.address, "hostname": machine.name}.get(name, name)
    curl = "curl -sS -o /dev/null -w '%{http_code} %{ssl_verify_result}' --cacert /dev/stdin"
    command = f"{curl} --resolve {name}:443:127.0.0.1 https://{name}/health"
    result = host.run(f"printf %s '{machine.ca_file.read_text()}' | {command}")
    assert result.stdout == "200 0", (result.stdout, result.stderr)


@pytest.mark.parametrize(("port", "path"), [("prometheus", "/api/v1/status/runtimeinfo"), ("prometheus", "/-/ready")])
def test_monitoring_answers_on_loopback(host: Any, machine: Machine, port: str, path: str) -> None:
    result = host.run(f"curl -s -o /dev/null -w '%{{http_code}}' http://127.0.0.1:{machine.ports[port]}{path}")
    assert result.stdout == "200", (result.stdout, result.stderr)
