"""make audit: a vulnerability ends it, and so does a question that nobody answered."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from host import audit
from host.commands import Problem

SOUND = {"name": "good", "version": "1.0", "vulns": []}
FLAWED = {"name": "bad", "version": "2.0", "vulns": [{"id": "PYSEC-0000-1", "fix_versions": ["2.1"], "aliases": []}]}
SKIPPED = {"name": "odd", "skip_reason": "Dependency not found on PyPI and could not be audited: odd (1.0)"}


def stand_in(directory: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    """Programs in place of pip-audit and pip-licenses; the former says the same of every lock."""
    for name, text in (("pip-audit", said), ("pip-licenses", "good 1.0 MIT")):
        program = directory / name
        program.write_text(f"#!/bin/sh\ncat << 'END'\n{text}\nEND\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(audit, "_PROGRAMS", directory)


def says(*packages: dict[str, Any]) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


def test_audit_without_vulnerabilities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(tmp_path, monkeypatch, says(SOUND))
    audit.audit()
    said = capsys.readouterr().out
    assert "good 1.0 MIT" in said
    assert "No known vulnerability in" in said


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (says(SOUND, FLAWED), "known vulnerabilities"),
        (says(SOUND, SKIPPED), r"no answer about 1 packages \(odd"),
        (says(SKIPPED, FLAWED), "known vulnerabilities"),
        ("not JSON", "cannot be audited, is there a network"),
    ],
)
def test_what_is_not_known_to_be_well_ends_it(
    said: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(tmp_path, monkeypatch, said)
    with pytest.raises(Problem, match=message) as ended:
        audit.audit()
    assert "\n" not in str(ended.value)
    if "PYSEC" in said:
        assert "bad 2.0: PYSEC-0000-1, fixed in 2.1" in capsys.readouterr().out
