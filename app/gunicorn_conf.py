"""gunicorn's configuration: `python -m gunicorn --config python:app.gunicorn_conf app.main:app`."""

from __future__ import annotations

import gc
import os
import ssl
from typing import Any

from app.observed.logs import logging_config
from app.settings import SettingsError, read_settings
from app.worker import DRAIN_SECONDS, KEEPALIVE_SECONDS

try:
    _settings = read_settings(os.environ)
except SettingsError as error:
    raise SystemExit(f"vmlops: {error}") from None

bind = _settings.bind
if _settings.tls_dir:  # who has no certificate of the CA is not answered
    certfile, keyfile, ca_certs = (str(_settings.tls_dir / name) for name in ("host.crt", "host.key", "ca.crt"))
    cert_reqs = ssl.CERT_REQUIRED
workers = 1  # nginx sees every process, and metrics need no registry across processes: more load takes more units
worker_class = "app.worker.Worker"
# The master loads the model and forks: it tells systemd READY only after every check, shares its memory with the
# worker, and replaces a worker that died within milliseconds.
preload_app = True
keepalive = KEEPALIVE_SECONDS
timeout = (
    30  # a worker whose loop hangs for so long is replaced; systemd, where it watches, does it sooner (app/worker.py)
)
graceful_timeout = DRAIN_SECONDS + 5
# For the heartbeat. A tmpfs: a slow disk must not look like a hung worker.
worker_tmp_dir = str(_settings.runtime_dir)
control_socket_disable = True
logconfig_dict = logging_config(_settings.log_level)
loglevel = _settings.log_level
proc_name = f"vmlops {_settings.instance}"


def pre_fork(server: Any, worker: Any) -> None:
    """What is alive now stays so: collections in the worker need not look at it, and so do not copy its pages."""
    gc.freeze()
