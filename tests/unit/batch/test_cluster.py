"""Scoring on a scheduler and workers of their own, over TLS: what is killed under a run, and who may come in."""

from __future__ import annotations

import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client, get_client
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import FeatureUnion
from tornado.iostream import IOStream

from app.engines.loading import load_engine
from batch import cluster
from batch.__main__ import main
from batch.run import Position
from model import train
from model.compile import compiled
from tests.authority import Authority
from tests.local_cluster import LocalCluster
from tests.unit.batch.conftest import SMALL, TEXTS, command, fitted, rows

ROWS = 6000
Score = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    found = LocalCluster(Authority().issue(tmp_path_factory.mktemp("cluster") / "own", "cluster"))
    found.start("scheduler", "one", "two")
    try:
        found.wait(2)
        yield found
    finally:
        found.end()
        for log in found.own.glob("*.log"):
            print(log.name, log.read_text()[-2000:])


@pytest.fixture
def there(processes: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> cluster.Access:
    monkeypatch.setattr(cluster, "access", lambda _: processes.access)
    return processes.access


@pytest.fixture
def score(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Score:
    def run(*made: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", list(made[2:]))
        status = main()
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.csv"
    path.write_text("n,text\n" + "".join(f'{n},"{TEXTS[n % len(TEXTS)]}"\n' for n in range(ROWS)))
    return path


@pytest.mark.usefixtures("there")
def test_killed_worker_and_restarted_scheduler_leave_the_bytes_as_they_are(
    processes: LocalCluster,
    score: Score,
    artifacts: Path,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("batch.tables.PIECE_BYTES", 1 << 14)
    whole, output = tmp_path / "whole.csv", tmp_path / "out.csv"
    assert score(*command(artifacts, source, whole), "--on", "cluster")[0] == 0
    faults: list[Callable[[], None]] = [lambda: processes.kill("two"), lambda: restart(processes)]

    class Breaking:
        """A report of progress that breaks something now and then."""

        def __init__(self, *_: Any) -> None:
            pass

        def __call__(self, position: Position) -> None:
            if faults and position.rows > 1500 * (3 - len(faults)):
                faults.pop(0)()

        def end(self) -> None:
            pass

    monkeypatch.setattr("batch.__main__.Progress", Breaking)
    status, _, said = score(*command(artifacts, source, output), "--on", "cluster")
    assert status == 0, said
    assert faults == []
    assert "The workers were lost after row" in said
    assert len(rows(output)) == ROWS
    assert output.read_bytes() == whole.read_bytes()


def restart(processes: LocalCluster) -> None:
    """As systemd does it: the scheduler comes back, and the worker, which ends when it loses its scheduler."""
    processes.kill("scheduler")
    come_back(processes)


def come_back(processes: LocalCluster) -> None:
    processes.running.pop("one").wait()
    processes.start("scheduler", "one")


@pytest.mark.usefixtures("there")
def test_a_tunnel_that_leads_nowhere_is_workers_that_were_lost(
    processes: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes connections and closes them, at times before TLS begins."""
    connections = []

    def start_tls(stream: IOStream, *arguments: Any, **named: Any) -> Any:
        connections.append(stream)
        stream.close()
        return begin(stream, *arguments, **named)

    begin = IOStream.start_tls
    with pytest.raises(cluster.LOST), cluster.client() as client:  # noqa: PT012
        future = client.submit(time.sleep, 60)
        monkeypatch.setattr(IOStream, "start_tls", start_tls)
        processes.kill("scheduler")
        with socket.create_server(("127.0.0.1", processes.port)):
            while len(connections) < 3:
                time.sleep(0.01)
            future.result()
    come_back(processes)


def test_each_run_is_scored_by_its_own_model(
    there: cluster.Access, score: Score, artifacts: Path, source: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    compiled(fitted(TfidfVectorizer()), other, SMALL)
    for number, model in enumerate((artifacts, other, artifacts)):
        output = tmp_path / f"out{number}.csv"
        assert score(*command(model, source, output), "--on", "cluster")[0] == 0
        assert {row["model_version"] for row in rows(output)} == {load_engine(model).model_version}


@pytest.mark.usefixtures("there")
def test_cross_validation_on_the_workers_finds_the_same_bytes() -> None:
    vectorizer = FeatureUnion([("words", TfidfVectorizer())])
    labels = np.array(SMALL.labels)
    alone = train.tune(vectorizer, train.RECIPE, TEXTS, labels)
    with cluster.joblib_workers():
        there = train.tune(vectorizer, train.RECIPE, TEXTS, labels)
        assert sum(get_client().run(lambda dask_worker: dask_worker.state.executed_count).values()) > train.FOLDS
    assert there.logits.tobytes() == alone.logits.tobytes()
    assert there[:3] == alone[:3]


def test_who_has_no_certificate_of_this_authority_is_not_heard(
    processes: LocalCluster, there: cluster.Access, tmp_path: Path
) -> None:
    stranger = Authority().issue(tmp_path / "stranger", "cluster")
    with cluster.client() as known:
        assert known.nthreads()
    for shown in (None, stranger):
        context = ssl.create_default_context(cafile=str(there.directory / "ca.crt"))
        if shown:
            context.load_cert_chain(shown / "host.crt", shown / "host.key")
        with (
            socket.create_connection(("127.0.0.1", processes.port), timeout=10) as plain,
            pytest.raises(ssl.SSLError, match=r"(?i)alert"),
            context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
        ):
            secure.recv(1)
    with socket.create_connection(("127.0.0.1", processes.port), timeout=10) as plain:
        plain.sendall(b"no TLS" * 100)
        with suppress(ConnectionResetError):
            assert plain.recv(1000)[:1] in (b"", b"\x15"), "nothing but an alert"


def test_workers_of_another_kind_are_refused_by_name(
    there: cluster.Access, score: Score, artifacts: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, remedy in (
        ("3.11 code 000000000000", "site.yml --tags workers"),
        ("2.7 code 0", "use a Python of their version"),
    ):
        monkeypatch.setattr(Client, "run", lambda *_, kind=kind, **__: {"tls://192.0.2.1:8801": kind})
        status, _, said = score(*command(artifacts, source, tmp_path / "out.csv"), "--on", "cluster")
        assert status == 1
        assert said.startswith("vmlops: 192.0.2.1:8801 have Python ")
        assert remedy in said
        assert said.count("\n") == 1


def test_what_is_missing_is_said_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "inventory/lab").mkdir(parents=True)
    for environment, message in (
        ("", "ENVIRONMENT is not set"),
        ("nowhere", "inventory/ has no such folder"),
        ("../inventory", "inventory/ has no such folder"),
        ("lab", "name hosts in its group workers"),
    ):
        with pytest.raises(cluster.ClusterError, match=message):
            cluster.access(environment, tmp_path)


def test_a_scheduler_that_is_not_there(there: cluster.Access, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = free.getsockname()[1]
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 2)
    for gone, message in (
        (there._replace(port=nobody), "the scheduler on one does not answer"),
        (there._replace(ssh=["-p", "1", "127.0.0.1"]), "cannot be reached by ssh: .*Connection refused"),
    ):
        monkeypatch.setattr(cluster, "access", lambda _, gone=gone: gone)
        with pytest.raises(cluster.ClusterError, match=message), cluster.client():
            pass
