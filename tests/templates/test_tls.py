"""The role tls, run against directories of a test: the CA, the signing, the renewal, and certificates that are provided."""

from __future__ import annotations

import datetime
import json
import os
import re
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.paths import ROOT
from tests.templates.gateway_edge import certificate
from tests.templates.render import evaluate, render

NAMES = ["localhost", "127.0.0.1", "api.example.org", "2001:db8::1"]


class Site:
    """A target and a control machine, both below one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.certificate, self.key = directory / "etc/server.crt", directory / "etc/server.key"
        self.ca, self.ca_key = directory / "certs/ca.crt", directory / "certs/ca.key"
        self.play = directory / "play.yml"
        self.inventory = "localhost,"
        tasks = [{"ansible.builtin.import_role": {"name": "tls"}}]
        play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}
        self.play.write_text(yaml.safe_dump([play]))

    def run(self, fails: bool = False, **variables: Any) -> str:
        """Run the role; return the names of the tasks that changed something, or its message where it `fails`."""
        settings = {
            "ansible_python_interpreter": sys.executable,
            "vmlops_server_names": NAMES,
            "vmlops_tls_certificate": str(self.certificate),
            "vmlops_tls_key": str(self.key),
            "tls_ca_dir": str(self.ca.parent),
        } | variables
        environment = os.environ | {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_ROLES_PATH": str(ROOT / "roles"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
            "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "false",
            "ANSIBLE_NOCOLOR": "true",
            "ANSIBLE_PIPELINING": "true",
        }
        # What the distribution's packages do, the interpreter of the tests has.
        program = Path(sys.executable).with_name("ansible-playbook")
        command: list[str | Path] = [
            program,
            "-i",
            self.inventory,
            self.play,
            "--skip-tags",
            "packages",
            "-e",
            f"@{ROOT}/inventory/stack.yml",
            "-e",
            json.dumps(settings),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
        print(done.stdout, done.stderr)
        assert bool(done.returncode) is fails
        if fails:
            return done.stdout + done.stderr
        return "\n".join(re.findall(r"TASK \[tls : (.*?)\] \**\nchanged", done.stdout))

    def load(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.certificate.read_bytes())

    def verify(self) -> None:
        context = ssl.create_default_context(cafile=str(self.ca))
        assert context.cert_store_stats()["x509_ca"] == 1
        command: list[str | Path] = [
            "openssl",
            "verify",
            "-x509_strict",
            "-purpose",
            "sslserver",
            "-CAfile",
            self.ca,
            self.certificate,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def lifetime(certificate: x509.Certificate) -> int:
    return round((certificate.not_valid_after_utc - certificate.not_valid_before_utc) / datetime.timedelta(days=1))


def test_selfsigned(site: Site) -> None:
    """One walk, since each run takes seconds: made, renewed, kept, and after the loss of the CA made again for other names."""
    assert "Make the certificate" in site.run(tls_certificate_days=10)
    site.verify()
    first, ca, key = site.load(), site.ca.read_bytes(), site.key.read_bytes()
    names = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "api.example.org"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "2001:db8::1"]
    usage = first.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert lifetime(first) == 10
    assert site.key.stat().st_mode & 0o777 == 0o600
    assert site.ca_key.stat().st_mode & 0o777 == 0o600
    assert b"PRIVATE" not in site.certificate.read_bytes()

    # Ten days left are fewer than thirty: renewed, with the same key and the same CA.
    assert site.run() == "Make the certificate\nPut the certificate in place"
    assert lifetime(site.load()) == 397
    assert (site.ca.read_bytes(), site.key.read_bytes()) == (ca, key)

    assert site.run() == ""

    site.ca.unlink()
    site.ca_key.unlink()
    assert "Make the certificate" in site.run(vmlops_server_names=["other.example.org"])
    site.verify()
    names = site.load().extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["other.example.org"]
    assert site.ca.read_bytes() != ca


def test_a_host_of_a_fleet_is_known_by_its_address_and_api_hosts_by_a_name_of_theirs(
    site: Site, tmp_path: Path
) -> None:
    play = yaml.safe_load(site.play.read_text())
    play[0]["tasks"][0]["ansible.builtin.import_role"]["tasks_from"] = "host"
    site.play.write_text(yaml.safe_dump(play))
    site.certificate, site.key = tmp_path / "host/host.crt", tmp_path / "host/host.key"
    own = {"directory": str(tmp_path / "host"), "group": "root", "api_name": "api.vmlops.internal"}
    settings: dict[str, Any] = {"vmlops_host_tls": own, "vmlops_address": "192.0.2.7"}
    for group, name in (("api", "api.vmlops.internal"), ("monitoring", "localhost")):
        site.inventory = str(tmp_path / "hosts.yml")
        hosts = {"api": {"hosts": {}}, group: {"hosts": {"localhost": {}}}}
        (tmp_path / "hosts.yml").write_text(yaml.safe_dump(hosts))
        assert "Put the certificate in place" in site.run(**settings)
        site.verify()
        names = site.load().extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == [name]
        assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.7"]
        usage = site.load().extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert set(usage) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
        assert site.run(**settings) == ""
    assert (tmp_path / "host/ca.crt").read_bytes() == site.ca.read_bytes()


def test_names_in_capitals_international_and_long_ones_are_signed_once(site: Site) -> None:
    long = "a" * 63 + ".example"
    names = [long, "API.Example.ORG", "bücher.example", "2001:DB8::0001"]
    assert "Make the certificate" in site.run(vmlops_server_names=names)
    site.verify()
    signed = site.load()
    alternatives = signed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert alternatives.get_values_for_type(x509.DNSName) == [long, "api.example.org", "xn--bcher-kva.example"]
    assert [str(address) for address in alternatives.get_values_for_type(x509.IPAddress)] == ["2001:db8::1"]
    # A common name has room for 64 characters: the first name that fits.
    assert [attribute.value for attribute in signed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == [
        "api.example.org"
    ]
    assert site.run(vmlops_server_names=names) == ""

    assert "Make the certificate" in site.run(vmlops_server_names=[long])
    site.verify()
    assert not site.load().subject.get_attributes_for_oid(NameOID.COMMON_NAME)


def test_provided(site: Site, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    certificate(tmp_path)
    certificate(other)
    files: dict[str, Any] = {
        "tls_provided_certificate": f"{tmp_path}/server.crt",
        "tls_provided_key": f"{tmp_path}/server.key",
    }
    assert site.run(tls_mode="provided", **files) == (
        "Make the directory of the certificate\nPut the key and the certificate in place"
    )
    assert site.certificate.read_bytes() == (tmp_path / "server.crt").read_bytes()
    assert site.key.stat().st_mode & 0o777 == 0o600
    assert site.run(tls_mode="provided", **files) == ""

    before = site.certificate.read_bytes()
    message = site.run(fails=True, tls_mode="provided", **files | {"tls_provided_certificate": f"{other}/server.crt"})
    assert "must be the certificate of the key" in " ".join(message.split())
    assert site.certificate.read_bytes() == before


def test_acme_asks_for_public_names_only() -> None:
    names = ["localhost", "127.0.0.1", "2001:db8::1", "lab", "api.example.org", "api.example.org", "10.example.org"]
    command = evaluate("_tls_acme_command", "tls", vmlops_server_names=names, tls_acme_email="ops@example.org")
    print(command)
    assert [command[i + 1] for i, word in enumerate(command) if word == "--domain"] == [
        "api.example.org",
        "10.example.org",
    ]
    assert command[command.index("--email") + 1] == "ops@example.org"
    assert "--register-unsafely-without-email" in evaluate("_tls_acme_command", "tls", vmlops_server_names=names)


def test_the_authority_is_asked_once_for_the_names_that_there_are(site: Site, tmp_path: Path) -> None:
    """A stub of certbot records its arguments."""
    lineage, programs = tmp_path / "lineage", tmp_path / "bin"
    lineage.mkdir()
    programs.mkdir()
    asked = tmp_path / "asked"
    certbot = programs / "certbot"
    certbot.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    certbot.chmod(0o755)
    play = yaml.safe_load(site.play.read_text())
    play[0]["tasks"][0]["ansible.builtin.import_role"]["tasks_from"] = "authority"
    play[0]["environment"] = {"PATH": f"{programs}:{os.environ['PATH']}"}
    site.play.write_text(yaml.safe_dump(play))
    settings: dict[str, Any] = {"tls_mode": "acme", "_tls_acme_lineage": str(lineage)}
    ask = "Ask the authority for a certificate, if there is none for these names"
    assert site.run(**settings, vmlops_server_names=["localhost", "api.example.org"]) == ask
    assert asked.read_text().endswith("--domain api.example.org\n")

    certificate(lineage)
    (lineage / "server.crt").rename(lineage / "fullchain.pem")  # of localhost and 127.0.0.1
    assert site.run(**settings, vmlops_server_names=["localhost", "api.example.org"]) == ask
    assert site.run(**settings, _tls_acme_names=["localhost", "IP:127.0.0.1"]) == ""
    assert len(asked.read_text().splitlines()) == 2


def test_the_hook_hands_the_certificate_to_nginx(site: Site, tmp_path: Path) -> None:
    lineage, target, programs = tmp_path / "lineage", tmp_path / "target", tmp_path / "bin"
    for directory in (lineage, target, programs):
        directory.mkdir()
    (lineage / "privkey.pem").write_text("key")
    (lineage / "fullchain.pem").write_text("chain")
    reload = programs / "systemctl"
    reload.write_text(f'#!/bin/sh\necho "$@" > {target}/reload\n')
    reload.chmod(0o755)
    paths = {"vmlops_tls_certificate": f"{target}/server.crt", "vmlops_tls_key": f"{target}/server.key"}
    hook = tmp_path / "hook"
    hook.write_text(render("tls", "etc/letsencrypt/vmlops-hook", **paths))
    environment = {"RENEWED_LINEAGE": str(lineage), "PATH": f"{programs}:/usr/bin:/bin"}
    subprocess.run(["sh", hook], env=environment, check=True)
    assert (target / "server.crt").read_text() == "chain"
    assert (target / "server.key").stat().st_mode & 0o777 == 0o600
    assert (target / "reload").read_text() == "reload nginx.service\n"
