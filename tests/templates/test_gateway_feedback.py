"""Labels through the gateway: with a password, within a limit of their own, on the client's side, from host to host."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.templates.gateway_edge import Edge, running, wait_for
from tests.templates.gateway_stub import Seen, echo
from tests.templates.render import render

LABEL = {"request_id": "one", "label": "anger"}
DEBUG = {"X-Experiment-Group": "debug"}


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    with running(
        tmp_path_factory.mktemp("edge"),
        vmlops_feedback=True,
        gateway_rate=1,
        gateway_shadow_percent=100,
        _gateway_api_hosts=2,
    ) as edge:
        yield edge


def unknown(_: Seen) -> tuple[int, bytes]:
    return 404, b"{}"


def test_labels_go_to_the_side_that_the_client_is_on(edge: Edge) -> None:
    client = edge.client("127.1.0.1")
    taken = client.post("/feedback", json=LABEL, headers={"X-Request-ID": "taken"})
    assert taken.json()["replica"].startswith("v1")
    assert client.post("/feedback", json=LABEL, headers=DEBUG).json()["replica"] == "v2@0"
    assert client.get("/feedback").status_code == 405
    assert edge.client("127.1.0.2", auth=("admin", "wrong")).post("/feedback", json=LABEL).status_code == 401
    assert client.post("/feedback", content=b"x" * 1025).status_code == 413
    logged = edge.access_log("taken")["taken"]
    assert (logged["route"], logged["status"]) == ("/feedback", 200)


def test_labels_have_a_limit_of_their_own(edge: Edge) -> None:
    client = edge.client("127.1.0.3")
    statuses = [client.post("/feedback", json=LABEL).status_code for _ in range(12)]
    assert statuses == [200] * 10 + [429] * 2
    assert client.post("/predict", json={"sentence": "x"}).status_code == 200


def test_labels_are_not_copied(edge: Edge) -> None:
    before = len(edge.replicas[3].seen)
    edge.client("127.1.0.4").post("/feedback", json=LABEL)
    # This is copied, after what came before it. A copy of an earlier test's prediction may be on its way still.
    edge.client("127.1.0.4").post("/predict", json={"sentence": "x"}, headers={"X-Request-ID": "copied"})

    def seen() -> list[Seen]:
        return edge.replicas[3].seen[before:]

    wait_for(lambda: any(one.headers["x-request-id"] == "copied" for one in seen()), "the copy of the prediction")
    assert {one.path for one in seen()} == {"/predict"}


def test_an_unknown_id_takes_no_replica_out(edge: Edge) -> None:
    with edge.answering(unknown):
        assert edge.client("127.1.0.5").post("/feedback", json=LABEL).status_code == 404
    with edge.answering(lambda _: (503, b"{}")):
        assert edge.client("127.1.0.5").post("/feedback", json=LABEL).status_code == 503
    client = edge.client("127.1.0.6")
    assert [client.post("/predict", json={"sentence": "x"}).status_code for _ in range(6)] == [200] * 6


def test_the_next_host_is_asked(edge: Edge) -> None:
    """Each host keeps its own predictions, and the stubs say that they are on different ones."""
    for replica in edge.replicas[:2]:
        replica.answer = unknown
    try:
        answers = {edge.client("127.1.0.7").post("/feedback", json=LABEL).json().get("replica") for _ in range(4)}
    finally:
        for replica in edge.replicas[:2]:
            replica.answer = echo
    assert answers == {"v1@2"}


def test_one_host_is_asked_once() -> None:
    assert "http_404" not in render("gateway", "etc/nginx/vmlops/proxy_feedback.conf", vmlops_feedback=True)
