"""A CA of the tests, and a replica that has a certificate of it and wants one from its clients."""

from __future__ import annotations

import datetime
import http.client
import ssl
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.replica import Server

API = "api.vmlops.internal"
BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


class Authority:
    """A CA, which gives a host a directory with host.crt, host.key and ca.crt."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CA under test")])
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        self.certificate = (
            self.build(self.name, self.key).add_extension(constraints, True).sign(self.key, hashes.SHA256())
        )

    def build(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder(self.name, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    def issue(self, directory: Path, name: str, usage: tuple[x509.ObjectIdentifier, ...] = BOTH) -> Path:
        directory.mkdir()
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName(name), x509.IPAddress(ip_address("127.0.0.1"))]
        certificate = (
            self.build(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key)
            .add_extension(x509.SubjectAlternativeName(names), False)
            .add_extension(x509.ExtendedKeyUsage(usage), False)
            .sign(self.key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        (directory / "host.crt").write_bytes(certificate.public_bytes(pem))
        (directory / "host.key").write_bytes(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        (directory / "ca.crt").write_bytes(self.certificate.public_bytes(pem))
        return directory


class TLSServer(Server):
    """A replica that asks its clients for certificates; what the tests ask it themselves shows the API host's."""

    def connect(self) -> http.client.HTTPConnection:
        own = Path(self.environment["VMLOPS_TLS_DIR"])
        connection = https(self.port, own, own)
        connection.connect()
        return connection


def https(port: int, trusted: Path, shown: Path | None) -> http.client.HTTPSConnection:
    context = ssl.create_default_context(cafile=str(trusted / "ca.crt"))
    if shown:
        context.load_cert_chain(shown / "host.crt", shown / "host.key")
    return http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=20)
