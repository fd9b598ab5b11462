"""The gateway's TLS, rated by testssl.sh."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from tests.acceptance.conftest import Machine

# The local CA publishes no revocation lists, and has no DNS records.
OF_AN_OWN_CA = {"cert_chain_of_trust", "cert_revocation", "DNS_CAArecord"}


def test_nothing_above_low(machine: Machine, tmp_path: Path) -> None:
    testssl = shutil.which("testssl")
    assert testssl, "testssl.sh is missing: `make test-faults` installs it"
    report = tmp_path / "report.json"
    options = ["--quiet", "--color", "0", "--warnings", "off", "--severity", "LOW", "--jsonfile", str(report)]
    done = subprocess.run(
        [testssl, *options, "--add-ca", str(machine.ca_file), f"{machine.address}:443"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    findings = json.loads(report.read_text())
    print(done.stdout, json.dumps(findings, indent=2))
    assert "TLS 1.3" in done.stdout
    assert {finding["id"] for finding in findings if finding["severity"] != "LOW"} <= OF_AN_OWN_CA
