"""The rendered tree in the distribution's nginx, on loopback, in front of stub replicas: seconds, and no machine."""

from __future__ import annotations

import datetime
import json
import os
import signal
import socket
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.paths import ROOT
from tests.ports import free_port
from tests.templates.gateway_stub import Answer, Gate, Replica, echo
from tests.templates.render import evaluate, render

TOOLS = ROOT / "build/tools"
NGINX = str(TOOLS / "usr/sbin/nginx")
# Workers that change their user could not read the directory of a test.
USER = "root" if os.geteuid() == 0 else ""
USERS = [{"name": "admin", "password": "admin"}]
OPERATORS = [{"name": "operator", "password": "watch"}]


def certificate(directory: Path) -> None:
    """server.crt and server.key for localhost and 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edge under test")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    built = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    (directory / "server.crt").write_bytes(built.public_bytes(serialization.Encoding.PEM))
    (directory / "server.key").write_bytes(pem)


def places(directory: Path, http: int, https: int) -> dict[str, Any]:
    """The role's variables that say where nginx listens, what it loads and where it writes: below `directory` and on loopback."""
    return {
        "vmlops_tls_certificate": str(directory / "server.crt"),
        "vmlops_tls_key": str(directory / "server.key"),
        "vmlops_http_port": http,
        "vmlops_https_port": https,
        "vmlops_access_log": str(directory / "log/vmlops.access.json"),
        "_gateway_user": USER,
        "_gateway_http_listen": [f"127.0.0.1:{http}", f"[::1]:{http}"],
        "_gateway_https_listen": [f"127.0.0.1:{https}", f"[::1]:{https}"],
        "_gateway_modules": str(TOOLS / "usr/lib/nginx/modules"),
        "_gateway_mime_types": str(TOOLS / "etc/nginx/mime.types"),
        "_gateway_accounts": str(directory),
        "_gateway_pid": str(directory / "run/nginx.pid"),
        "_gateway_verdicts": str(directory / "run/vmlops-verdicts"),
        "_gateway_verifier": str(directory / "run/vmlops-verifier"),
        "_gateway_temp": str(directory),
        "_gateway_error_log": str(directory / "log/error.log"),
        "_gateway_www": str(ROOT / "roles/gateway/files/www"),
    }


def write_tree(directory: Path, http: int = 80, https: int = 443, **options: Any) -> None:
    """The tree as the role renders it with `options`, for `directory` and loopback."""
    options = places(directory, http, https) | {"gateway_users": USERS, "gateway_operators": OPERATORS} | options
    for place in ("log", "run/vmlops-verifier", "vmlops"):
        (directory / place).mkdir(parents=True, exist_ok=True)
    tree: dict[str, str] = evaluate("_gateway_tree", "gateway", **options)
    for name, text in tree.items():
        (directory / name).write_text(text)
    write_accounts(directory, **options)


def write_accounts(directory: Path, *, derive: bool = True, **options: Any) -> None:
    """Who may use what, and, with `derive`, what nginx knows of it."""
    for realm in ("users", "operators"):
        item = {"name": realm, "accounts": options[f"gateway_{realm}"]}
        (directory / f"vmlops.{realm}").write_text(render("gateway", "etc/nginx/users", item=item, **options))
    if derive:
        subprocess.run([ROOT / "roles/gateway/files/vmlops-accounts", directory], check=True)


def gateway_command(directory: Path, *arguments: str) -> list[str]:
    return [
        NGINX,
        "-p",
        str(directory),
        "-e",
        str(directory / "log/error.log"),
        "-c",
        str(directory / "nginx.conf"),
        *arguments,
    ]


def verifier_command(directory: Path, *arguments: str) -> list[str]:
    prefix, main = directory / "run/vmlops-verifier", directory / "vmlops/verifier.conf"
    user = ["-g", f"user {USER};"] if USER else []
    return [NGINX, "-p", str(prefix), "-e", "stderr", "-c", str(main), *user, *arguments]


