"""A lab machine of a test's own."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

from tests.paths import ROOT


class Lab:
    """A machine of this test's own, made by playbooks/lab.yml."""

    def __init__(self, control: Path) -> None:
        self.control = control
        self.name = f"vml-{hashlib.sha256(str(control).encode()).hexdigest()[:8]}"
        self.before: dict[str, Any] = {}
        self.variables = {
            "lab_seed": str(control),
            "lab_machine_control_dir": str(control),
            "lab_machine_forwarded_ports": [],
        }

    def bring(self, state: str) -> str:
        """Run the playbook and return the host's line of its recap."""
        variables = json.dumps({**self.variables, "lab_machine_state": state})
        command = ["ansible-playbook", "-i", "inventory/lab", "playbooks/lab.yml", "-e", variables]
        result = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr
        return next(line for line in result.stdout.splitlines() if "changed=" in line)

    def ssh(self, command: str) -> str:
        call = ["ssh", "-F", str(self.control / "ssh_config"), "lab", command]
        result = subprocess.run(call, check=False, capture_output=True, text=True, timeout=30)
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()
