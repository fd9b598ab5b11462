#!/usr/bin/python3
"""Gives a machine that was made from an image what no image may carry: names, passwords, a certificate.

Run by vmlops-first-boot.service before nginx and the monitoring start. What the site says is in /etc/vmlops/first-boot.json,
a JSON object that cloud-init (write_files) or whoever copies the image puts there; every key may be missing:

    names      host names and addresses that clients use, the most public one first; the host's own name and address are added
    users      who may use the API: account names with their passwords, or hashes of them ($6$…)
    operators  who may look at Prometheus and Grafana; without it, the users

Without users there is one, admin, with a random password. A certificate and a key that are in place already are used; without
them a CA is made, which signs one. Passwords that are made here are in /etc/vmlops/passwords, which only root reads. That file is
written last: where it is missing, because a run was interrupted, the next boot begins again.
"""

from __future__ import annotations

import argparse
import datetime
import ipaddress
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DATA = "etc/vmlops/first-boot.json"
PASSWORDS = "etc/vmlops/passwords"
CA_CERTIFICATE, CA_KEY = "etc/vmlops/ca/ca.crt", "etc/vmlops/ca/ca.key"
CERTIFICATE, KEY = "etc/vmlops/tls/server.crt", "etc/vmlops/tls/server.key"
GRAFANA = "etc/grafana/grafana.ini"
REALMS = {"users": "etc/nginx/vmlops.users", "operators": "etc/nginx/vmlops.operators"}
# In the accounts' files: what a name without an account is checked against. It tells how many rounds a hash has.
UNKNOWN = re.compile(r"^\(unknown\):\$6\$rounds=(\d+)\$.*\n", re.MULTILINE)
# The role gateway puts it beside this program: what nginx reads is made from the accounts' files.
ACCOUNTS_PROGRAM = Path(__file__).with_name("vmlops-accounts")
LOCALLY = ("localhost", "127.0.0.1")
# As the role tls has them; days.
CA_DAYS, CERTIFICATE_DAYS = 3650, 397
NETWORK = 15  # seconds that a network has for giving the machine an address; without one it goes on
BYTES = 18  # of randomness in a password; 24 characters

Hash = Callable[[str, int], str]


class Problem(Exception):
    """The machine cannot be given what it needs; the text says why, with the remedy."""


# --- what the site says ---


def read(path: Path) -> dict[str, Any]:
    """The site's data, every key with a value. Raises Problem for data that no machine can be made with."""
    try:
        data = json.loads(path.read_text()) if path.exists() else {}
    except ValueError as error:
        raise Problem(f"{path} is not JSON: {error}") from None
    if not isinstance(data, dict) or set(data) - {"names", *REALMS}:
        raise Problem(f"{path} must be a JSON object with the keys names, users and operators, or some of them")
    names = data.get("names", [])
    if not isinstance(names, list):
        raise Problem(f'{path}: names must be a list, such as ["emotions.example.org"]')
    found: dict[str, Any] = {"names": [canonical_name(name, path) for name in names]}
    for realm in REALMS:
        accounts = data.get(realm, {})
        if not isinstance(accounts, dict):
            raise Problem(f"{path}: {realm} must be an object of account names and their passwords")
        for name, password in accounts.items():
            check_account(name, password, f"{path}: {realm}")
        found[realm] = accounts
    return found


def canonical_name(name: Any, path: Path) -> str:
    """A host name in lower case, or an address in its short form."""
    text = str(name).lower().removesuffix(".")
    try:
        return ipaddress.ip_address(text).compressed
    except ValueError:
        label = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
        if not isinstance(name, str) or not re.fullmatch(rf"{label}(\.{label})*", text):
            raise Problem(
                f"{path}: names has {name!r}, which is neither a host name nor an address; other scripts have an xn-- form"
            ) from None
        return text


def check_account(name: str, password: Any, where: str) -> None:
    """Raise Problem for what the gateway cannot check; the rules are those of the role preflight."""
    if not re.fullmatch(r"[A-Za-z0-9._@-]+", name):
        raise Problem(f"{where}: the account {name!r} must be of letters, digits and . _ @ -")
    if not isinstance(password, str) or not re.fullmatch(r"[^\x00-\x1f\x7f]+", password):
        raise Problem(f"{where}: the password of {name} must be a text without control characters")
    if not password.startswith("$6$") and not 12 <= len(password) <= 400:
        raise Problem(f"{where}: the password of {name} must have 12 to 400 characters")


