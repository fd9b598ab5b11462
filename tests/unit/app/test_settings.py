"""The environment, the log format, and what is said where they are wrong."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from app import settings
from app.observed.logs import JsonFormatter
from app.settings import Settings, SettingsError, read_settings

GOOD = {
    "VMLOPS_VERSION": "v2",
    "VMLOPS_BIND": "127.0.0.1:8101",
    "VMLOPS_INSTANCE": "v2@8101",
    "VMLOPS_MODEL_DIR": "/opt/vmlops/v2/model",
    "VMLOPS_RELEASE": "0123456789ab",
    "VMLOPS_LOG_LEVEL": "debug",
    "RUNTIME_DIRECTORY": "/run/vmlops/v2@8101",
    "HOME": "/root",
}


def test_every_variable_is_read() -> None:
    assert read_settings(GOOD) == Settings(
        "v2",
        "127.0.0.1:8101",
        "v2@8101",
        Path("/opt/vmlops/v2/model"),
        "0123456789ab",
        "debug",
        Path("/run/vmlops/v2@8101"),
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"VMLOPS_VERSION": ""}, "VMLOPS_VERSION is not set"),
        ({"VMLOPS_VERSION": "v3"}, "VMLOPS_VERSION is 'v3', not one of v1, v2"),
        ({"VMLOPS_BIND": "8001"}, "VMLOPS_BIND is '8001', not host:port"),
        ({"VMLOPS_BIND": "::1:99999"}, "VMLOPS_BIND is '::1:99999', not host:port"),
        ({"VMLOPS_INSTANCE": ""}, "VMLOPS_INSTANCE is not set"),
        ({"VMLOPS_MODEL_DIR": ""}, "VMLOPS_MODEL_DIR is not set"),
        ({"VMLOPS_LOG_LEVEL": "loud"}, "VMLOPS_LOG_LEVEL is 'loud', not one of debug, info, warning, error"),
        ({"VMLOPS_MODEL": "x"}, "unknown variable VMLOPS_MODEL"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings(GOOD | changes)
    assert str(caught.value) == message


def test_the_release_comes_from_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {name: value for name, value in GOOD.items() if name != "VMLOPS_RELEASE"}
    file = tmp_path / "release.json"
    monkeypatch.setattr(settings, "RELEASE_FILE", file)
    assert read_settings(environ).release == "checkout"
    file.write_text('{"id": "fedcba987654"}')
    assert read_settings(environ).release == "fedcba987654"
    file.write_text("{}")
    with pytest.raises(SettingsError, match=r"release\.json cannot be read"):
        read_settings(environ)


@pytest.mark.parametrize("module", ["app.gunicorn_conf", "app.main"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [({"VMLOPS_BIND": ""}, "VMLOPS_BIND is not set"), ({"VMLOPS_PORT": "1"}, "unknown variable VMLOPS_PORT")],
)
def test_a_bad_environment_ends_in_one_line(module: str, changes: dict[str, str], message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {module}"], env=GOOD | changes, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"vmlops: {message}\n")


def test_a_bad_model_ends_in_one_line(tmp_path: Path) -> None:
    environ = GOOD | {"VMLOPS_MODEL_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", "import app.main"], env=environ, capture_output=True, text=True, check=False
    )
    print(done.stderr)
    assert done.returncode == 1
    assert done.stderr.startswith(f"vmlops: {tmp_path}/manifest.json: ")
    assert done.stderr.count("\n") == 1


def test_lines_are_json_with_the_fields_and_without_messages_of_exceptions() -> None:
    try:
        raise KeyError("a client's words")
    except KeyError:
        caught = sys.exc_info()
    record = logging.LogRecord("vmlops.x", logging.ERROR, __file__, 1, "said %s", ('"quoted" ü\n',), caught)
    record.fields = {"request_id": "abc"}
    line = JsonFormatter().format(record)
    print(line)
    assert "\n" not in line
    assert "client" not in line
    document = json.loads(line)
    assert document["message"] == 'said "quoted" ü\n'
    assert (document["level"], document["request_id"], document["exception"]) == ("error", "abc", "KeyError")
    assert document["trace"][0].startswith(__file__)
    assert document["time"].endswith("+00:00")
