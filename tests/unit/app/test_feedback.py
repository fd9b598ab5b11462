"""Labels of earlier predictions: taken, counted, bounded, erased, and no text where none was asked for."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from app.factory import create_app
from app.observed.feedback import Feedback
from app.settings import FeedbackSettings, Version
from release import labels
from roles.api.files import vmlops_api
from tests.paths import ROOT
from tests.replica import Server
from tests.unit.app.stub_api import LABELS, SETTINGS, Client, StubEngine

SECRET = "nobodys-business but mine"
DAY = 86400


def settings(path: Path, **changes: Any) -> FeedbackSettings:
    return FeedbackSettings(path, 90, 256, 0, 30)._replace(**changes)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "feedback.db"


Replica = Callable[..., Client]


@pytest.fixture
def replica(file: Path) -> Iterator[Replica]:
    """Return a function that starts a replica of a version, with settings of its database."""
    started = []

    def start(version: Version = "v1", **changes: Any) -> Client:
        instance = "v1@8001" if version == "v1" else "v2@8101"
        chosen = SETTINGS._replace(version=version, instance=instance, feedback=settings(file, **changes))
        app = create_app(chosen, StubEngine())
        feedback = app.metrics.feedback
        assert feedback
        feedback.start()
        started.append(feedback)
        return Client(app)

    yield start
    for feedback in started:
        feedback.close()


def predict(client: Client, request_id: str, sentence: str = "a word") -> str:
    response = client.post("/predict", json={"sentence": sentence}, headers={"X-Request-ID": request_id})
    assert response.status_code == 200, response.text
    return str(response.json()["prediction"])


def tell(client: Client, request_id: str, label: Any) -> int:
    return client.post("/feedback", json={"request_id": request_id, "label": label}).status_code


def other_than(label: str) -> str:
    return next(name for name in LABELS if name != label)


def rows(file: Path, columns: str = "*") -> list[Any]:
    with closing(sqlite3.connect(file)) as database:
        return database.execute(f"SELECT {columns} FROM predictions ORDER BY made").fetchall()


def content(file: Path) -> bytes:
    return b"".join(path.read_bytes() for path in file.parent.glob(f"{file.name}*"))


def test_a_label_is_kept_and_counted(replica: Replica, file: Path) -> None:
    client = replica()
    assert client.series()['vmlops_feedback_total{right="true"}'] == 0, "Prometheus must see the first one"
    right = predict(client, "one")
    predict(client, "two")
    assert tell(client, "one", right) == 204
    assert tell(client, "two", other_than(right)) == 204
    series = client.series()
    assert series['vmlops_feedback_total{right="true"}'] == 1
    assert series['vmlops_feedback_total{right="false"}'] == 1
    assert rows(file, "request_id, version, model_version, predicted, label") == [
        ("one", "v1", "stub00000001", right, right),
        ("two", "v1", "stub00000001", right, other_than(right)),
    ]
    assert 0 < rows(file, "confidence")[0][0] <= 1


def test_a_label_counts_once_and_the_latest_is_kept(replica: Replica, file: Path) -> None:
    client = replica()
    right = predict(client, "one")
    for label in (right, right, other_than(right)):
        assert tell(client, "one", label) == 204
    series = client.series()
    assert (series['vmlops_feedback_total{right="true"}'], series['vmlops_feedback_total{right="false"}']) == (1, 0)
    assert rows(file, "label") == [(other_than(right),)]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"request_id": "nobody", "label": "anger"}, 404, "no prediction of that request_id"),
        ({"request_id": "one", "label": "angry"}, 422, "label: must be a label of the model: anger, boredom"),
        ({"request_id": "one"}, 422, "label: is required"),
        ({"request_id": "no blanks", "label": "anger"}, 422, "request_id: "),
        ({"request_id": "x" * 65, "label": "anger"}, 422, "request_id: "),
        ({"request_id": "one", "label": "anger", "more": "x" * 1000}, 413, "1024 bytes"),
    ],
)
def test_what_cannot_be_taken_says_why(replica: Replica, body: Any, status: int, words: str) -> None:
    client = replica()
    predict(client, "one")
    response = client.post("/feedback", json=body)
    assert (response.status_code, words in response.json()["detail"]) == (status, True), response.text


def test_it_is_off_by_default() -> None:
    client = Client(create_app(SETTINGS, StubEngine()))
    assert tell(client, "one", "anger") == 404
    assert "/feedback" not in client.get("/openapi.json").json()["paths"]
    assert "vmlops_feedback" not in client.get("/metrics").text


def test_the_openapi_document_has_it(replica: Replica) -> None:
    document = replica().get("/openapi.json").json()
    operation = document["paths"]["/feedback"]["post"]
    assert set(operation["responses"]) == {"204", "400", "401", "404", "413", "415", "422", "429", "503"}
    assert document["components"]["schemas"]["LabelledRequest"]["required"] == ["request_id", "label"]


def test_a_label_is_for_both_versions_that_answered(replica: Replica, file: Path) -> None:
    """v1 answered the client, v2 a copy, under the client's id; v1 is told the label."""
    v1, v2 = replica("v1"), replica("v2")
    right = predict(v1, "one")
    copied = v2.post("/predict", json={"sentence": "a word"}, headers={"X-Request-ID": "one", "X-Shadow-Of": "0" * 32})
    assert copied.status_code == 204
    for feedback in (v1.app.metrics.feedback, v2.app.metrics.feedback):
        assert feedback
        feedback.flush()
    assert tell(v1, "one", right) == 204
    exposed = v1.get("/metrics").text
    for version in ("v1", "v2"):
        wanted = f'vmlops_feedback_total{{model_version="stub00000001",right="true",version="{version}"}} 1.0'
        assert wanted in exposed, exposed
    assert rows(file, "version, label") == [("v1", right), ("v2", right)]


