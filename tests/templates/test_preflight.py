"""site.yml against settings that are wrong: it stops with the role preflight's words, changes nothing, and tells no secret."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.paths import ROOT

SECRET = "0b9d1c66c1bd4b73"
GOOD: dict[str, Any] = {
    "gateway_users": [{"name": "reader", "password": SECRET}],
    "grafana_admin_password": SECRET,
    "grafana_required": False,
}


def run_site(
    tmp_path: Path,
    settings: dict[str, Any],
    *options: str,
    hosts: Sequence[str] = ("one",),
    host_vars: dict[str, dict[str, Any]] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run site.yml in check mode against hosts that are this computer, set up as README says, but for these settings."""
    variables = tmp_path / "group_vars/all"
    variables.mkdir(parents=True)
    (variables / "10-stack.yml").symlink_to(ROOT / "inventory/stack.yml")
    own = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, **settings}
    (variables / "20-own.yml").write_text(yaml.safe_dump(own))
    groups = {
        name: {"hosts": {host: (host_vars or {}).get(host) for host in hosts}}
        for name in ("api", "gateway", "monitoring")
    }
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(groups))
    command = ["ansible-playbook", "-i", str(tmp_path), "site.yml", "--check", *options]
    # The way in of whoever runs the tests is not that of the hosts.
    environment = {name: value for name, value in os.environ.items() if name != "SSH_CONNECTION"}
    result = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, env=environment)
    print(result.stdout, result.stderr)
    return result


# A run of its own for each of the role's tasks: what they say of every kind of setting, tests/unit/roles/test_preflight.py asks.
@pytest.mark.parametrize(
    ("settings", "options", "messages"),
    [
        (
            {
                "gateway_users": [{"name": "reader", "password": "{{ vault_reader }}"}],
                "gateway_operators": [{"name": "operator", "pasword": SECRET}],
                "vmlops_ports": {"grafana": 3001},
            },
            [
                "-e",
                "gateway_ocsp_stapling=false",
                "-e",
                "vmlops_mutual_tls=false",
                "-e",
                "vmlops_exempt_networks=10.0.0.0/8",
            ],
            [
                "missing setting grafana_admin_password (",
                "gateway_users cannot be evaluated: 'vault_reader' is undefined",
                "unknown setting gateway_operators[0].pasword: did you mean password?",
                "vmlops_ports has no nginx_status",
                "gateway_ocsp_stapling is the text 'false', true or false is needed",
                "vmlops_mutual_tls is the text 'false', true or false is needed",
                "vmlops_exempt_networks is the text '10.0.0.0/8', a list is needed",
            ],
        ),
        (
            GOOD | {"gateway_operators": [{"name": "operator", "password": "OPERATOR"}]},
            ["-e", json.dumps({"vmlops_instances": [{"version": "v1", "port": 8080}]})],
            ["port 8080 is given 2 times", "gateway_operators: the password of operator is the account's name"],
        ),
        (
            GOOD | {"grafana_required": True, "grafana_repository": "http://127.0.0.1:1"},
            [],
            ["Grafana is required here, but its package repository http://127.0.0.1:1 cannot be reached"],
        ),
    ],
)
def test_wrong_settings_stop_a_run_before_anything_changes(
    tmp_path: Path, settings: dict[str, Any], options: list[str], messages: list[str]
) -> None:
    result = run_site(tmp_path, settings, "-vvv", *options)
    assert result.returncode != 0
    for message in messages:
        assert message in result.stdout + result.stderr
    assert "changed=0" in result.stdout
    assert SECRET not in result.stdout + result.stderr


def test_right_settings_pass(tmp_path: Path) -> None:
    result = run_site(tmp_path, GOOD, "--tags", "never")
    assert result.returncode == 0
    assert "Every setting is one that a role knows" in result.stdout


def test_one_wrong_host_keeps_the_others_from_being_changed(tmp_path: Path) -> None:
    addresses: dict[str, dict[str, Any]] = {
        "one": {"vmlops_address": "10.0.0.1"},
        "two": {"vmlops_address": "10.0.0.2", "firewall_ssh_port": 0},
    }
    result = run_site(tmp_path, GOOD, hosts=("one", "two"), host_vars=addresses)
    assert result.returncode != 0
    assert "firewall_ssh_port is 0: must be from 1 to 65535" in result.stdout + result.stderr
    assert "PLAY [Every machine]" not in result.stdout


@pytest.mark.parametrize("playbook", ["playbooks/deploy.yml", "playbooks/rollback.yml"])
def test_other_playbooks_check_the_settings_too(playbook: str) -> None:
    command = ["ansible-playbook", "-i", "inventory/lab", playbook, "--connection=local", "--check"]
    command += ["-e", f"ansible_python_interpreter={sys.executable}", "-e", "api_ready_timeout=60"]
    result = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert result.returncode != 0, result.stdout
    assert "api_ready_timeout is the text '60', a whole number is needed" in result.stdout + result.stderr
    assert "changed=0" in result.stdout
