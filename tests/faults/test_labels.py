"""What clients say of predictions on a machine: kept, listed, erased; `make labels` gives what `make model` takes."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.conftest import evidence
from tests.faults.rollouts import make, site


@pytest.fixture(scope="module")
def feedback() -> Iterator[None]:
    site("api", "gateway", vmlops_feedback=True, api_capture_percent=100)
    yield
    site("api", "gateway")


@pytest.mark.usefixtures("feedback")
def test_a_label_that_a_client_sends_is_listed_with_its_text_until_it_is_erased(
    client: httpx.Client, host: Any, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    said: dict[str, str] = {}
    for sentence in ("a label will come for this", "and for this one, too"):
        answer = client.post("/predict", json={"sentence": sentence})
        assert answer.status_code == 200, evidence(answer)
        request = {"request_id": answer.headers["X-Request-ID"], "label": "surprise"}
        # A thread writes five times a second what was predicted.
        eventually(lambda r=request: client.post("/feedback", json=r).status_code == 204, "the label is taken", 10)
        said[request["request_id"]] = sentence
    unknown = client.post("/feedback", json={"request_id": "nobody-had-this", "label": "surprise"})
    assert unknown.status_code == 404, evidence(unknown)

    def listed() -> set[str]:
        status, out = make("labels", f"OUTPUT={tmp_path}/labels.csv")
        assert status == 0, out
        with (tmp_path / "labels.csv").open(encoding="utf-8") as file:
            return {row["sentence"] for row in csv.DictReader(file) if row["label"] == "surprise"}

    assert listed() >= set(said.values())
    erased, kept = said
    status, out = make("forget", f"ID={erased}")
    assert status == 0, out
    assert listed() & set(said.values()) == {said[kept]}
    holding = "cat /var/lib/vmlops-feedback/* | grep -acF '{}'"
    assert host.run(holding.format(said[erased])).stdout == "0\n", "it is still in the database or in its log"
    assert host.run(holding.format(said[kept])).stdout != "0\n", "the other one is gone, too"
    assert make("forget", f"ID={kept}")[0] == 0
