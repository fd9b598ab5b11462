"""A scheduler and workers of make score ON=cluster as processes of this computer, each of which can be killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

from distributed import Client

from batch.cluster import Access
from tests.paths import ROOT


class LocalCluster:
    """`own` is a directory of tests.authority.Authority."""

    def __init__(self, own: Path) -> None:
        for kind in ("crt", "key"):
            shutil.copy(own / f"host.{kind}", own / f"client.{kind}")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.own = own
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.access = Access("lab", "one", "127.0.0.1", self.port, [], own)
        tls = {"ca-file": str(own / "ca.crt")}
        both = {role: {"cert": str(own / "host.crt"), "key": str(own / "host.key")} for role in ("scheduler", "worker")}
        settings = {
            "comm": {"require-encryption": True, "tls": {**tls, **both}},
            "scheduler": {"http": {"routes": []}},
            "worker": {"http": {"routes": []}},
        }
        (own / "dask.yaml").write_text(json.dumps({"distributed": settings}))

    def start(self, *names: str) -> None:
        """Start `scheduler`, or a worker of any other name."""
        common = ["--protocol", "tls", "--host", "127.0.0.1", "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
        for name in names:
            worker = ["worker", f"tls://127.0.0.1:{self.port}", "--name", name, "--nthreads", "1", "--no-nanny"]
            words = ["scheduler", "--port", str(self.port)] if name == "scheduler" else worker
            with (self.own / f"{name}.log").open("a") as log:
                self.running[name] = subprocess.Popen(
                    [sys.executable, "-m", "dask", *words, *common],
                    cwd=ROOT,
                    env={**os.environ, "DASK_CONFIG": str(self.own / "dask.yaml"), "OPENBLAS_NUM_THREADS": "1"},
                    stderr=log,
                )

    def wait(self, workers: int) -> None:
        at = f"tls://127.0.0.1:{self.port}"
        with Client(at, security=self.access.security, timeout=120) as client:  # type: ignore[no-untyped-call]
            client.wait_for_workers(workers, timeout=120)

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def end(self) -> None:
        for name in list(self.running):
            self.kill(name)
