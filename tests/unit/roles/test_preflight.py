"""What the role preflight says of settings: one line for each, with the variable's name and what to do."""

from __future__ import annotations

import subprocess
from copy import deepcopy
from typing import Any

import pytest
import yaml

from roles.preflight.filter_plugins import passwords, rules
from roles.preflight.filter_plugins import settings as settings_filter
from tests.paths import ROOT

VARIABLES = yaml.safe_load((ROOT / "roles/preflight/vars/main.yml").read_text())
LIMITS = VARIABLES["_preflight_limits"]
KNOWN = VARIABLES["_preflight_known_passwords"].split("'")[1].split()

SECRET = "0b9d1c66c1bd4b73"
STACK = {
    name: value
    for name, value in yaml.safe_load((ROOT / "inventory/stack.yml").read_text()).items()
    if name != "vmlops_endpoints"
}
GOOD: dict[str, Any] = STACK | {
    "vmlops_server_names": ["emotions.example.org", "192.0.2.7"],
    "vmlops_mutual_tls": False,
    "gateway_users": [{"name": "reader", "password": SECRET}],
    "grafana_admin_password": SECRET,
}
ONE_HOST = {"all": ["one"], "api": ["one"], "gateway": ["one"], "monitoring": ["one"]}
CLUSTER = {"all": ["one", "two"], "api": ["one"], "gateway": ["two"], "monitoring": ["two"]}


def problems(
    changes: dict[str, Any],
    groups: dict[str, list[str]] = ONE_HOST,
    facts: dict[str, Any] | None = None,
    others: dict[str, str] | None = None,
) -> list[str]:
    """What the role says of the good settings with these changes: as it does, first of each value, then of all together."""
    settings = deepcopy(GOOD) | changes
    roles = ROOT / "roles"
    found: list[str] = settings_filter.setting_problems(settings, roles, ROOT / "inventory/stack.yml", LIMITS)
    if not found:
        effective = settings_filter.effective_settings(settings, roles)
        addresses = {"one": effective["vmlops_address"], **(others or {})}
        hostvars = {
            host: {**settings, "vmlops_address": address, "ansible_facts": facts or {}}
            for host, address in addresses.items()
        }
        found = rules.rule_problems(effective, "one", groups, hostvars) + passwords.password_problems(effective, KNOWN)
    for line in found:
        assert "\n" not in line
    return found


def instances(*ports: object) -> list[dict[str, object]]:
    return [{"version": "v1", "port": port} for port in ports]


def account(**keys: object) -> list[dict[str, object]]:
    return [{"name": "reader", "password": SECRET} | keys]


