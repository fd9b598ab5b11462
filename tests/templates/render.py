"""Renders a role's templates as a run against the lab would, without a machine: Ansible's own templar, undefined is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader, init_plugin_loader
from ansible.template import Templar, trust_as_template
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

from tests.paths import ROOT

DISTRIBUTIONS = {"Debian-12": "bookworm", "Debian-13": "trixie", "Ubuntu-24.04": "noble"}

init_plugin_loader()
for filters in (ROOT / "plugins/filter", *ROOT.glob("roles/*/filter_plugins")):
    filter_loader.add_directory(str(filters))


def facts(distribution: str) -> dict[str, Any]:
    """What Ansible would gather on a lab machine, as far as templates ask for it."""
    name, _, version = distribution.partition("-")
    return {
        "distribution": name,
        "distribution_version": version,
        "distribution_major_version": version.partition(".")[0],
        "distribution_release": DISTRIBUTIONS[distribution],
        "os_family": "Debian",
        "architecture": "x86_64",
        "hostname": "lab",
        "fqdn": "lab.example",
        "default_ipv4": {"address": "10.213.0.2", "interface": "host0"},
        "all_ipv4_addresses": ["10.213.0.2"],
        "all_ipv6_addresses": ["fe80::1"],
        "processor_vcpus": 2,
        "processor_nproc": 2,
        "memtotal_mb": 2048,
        "date_time": {"iso8601": "2030-01-01T00:00:00Z", "epoch": "1893456000"},
        "env": {},
        "user_id": "root",
    }


def variables(
    role: str, *, distribution: str = "Debian-12", environment: str | Path = "lab", **overrides: object
) -> dict[str, Any]:
    """What a task of the role sees on the environment's first host: role defaults < group_vars < facts < role vars < overrides.

    `environment` is a folder of inventory/, or the path of another inventory.
    `overrides` are plain values or templates, as with --extra-vars.
    """
    loader = DataLoader()
    inventory = InventoryManager(loader=loader, sources=[str(ROOT / "inventory" / environment)])
    manager = VariableManager(loader=loader, inventory=inventory)
    host = inventory.get_hosts()[0]
    manager.set_host_facts(host, {"ansible_facts": facts(distribution)})
    result: dict[str, Any] = {}
    base = ROOT / "roles" / role
    result |= _load(loader, base / "defaults/main.yml")
    result |= manager.get_vars(host=host)
    result |= _load(loader, base / "vars/main.yml")
    for name in (distribution.partition("-")[0], distribution):
        result |= _load(loader, base / "vars" / f"{name}.yml")
    result |= {
        "hostvars": HostVars(inventory, manager, loader),
        "role_path": str(base),
        "role_name": role,
        "playbook_dir": str(ROOT),
        "ansible_search_path": [str(base)],
        "ansible_facts": facts(distribution),
        "ansible_managed": "Ansible managed",
    }
    return result | {name: _trust(value) for name, value in overrides.items()}


def evaluate(expression: str, role: str, **options: Any) -> Any:
    """The value of a Jinja expression with the role's variables, with the options of variables()."""
    return _templar(role, options).evaluate_expression(trust_as_template(expression))


def render(role: str, template: str, **options: Any) -> str:
    """The text of roles/<role>/templates/<template>, with the options of variables(). Raises on anything undefined."""
    name = trust_as_template(f"lookup('ansible.builtin.template', {template!r})")
    return str(_templar(role, options).evaluate_expression(name))


def _templar(role: str, options: dict[str, Any]) -> Templar:
    loader = DataLoader()
    loader.set_basedir(str(ROOT / "roles" / role))
    return Templar(loader=loader, variables=variables(role, **options))


def _load(loader: DataLoader, path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    return dict(loader.load_from_file(str(path), cache="none", trusted_as_template=True) or {})


def _trust(value: object) -> Any:
    if isinstance(value, str):
        return trust_as_template(value)
    if isinstance(value, dict):
        return {key: _trust(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_trust(item) for item in value]
    return value
