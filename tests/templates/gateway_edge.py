"""The role's rendered tree in the distribution's nginx, on loopback ports, in front of stub replicas: behaviour in seconds, without a machine."""

from __future__ import annotations

import datetime
import json
import os
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.templates.render import ROOT, evaluate, render

TOOLS = ROOT / "build/tools"
NGINX = TOOLS / "usr/sbin/nginx"
USER = "user root;" if os.geteuid() == 0 else ""
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
USERS = [{"name": "admin", "password": "admin"}]
OPERATORS = [{"name": "operator", "password": "watch"}]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def certificate(directory: Path) -> None:
    """server.crt and server.key, signed by itself, for localhost and 127.0.0.1."""
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
    (directory / "server.crt").write_bytes(built.public_bytes(serialization.Encoding.PEM))
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (directory / "server.key").write_bytes(pem)


@dataclass
class Seen:
    """A request as a replica got it."""

    replica: str
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Answer = Callable[[Seen], tuple[int, bytes]]


def echo(seen: Seen) -> tuple[int, bytes]:
    return 200, json.dumps({"replica": seen.replica, "path": seen.path}).encode()


class Replica:
    """A stub of the API on a port of its own. `answer` may be exchanged while it runs; stop() closes the port."""

    def __init__(self, name: str, port: int) -> None:
        self.name, self.port = name, port
        self.seen: list[Seen] = []
        self.answer: Answer = echo
        self.start()

    def start(self) -> None:
        replica = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                seen = Seen(replica.name, self.command, self.path, headers, body)
                replica.seen.append(seen)
                status, content = replica.answer(seen)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_DELETE = do_POST

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that went away is nothing to report."""

        self.server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@dataclass
class Edge:
    """A running gateway."""

    directory: Path
    https: int
    http: int
    ports: dict[str, int]
    replicas: list[Replica]
    gateway: subprocess.Popen[bytes] | None = None
    verifier: subprocess.Popen[bytes] | None = None
    clients: list[httpx.Client] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.https}"

    def client(self, source: str = "127.0.0.1", **options: Any) -> httpx.Client:
        """A client with a source address of its own, so with a bucket of its own in every limit."""
        options = {"auth": ("admin", "admin"), "base_url": self.url, "timeout": 20.0} | options
        transport = httpx.HTTPTransport(
            verify=httpx.create_ssl_context(verify=str(self.directory / "server.crt")),
            local_address=source,
            http2=options.pop("http2", False),
        )
        client = httpx.Client(transport=transport, **options)
        self.clients.append(client)
        return client

    def log(self) -> list[dict[str, Any]]:
        """The access log so far; nginx writes out its buffer when told to open its logs anew."""
        assert self.gateway
        lines = (self.directory / "log/vmlops.access.json").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def answered(self) -> Counter[str]:
        return Counter(seen.replica for replica in self.replicas for seen in replica.seen)


def write_tree(directory: Path, http: int = 80, https: int = 443, **options: Any) -> None:
    """The tree as the role renders it with `options`, with its paths and ports moved to `directory` and loopback."""
    options = {
        "vmlops_tls_certificate": str(directory / "server.crt"),
        "vmlops_tls_key": str(directory / "server.key"),
        "vmlops_https_port": https,
        "gateway_users": USERS,
        "gateway_operators": OPERATORS,
    } | options
    temporary = "".join(f"    {kind}_temp_path {directory}/temp_{kind};\n" for kind in TEMPORARY)
    moves = {
        "/usr/lib/nginx/modules": str(TOOLS / "usr/lib/nginx/modules"),
        # The directory of a test is its user's alone.
        "user www-data;": USER,
        "pid pid;": f"pid pid;\n{USER}",
        "/etc/nginx/mime.types": f"{TOOLS}/etc/nginx/mime.types",
        "/etc/nginx/vmlops.": f"{directory}/vmlops.",
        "/var/log/nginx": f"{directory}/log",
        "/run/nginx.pid": f"{directory}/nginx.pid",
        "/run/vmlops-": f"{directory}/run/vmlops-",
        "/usr/share/vmlops/www": f"{ROOT}/roles/gateway/files/www",
        "listen 80": f"listen 127.0.0.1:{http}",
        "listen [::]:80": f"listen [::1]:{http}",
        "listen 443": f"listen 127.0.0.1:{https}",
        "listen [::]:443": f"listen [::1]:{https}",
    }
    for place in ("log", "run/vmlops-verifier", "vmlops"):
        (directory / place).mkdir(parents=True, exist_ok=True)
    tree: dict[str, str] = evaluate("_gateway_tree", "gateway", **options)
    for name, text in tree.items():
        for old, new in moves.items():
            text = text.replace(old, new)
        if name == "nginx.conf":
            text = text.replace("http {\n", "http {\n" + temporary)
        (directory / name).write_text(text)
    (directory / "vmlops.key").write_text('map "" $verdict_key { default 0123456789abcdef; }\n')
    for realm in ("users", "operators"):
        accounts = options[f"gateway_{realm}"]
        text = render("gateway", "etc/nginx/users", item={"name": realm, "accounts": accounts}, **options)
        (directory / f"vmlops.{realm}").write_text(text)


def command(directory: Path, *arguments: str) -> list[str]:
    return [str(NGINX), "-p", str(directory), "-c", str(directory / "nginx.conf"), *arguments]


def verifier_command(directory: Path, *arguments: str) -> list[str]:
    return [
        *(str(NGINX), "-p", str(directory / "run/vmlops-verifier"), "-e", "stderr"),
        *("-c", str(directory / "vmlops/verifier.conf"), *arguments),
    ]


def check(directory: Path) -> str:
    """What nginx -t says about the gateway's tree and the verifier's; empty where both are right."""
    said = ""
    for line in (command(directory, "-t", "-q"), verifier_command(directory, "-t", "-q")):
        done = subprocess.run(
            line, capture_output=True, text=True, timeout=30, check=False, cwd=directory / "run/vmlops-verifier"
        )
        said += done.stderr or ("" if done.returncode == 0 else f"exit code {done.returncode}")
    return said


def wait_for(condition: Callable[[], object], what: str, seconds: float = 10.0) -> None:
    """Polls until `condition` is true. Fails, naming `what`, when it does not become so in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen in {seconds} s"
        time.sleep(0.01)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(directory: Path, replicas: int = 3, **options: Any) -> Iterator[Edge]:
    """The gateway in front of `replicas` stubs of v1 and one of v2, rendered with `options`."""
    stubs = [Replica(f"v1@{number}", free_port()) for number in range(replicas)] + [Replica("v2@0", free_port())]
    endpoints = [
        {"name": stub.name, "version": stub.name[:2], "address": "127.0.0.1", "port": stub.port} for stub in stubs
    ]
    ports = {name: free_port() for name in ("nginx_status", "prometheus", "grafana")}
    http, https = free_port(), free_port()
    certificate(directory)
    write_tree(
        directory,
        http,
        https,
        **{"vmlops_endpoints": endpoints, "vmlops_ports": ports, "gateway_shadow_port": free_port()} | options,
    )
    edge = Edge(directory, https, http, ports, stubs)
    runtime = directory / "run/vmlops-verifier"
    log = (directory / "log/verifier.log").open("wb")
    verifier = subprocess.Popen(verifier_command(directory), cwd=runtime, stderr=log)
    gateway = subprocess.Popen(command(directory, "-g", "daemon off;"))
    try:
        wait_for(lambda: (runtime / "socket").exists(), "the start of the verifier")
        wait_for(lambda: listens(https), "the start of nginx")
        edge.gateway, edge.verifier = gateway, verifier
        yield edge
    finally:
        for client in edge.clients:
            client.close()
        for process in (gateway, verifier):
            process.terminate()
            process.wait(10)
        log.close()
        for stub in stubs:
            stub.stop()
