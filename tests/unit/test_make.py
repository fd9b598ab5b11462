"""What a person gives to make reaches the program as it was typed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

ODD = [
    "cd /x; rm -rf y",
    "echo $HOME \"two  blanks\" 'x' `id` $(id) \\ & | > out # c",
    "first\nsecond",
    "modèle",
]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with a lab machine, in which ssh, curl, python and pytest write down how they were called."""
    shutil.copytree(ROOT / "host", tmp_path / "host")
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / ".lab/lab").mkdir(parents=True)
    (tmp_path / ".lab/lab/ssh_config").write_text("Host lab\n  HostName 10.213.0.2\n")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    requirements = tmp_path / "requirements"
    requirements.mkdir()
    for name in ("bootstrap", "control", "train", "test", "api", "import"):
        (requirements / f"{name}.txt").touch()
    for mark in (".venv/control", ".venv/test", ".venv/import"):
        (tmp_path / mark).touch()
    called = "[*sys.argv[1:], os.environ.get('LC_ALL'), os.environ['no_proxy']]"
    recorder = f"#!/usr/bin/python3\nimport json, os, sys\njson.dump({called}, open('called', 'w'))\n"
    for name in ("ssh", "curl", "python", "pytest", "ansible-playbook"):
        (tmp_path / ".venv/bin" / name).write_text(recorder)
        (tmp_path / ".venv/bin" / name).chmod(0o755)
    return tmp_path


def make(clone: Path, *arguments: str, **environment: str) -> list[str]:
    """Run make and return how the program that it came to was called."""
    result = subprocess.run(
        ["make", *arguments],
        cwd=clone,
        check=False,
        capture_output=True,
        text=True,
        env={**{name: os.environ[name] for name in ("PATH", "HOME")}, **environment},
    )
    assert result.returncode == 0, result.stderr
    called: list[str] = json.loads((clone / "called").read_text())
    return called


@pytest.mark.parametrize("command", ODD)
def test_ssh_passes_any_command_as_it_stands(command: str, clone: Path) -> None:
    expected = ["-F", str(clone / ".lab/lab/ssh_config"), "lab", command]
    assert make(clone, "ssh", f"CMD={command}")[:-2] == expected
    assert make(clone, "ssh", CMD=command)[:-2] == expected


def test_ssh_without_a_command_logs_in(clone: Path) -> None:
    assert make(clone, "ssh")[:-2] == ["-F", str(clone / ".lab/lab/ssh_config"), "lab"]


@pytest.mark.parametrize("path", ODD)
@pytest.mark.parametrize(
    ("target", "variable", "option"),
    [("model", "DATA", "--data"), ("model-import", "MODEL", "--model"), ("compare-models", "DATA", "--data")],
)
def test_path_reaches_the_program_in_one_piece(path: str, target: str, variable: str, option: str, clone: Path) -> None:
    called = make(clone, target, f"{variable}={path}")
    assert called[called.index(option) + 1] == path


def test_environment_is_one_word(clone: Path) -> None:
    assert make(clone, "provision", "ENVIRONMENT=x; touch y")[:2] == ["-i", "inventory/x; touch y"]
    assert make(clone, "deploy")[:2] == ["-i", "inventory/lab"]


def test_the_machine_is_never_asked_through_a_proxy(clone: Path) -> None:
    assert make(clone, "test-api")[-1] == "localhost,127.0.0.1"
    assert make(clone, "test-api", no_proxy=".corp,10.0.0.1")[-1] == "localhost,127.0.0.1,.corp,10.0.0.1"
    assert make(clone, "test-api", NO_PROXY=".corp,10.0.0.1")[-1] == "localhost,127.0.0.1,.corp,10.0.0.1"


def test_proxies_are_known_by_both_names(clone: Path) -> None:
    (clone / ".venv/bin/ssh").write_text("#!/bin/sh\nenv -0 > environment\necho '[]' > called\n")
    make(clone, "ssh", HTTPS_PROXY="http://user:a$b@proxy:3128", HTTP_PROXY="http://proxy:3128", NO_PROXY=".corp")
    lines = dict(line.split("=", 1) for line in (clone / "environment").read_text().split("\0")[:-1])
    assert lines["https_proxy"] == lines["HTTPS_PROXY"] == "http://user:a$b@proxy:3128"
    assert lines["http_proxy"] == "http://proxy:3128"
    assert lines["NO_PROXY"] == lines["no_proxy"]
    make(clone, "ssh", HTTPS_PROXY="http://one", https_proxy="http://two")
    lines = dict(line.split("=", 1) for line in (clone / "environment").read_text().split("\0")[:-1])
    assert (lines["https_proxy"], lines.get("http_proxy")) == ("http://two", None)


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac's own locales are UTF-8, and it has no C.UTF-8")
@pytest.mark.parametrize("locale", ["C", "POSIX", "xx_XX.UTF-8", ""])
def test_ansible_gets_utf8_whatever_the_locale(locale: str, clone: Path) -> None:
    assert make(clone, "provision", LC_ALL=locale, LANG=locale)[-2] == "C.UTF-8"


@pytest.mark.parametrize("target", ["start-project", "run-project"])
def test_make_with_many_jobs_begins_once(target: str, clone: Path) -> None:
    dry = subprocess.run(["make", "-j4", "-n", target], cwd=clone, check=True, capture_output=True, text=True).stdout
    assert dry.split("\n") == ["python3 -m host start", ""]


def test_prediction_is_asked_for_at_the_port_of_the_machine(clone: Path) -> None:
    (clone / ".lab/settings.json").write_text('{"PROVIDER": "lab", "HTTPS_PORT": "9443"}')
    called = make(clone, "test-api-debug")
    assert "https://localhost:9443/predict" in called
    assert "X-Experiment-Group: debug" in called


def test_a_rollout_is_told_what_to_roll_out(clone: Path) -> None:
    (clone / "my release.tar.gz").touch()
    told = {"api_release_file": str(clone / "my release.tar.gz"), "api_deploy_versions": ["v2"]}
    assert make(clone, "deploy", "RELEASE=my release.tar.gz", "VERSION=v2")[-4:-2] == ["-e", json.dumps(told)]
    assert make(clone, "promote", "FORCE=1")[-4:-2] == ["-e", json.dumps({"promote_anyway": True})]
    assert make(clone, "deploy")[-3] == "playbooks/deploy.yml"


@pytest.mark.parametrize(
    ("setting", "why"),
    [("RELEASE=none.tar.gz", "there is no such file"), ("VERSION=v3", "it is v1 or v2"), ("FORCE=yes", "it is 1, or")],
)
def test_a_rollout_that_makes_no_sense_is_refused(clone: Path, setting: str, why: str) -> None:
    command = ["make", "deploy", setting]
    environment = {name: os.environ[name] for name in ("PATH", "HOME")}
    done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)
    print(done.stderr)
    assert done.returncode == 2
    assert f"vmlops: {setting}: {why}" in done.stderr