PORTS = STACK["vmlops_ports"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"vmlops_address": "fd00::5"},
        {"vmlops_server_names": ["API.Example.ORG", "bücher.example", "2001:db8::1", "*.example.net", "a" * 63 + ".example"]},
        {"gateway_users": [{"name": "x", "hash": "$6$salt$hash"}], "gateway_operators": [{"name": "y", "hash": "$y$j9T$a$b"}]},
        {"gateway_users": account(password="pass:word in two parts, ünïcödé")},
        {"gateway_canary_percent": 0.5, "gateway_shadow_percent": 100},
        {"prometheus_runbook_url": "https://wiki.example.org/runbook"},
        {"vmlops_exempt_networks": ["10.0.0.0/8", "192.0.2.1", "fd00::/8"]},
        {"tls_mode": "acme", "tls_acme_email": "ops@example.org"},
        {
            "alertmanager_receivers": [{"name": "nobody"}, {"name": "pager", "webhook_configs": [{"url": "https://example.org"}]}],
            "alertmanager_page_receiver": "pager",
        },
        {"preflight_allow_weak_passwords": True, "gateway_users": account(password="reader"), "grafana_admin_password": "admin"},
        {"lab_machine_state": "started"},
    ],
)  # fmt: skip
def test_settings_that_are_right_pass(changes: dict[str, Any]) -> None:
    assert problems(changes) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # Names.
        ({"gateway_userz": []}, "unknown setting gateway_userz: did you mean gateway_users?"),
        ({"vmlops_instnces": []}, "unknown setting vmlops_instnces: did you mean vmlops_instances?"),
        ({"gateway_qqqqqqqqqq": 1}, "unknown setting gateway_qqqqqqqqqq: remove it, nothing reads it"),
        ({"gateway_users": account(pasword="x")}, "unknown setting gateway_users[0].pasword: did you mean password?"),
        ({"gateway_users": [{"name": "reader", "pasword": SECRET}]}, "gateway_users[0] has neither password nor hash"),
        ({"gateway_users": account(hash="$6$a$b")}, "gateway_users[0] has both password and hash"),
        ({"vmlops_instances": [{"version": "v1"}]}, "vmlops_instances[0] has no port"),
        ({"vmlops_ports": {"grafana": 3001}}, "vmlops_ports has no nginx_status"),
        ({"vmlops_ports": PORTS | {"loki": 3100}}, "unknown setting vmlops_ports.loki"),
        # Types: no text for anything else, as with -e, and nothing else for a text.
        ({"gateway_ocsp_stapling": "no"}, """is the text 'no', true or false is needed: without quotes; on the command line"""),
        ({"preflight_allow_weak_passwords": "false"}, "preflight_allow_weak_passwords is the text 'false'"),
        ({"vmlops_mutual_tls": "false"}, "vmlops_mutual_tls is the text 'false', true or false is needed"),
        ({"gateway_worker_connections": "8192"}, """-e '{"gateway_worker_connections": 8192}'"""),
        ({"vmlops_exempt_networks": "10.0.0.0/8"}, """-e '{"vmlops_exempt_networks": ["10.0.0.0/8"]}'"""),
        ({"gateway_canary_percent": "5"}, "gateway_canary_percent is the text '5', a number is needed"),
        ({"vmlops_instances": instances("8001")}, "vmlops_instances[0].port is the text '8001', a whole number is needed"),
        ({"vmlops_instances": "v1@8001"}, "vmlops_instances is the text 'v1@8001', a list is needed"),
        ({"vmlops_instances": [8001]}, "vmlops_instances[0] is not a mapping"),
        ({"vmlops_ports": [8001]}, "vmlops_ports is not a mapping"),
        ({"vmlops_https_port": True}, "vmlops_https_port is not a whole number"),
        ({"vmlops_https_port": 443.0}, "vmlops_https_port is not a whole number"),
        ({"gateway_rate": None}, "gateway_rate is empty, a whole number is needed: give it a value, or remove it"),
        ({"gateway_users": account(name="yes") + account(name=True)}, "gateway_users[1].name is true or false, text is needed"),
        ({"gateway_users": account(password=12345678)}, "gateway_users[0].password is a number, text is needed: put"),
        ({"grafana_version": 12.4}, "grafana_version is a number, text is needed: put it in quotes"),
        ({"grafana_admin_password": ["x"]}, "grafana_admin_password is no text"),
        # Choices, ranges and forms.
        ({"tls_mode": "letsencrypt"}, "tls_mode is 'letsencrypt': must be one of selfsigned, provided, acme"),
        ({"api_deploy_versions": ["v1", "v3"]}, "api_deploy_versions[1] is 'v3': must be one of v1, v2"),
        ({"vmlops_instances": instances(22)}, "vmlops_instances[0].port is 22: must be from 1024 to 65535"),
        ({"vmlops_instances": instances(443)}, "vmlops_instances[0].port is 443"),
        ({"vmlops_instances": instances(8001, 99999)}, "vmlops_instances[1].port is 99999"),
        ({"vmlops_ports": PORTS | {"mtail": 0}}, "vmlops_ports.mtail is 0: must be from 1024 to 65535"),
        ({"gateway_canary_percent": 150}, "gateway_canary_percent is 150: must be from 0 to 100"),
        ({"gateway_canary_percent": float("nan")}, "gateway_canary_percent is nan: must be from 0 to 100"),
        ({"gateway_rate": 0}, "gateway_rate is 0: must be from 1"),
        ({"prometheus_slo_availability": 99.5}, "prometheus_slo_availability is 99.5: must be from 0.5 to 0.99999"),
        ({"vmlops_promised_seconds": 0}, "vmlops_promised_seconds is 0: must be from 0.001 to 60"),
        ({"prometheus_runbook_url": "docs/runbook.md"}, "prometheus_runbook_url is 'docs/runbook.md': must be an address"),
        ({"vmlops_scrape_interval": "15"}, "vmlops_scrape_interval is '15': must be a duration such as 30s, 5m or 1h"),
        ({"prometheus_retention_size": "2 GB"}, "prometheus_retention_size is '2 GB': must be a size"),
        ({"vmlops_access_log": "access.log"}, "vmlops_access_log is 'access.log': must be a path from / on"),
        ({"gateway_users": account(name="")}, "gateway_users[0].name is '': must be letters, digits and . _ @ -"),
        ({"gateway_users": account(name="a:b")}, "gateway_users[0].name is 'a:b': must be letters"),
        ({"gateway_operators": account(name="a:b")}, "gateway_operators[0].name is 'a:b': must be letters"),
        ({"gateway_users": [{"name": "reader", "hash": SECRET}]}, "gateway_users[0].hash must be a hash of crypt(3)"),
        ({"gateway_operators": [{"name": "reader", "hash": "$6$a$b\n"}]}, "gateway_operators[0].hash must be a hash of crypt(3)"),
        # What spans settings.
        ({"vmlops_instances": instances(8001, 8001)}, "port 8001 is given 2 times, to the instance v1@8001 and the"),
        ({"vmlops_instances": instances(8080)}, "port 8080 is given 2 times, to the instance v1@8080 and vmlops_ports.nginx"),
        ({"gateway_shadow_port": 8101, "gateway_shadow_percent": 1}, "to the instance v2@8101 and gateway_shadow_port"),
        ({"firewall_ssh_port": 8001}, "and firewall_ssh_port"),
        ({"vmlops_instances": [{"version": "v2", "port": 8101}]}, "vmlops_instances has no instance of v1"),
        ({"vmlops_instances": instances(8001), "gateway_canary_percent": 5}, "gateway_canary_percent is 5, but vmlops_instances"),
        ({"vmlops_instances": instances(8001), "gateway_shadow_percent": 5}, "gateway_shadow_percent is 5, but vmlops_instances"),
        ({"gateway_users": account() + account()}, "gateway_users has reader twice"),
        ({"gateway_operators": account() + account()}, "gateway_operators has reader twice"),
        ({"gateway_users": []}, "gateway_users is empty"),
        ({"alertmanager_page_receiver": "pager"}, "alertmanager_page_receiver is 'pager', which alertmanager_receivers does"),
        ({"alertmanager_receivers": [{"name": "nobody"}, {"webhook_configs": []}]}, "has a receiver without"),
        ({"alertmanager_receivers": [{"name": "nobody"}] * 2}, "alertmanager_receivers has nobody twice"),
        ({"vmlops_exempt_networks": ["10.0.0.1/8"]}, "vmlops_exempt_networks: 10.0.0.1/8 has host bits set"),
        ({"vmlops_address": "[fd00::5]"}, "vmlops_address is '[fd00::5]': must be an IP address, IPv6 without brackets"),
        ({"vmlops_address": "0.0.0.0"}, "vmlops_address is 0.0.0.0, which no other service can ask"),
        ({"vmlops_server_names": []}, "vmlops_server_names is empty"),
        ({"vmlops_server_names": ["https://example.org"]}, "vmlops_server_names has 'https://example.org': must be a host name"),
        ({"vmlops_server_names": ["example.org:8443"]}, "vmlops_server_names has 'example.org:8443'"),
        ({"vmlops_server_names": ["a" * 64 + ".example"]}, "vmlops_server_names has 'aaaa"),
        ({"vmlops_server_names": [""]}, "vmlops_server_names has ''"),
        ({"tls_mode": "provided"}, "tls_mode is provided, but tls_provided_certificate is empty"),
        ({"tls_mode": "provided", "tls_provided_key": "/nowhere"}, "tls_provided_key is /nowhere, which is no file"),
        ({"tls_mode": "acme", "vmlops_server_names": ["localhost", "192.0.2.1"]}, "vmlops_server_names has no public name"),
        ({"tls_renew_days": 400}, "tls_renew_days must be less than tls_certificate_days"),
        ({"grafana_deb": "/nowhere.deb"}, "grafana_deb is /nowhere.deb, which is no file"),
        ({"grafana_admin_password": "${HOME} is where it is"}, "grafana_admin_password has"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_refused_in_one_line(changes: dict[str, Any], expected: str) -> None:
    found = problems(changes)
    print("\n".join(found))
    assert any(expected in line for line in found), found
    assert SECRET not in str(found)


@pytest.mark.parametrize("setting", ["gateway_users", "gateway_operators", "grafana_admin_password"])
@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("", "is shorter"),
        ("aB3-xyzzy9Q", "is shorter than 12"),
        ("Password2024!", "is known"),
        ("change me 1234", "is known"),
        ("000-Administrator", "is known"),
        ("ADMIN 2024 2024", "is"),
        (" admin  ", "is the account's name"),
        ("AdMiN", "is the account's name"),
        ("aaaaaaaaaaaaaaaa", "has too few letters"),
        ("827364519283", "has too few letters"),
        ("nul \0 in the middle of it", "has a control character"),
        ("two lines\nof a password", "has a control character"),
        ("x1y2" * 129, "more than the 510 bytes"),
    ],
)
def test_a_password_that_is_weak_or_of_no_use_is_refused(setting: str, password: str, reason: str) -> None:
    value: object = password if setting == "grafana_admin_password" else account(name="admin", password=password)
    (line,) = problems({setting: value})
    assert setting in line
    assert reason in line
    assert password not in line or len(password) < 6


