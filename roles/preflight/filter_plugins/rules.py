"""The rules that span several settings, or a setting and the world around it. What one value may be, the argument specs say.

A rule takes a Case and yields a line for each thing that is wrong; RULES at the end lists them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import idna


@dataclass(frozen=True)
class Case:
    """A host, as the rules see it.

    Attributes:
        settings: as effective_settings returns them: of the declared types, with the defaults of what is not set.
        groups: the names of hosts by group.
        addresses: vmlops_address by host.
        drained: the hosts that the gateways are to leave out.
        facts: what Ansible found out about the host.
    """

    host: str
    settings: Mapping[str, Any]
    groups: Mapping[str, list[str]]
    addresses: Mapping[str, str]
    drained: frozenset[str]
    facts: Mapping[str, Any]


def stack_hosts(groups: Mapping[str, list[str]]) -> list[str]:
    """Return the hosts that run a part of the system: every one, since Prometheus asks each for its node exporter."""
    return sorted(groups["all"])


def is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def groups_are_filled(case: Case) -> Iterator[str]:
    if case.groups.get("workers") and not any(case.groups.get(group) for group in ("api", "gateway", "monitoring")):
        return  # an environment that scores files and serves nobody
    for group in ("api", "gateway"):
        if not case.groups.get(group):
            yield f"the inventory has no host in the group {group}: name at least one"


def ports_are_used_once(case: Case) -> Iterator[str]:
    settings = case.settings
    users: dict[int, list[str]] = defaultdict(list)
    for instance in settings["vmlops_instances"]:
        users[instance["port"]].append(f"the instance {instance['version']}@{instance['port']}")
    for name, port in settings["vmlops_ports"].items():
        users[port].append(f"vmlops_ports.{name}")
    users[settings["firewall_ssh_port"]].append("firewall_ssh_port")
    if settings["gateway_shadow_percent"] > 0:
        users[settings["gateway_shadow_port"]].append("gateway_shadow_port")
    for port, names in users.items():
        if len(names) > 1:
            yield f"port {port} is given {len(names)} times, to {' and '.join(names)}: give each its own"


def versions_have_instances(case: Case) -> Iterator[str]:
    versions = {instance["version"] for instance in case.settings["vmlops_instances"]}
    if "v1" not in versions:
        yield "vmlops_instances has no instance of v1: requests without the debug header would have nowhere to go"
    for name in ("gateway_canary_percent", "gateway_shadow_percent"):
        if case.settings[name] > 0 and "v2" not in versions:
            yield f"{name} is {case.settings[name]}, but vmlops_instances has no instance of v2: add one, or set it to 0"


def names_are_given_once(case: Case) -> Iterator[str]:
    for setting in ("gateway_users", "gateway_operators", "alertmanager_receivers"):
        names = [entry.get("name") for entry in case.settings.get(setting, [])]
        for name in sorted({str(name) for name in names if names.count(name) > 1}):
            yield f"{setting} has {name} twice: remove one of them"


def somebody_may_enter(case: Case) -> Iterator[str]:
    if not case.settings["gateway_users"]:
        yield "gateway_users is empty, nobody could use the API: add {name: …, password: …}, the password from a vault"


def receivers_exist(case: Case) -> Iterator[str]:
    receivers = case.settings["alertmanager_receivers"]
    names = [receiver.get("name") for receiver in receivers]
    if not all(isinstance(name, str) and name for name in names):
        yield "alertmanager_receivers has a receiver without a name: give it one"
    for kind in ("page", "ticket", "watchdog"):
        name = case.settings[f"alertmanager_{kind}_receiver"]
        if name not in names:
            yield f"alertmanager_{kind}_receiver is {name!r}, which alertmanager_receivers does not have: add it, or name another"


def addresses_can_be_reached(case: Case) -> Iterator[str]:
    """An address for all of a cluster leads each host to itself."""
    address = case.settings["vmlops_address"]
    if not is_address(address):
        yield f"vmlops_address is {address!r}: must be an IP address, IPv6 without brackets"
        return
    parsed = ip_address(address)
    if parsed.is_unspecified or parsed.is_multicast:
        yield f"vmlops_address is {address}, which no other service can ask: give the host's own address"
    hosts = stack_hosts(case.groups)
    others = [host for host in hosts if host != case.host]
    if case.host in hosts and others:
        if parsed.is_loopback:
            yield f"vmlops_address is {address}, which {others[0]} cannot reach: give {case.host} its address on their network"
        for host in others:
            if case.addresses.get(host) == address:
                yield f"vmlops_address is {address} for {case.host} and for {host}: give each host its own"


def shared_address_is_free(case: Case) -> Iterator[str]:
    shared = case.settings["vmlops_virtual_address"]
    if shared and not is_address(shared):
        yield f"vmlops_virtual_address is {shared!r}: must be an IP address, IPv6 without brackets"
    for host, address in case.addresses.items():
        if shared == address:
            yield f"vmlops_virtual_address is {shared}, which is {host}'s own: give the gateways an address that no host has"


def shared_address_has_a_device(case: Case) -> Iterator[str]:
    wanted = case.settings["vmlops_virtual_address"] and case.host in case.groups.get("gateway", [])
    if wanted and not case.settings["keepalived_interface"] and not case.facts.get("default_ipv4", {}).get("interface"):
        yield f"{case.host} has no default route: keepalived_interface must name the device of vmlops_virtual_address"


def somebody_is_asked(case: Case) -> Iterator[str]:
    hosts = set(case.groups.get("api", []))
    if hosts and hosts == case.drained:
        yield f"vmlops_drained is true for every host of the group api ({', '.join(sorted(hosts))}): leave one to answer"


def is_name(text: str) -> bool:
    """Whether a text is a host name, in any script; ``*.`` may stand in front."""
    labels = text.removeprefix("*.").removesuffix(".").split(".")
    if not all(re.fullmatch(r"[^\W_](?:[\w-]{0,61}[^\W_])?", label) for label in labels):
        return False
    try:
        return text.isascii() or bool(idna.encode(text.removeprefix("*."), uts46=True))
    except idna.IDNAError:
        return False


def server_names_are_names(case: Case) -> Iterator[str]:
    names = case.settings["vmlops_server_names"]
    if not names:
        yield "vmlops_server_names is empty: name at least one host name or address that clients use"
    for name in names:
        if not is_address(name) and not is_name(name):
            yield f"vmlops_server_names has {name!r}: must be a host name or an IP address, without scheme, port or brackets"


def networks_are_networks(case: Case) -> Iterator[str]:
    for setting in ("vmlops_exempt_networks", "vmlops_load_balancers"):
        for network in case.settings[setting]:
            try:
                ip_network(network)
            except ValueError as error:
                yield f"{setting}: {error}"


def certificate_can_be_had(case: Case) -> Iterator[str]:
    settings, mode = case.settings, case.settings["tls_mode"]
    if mode == "provided":
        for name in ("tls_provided_certificate", "tls_provided_key"):
            if not settings[name]:
                yield f"tls_mode is provided, but {name} is empty: set it to a file on the control machine"
            elif not Path(settings[name]).expanduser().is_file():
                yield f"{name} is {settings[name]}, which is no file on the control machine"
    if mode == "acme" and not any("." in name and not is_address(name) for name in settings["vmlops_server_names"]):
        yield "tls_mode is acme, but vmlops_server_names has no public name that the authority could prove: add one"
    if mode == "selfsigned":
        if settings["tls_renew_days"] >= settings["tls_certificate_days"]:
            yield "tls_renew_days must be less than tls_certificate_days, or every run would sign a new certificate"
        if settings["tls_certificate_days"] > settings["tls_ca_days"]:
            yield "tls_certificate_days must not be more than tls_ca_days: a certificate does not outlive its CA"


def files_are_there(case: Case) -> Iterator[str]:
    for name in ("grafana_deb", "base_packages_archive"):
        file = case.settings.get(name)  # the default of the second depends on the host
        if file and not Path(file).expanduser().is_file():
            yield f"{name} is {file}, which is no file on the control machine"


def grafana_reads_its_password(case: Case) -> Iterator[str]:
    if re.search(r'"""|\$__\w+{|\${', case.settings["grafana_admin_password"]):
        yield 'grafana_admin_password has """, ${ or $__…{, which Grafana would not read as it stands: choose another'


def way_in_stays_open(case: Case) -> Iterator[str]:
    """SSH_CONNECTION is «client-address client-port address port»."""
    port = case.facts.get("env", {}).get("SSH_CONNECTION", "").rpartition(" ")[2]
    if port and port != str(case.settings["firewall_ssh_port"]):
        yield (
            f"this run reaches {case.host} at its port {port}, which the firewall would close: set firewall_ssh_port to {port} "
            "for it in the environment's group_vars or host_vars"
        )


RULES = (
    groups_are_filled,
    ports_are_used_once,
    versions_have_instances,
    names_are_given_once,
    somebody_may_enter,
    receivers_exist,
    addresses_can_be_reached,
    shared_address_is_free,
    shared_address_has_a_device,
    somebody_is_asked,
    server_names_are_names,
    networks_are_networks,
    certificate_can_be_had,
    files_are_there,
    grafana_reads_its_password,
    way_in_stays_open,
)


def rule_problems(
    settings: Mapping[str, Any],
    host: str,
    groups: Mapping[str, list[str]],
    hostvars: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """Return a line for each rule that the settings of a host break.

    Args:
        settings: as effective_settings returns them.
        host: its name in the inventory.
        groups: Ansible's ``groups``.
        hostvars: Ansible's ``hostvars``; of other hosts their addresses are read, of this one its facts.
    """
    addresses = {other: str(hostvars[other]["vmlops_address"]) for other in stack_hosts(groups)}
    drained = frozenset(other for other in groups.get("api", []) if hostvars[other].get("vmlops_drained", False))
    case = Case(host, settings, groups, addresses, drained, hostvars[host].get("ansible_facts", {}))
    return [problem for rule in RULES for problem in rule(case)]


class FilterModule:
    """Filters of the role preflight."""

    def filters(self) -> dict[str, Any]:
        return {"rule_problems": rule_problems}