def check(directory: Path) -> str:
    """What nginx -t says about the gateway's tree and the verifier's; empty where both are right."""
    said = ""
    for command in (gateway_command(directory, "-e", "stderr", "-t", "-q"), verifier_command(directory, "-t", "-q")):
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=30, check=False, cwd=directory / "run/vmlops-verifier"
        )
        said += done.stderr or ("" if done.returncode == 0 else f"exit code {done.returncode}")
    return said


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition: Callable[[], object], what: str, seconds: float = 10.0) -> None:
    """Poll until `condition` is true. Fail, naming `what`, when it does not become so in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen in {seconds} s"
        time.sleep(0.01)


@dataclass
class Edge:
    """A running gateway, its verifier and its replicas."""

    directory: Path
    http: int
    https: int
    ports: dict[str, int]
    replicas: list[Replica]
    gateway: subprocess.Popen[bytes]
    verifier: subprocess.Popen[bytes]
    clients: list[httpx.Client] = field(default_factory=list)

    def client(self, source: str = "127.0.0.1", *, http2: bool = False, **options: Any) -> httpx.Client:
        """A client with a source address of its own, so with a bucket of its own in every limit."""
        context = ssl.create_default_context(cafile=str(self.directory / "server.crt"))
        transport = httpx.HTTPTransport(verify=context, local_address=source, http2=http2)
        url = f"https://127.0.0.1:{self.https}"
        options = {"auth": ("admin", "admin"), "base_url": url, "timeout": 20.0, **options}
        client = httpx.Client(transport=transport, **options)
        self.clients.append(client)
        return client

    @cached_property
    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.directory / "server.crt"))

    def ask(self, source: str, *headers: str) -> Any:
        """The JSON that a new connection from `source` is answered: for thousands of clients, for which httpx is slow."""
        lines = [
            "POST /predict HTTP/1.1",
            "Host: localhost",
            "Authorization: Basic YWRtaW46YWRtaW4=",
            "Connection: close",
        ]
        request = "\r\n".join([*lines, *headers, "Content-Length: 2", "", "{}"])
        with (
            socket.create_connection(("127.0.0.1", self.https), timeout=20, source_address=(source, 0)) as plain,
            self.context.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            connection.sendall(request.encode())
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
        return json.loads(answer.partition(b"\r\n\r\n")[2])

    def answered(self) -> Counter[str]:
        """Requests by the replica that got them."""
        return Counter(seen.replica for replica in self.replicas for seen in replica.seen)

    @contextmanager
    def answering(self, answer: Answer) -> Iterator[None]:
        """Every replica answers so meanwhile."""
        for replica in self.replicas:
            replica.answer = answer
        try:
            yield
        finally:
            for replica in self.replicas:
                replica.answer = echo

    def gate(self, only: str = "") -> Gate:
        """Replicas (those whose name starts with `only`) that do not answer before the gate is opened."""
        return Gate([replica for replica in self.replicas if replica.name.startswith(only)])

    @contextmanager
    def monitoring(self) -> Iterator[tuple[Replica, Replica]]:
        """Stubs of Prometheus and Grafana."""
        stubs = Replica("prometheus", self.ports["prometheus"]), Replica("grafana", self.ports["grafana"])
        try:
            yield stubs
        finally:
            for stub in stubs:
                stub.stop()

    def access_log(self, *wanted: str) -> dict[str, dict[str, Any]]:
        """The lines so far by request id, those of the ids `wanted` among them.

        nginx's workers write their buffers out when told to open the logs anew, each in its own time: lines are in any order.
        """
        path = self.directory / "log/vmlops.access.json"
        lines: dict[str, dict[str, Any]] = {}

        def is_complete() -> bool:
            whole = path.read_text().rpartition("\n")[0]
            lines.update((line["request_id"], line) for line in map(json.loads, whole.splitlines()))
            return lines.keys() >= set(wanted)

        self.gateway.send_signal(signal.SIGUSR1)
        wait_for(is_complete, f"the lines of {wanted} in the access log")
        return lines

    def verifier_seconds(self) -> float:
        """Processor time that the verifier and its workers have used."""
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if self.verifier.pid in (int(stat.parent.name), int(fields[1])):
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def running(directory: Path, replicas: int = 3, http: int = 0, https: int = 0, **options: Any) -> Iterator[Edge]:
    """The gateway in front of `replicas` stubs of v1 and one of v2, rendered with `options`."""
    stubs = [Replica(f"v1@{number}", free_port()) for number in range(replicas)] + [Replica("v2@0", free_port())]
    endpoints = [
        {"name": stub.name, "version": stub.name[:2], "address": "127.0.0.1", "port": stub.port, "asked": True}
        for stub in stubs
    ]
    ports = {name: free_port() for name in ("nginx_status", "prometheus", "alertmanager", "grafana")}
    http, https = http or free_port(), https or free_port()
    certificate(directory)
    made = {"vmlops_endpoints": endpoints, "vmlops_ports": ports, "gateway_shadow_port": free_port()}
    write_tree(directory, http, https, **(made | options))
    runtime = directory / "run/vmlops-verifier"
    with (directory / "log/stderr").open("wb") as log:
        verifier = subprocess.Popen(verifier_command(directory), cwd=runtime, stderr=log)
        gateway = subprocess.Popen(gateway_command(directory, "-g", "daemon off;"), stderr=log)
    edge = Edge(directory, http, https, ports, stubs, gateway, verifier)
    try:
        wait_for(runtime.with_suffix(".socket").exists, "the start of the verifier")
        wait_for(lambda: listens(https), "the start of nginx")
        yield edge
    finally:
        for client in edge.clients:
            client.close()
        for process in (gateway, verifier):
            process.terminate()
            process.wait(10)
        for stub in stubs:
            stub.stop()
