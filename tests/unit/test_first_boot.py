"""The first boot of a machine that is made from an image, in a folder that has what the roles leave there."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from roles.image.files import vmlops_first_boot as first_boot
from roles.image.files.vmlops_first_boot import Problem
from roles.preflight.filter_plugins import passwords
from tests.paths import ROOT

UNKNOWN = f"(unknown):$6$rounds=5000$nobody${'z' * 86}\n"
NAMES = ["emotions.example.org", "emotions", "10.0.0.7", "fd00::7", "localhost", "127.0.0.1"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc/nginx").mkdir(parents=True)
    for path in first_boot.REALMS.values():
        (tmp_path / path).write_text(UNKNOWN)
    return tmp_path


def read(root: Path, data: Any) -> dict[str, Any]:
    path = root / first_boot.DATA
    path.parent.mkdir(exist_ok=True)
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return first_boot.read(path)


def accounts(root: Path, realm: str) -> dict[str, str]:
    *lines, last = (root / first_boot.REALMS[realm]).read_text().splitlines(keepends=True)
    assert last == UNKNOWN
    return dict(line.strip().split(":", 1) for line in lines)


# --- what the site says ---


def test_no_data_is_all_that_is_needed(root: Path) -> None:
    assert first_boot.read(root / first_boot.DATA) == {"names": [], "users": {}, "operators": {}}


def test_names_are_spelt_as_certificates_and_clients_spell_them(root: Path) -> None:
    given = ["Emotions.Example.org.", "FD00::0007", "10.0.0.7", "xn--bcher-kva.example"]
    assert read(root, {"names": given})["names"] == [
        "emotions.example.org",
        "fd00::7",
        "10.0.0.7",
        "xn--bcher-kva.example",
    ]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("{", "is not JSON"),
        ([], "must be a JSON object"),
        ({"name": ["a"]}, "must be a JSON object with the keys names, users and operators"),
        ({"names": "a"}, "names must be a list"),
        ({"names": ["https://a"]}, "'https://a', which is neither a host name nor an address"),
        ({"names": ["bücher.example"]}, "xn-- form"),
        ({"names": [7.5]}, "neither"),
        ({"users": ["a"]}, "users must be an object"),
        ({"users": {"a:b": "nine-green-lamps"}}, "users: the account 'a:b'"),
        ({"users": {"a": "short"}}, "users: the password of a must have 12 to 400 characters"),
        ({"operators": {"a": "nine-green\nlamps"}}, "operators: the password of a must be a text without control"),
        ({"operators": {"a": 7}}, "must be a text"),
    ],
)
def test_data_that_no_machine_can_be_made_with_is_refused(root: Path, data: Any, said: str) -> None:
    with pytest.raises(Problem, match=said) as error:
        read(root, data)
    assert "nine-green" not in str(error.value), "a password is not said"


# --- accounts ---


def test_without_accounts_there_is_one_with_a_password_of_its_own(root: Path) -> None:
    made = [first_boot.write_accounts(root, read(root, {}))["admin"] for _ in range(2)]
    assert len(set(made)) == 2
    assert min(map(len, made)) >= 24
    assert set(accounts(root, "users")) == set(accounts(root, "operators")) == {"admin"}


def test_given_accounts_and_hashes_are_taken(root: Path) -> None:
    data = read(root, {"users": {"reader": "nine-green-lamps"}, "operators": {"watcher": "$6$rounds=5000$salt$hash"}})
    assert first_boot.write_accounts(root, data, lambda password, rounds: f"{password} {rounds}") == {}
    assert accounts(root, "users") == {"reader": "nine-green-lamps 5000"}
    assert accounts(root, "operators") == {"watcher": "$6$rounds=5000$salt$hash"}


def test_hash_is_one_that_crypt_knows() -> None:
    """The hash of crypt(3) for the same password, rounds and salt, as glibc and libxcrypt have it."""
    hashed = first_boot.sha512crypt("nine green lamps ü", 5000)
    assert hashed.startswith("$6$rounds=5000$")
    assert passwords.is_hash_of("nine green lamps ü", hashed)


def test_accounts_files_of_somebody_else_are_refused(root: Path) -> None:
    (root / first_boot.REALMS["users"]).write_text("admin:x\n")
    with pytest.raises(Problem, match="is not a file of accounts"):
        first_boot.write_accounts(root, read(root, {}))


# --- certificate ---


def certificate(root: Path, path: str = first_boot.CERTIFICATE) -> x509.Certificate:
    return x509.load_pem_x509_certificate((root / path).read_bytes())


def test_certificate_has_every_name_and_verifies(root: Path) -> None:
    first_boot.provide_certificate(root, NAMES)
    made = certificate(root).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in made] == NAMES
    certificate(root).verify_directly_issued_by(certificate(root, first_boot.CA_CERTIFICATE))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(root / first_boot.CERTIFICATE, root / first_boot.KEY)
    modes = {
        path: (root / path).stat().st_mode & 0o777
        for path in (first_boot.KEY, first_boot.CA_KEY, first_boot.CERTIFICATE)
    }
    assert modes == {first_boot.KEY: 0o600, first_boot.CA_KEY: 0o600, first_boot.CERTIFICATE: 0o644}


def test_certificate_lives_as_long_as_the_role_gives_it() -> None:
    defaults = yaml.safe_load((ROOT / "roles/tls/defaults/main.yml").read_text())
    assert (
        defaults["tls_ca_days"],
        defaults["tls_certificate_days"],
    ) == (first_boot.CA_DAYS, first_boot.CERTIFICATE_DAYS)


def test_given_certificate_is_used_if_it_is_that_of_the_key(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    first_boot.provide_certificate(other, NAMES)
    (root / first_boot.KEY).parent.mkdir(parents=True)
    for path in (first_boot.CERTIFICATE, first_boot.KEY):
        (root / path).write_bytes((other / path).read_bytes())
    first_boot.provide_certificate(root, NAMES)
    assert (root / first_boot.CERTIFICATE).read_bytes() == (other / first_boot.CERTIFICATE).read_bytes()
    assert not (root / first_boot.CA_CERTIFICATE).exists()
    (root / first_boot.KEY).write_bytes(first_boot.pem(ec.generate_private_key(ec.SECP256R1())))
    with pytest.raises(Problem, match=r"server\.crt is not the certificate of the key"):
        first_boot.provide_certificate(root, NAMES)
    (root / first_boot.KEY).unlink()
    with pytest.raises(Problem, match=r"must be a certificate and its key.*server\.key"):
        first_boot.provide_certificate(root, NAMES)


@pytest.mark.parametrize("lost", [first_boot.CERTIFICATE, first_boot.KEY])
def test_run_that_was_interrupted_is_done_again(root: Path, lost: str) -> None:
    first_boot.provide_certificate(root, NAMES)
    for path in (first_boot.CERTIFICATE, lost):  # they are written in the order key, certificate
        (root / path).unlink(missing_ok=True)
    first_boot.provide_certificate(root, NAMES)
    certificate(root).verify_directly_issued_by(certificate(root, first_boot.CA_CERTIFICATE))


# --- names ---


def test_own_names_follow_the_given_ones() -> None:
    assert first_boot.all_names(["emotions.example.org"], "Emotions.internal", ["10.0.0.7", "fd00::7"]) == NAMES
    assert first_boot.all_names([], "emotions", []) == ["emotions", "localhost", "127.0.0.1"]


def test_stand_ins_are_replaced_and_files_keep_their_modes(root: Path) -> None:
    configuration, unit, other = (
        root / "etc/nginx/server.conf",
        root / "etc/systemd/x.service",
        root / "etc/nginx/other",
    )
    unit.parent.mkdir()
    configuration.write_text("server_name vmlops.invalid;\n")
    configuration.chmod(0o640)
    unit.write_text("x 127.0.0.1:443 vmlops.invalid --url=https://vmlops.invalid/ stand-in\n")
    other.write_bytes(b"\xff vmlops.invalid")
    before = other.stat().st_mtime_ns
    names = ["fd00::7", "localhost"]
    assert first_boot.settle(root, "vmlops.invalid", names, "stand-in", "new") == [configuration, unit]
    assert configuration.read_text() == "server_name [fd00::7] localhost;\n"
    assert configuration.stat().st_mode & 0o777 == 0o640
    assert unit.read_text() == "x 127.0.0.1:443 fd00::7 --url=https://[fd00::7]/ new\n"
    assert other.stat().st_mtime_ns == before


def test_file_that_goes_away_meanwhile_is_left_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ssh-keygen makes the host keys at the same time, under other names first."""
    (root / "etc/scratch").write_text("vmlops.invalid\n")
    (root / "etc/unit").write_text("vmlops.invalid\n")
    read_text = Path.read_text

    def late(path: Path) -> str:
        if path.name == "scratch":
            path.unlink()
        return read_text(path)

    monkeypatch.setattr(Path, "read_text", late)
    assert first_boot.settle(root, "vmlops.invalid", ["name"], "stand-in", "new") == [root / "etc/unit"]


# --- who logs in ---


def test_console_password_is_shown_only_where_nobody_has_a_key(root: Path) -> None:
    (root / "home/ops/.ssh").mkdir(parents=True)
    assert not first_boot.has_key(root)
    (root / "home/ops/.ssh/authorized_keys").touch()
    assert not first_boot.has_key(root)
    (root / "home/ops/.ssh/authorized_keys").write_text("ssh-ed25519 AAAA\n")
    assert first_boot.has_key(root)
    kept, shown = first_boot.report(root, NAMES, {"admin": "made"}, ("ops", "secret"))
    assert "https: admin made\n" in kept
    assert "console: ops secret\n" in kept
    assert "as ops with secret" in shown
    assert "made" not in shown
    assert "ops" not in first_boot.report(root, NAMES, {"admin": "made"}, None)[1].replace("vmlops", "")


def test_grafanas_password_is_listed_where_grafana_is(root: Path) -> None:
    (root / "etc/grafana").mkdir()
    (root / first_boot.GRAFANA).write_text('admin_user = admin\nadmin_password = """made"""\n')
    assert "grafana: made\n" in first_boot.report(root, NAMES, {}, None)[0]
