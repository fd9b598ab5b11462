"""What Lynis, the distributions' auditor of machines, says; docs/security.md explains what it still finds."""

from __future__ import annotations

import re
from typing import Any

from tests.paths import ROOT

INDEX = 80


def test_hardening_index(host: Any) -> None:
    host.check_output("apt-get install -qq -y --no-install-recommends lynis >/dev/null 2>&1")
    host.run("lynis audit system --quick --no-colors --quiet")  # its exit code counts warnings; the report says which
    report = host.check_output("grep -E '^(warning|suggestion|hardening_index)' /var/log/lynis-report.dat")
    host.check_output("apt-get purge -qq -y lynis >/dev/null 2>&1")
    print(report)
    index = int(re.findall(r"hardening_index=(\d+)", report)[0])
    assert index >= INDEX
    found = {*re.findall(r"^(?:warning|suggestion)\[\]=([A-Z]+-\d+)\|", report, re.MULTILINE)}
    explained = {*re.findall(r"\b[A-Z]{3,4}-\d{4}\b", (ROOT / "docs/security.md").read_text())}
    assert found - explained == set()
