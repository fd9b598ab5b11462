"""What is in the image, and what machines that are made from it do, seen from the outside."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from host.commands import as_root
from roles.lab_machine.library.lab_network import name_servers
from tests.image.conftest import Image, Made, predict
from tests.paths import ROOT

# A private key in PEM or in OpenSSH's form, and not a program that knows how one begins.
SECRETS = re.compile(rb"-----BEGIN ([A-Z]+ )?PRIVATE KEY-----\r?\n([A-Z].*\n)*\r?\n?[A-Za-z0-9+/=]{40}")
# What site.yml may change on a machine that was made from the image, as role, task and item: accounts, certificate and names.
SECRETS_AND_ADDRESSES = {
    # The units have a link to the documentation, at the first name.
    "api : Install the unit of each version v1",
    "api : Install the unit of each version v2",
    "api : Replace the instances one at a time v1",
    "api : Replace the instances one at a time v2",
    "tls : Make the directory of the CA",
    "tls : Make the key of the CA",
    "tls : Make the certificate of the CA",
    "tls : Make the certificate",
    "tls : Put the certificate in place",
    "gateway : Write the accounts and their password hashes",
    "gateway : Derive the map of accounts and the key of the verdicts",
    "gateway : Put the configuration in place, if nginx accepts it",
    "gateway : See whether nginx serves another configuration than the one in place",
    "nginx_exporter : Choose the address before the package starts the daemon "
    "etc/systemd/system/vmlops-certificate-metrics.service",
    "alertmanager : Choose the address before the package starts the daemon",
    "prometheus : Choose address and retention before the package starts the daemon",
    # The host's name in the inventory is a label of what is asked.
    "prometheus : Write the configuration",
}


# --- the files ---


def test_listing_has_every_format_with_its_checksum_and_every_package(source: Image) -> None:
    for name, file in source.listing["files"].items():
        path = source.file("json").parent / name
        with path.open("rb") as stream:
            assert hashlib.file_digest(stream, "sha256").hexdigest() == file["sha256"], name
    assert {name.removeprefix(f"{source.listing['image']}.") for name in source.listing["files"]} == {
        "tar.zst", "raw", "qcow2", "vmdk", "box",
    }  # fmt: skip
    assert {"nginx", "prometheus", "cloud-init", "systemd"} <= set(source.listing["packages"])
    assert re.fullmatch(r"[0-9a-f]{12}", source.listing["releases"]["v1"])


@pytest.mark.parametrize("ending", ["qcow2", "vmdk"])
def test_every_format_is_the_same_disk(ending: str, source: Image) -> None:
    said = subprocess.run(
        ["qemu-img", "compare", source.file("raw"), source.file(ending)], check=False, capture_output=True, text=True
    )
    assert said.stdout.strip() == "Images are identical."


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, source: Image) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("tree")
    subprocess.run(as_root("tar", "-C", place, "-xpf", source.file("tar.zst")), check=True)
    yield place
    subprocess.run(as_root("rm", "-rf", "--one-file-system", place), check=True)


def test_no_secret_is_in_the_image(tree: Path) -> None:
    """Keys by what they look like, wherever they are; and what has no such look by its place."""
    # Packages ship examples and what their libraries test themselves with: everybody has those.
    lists = (tree / "var/lib/dpkg/info").glob("*.list")
    shipped = {line.removeprefix("/") for path in lists for line in path.read_text().splitlines()}
    files = [path for path in tree.rglob("*") if path.is_file() and not path.is_symlink()]
    found = [str(path.relative_to(tree)) for path in files if SECRETS.search(read(path))]
    assert [path for path in found if path not in shipped] == []
    shadow = dict(line.split(":")[:2] for line in (tree / "etc/shadow").read_text().splitlines())
    assert {name: value for name, value in shadow.items() if value not in ("*", "!", "!*", "!!")} == {}
    for realm in ("users", "operators"):
        names = [line.partition(":")[0] for line in (tree / f"etc/nginx/vmlops.{realm}").read_text().splitlines()]
        assert names == ["(unknown)"]
    assert (tree / "etc/machine-id").read_text() == ""
    for place in (
        "home/ops/.ssh",
        "root/.ssh",
        "var/lib/systemd/random-seed",
        "var/lib/cloud/instance",
        "etc/nginx/vmlops.key",
    ):
        assert not (tree / place).exists(), place
    assert [path for path in files if path.is_relative_to(tree / "var/log") and path.stat().st_size] == []
    assert list((tree / "var/lib/apt/lists").glob("*")) == []


def read(path: Path) -> bytes:
    return path.read_bytes()


def test_nothing_of_the_maker_is_in_the_image(tree: Path) -> None:
    """No path of this clone, no name of its lab machines, no name server of this host."""
    names = [str(ROOT).encode(), b"vml-", *(f"nameserver {server}\n".encode() for server in name_servers())]
    found = [
        str(path.relative_to(tree))
        for place in ("etc", "opt", "root", "home", "var/lib", "usr/local")
        for path in (tree / place).rglob("*")
        if path.is_file() and not path.is_symlink() and any(name in read(path) for name in names)
    ]
    assert found == []


# --- machines that nobody told anything ---


def test_machine_serves_after_its_first_boot(pair: list[Made]) -> None:
    for machine in pair:
        password = machine.passwords()["https: admin"]
        ca = machine.read("/etc/vmlops/ca/ca.crt")
        assert predict(f"https://{machine.address}", ca, ("admin", password))
        assert machine.ssh("systemctl --failed --no-legend --plain") == ""


def test_two_machines_have_no_secret_in_common(pair: list[Made]) -> None:
    files = (
        "/etc/ssh/ssh_host_ed25519_key", "/etc/ssh/ssh_host_ecdsa_key", "/etc/vmlops/ca/ca.key", "/etc/vmlops/tls/server.key",
        "/etc/nginx/vmlops.key", "/etc/nginx/vmlops.users", "/etc/machine-id", "/etc/vmlops/passwords",
    )  # fmt: skip
    for path in files:
        one, other = (machine.read(path) for machine in pair)
        assert one
        assert one != other, path
    with pytest.raises(AssertionError, match="401"):
        ask_once(pair[0], ("admin", pair[1].passwords()["https: admin"]))


def ask_once(machine: Made, account: tuple[str, str]) -> str:
    name, password = account
    words = [
        "curl",
        "-sk",
        "--noproxy",
        "*",
        "-u",
        f"{name}:{password}",
        "-w",
        "%{http_code}",
        "-d",
        '{"sentence": "a"}',
    ]
    said = subprocess.run(
        [*words, "-H", "Content-Type: application/json", f"https://{machine.address}/predict"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert said.endswith("200"), said
    return said


def test_files_of_the_first_boot_have_the_owners_and_modes_that_the_roles_give(pair: list[Made]) -> None:
    expected = {
        "/etc/vmlops/tls/server.key": "600 root root", "/etc/vmlops/tls/server.crt": "644 root root",
        "/etc/nginx/vmlops.users": "640 root vmlops-verifier", "/etc/nginx/vmlops.operators": "640 root vmlops-verifier",
        "/etc/nginx/vmlops.key": "600 root root", "/etc/nginx/vmlops.names": "640 root vmlops-verifier",
        "/etc/vmlops/ca/ca.key": "600 root root", "/etc/vmlops/passwords": "600 root root",
    }  # fmt: skip
    said = pair[0].ssh(f"sudo stat --format='%n %a %U %G' {' '.join(expected)}")
    assert dict(line.split(" ", 1) for line in said.splitlines()) == expected


def test_what_was_made_stays_over_a_reboot(pair: list[Made]) -> None:
    machine = pair[0]
    before = [
        machine.read(path)
        for path in ("/etc/vmlops/passwords", "/etc/vmlops/tls/server.crt", "/etc/nginx/vmlops.users")
    ]
    machine.bring("stopped")
    machine.bring("started")
    after = [
        machine.read(path)
        for path in ("/etc/vmlops/passwords", "/etc/vmlops/tls/server.crt", "/etc/nginx/vmlops.users")
    ]
    assert after == before
    ca = machine.read("/etc/vmlops/ca/ca.crt")
    assert predict(f"https://{machine.address}", ca, ("admin", machine.passwords()["https: admin"]))


def test_site_changes_addresses_and_secrets_only(pair: list[Made], tmp_path: Path) -> None:
    machine = pair[1]
    variables = tmp_path / "group_vars/all"
    variables.mkdir(parents=True)
    (variables / "10-stack.yml").symlink_to(ROOT / "inventory/stack.yml")
    settings = {
        "ansible_host": machine.address,
        "ansible_ssh_common_args": f"-F {machine.control}/ssh_config",
        "gateway_users": [{"name": "reader", "password": "nine-green-lamps"}],
        "grafana_admin_password": "nine-green-lamps",
        "grafana_required": False,
        "tls_ca_dir": str(tmp_path / "certs"),
    }
    (variables / "20-own.yml").write_text(yaml.safe_dump(settings))
    groups = {group: {"hosts": {"made": None}} for group in ("api", "gateway", "monitoring")}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(groups))
    result = subprocess.run(
        ["ansible-playbook", "-i", str(tmp_path), "site.yml"], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr
    changed = changed_tasks(result.stdout)
    assert changed
    assert changed - SECRETS_AND_ADDRESSES == set()
    ca = (tmp_path / "certs/ca.crt").read_text()
    assert predict(f"https://{machine.address}", ca, ("reader", "nine-green-lamps"))


def changed_tasks(said: str) -> set[str]:
    """The tasks that changed something, with the item if they have several; handlers are left out, they follow from tasks."""
    found, task = set(), ""
    for line in said.splitlines():
        if heading := re.match(r"(TASK|RUNNING HANDLER) \[(.*)\]", line):
            task = heading[2] if heading[1] == "TASK" else ""
        elif task and (change := re.match(r"changed: \[[^]]*\](?: => \(item=(.*?)( [0-9a-f]{12})?\)$)?", line)):
            named = change[1] and "no_log" not in change[1]
            found.add(f"{task} {change[1]}" if named else task)
    return found
