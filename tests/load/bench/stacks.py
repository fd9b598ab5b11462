"""The systems that are measured. Every row but ours and the reference's is behind a copy of our gateway (gateway.py)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

HOME = "/opt/vmlops-bench"  # on the machine
MODEL = f"{HOME}/model.joblib"
REPLICAS = 3  # as many as inventory/stack.yml has of v1; each peer gets as many workers
CONSTANT = 9190  # nginx itself
GATEWAY_UNIT, REFERENCE_UNIT = "bench-gateway.service", "bench-reference-gateway.service"


def sentence(text: str) -> dict[str, Any]:
    return {"sentence": text}


def tensor(text: str) -> dict[str, Any]:
    """The Open Inference Protocol's way to say a sentence."""
    return {"inputs": [{"name": "sentence", "shape": [1], "datatype": "BYTES", "data": [text]}]}


def prediction(document: Any) -> str:
    return str(document["prediction"])


def output(document: Any) -> str:
    return str(document["outputs"][0]["data"][0])


@dataclass(frozen=True)
class Stack:
    """One row.

    Attributes:
        gateway_port: where the row is reached at the machine's address.
        units: systemd units of the application; `unit_ports` are where each answers on loopback.
        memory_units: those that count for PSS, where that is more than `units`.
        gateway_units: systemd units whose CPU is the gateway's.
        environment: of requirements/bench-<environment>.txt; empty where it needs none of its own.
        command, variables: what the units run, with @PORT@ for the port; empty where the machine has them already.
    """

    name: str
    title: str
    gateway_port: int
    units: tuple[str, ...] = ()
    unit_ports: tuple[int, ...] = ()
    gateway_units: tuple[str, ...] = (GATEWAY_UNIT,)
    memory_units: tuple[str, ...] = ()
    environment: str = ""
    directory: str = HOME
    command: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    path: str = "/predict"
    body: Callable[[str], dict[str, Any]] = sentence
    label: Callable[[Any], str] = prediction
    shares: str = ""  # the row whose units it uses
    predicts: bool = True

    def unit_files(self) -> dict[str, str]:
        """Return the unit files by their path on the machine."""
        if not self.command or self.shares:
            return {}
        files = {}
        for unit, port in zip(self.units, self.unit_ports, strict=True):
            variables = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MODEL": MODEL, **self.variables}
            if self.environment:
                variables["PYTHONPATH"] = f"{HOME}/{self.environment}/site-packages"
            lines = [f'Environment="{name}={value}"' for name, value in variables.items()]
            text = "\n".join(
                [
                    "[Service]",
                    f"WorkingDirectory={self.directory}",
                    *lines,
                    f"ExecStart={self.command}",
                    "KillMode=mixed",
                    "TimeoutStopSec=10",
                    "",
                ]
            )
            files[f"run/systemd/system/{unit}"] = text.replace("@PORT@", str(port))
        return files


def units(name: str, *ports: int) -> Any:
    return {"units": tuple(f"bench-{name}-{port}.service" for port in ports), "unit_ports": ports}


def ours(instances: list[dict[str, Any]]) -> Stack:
    """From vmlops_instances of inventory/stack.yml."""
    every = [(f"vmlops-api-{i['version']}@{i['port']}.service", i["version"], i["port"]) for i in instances]
    return Stack(
        "vmlops",
        "**vmlops**, as `site.yml` deploys it",
        443,
        tuple(unit for unit, version, _ in every if version == "v1"),
        tuple(port for _, version, port in every if version == "v1"),
        ("nginx.service", "vmlops-verifier.service"),
        tuple(unit for unit, _, _ in every),
    )


REFERENCE = Stack(
    "reference",
    "reference: FastAPI, `predict` and `predict_proba`",
    9443,
    **units("reference", 9101, 9102, 9103),
    gateway_units=(REFERENCE_UNIT,),
    environment="reference",
    directory=f"{HOME}/code/reference",
    command="/usr/bin/python3 -m uvicorn server:app --host 127.0.0.1 --port @PORT@",
)
REFERENCE_LABEL = Stack(
    "reference-label",
    "the same, `predict` alone",
    9443,
    REFERENCE.units,
    REFERENCE.unit_ports,
    REFERENCE.gateway_units,
    environment="reference",
    path="/predict/label",
    shares="reference",
)