def test_no_text_is_kept_unless_it_is_captured(replica: Replica, file: Path) -> None:
    client = replica()
    label = predict(client, "one", SECRET)
    assert tell(client, "one", label) == 204
    assert rows(file, "input") == [(None,)]
    assert SECRET.split()[0].encode() not in content(file)


def test_a_sample_is_captured(replica: Replica, file: Path) -> None:
    client = replica(capture_percent=25)
    for i in range(200):
        predict(client, f"id{i}", f"sentence {i}")
    assert client.app.metrics.feedback
    client.app.metrics.feedback.flush()
    kept = [json.loads(text) for (text,) in rows(file, "input") if text]
    assert 20 < len(kept) < 90
    assert all(set(one) == {"sentence"} for one in kept)


@pytest.mark.parametrize("where", ["log", "database"])
def test_what_is_forgotten_is_gone_from_the_disk(
    replica: Replica, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, where: str
) -> None:
    client = replica(capture_percent=100)
    label = predict(client, "one", SECRET)
    assert tell(client, "one", label) == 204
    predict(client, "two", "something else")
    assert tell(client, "two", label) == 204
    with closing(sqlite3.connect(file)) as database:
        if where == "database":
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert SECRET.encode() in content(file)
    monkeypatch.setattr(vmlops_api, "FEEDBACK", file)
    vmlops_api.forget("one")
    assert capsys.readouterr().out == "erased 1 predictions of request one\n"
    assert SECRET.encode() not in content(file)
    assert rows(file, "request_id") == [("two",)]
    assert tell(client, "one", label) == 404
    vmlops_api.forget("one")
    assert capsys.readouterr().out == ""


def test_old_predictions_and_older_texts_go(replica: Replica, file: Path) -> None:
    client = replica(capture_percent=100, days=10, capture_days=5)
    feedback = client.app.metrics.feedback
    assert feedback
    for name in ("old", "middle", "new"):
        predict(client, name, f"{SECRET} {name}")
    feedback.flush()
    now = time.time()
    with closing(sqlite3.connect(file)) as database, database:
        for name, days in (("old", 11), ("middle", 6)):
            database.execute("UPDATE predictions SET made = ? WHERE request_id = ?", (now - days * DAY, name))
    feedback.expire()
    assert rows(file, "request_id, input IS NULL") == [("middle", 1), ("new", 0)]
    assert f"{SECRET} middle".encode() not in content(file)


def test_the_oldest_go_where_there_is_no_room(file: Path) -> None:
    feedback = Feedback(settings(file, megabytes=1, capture_percent=100), "v1", "m", StubEngine.signature)
    score = StubEngine().score("a word")
    for i in range(600):
        feedback.record(f"id{i}", f"{i} " + "x" * 8000, score)
        if i % 20 == 19:
            feedback.flush()
    assert file.stat().st_size <= 1_000_000
    assert feedback.dropped == 0
    kept = [name for (name,) in rows(file, "request_id")]
    assert kept[-1] == "id599"
    assert kept == [f"id{i}" for i in range(600 - len(kept), 600)]
    assert len(kept) > 60