@pytest.mark.parametrize(
    "hashed",
    [
        subprocess.check_output(["openssl", "passwd", kind, "-salt", "saltsalt", word], text=True).strip()
        for kind, word in (("-6", "changeme"), ("-5", "Reader"), ("-1", "reader "))
    ],
)
def test_a_known_password_is_refused_behind_its_hash(hashed: str) -> None:
    changes = {"gateway_users": [{"name": "reader", "hash": hashed}]}
    (line,) = problems(changes)
    assert line.startswith("gateway_users: the password of reader is known to everybody")
    assert hashed not in line
    assert problems(changes | {"preflight_allow_weak_passwords": True, "grafana_admin_password": "admin"}) == []


def test_a_missing_setting_is_named() -> None:
    settings = {name: value for name, value in GOOD.items() if name != "gateway_users"}
    found = settings_filter.setting_problems(settings, ROOT / "roles", ROOT / "inventory/stack.yml", LIMITS)
    assert found == ["missing setting gateway_users (Who may use the API.): set it in the environment's group_vars"]


@pytest.mark.parametrize(
    ("address", "other", "expected"),
    [
        ("10.0.0.1", "10.0.0.2", None),
        ("127.0.0.1", "10.0.0.2", "vmlops_address is 127.0.0.1, which two cannot reach"),
        ("::1", "fd00::2", "vmlops_address is ::1, which two cannot reach"),
        ("10.0.0.1", "10.0.0.1", "vmlops_address is 10.0.0.1 for one and for two"),
    ],
)
def test_hosts_of_a_cluster_have_addresses_of_their_own(address: str, other: str, expected: str | None) -> None:
    for groups in (CLUSTER, ONE_HOST | {"all": ["one", "two"]}):  # the other one serves, or is only watched
        found = problems({"vmlops_address": address}, groups, others={"two": other})
        assert found == [] if expected is None else expected in found[0]