# --- names ---


def await_address(seconds: float) -> list[str]:
    """The address that this machine reaches others from; none where it has none after that time."""
    deadline = time.monotonic() + seconds
    while not (found := address()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return [found] if found else []


def address() -> str:
    """The address that this machine reaches others from now, or nothing; no packet is sent for it."""
    for family, anywhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((anywhere, 9))
            except OSError:
                continue
            return ipaddress.ip_address(probe.getsockname()[0]).compressed
    return ""


def all_names(given: list[str], hostname: str, addresses: list[str]) -> list[str]:
    """Every name that the machine answers to, each once, the one that links are made with first."""
    own = [hostname.lower().partition(".")[0], *addresses, *LOCALLY]
    return list(dict.fromkeys([*given, *filter(None, own)]))


def in_url(name: str) -> str:
    return f"[{name}]" if ":" in name else name


def settle(root: Path, name: str, names: list[str], password: str, new_password: str) -> list[Path]:
    """Write names and password in place of the stand-ins in files below /etc; return the files."""
    changed = []
    for path in sorted(path for path in (root / "etc").rglob("*") if path.is_file() and not path.is_symlink()):
        try:
            text = path.read_text()
        except (
            UnicodeDecodeError,
            FileNotFoundError,
        ):  # others make files meanwhile, such as ssh-keygen its scratch files
            continue
        settled = text.replace(f"server_name {name};", f"server_name {' '.join(map(in_url, names))};")
        settled = settled.replace(f"https://{name}", f"https://{in_url(names[0])}").replace(name, names[0])
        settled = settled.replace(password, new_password)
        if settled != text:
            replace(path, settled)
            changed.append(path)
    return changed


def replace(path: Path, text: str) -> None:
    """Write another text into a file; it keeps owner and mode."""
    there = path.stat()
    put(path, text.encode(), there.st_mode & 0o7777, (there.st_uid, there.st_gid))


def put(path: Path, content: bytes, mode: int, owner: tuple[int, int] = (-1, -1)) -> None:
    """Write a file in one step, so that what is there is whole, and never readable by others than it is to be."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.name}.new")
    scratch.unlink(missing_ok=True)
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    os.chown(scratch, *owner)
    scratch.chmod(mode)
    scratch.replace(path)


# --- accounts ---


def new_password() -> str:
    return secrets.token_urlsafe(BYTES)


def sha512crypt(password: str, rounds: int) -> str:
    """Hash a password as crypt(3) does."""
    command = ["openssl", "passwd", "-6", "-salt", f"rounds={rounds}${secrets.token_hex(8)}", "-stdin"]
    result = subprocess.run(command, input=f"{password}\n", check=True, capture_output=True, text=True)
    return result.stdout.strip()


def write_accounts(root: Path, data: Mapping[str, dict[str, str]], hash_of: Hash = sha512crypt) -> dict[str, str]:
    """Write the accounts of both realms; return those that were made here, with their passwords."""
    made = {} if data["users"] else {"admin": new_password()}
    users = data["users"] or made
    for realm, accounts in {"users": users, "operators": data["operators"] or users}.items():
        path = root / REALMS[realm]
        unknown = UNKNOWN.search(path.read_text())
        if unknown is None:
            raise Problem(f"{path} is not a file of accounts of the role gateway")
        lines = [
            f"{name}:{password if password.startswith('$6$') else hash_of(password, int(unknown[1]))}\n"
            for name, password in accounts.items()
        ]
        replace(path, "".join(lines) + unknown[0])
    return made


# --- certificate ---


def provide_certificate(root: Path, names: list[str]) -> None:
    """See to the certificate that nginx serves. Raises Problem where the one that the site gave is of no use."""
    certificate, key = root / CERTIFICATE, root / KEY
    own = (root / CA_KEY).exists()  # an interrupted run was here
    if certificate.exists() or (key.exists() and not own):
        check_pair(certificate, key)
        key.chmod(0o600)
        return
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0, tzinfo=None)
    authority, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = subject("vmlops local CA")
    ca = (
        builder(issuer, issuer, authority.public_key(), now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority.public_key()), critical=False)
        .sign(authority, hashes.SHA256())
    )
    short = [name for name in names if len(name) <= 64]  # X.509 has no room for more
    issued = (
        builder(subject(short[0]), issuer, server.public_key(), now, CERTIFICATE_DAYS)
        .add_extension(x509.SubjectAlternativeName([general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
        .sign(authority, hashes.SHA256())
    )
    put(root / CA_KEY, pem(authority), 0o600)
    put(root / CA_CERTIFICATE, ca.public_bytes(Encoding.PEM), 0o644)
    put(key, pem(server), 0o600)
    put(certificate, issued.public_bytes(Encoding.PEM), 0o644)


def check_pair(certificate: Path, key: Path) -> None:
    """Raise Problem where the certificate and the key that the site gave do not belong together."""
    try:
        loaded = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
        private = serialization.load_pem_private_key(key.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise Problem(f"{certificate} and {key} must be a certificate and its key, both as PEM: {error}") from None
    form = (Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if loaded.public_bytes(*form) != private.public_key().public_bytes(*form):
        raise Problem(f"{certificate} is not the certificate of the key {key}: give both, or neither")


def subject(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "vmlops"),
        ]
    )


def builder(
    of: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime.datetime, days: int
) -> x509.CertificateBuilder:
    """A certificate that is valid from an hour ago, because clients' clocks differ."""
    return (
        x509.CertificateBuilder()
        .subject_name(of)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def usage(*, sign_certificates: bool) -> x509.KeyUsage:
    unused = (
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        **dict.fromkeys(unused, False),
    )


def general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


# --- who logs in ---


def has_key(root: Path) -> bool:
    """Whether anybody can log in through SSH."""
    homes = [root / "root", *(root / "home").glob("*")]
    return any(
        path.is_file() and path.stat().st_size for home in homes for path in (home / ".ssh").glob("authorized_keys*")
    )


def report(root: Path, names: list[str], made: Mapping[str, str], login: tuple[str, str] | None) -> tuple[str, str]:
    """Return the text of PASSWORDS, and what the console shows before a login."""
    grafana = root / GRAFANA
    lines = ["Made at the first boot; site.yml and you may have set others since."]
    lines += [f"https: {name} {password}" for name, password in made.items()]
    if grafana.exists() and (
        password := re.search(r'^admin_password = """(.*)"""$', grafana.read_text(), re.MULTILINE)
    ):
        lines += [f"grafana: {password[1]}"]
    lines += [f"console: {login[0]} {login[1]}"] if login else []
    shown = [f"vmlops answers at https://{in_url(names[0])}/", f"Passwords: sudo cat /{PASSWORDS}"]
    shown += [f"CA for its clients: /{CA_CERTIFICATE}"] if (root / CA_CERTIFICATE).exists() else []
    if login:
        shown += [f"No SSH key was given. Log in here, and nowhere else, as {login[0]} with {login[1]}"]
        shown += ["(shown until the next boot)"]
    return "".join(f"{line}\n" for line in lines), "".join(f"{line}\n" for line in shown) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="the stand-in for the machine's names in files below /etc")
    parser.add_argument("--password", required=True, help="the stand-in for Grafana's password there")
    parser.add_argument(
        "--login", required=True, help="the account that gets a password for the console without SSH keys"
    )
    arguments = parser.parse_args()
    os.umask(0o022)
    root = Path("/")
    try:
        data = read(root / DATA)
        names = all_names(data["names"], socket.gethostname(), await_address(NETWORK))
        provide_certificate(root, names)
        made = write_accounts(root, data)
        # With the directory named it reloads nothing: a reload would wait for this unit, which waits for the program.
        subprocess.run([ACCOUNTS_PROGRAM, root / "etc/nginx"], check=True, stdout=subprocess.DEVNULL)
        settled = settle(root, arguments.name, names, arguments.password, new_password())
        if any("systemd" in path.parts for path in settled):
            subprocess.run(["systemctl", "daemon-reload"], check=True)
        login = None if has_key(root) else (arguments.login, new_password())
        if login:
            subprocess.run(["chpasswd"], input=":".join(login), check=True, text=True)
    except Problem as error:
        print(f"vmlops-first-boot: {error}", file=sys.stderr)
        return 1
    passwords, shown = report(root, names, made, login)
    put(root / "run/vmlops.issue", shown.encode(), 0o600)
    put(root / PASSWORDS, passwords.encode(), 0o600)
    # It runs already where this is not the first attempt.
    subprocess.run(["systemctl", "--no-block", "try-reload-or-restart", "vmlops-verifier.service"], check=True)
    print(shown.splitlines()[0])
    return 0


if __name__ == "__main__":
    sys.exit(main())
