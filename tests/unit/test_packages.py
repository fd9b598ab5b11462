"""Where packages come from: pip's settings hold for uv as well."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from host import packages
from host.commands import Problem
from tests.paths import ROOT


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what this computer has set for pip and uv."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")) or name in ("SSL_CERT_FILE", "ALL_PROXY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


def test_pip_conf_and_variables_are_translated_and_the_variable_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "pip.conf"
    conf.write_text("[global]\nindex-url = https://one.example/simple\ntrusted-host = one.example\ncert = /ca.pem\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(conf))
    found = packages.index_environment(sys.executable)
    assert found["UV_DEFAULT_INDEX"] == "https://one.example/simple"
    assert (found["UV_INSECURE_HOST"], found["SSL_CERT_FILE"]) == ("one.example", "/ca.pem")
    monkeypatch.setenv("PIP_INDEX_URL", "https://two.example/simple")
    assert packages.index_environment(sys.executable)["UV_DEFAULT_INDEX"] == "https://two.example/simple"
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://three.example/simple")
    assert "UV_DEFAULT_INDEX" not in packages.index_environment(sys.executable)


def test_wheel_comes_from_the_index_that_pip_has(tmp_path: Path) -> None:
    index = tmp_path / "simple/vmlops-odd"
    index.mkdir(parents=True)
    name = "vmlops_odd-1.0-py3-none-any.whl"
    with zipfile.ZipFile(index / name, "w") as wheel:
        wheel.writestr("vmlops_odd.py", "")
        wheel.writestr("vmlops_odd-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: vmlops-odd\nVersion: 1.0\n")
        wheel.writestr(
            "vmlops_odd-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("vmlops_odd-1.0.dist-info/RECORD", "")
    (index / "index.html").write_text(f'<a href="{name}">{name}</a>')
    # A clone that no kit leads elsewhere.
    clone = tmp_path / "clone"
    shutil.copytree(ROOT / "host", clone / "host")
    install = ["pip", "install", "--no-cache", "--target", str(tmp_path / "out"), "vmlops-odd"]
    command = [sys.executable, "-m", "host", "uv", *install]
    environment = {**os.environ, "PIP_INDEX_URL": index.parent.as_uri()}
    result = subprocess.run(command, cwd=clone, check=False, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out/vmlops_odd.py").exists()


def test_what_is_there_is_not_installed_and_what_cannot_be_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "run", lambda *words, **options: pytest.fail(f"ran {words}"))
    packages.install({"sh": "dash", "/etc/os-release": "base-files"})

    def failing(*words: str, log: Path) -> None:
        log.write_text("Reading\nE: Unable to locate package odd\n")
        raise subprocess.CalledProcessError(100, words)

    monkeypatch.setattr(packages, "run", failing)
    monkeypatch.setattr(packages, "BUILD", tmp_path)
    with pytest.raises(Problem, match=r"odd cannot be installed.*E: Unable to locate package odd"):
        packages.install({"odd-command": "odd"})


def test_the_box_has_the_daemons_that_the_roles_install() -> None:
    tasks = "\n".join(path.read_text() for path in (ROOT / "roles").glob("*/*/*.yml"))
    assert [name for name in packages.DAEMONS if name not in tasks] == []
