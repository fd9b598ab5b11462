"""The way between hosts: the rendered gateway in front of a real replica, each with a certificate of one CA."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from roles.api.files.vmlops_api import Instance
from tests.authority import API, Authority, TLSServer, https
from tests.templates.gateway_edge import running


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def replica(authority: Authority, tmp_path: Path) -> Iterator[TLSServer]:
    own = authority.issue(tmp_path / "api", API)
    (tmp_path / "replica").mkdir()
    server = TLSServer(tmp_path / "replica", VMLOPS_TLS_DIR=str(own))
    try:
        server.wait_ready()
        yield server
    finally:
        server.close()


def asked_through_the_gateway(directory: Path, port: int, host: Path) -> list[int]:
    """The statuses of two predictions, of a gateway that has the certificate in `host`."""
    endpoints = [{"name": "v1@1", "version": "v1", "address": "127.0.0.1", "port": port, "asked": True}]
    names = {"directory": str(host), "group": "root", "api_name": API}
    options: dict[str, Any] = {"vmlops_endpoints": endpoints, "vmlops_mutual_tls": True, "vmlops_host_tls": names}
    directory.mkdir()
    with running(directory, **options) as edge:
        client = edge.client()
        return [client.post("/predict", json={"sentence": "x"}).status_code for _ in range(2)]


def test_the_gateway_and_a_replica_know_each_other(authority: Authority, replica: TLSServer, tmp_path: Path) -> None:
    gateway = authority.issue(tmp_path / "gateway", "gateway1")
    assert asked_through_the_gateway(tmp_path / "edge", replica.port, gateway) == [200, 200]


def answer(connection: http.client.HTTPSConnection) -> int:
    with closing(connection):
        connection.request("GET", "/version")
        return connection.getresponse().status


def test_a_replica_answers_nobody_without_a_certificate_of_the_fleet(
    authority: Authority, replica: TLSServer, tmp_path: Path
) -> None:
    known = authority.issue(tmp_path / "known", "gateway1")
    assert answer(https(replica.port, known, known)) == 200
    for shown in (
        None,
        Authority().issue(tmp_path / "other", API),
        authority.issue(tmp_path / "server", "www", (ExtendedKeyUsageOID.SERVER_AUTH,)),
    ):
        with pytest.raises((OSError, http.client.HTTPException)) as refused:
            answer(https(replica.port, known, shown))
        print(shown, repr(refused.value))


def test_the_rollout_asks_a_replica_with_the_hosts_certificate(replica: TLSServer, tmp_path: Path) -> None:
    instance = Instance("v1@8001")
    instance.environment = {"VMLOPS_BIND": f"127.0.0.1:{replica.port}", "VMLOPS_TLS_DIR": str(tmp_path / "api")}
    assert instance.is_ready()
    (tmp_path / "api/host.key").unlink()
    assert not instance.is_ready()


def test_the_gateway_asks_no_host_that_is_not_an_api_host(authority: Authority, tmp_path: Path) -> None:
    own = authority.issue(tmp_path / "api", "monitoring1")
    (tmp_path / "replica").mkdir()
    server = TLSServer(tmp_path / "replica", VMLOPS_TLS_DIR=str(own))
    try:
        server.wait_ready()
        gateway = authority.issue(tmp_path / "gateway", "gateway1")
        assert asked_through_the_gateway(tmp_path / "edge", server.port, gateway) == [503, 503]
        assert server.series("vmlops_requests_in_flight") == 0
    finally:
        server.close()
