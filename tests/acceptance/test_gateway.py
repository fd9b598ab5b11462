"""The gateway as a client meets it on the machine, and as an operator finds it there."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.acceptance.conftest import SENTENCE, Machine, evidence

PROBLEM = {"type", "title", "status", "detail", "request_id"}


def problem(answer: httpx.Response) -> Any:
    assert answer.headers["content-type"] == "application/problem+json", evidence(answer)
    document = answer.json()
    assert set(document) >= PROBLEM, evidence(answer)
    assert document["status"] == answer.status_code, evidence(answer)
    assert document["request_id"] == answer.headers["x-request-id"], evidence(answer)
    return document


def test_what_is_published(client: httpx.Client) -> None:
    for path in ("/", "/health", "/docs", "/openapi.json", "/ready", "/version", "/v2/health/ready"):
        assert client.get(path).status_code == 200, path
    for path in ("/metrics", "/nginx_status", "/stub_status", "/index.html", "/.verdict/users"):
        answer = client.get(path)
        assert answer.status_code == 404, path
        problem(answer)


def test_every_page_of_the_docs_loads_under_its_policy(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert "default-src 'none'" in page.headers["content-security-policy"], evidence(page)
    for link in re.findall(r'(?:href|src)="(docs/[^"]+)"', page.text):
        assert client.get(f"/{link}").status_code == 200, link


def test_errors_look_alike_from_nginx_and_from_the_api(
    client: httpx.Client, rested: None, eventually: Callable[..., Any]
) -> None:
    def post(content: bytes, **options: Any) -> Any:
        headers = {"Content-Type": "application/json"}
        return eventually(
            lambda: (
                (answer := client.post("/predict", content=content, headers=headers, **options)).status_code != 429
                and answer
            ),
            "an answer that is not limited",
        )

    assert problem(post(b"{", auth=("admin", "wrong")))["status"] == 401
    assert problem(post(b"x" * 70_000))["status"] == 413
    assert problem(post(b"{"))["status"] == 400
    assert problem(post(b'{"sentence": 1}'))["status"] == 422
    assert problem(post(json.dumps({"sentence": "x" * 9000}).encode()))["status"] == 413
    answer = client.get("/docs", headers={"Host": "example.org"})
    assert problem(answer)["status"] == 421


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_tls(machine: Machine, version: str) -> None:
    context = ssl.create_default_context(cafile=str(machine.ca_file))
    context.maximum_version = context.minimum_version = ssl.TLSVersion[version]
    with (
        socket.create_connection(machine.https, timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=machine.https[0]) as connection,
    ):
        print(connection.version(), connection.cipher(), connection.getpeercert())
        assert connection.version() == version.replace("_", ".").replace("TLSv", "TLSv")


def test_old_tls_is_refused(machine: Machine) -> None:
    context = ssl._create_unverified_context()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with socket.create_connection(machine.https, timeout=10) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain)


def test_http2(machine: Machine) -> None:
    with machine.client(http2=True) as client:
        assert client.get("/health").http_version == "HTTP/2"


def test_a_client_without_a_name_is_served(machine: Machine) -> None:
    """Clients that use an address send no name in the handshake."""
    context = ssl.create_default_context(cafile=str(machine.ca_file))
    context.check_hostname = False
    connection = http.client.HTTPSConnection(*machine.https, context=context, timeout=10)
    connection.request("GET", "/health")
    assert connection.getresponse().status == 200
    connection.close()


def test_the_request_id_goes_all_the_way(
    host: Any, client: httpx.Client, rested: None, eventually: Callable[..., Any]
) -> None:
    answer = client.post(
        "/predict", json=SENTENCE, headers={"X-Request-ID": "from-the-client.1", "X-Experiment-Group": "debug"}
    )
    assert answer.headers["x-request-id"] == "from-the-client.1", evidence(answer)
    line = eventually(
        lambda: host.run("grep -h from-the-client.1 /var/log/nginx/vmlops.access.json").stdout,
        "the line in the access log",
        5,
    )
    fields = json.loads(line.splitlines()[-1])
    print(fields)
    assert fields["route"] == "/predict"
    assert fields["version"] == "v2"
    assert fields["upstream_status"] == "200"


def test_secrets_are_for_those_who_need_them(host: Any) -> None:
    for path, mode, group in (
        ("/etc/nginx/vmlops.users", 0o640, "vmlops-verifier"),
        ("/etc/nginx/vmlops.operators", 0o640, "vmlops-verifier"),
        ("/etc/nginx/vmlops.names", 0o640, "vmlops-verifier"),
        ("/etc/nginx/vmlops.key", 0o600, "root"),
        ("/etc/vmlops/tls/server.key", 0o600, "root"),
    ):
        file = host.file(path)
        assert (file.mode, file.user, file.group) == (mode, "root", group), path
    assert host.file("/run/vmlops-verdicts").mode == 0o700
    assert host.file("/etc/nginx/vmlops.users").content_string.startswith("admin:$6$rounds=100000$")


def test_an_account_that_is_removed_is_refused_at_once(
    host: Any, client: httpx.Client, eventually: Callable[..., Any]
) -> None:
    """Without a run of the playbook: vmlops-accounts.path drops every remembered verdict when the file changes."""
    users = "/etc/nginx/vmlops.users"

    def status() -> int:
        return client.get("/version", auth=("second", "admin")).status_code

    assert status() == 401
    assert host.run(f"cp -p {users} {users}.before && sed -n 's/^admin:/second:/p' {users}.before >> {users}").rc == 0
    try:
        eventually(lambda: status() == 200, "the second account", 10)
    finally:
        host.run(f"mv {users}.before {users}")
    eventually(lambda: status() == 401, "the end of the second account", 10)
    assert client.get("/version").status_code == 200


def test_the_logs_are_for_their_readers(host: Any) -> None:
    for log in ("/var/log/nginx/vmlops.access.json", "/var/log/nginx/error.log"):
        file = host.file(log)
        assert (file.mode, file.group) == (0o640, "adm"), log


def test_the_verifier_is_locked_in(host: Any) -> None:
    exposure = host.run("systemd-analyze security --no-pager vmlops-verifier.service").stdout
    print(exposure)
    assert float(re.findall(r"exposure level for \S+: ([0-9.]+)", exposure)[0]) < 3
    assert host.check_output("systemctl show --property=NRestarts --value vmlops-verifier.service") == "0"


def test_logs_are_rotated_and_written_on(host: Any, client: httpx.Client, eventually: Callable[..., Any]) -> None:
    log = "/var/log/nginx/vmlops.access.json"
    client.get("/health", headers={"X-Request-ID": "before-rotation"})
    rotated = host.run("logrotate --force /etc/logrotate.d/vmlops-gateway")
    assert rotated.rc == 0, rotated.stderr

    def written() -> bool:
        # Each worker opens the new file when it gets to it, so the first request may still be in the old one.
        client.get("/health", headers={"X-Request-ID": "after-rotation"})
        return "after-rotation" in host.file(log).content_string

    eventually(written, "the new log is written")
    assert "before-rotation" not in host.file(log).content_string
    assert host.file(log).mode == 0o640


def test_a_log_that_grows_too_large_is_put_away_within_the_hour(host: Any) -> None:
    timer = host.check_output("systemctl show logrotate.timer --property=TimersCalendar --property=ActiveState")
    assert re.findall(r"OnCalendar=(\S+ \S+)", timer) == ["*-*-* *:00:00"], timer
    assert "ActiveState=active" in timer


def test_the_live_configuration_is_what_nginx_accepts(host: Any) -> None:
    tested = host.run("nginx -t")
    assert tested.rc == 0, tested.stderr
    assert "warn" not in tested.stderr
    assert host.run("ls -A /etc/nginx | grep staged").stdout == ""


def test_operators_pages(client: httpx.Client) -> None:
    assert client.get("/prometheus/classic/graph", auth=None).status_code == 401
    answer = client.get("/prometheus/api/v1/status/runtimeinfo")
    assert answer.status_code == 200, evidence(answer)
