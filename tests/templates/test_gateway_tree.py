"""The rendered tree as nginx reads it, and the module that puts it in place."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args

from roles.gateway.library import nginx_tree
from tests.load.bench import gateway
from tests.paths import ROOT
from tests.templates.gateway_edge import NGINX, certificate, check, places, write_tree
from tests.templates.render import DISTRIBUTIONS, evaluate, render, variables

ROLE = ROOT / "roles/gateway"
TWO_HOSTS = [
    {"name": f"v1@{port}", "version": "v1", "address": address, "port": port, "asked": True}
    for address in ("10.0.0.1", "10.0.0.2")
    for port in (8001, 8002)
]
VARIANTS: dict[str, dict[str, Any]] = {
    "lab": {},
    "modern": {"gateway_tls_profile": "modern"},
    "canary": {"gateway_canary_percent": 12.5},
    "all canary": {"gateway_canary_percent": 100},
    "shadow": {"gateway_shadow_percent": 100},
    "exempt": {"vmlops_exempt_networks": ["10.0.0.0/8", "fd00::/8"]},
    "no hsts": {"gateway_hsts_seconds": 0},
    "load balancer": {"vmlops_load_balancers": ["10.0.0.0/8", "fd00::/8"]},
    "cors": {"gateway_cors_origins": ["https://pages.example.org"]},
    "no IPv6": {"_gateway_ipv6": False},
    "names": {"vmlops_server_names": ["api.example.org", "api.example.org", "2001:db8::1", "*.example.net"]},
    "two hosts, no v2": {"vmlops_endpoints": TWO_HOSTS},
    "no monitoring": {"_gateway_monitoring": ""},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_nginx_accepts_every_variant(tmp_path: Path, variant: str) -> None:
    certificate(tmp_path)
    write_tree(tmp_path, 18080, 18443, **VARIANTS[variant])
    assert check(tmp_path) == ""


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_http2_as_each_distributions_nginx_wants_it(tmp_path: Path, distribution: str) -> None:
    certificate(tmp_path)
    write_tree(tmp_path, 18080, 18443, distribution=distribution)
    server = tmp_path / "vmlops/server.conf"
    text = server.read_text()
    if distribution == "Debian-13":  # the only one with nginx 1.25.1 or newer; the tests have that of Debian 12
        assert text.count("http2 on;") == 2
        server.write_text(text.replace("http2 on;", ""))
    else:
        assert "http2 on" not in text
        assert text.count("ssl http2") == 4
    assert check(tmp_path) == ""


def test_every_distribution_has_the_same_variables() -> None:
    keys = {name: sorted(yaml.safe_load((ROLE / f"vars/{name}.yml").read_text())) for name in DISTRIBUTIONS}
    assert len({str(value) for value in keys.values()}) == 1, keys


def test_the_benchmark_renders_the_same_tree_for_other_ports(tmp_path: Path) -> None:
    certificate(tmp_path)
    write_tree(tmp_path, 18080, 18443)
    upstreams = {9601: (8001, 8002), 9602: (8003,)}
    elsewhere = places(tmp_path, 18080, 18443)
    del elsewhere["_gateway_https_listen"], elsewhere["_gateway_http_listen"]
    for name, text in gateway.tree("10.0.0.9", upstreams, "1.22.1", 9190, "{}", **elsewhere).items():
        (tmp_path / name.removeprefix(f"{gateway.DIRECTORY[1:]}/")).write_text(text)
    assert check(tmp_path) == ""
    assert "listen 9601 ssl http2;" in (tmp_path / "vmlops/server.conf").read_text()
    replicas = re.findall(
        r"upstream (api_\d+)|server 127.0.0.1:(\d+) ", (tmp_path / "vmlops/upstreams.conf").read_text()
    )
    assert ["".join(found) for found in replicas] == ["api_9601", "8001", "8002", "api_9602", "8003"]


def test_another_replica_is_one_line(tmp_path: Path) -> None:
    tree = evaluate("_gateway_tree", "gateway", vmlops_endpoints=TWO_HOSTS)
    servers = re.findall(r"server (\S+) max_fails", tree["vmlops/upstreams.conf"])
    assert servers == [f"{endpoint['address']}:{endpoint['port']}" for endpoint in TWO_HOSTS]


def test_nothing_but_nginx_conf_lies_outside_the_tree() -> None:
    names = list(evaluate("_gateway_tree", "gateway"))
    on_disk = {
        str(path.relative_to(ROLE / "templates/etc/nginx")) for path in (ROLE / "templates/etc/nginx").rglob("*.conf")
    }
    assert set(names) == on_disk
    assert all(name == "nginx.conf" or name.startswith("vmlops/") for name in names)


def test_no_secret_is_in_the_tree() -> None:
    password = "correct horse battery staple"
    tree = evaluate("_gateway_tree", "gateway", gateway_users=[{"name": "zebra.client", "password": password}])
    assert not any(password in text or "zebra" in text for text in tree.values())


def test_a_users_salt_is_theirs_and_stays() -> None:
    text = "{{ lookup('ansible.builtin.template', 'etc/nginx/users') }}"
    accounts = [{"name": name, "password": "same"} for name in ("one", "two")] + [{"name": "three", "hash": "$6$x$y"}]
    options = {"item": {"name": "users", "accounts": accounts}, "_gateway_hash_rounds": 5000}
    first, second = (str(evaluate(text.strip("{} "), "gateway", **options)) for _ in range(2))
    lines = first.splitlines()
    print(first)
    assert first == second
    assert lines[0].split(":")[1] != lines[1].split(":")[1]
    assert lines[2] == "three:$6$x$y"


# --- the module ---

Run = Callable[..., dict[str, Any]]
TEMPORARY = "".join(f"{kind}_temp_path {kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
FILES = {
    "nginx.conf": f"pid pid;\nevents {{}}\nhttp {{ access_log off; {TEMPORARY}include vmlops/one.conf; }}\n",
    "vmlops/one.conf": "server_tokens off;\n",
}


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run nginx_tree on a directory with a distribution's nginx.conf; return its answer."""
    (tmp_path / "nginx.conf").write_text("# as the package brings it\n")

    def run(files: dict[str, str], **options: Any) -> dict[str, Any]:
        arguments = {"path": str(tmp_path), "directory": "vmlops", "files": files, "nginx": NGINX} | options
        with patch_module_args(arguments), pytest.raises(SystemExit):
            nginx_tree.main()
        answer: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        print(answer)
        return answer

    return run