def write_many(file: Path, process: int) -> None:
    feedback = Feedback(settings(file), "v1", "m", StubEngine.signature)
    score = StubEngine().score("a word")
    for i in range(400):
        feedback.record(f"{process}-{i}", "a word", score)
        if i % 10 == 9:
            feedback.flush()
    while feedback._waiting:
        feedback.flush()
    assert feedback.dropped == 0


def test_replicas_that_write_at_once_lose_nothing(file: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_many, args=(file, number)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0, 0]
    assert len(rows(file)) == 1600


def test_predictions_go_on_where_nothing_can_be_written(tmp_path: Path) -> None:
    nowhere = tmp_path / "missing" / "feedback.db"
    app = create_app(SETTINGS._replace(feedback=settings(nowhere)), StubEngine())
    client = Client(app)
    label = predict(client, "one")
    assert app.metrics.feedback
    app.metrics.feedback.flush()
    assert client.series()["vmlops_feedback_dropped_total"] == 1
    response = client.post("/feedback", json={"request_id": "one", "label": label})
    assert (response.status_code, response.json()["detail"]) == (
        503,
        "Labels cannot be kept now. The log has the reason.",
    )


def test_two_real_replicas_share_the_database(tmp_path: Path) -> None:
    """One predicts, the other is told; what waited when one is stopped is there."""
    file = tmp_path / "feedback.db"
    environment = {
        "VMLOPS_FEEDBACK_FILE": str(file),
        "VMLOPS_FEEDBACK_DAYS": "90",
        "VMLOPS_FEEDBACK_MEGABYTES": "256",
        "VMLOPS_CAPTURE_PERCENT": "100",
        "VMLOPS_CAPTURE_DAYS": "30",
    }
    servers = []
    try:
        for version in ("v1", "v2"):
            (tmp_path / version).mkdir()
            servers.append(Server(tmp_path / version, VMLOPS_VERSION=version, **environment))
        for server in servers:
            server.wait_ready()

        def post(server: Server, path: str, body: Any, request_id: str) -> Any:
            connection = server.connect()
            headers = {"Content-Type": "application/json", "X-Request-ID": request_id}
            connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            read = answer.read()
            connection.close()
            return answer.status, read

        status, body = post(servers[0], "/predict", {"sentence": "a word"}, "one")
        assert status == 200
        told = {"request_id": "one", "label": json.loads(body)["prediction"]}
        status, body = post(servers[1], "/feedback", told, "x")
        assert status == 204, body
        assert post(servers[0], "/predict", {"sentence": "the last"}, "two")[0] == 200
        servers[0].stop()
        assert [name for (name,) in rows(file, "request_id")] == ["one", "two"]
        assert file.stat().st_mode & 0o777 == 0o660, "the accounts of the other replicas may write it"
    finally:
        for server in servers:
            server.close()


def line(request_id: str, text: str | None, version: str = "v1") -> str:
    sent = None if text is None else {"sentence": text}
    row = {"request_id": request_id, "version": version, "model_version": "m", "predicted": "fun", "confidence": 0.5}
    return json.dumps({**row, "label": "anger", "input": sent, "made": 1.0, "labelled": 2.0})


def test_labels_are_a_table_that_make_model_takes(tmp_path: Path) -> None:
    texts = [f'{i}, "quoted"\nand more' for i in range(3)]
    lines = [line(f"id{i}", text) for i, text in enumerate(texts)]
    lines += [line("id0", "the same from v2", "v2"), "", line("bare", None)]
    command = [sys.executable, "-m", "release", "labels", str(tmp_path / "out/labels.csv")]
    done = subprocess.run(
        command, cwd=ROOT, input="\n".join(lines), capture_output=True, text=True, check=True, timeout=60
    )
    assert "3 labels with what they are for; make model DATA=" in done.stdout
    assert "1 labels of predictions whose input was not kept" in done.stdout
    from model import dataset

    read = dataset.read(tmp_path / "out/labels.csv", label="label", text="sentence", fewest=0)
    assert (read.texts, read.labels) == (texts, ["anger"] * 3)
    assert (tmp_path / "out/labels.without-input.csv").read_text().splitlines()[1] == "bare,v1,m,fun,0.5,anger"


def test_labels_without_texts_make_an_empty_table(tmp_path: Path) -> None:
    assert labels.write([line("bare", None)], tmp_path / "labels.csv")[0].startswith(f"{tmp_path}/labels.csv: 0 labels")
    assert (tmp_path / "labels.csv").read_text() == "label\n"