def litserve(name: str, title: str, gateway_port: int, port: int, batch: int) -> Stack:
    return Stack(
        name,
        title,
        gateway_port,
        **units(name, port),
        environment="litserve",
        directory=f"{HOME}/code/peers/litserve",
        command="/usr/bin/python3 server.py",
        variables={"PORT": str(port), "WORKERS": str(REPLICAS), "BATCH": str(batch)},
    )


PEERS = (
    litserve("litserve", "LitServe", 9401, 9411, 1),
    litserve("litserve-batching", "LitServe, batches of up to 64", 9402, 9412, 64),
    Stack(
        "bentoml",
        "BentoML",
        9403,
        **units("bentoml", 9413),
        environment="bentoml",
        directory=f"{HOME}/code/peers/bentoml",
        command="/usr/bin/python3 -m bentoml serve server:Emotions --host 127.0.0.1 --port @PORT@",
        variables={
            "WORKERS": str(REPLICAS),
            "BENTOML_HOME": "/run/vmlops-bench/bentoml",
            "BENTOML_DO_NOT_TRACK": "True",
        },
    ),
    Stack(
        "mlserver",
        "MLServer",
        9404,
        **units("mlserver", 9414),
        environment="mlserver",
        directory=f"{HOME}/code/peers/mlserver",
        command="/usr/bin/python3 -m mlserver.cli.main start .",
        variables={
            "MLSERVER_HOST": "127.0.0.1",
            "MLSERVER_HTTP_PORT": "9414",
            "MLSERVER_GRPC_PORT": "9514",
            "MLSERVER_METRICS_PORT": "9614",
            "MLSERVER_PARALLEL_WORKERS": str(REPLICAS),
        },
        path="/v2/models/emotions/infer",
        body=tensor,
        label=output,
    ),
)
ASGI = Stack(
    "asgi",
    "limit: a constant answer from raw ASGI, as many replicas",
    9501,
    **units("asgi", 9511, 9512, 9513),
    # Under our own server: gunicorn, uvicorn and their settings are the same, the application is not.
    directory="/opt/vmlops/v1",
    command=f"/opt/vmlops/v1/venv/bin/python -m gunicorn --bind 127.0.0.1:@PORT@ --worker-class app.worker.Worker "
    f"--keep-alive 75 --worker-tmp-dir /dev/shm --no-control-socket --pythonpath {HOME}/code/bench constant:app",
    predicts=False,
)
NGINX = Stack("nginx", "limit: a constant answer from nginx", 9502, unit_ports=(CONSTANT,), predicts=False)
OTHERS = (REFERENCE, REFERENCE_LABEL, *PEERS, ASGI, NGINX)

GATEWAY_FILES = {
    f"run/systemd/system/{GATEWAY_UNIT}": "[Service]\nExecStart=/usr/sbin/nginx -c /run/vmlops-bench/nginx/nginx.conf "
    "-g 'daemon off;'\nKillSignal=SIGQUIT\nTimeoutStopSec=5\nLimitNOFILE=65536\n",
    f"run/systemd/system/{REFERENCE_UNIT}": "[Service]\nExecStart=/usr/sbin/nginx -c "
    "/run/vmlops-bench/reference/nginx.conf -g 'daemon off;'\nKillSignal=SIGQUIT\nTimeoutStopSec=5\nLimitNOFILE=65536\n",
    # Read before nginx.nft, by name. Replicas that are added for a while, and every row.
    "etc/vmlops/firewall.d/bench.nft": 'meta skuid "www-data" tcp dport { 8001-8006, 9100-9699 } accept\n',
}


def body_of(stack: Stack, text: str) -> str:
    return json.dumps(stack.body(text))