def on_disk(path: Path) -> dict[str, str]:
    return {str(file.relative_to(path)): file.read_text() for file in path.rglob("*") if file.is_file()}


def test_the_tree_is_installed_once(tmp_path: Path, run: Run) -> None:
    assert run(FILES)["changed"] is True
    assert on_disk(tmp_path) == FILES
    assert run(FILES)["changed"] is False


def test_a_file_that_is_no_longer_wanted_goes(tmp_path: Path, run: Run) -> None:
    run(FILES)
    (tmp_path / "vmlops/stray.conf").write_text("")
    assert run(FILES)["changed"] is True
    assert on_disk(tmp_path) == FILES


def test_a_tree_that_nginx_refuses_leaves_the_old_one(tmp_path: Path, run: Run) -> None:
    run(FILES)
    answer = run(FILES | {"vmlops/one.conf": "server_tokens perhaps;\n"})
    assert answer["failed"] is True
    assert 'invalid value "perhaps"' in answer["msg"]
    assert "vmlops/one.conf:1" in answer["msg"]
    assert on_disk(tmp_path) == FILES


def test_every_file_that_nginx_is_started_with_is_tested(tmp_path: Path, run: Run) -> None:
    files = FILES | {"vmlops/other.conf": "nonsense;\n"}
    answer = run(files, mains=["nginx.conf", "vmlops/other.conf"])
    assert 'unknown directive "nonsense"' in answer["msg"]
    assert on_disk(tmp_path) == {"nginx.conf": "# as the package brings it\n"}


def test_check_mode_tests_and_changes_nothing(tmp_path: Path, run: Run) -> None:
    answer = run(FILES, _ansible_check_mode=True, _ansible_diff=True)
    assert answer["changed"] is True
    assert "server_tokens off" in answer["diff"]["after"]
    assert on_disk(tmp_path) == {"nginx.conf": "# as the package brings it\n"}


def test_a_failure_half_way_puts_the_old_tree_back(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run(FILES)
    rename = Path.rename

    def fail_on_main(self: Path, target: Path) -> Path:
        if target == tmp_path / "nginx.conf":
            raise OSError("no space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_on_main)
    answer = run(FILES | {"vmlops/one.conf": "server_tokens on;\n"})
    assert answer["failed"] is True
    assert "no space left" in answer["msg"]
    assert on_disk(tmp_path) == FILES


@pytest.mark.parametrize("files", [{"vmlops/one.conf": ""}, FILES | {"elsewhere.conf": ""}, FILES | {"vmlops/a/b": ""}])
def test_files_elsewhere_are_refused(run: Run, files: dict[str, str]) -> None:
    assert run(files)["failed"] is True


@pytest.mark.parametrize("ipv6", [True, False])
def test_systemd_holds_the_sockets_that_nginx_wants(ipv6: bool) -> None:
    """nginx takes an inherited socket for the `listen` of the same address, and opens one that nobody gave it."""
    server = render("gateway", "etc/nginx/vmlops/server.conf", _gateway_ipv6=ipv6)
    socket = render("gateway", "etc/systemd/system/nginx.socket", _gateway_ipv6=ipv6)
    unit = render("gateway", "etc/systemd/system/nginx.service.d/socket.conf", _gateway_ipv6=ipv6)
    wanted = {address if ":" in address else f"0.0.0.0:{address}" for address in re.findall(r"listen ([^ ;]+)", server)}
    held = re.findall(r"^ListenStream=(.*)$", socket, re.MULTILINE)
    assert set(held) == wanted
    assert len(held) == (4 if ipv6 else 2)
    assert f"\nEnvironment=NGINX={''.join(f'{number};' for number in range(3, 3 + len(held)))}\n" in unit


def test_unknown_variables_are_errors() -> None:
    with pytest.raises(Exception, match="gateway_typo"):
        evaluate("gateway_typo", "gateway")
    assert "gateway_rate" in variables("gateway")