@pytest.mark.parametrize(
    ("shared", "expected"),
    [("", None), ("10.0.0.9", None), ("10.0.0.2", "which is two's own"), ("gate", "must be an IP address")],
)
def test_gateways_share_an_address_that_no_host_has(shared: str, expected: str | None) -> None:
    changes = {"vmlops_address": "10.0.0.1", "vmlops_virtual_address": shared}
    found = problems(changes, CLUSTER, others={"two": "10.0.0.2"})
    assert found == [] if expected is None else expected in found[0]


@pytest.mark.parametrize(
    ("device", "route", "expected"),
    [
        ("", {"interface": "eth0"}, None),
        ("eth1", {}, None),
        ("", {}, "one has no default route: keepalived_interface must name the device of vmlops_virtual_address"),
    ],
)
def test_shared_address_needs_a_device(device: str, route: dict[str, str], expected: str | None) -> None:
    changes = {"vmlops_virtual_address": "10.0.0.9", "keepalived_interface": device}
    assert problems(changes, facts={"default_ipv4": route}) == ([] if expected is None else [expected])


def test_one_api_host_stays_in_the_upstreams() -> None:
    assert problems({"vmlops_drained": False}) == []
    (line,) = problems({"vmlops_drained": True})
    assert line == "vmlops_drained is true for every host of the group api (one): leave one to answer"


def test_a_group_without_hosts_is_named() -> None:
    (line,) = problems({}, {"all": ["one"], "api": ["one"]})
    assert line == "the inventory has no host in the group gateway: name at least one"


def test_the_way_in_must_stay_open() -> None:
    facts = {"env": {"SSH_CONNECTION": "192.0.2.1 51000 192.0.2.7 2222"}}
    (line,) = problems({}, facts=facts)
    assert "set firewall_ssh_port to 2222" in line
    assert problems({"firewall_ssh_port": 2222}, facts=facts) == []


def test_every_number_has_a_range_and_every_limit_an_option() -> None:
    def paths(prefix: str, options: dict[str, Any]) -> dict[str, str]:
        found = {}
        for name, option in options.items():
            found[f"{prefix}{name}"] = option.get("elements" if option.get("type") == "list" else "type", "str")
            found |= paths(f"{prefix}{name}.", option.get("options", {}))
        return found

    options = paths("", settings_filter.declared_settings(ROOT / "roles"))
    assert set(LIMITS) <= set(options), "a limit without an option limits nothing"
    numbers = {path for path, kind in options.items() if kind in ("int", "float")}
    assert numbers == {path for path, limit in LIMITS.items() if "range" in limit}, "give each of these a range"
