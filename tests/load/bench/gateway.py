"""Our gateway once more, for other applications: the tree that the role renders, for other ports and places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.load.bench.machine import INVENTORY
from tests.templates.render import evaluate

DIRECTORY = "/run/vmlops-bench/nginx"


def tree(
    address: str,
    upstreams: Mapping[int, Sequence[int]],
    nginx: str,
    constant_port: int,
    constant: str,
    directory: str = DIRECTORY,
    **places: Any,
) -> dict[str, str]:
    """The files by path on the machine without the first slash.

    Args:
        address: the machine's, which is the only name that the gateway answers to.
        upstreams: the ports of each application by the port that the gateway has for it.
        nginx: the version on the machine.
        constant_port: where nginx itself answers `constant`, which is the limit.
        directory: where the files lie.
        places: variables of the role for other places than the machine's.
    """
    endpoints = [
        {"name": f"{port}@{server}", "version": str(port), "address": "127.0.0.1", "port": server, "asked": True}
        for port, servers in upstreams.items()
        for server in servers
    ]
    options: dict[str, Any] = {
        "vmlops_endpoints": endpoints,
        "vmlops_access_log": "/var/log/nginx/bench.access.json",
        "_gateway_upstream": "api_$server_port",
        "_gateway_http_listen": ["127.0.0.1:9080"],
        "_gateway_https_listen": [str(port) for port in upstreams],
        "_gateway_http2_directive": tuple(map(int, nginx.split("."))) >= (1, 25, 1),
        "_gateway_server_names": [address],
        "_gateway_error_log": "/var/log/nginx/bench-error.log",
        "_gateway_pid": "/run/vmlops-bench/gateway.pid",
        "_gateway_verdicts": "/run/vmlops-bench/verdicts",
    }
    files: dict[str, str] = evaluate("_gateway_tree", "gateway", environment=INVENTORY, **(options | places))
    files["vmlops/status.conf"] = (
        f"server {{\n    listen 127.0.0.1:{constant_port};\n    access_log off;\n    default_type application/json;\n"
        f"    location / {{\n        return 200 '{constant}';\n    }}\n}}\n"
    )
    return {f"{directory[1:]}/{name}": text for name, text in files.items()}
