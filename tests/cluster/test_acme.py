"""Gateways that share an address, with certificates of an ACME authority: Pebble, which Let's Encrypt tests clients with."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Callable, Iterator

import pytest
from cryptography import x509

from tests.cluster.conftest import Cluster

NAME = "emotions.example.org"
WATCHES = "monitoring1"
# It shows the certificate by which its host is known in the fleet.
PEBBLE = {
    "pebble": {
        "listenAddress": "0.0.0.0:14000",
        "managementListenAddress": "127.0.0.1:15000",
        "certificate": "/etc/vmlops/host/host.crt",
        "privateKey": "/etc/vmlops/host/host.key",
        "httpPort": 80,
        "tlsPort": 443,
    }
}


@pytest.fixture
def authority(fleet: Cluster, eventually: Callable[..., None]) -> Iterator[str]:
    """The directory of an authority that finds NAME at the shared address and that the gateways trust."""
    url = f"https://{fleet.hosts[WATCHES]}:14000/dir"
    trusted = "/usr/local/share/ca-certificates/fleet.crt"
    try:
        fleet.ssh(WATCHES, "apt-get install --yes pebble")
        fleet.ssh(WATCHES, f"echo {fleet.address} {NAME} >> /etc/hosts")
        fleet.ssh(WATCHES, "nft insert rule inet vmlops input tcp dport 14000 accept")
        fleet.ssh(WATCHES, f"echo '{json.dumps(PEBBLE)}' > /run/pebble.json")
        fleet.ssh(WATCHES, "systemd-run --unit=pebble --setenv=PEBBLE_VA_NOSLEEP=1 pebble -config /run/pebble.json")
        for gateway in fleet.gateways:
            fleet.ssh(gateway, f"ln -sf /etc/vmlops/host/ca.crt {trusted}; update-ca-certificates")
        asks = f"curl --silent --noproxy '*' {url}"
        eventually(lambda: "newOrder" in fleet.ssh(fleet.gateways[0], asks, check=False), "the authority answers", 20)
        yield url
    finally:
        print(fleet.ssh(WATCHES, "journalctl --unit=pebble --output=cat --lines=40"))
        fleet.ssh(WATCHES, f"systemctl stop pebble; sed -i '/ {NAME}$/d' /etc/hosts; systemctl reload vmlops-firewall")
        for gateway in fleet.gateways:
            fleet.ssh(gateway, f"rm -rf {trusted} /etc/letsencrypt; update-ca-certificates --fresh")
        fleet.playbook("site.yml", "--tags", "gateway,tls", "--limit", "gateway")


def served(fleet: Cluster, gateway: str) -> x509.Certificate:
    """The certificate that a gateway shows at its own address to a client that asks for NAME."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((fleet.hosts[gateway], 443), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname=NAME) as connection,
    ):
        shown = connection.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown)


def test_each_gateway_gets_and_renews_a_certificate_of_its_own(fleet: Cluster, authority: str) -> None:
    """The authority looks at the gateway that has the shared address, also for the challenge of the other one."""
    settings = {"tls_mode": "acme", "tls_acme_directory": authority, "vmlops_server_names": [NAME, fleet.address]}
    options = ("--tags", "gateway,tls", "--limit", "gateway", "-e", json.dumps(settings))
    fleet.playbook("site.yml", *options)
    first = {gateway: served(fleet, gateway) for gateway in fleet.gateways}
    for gateway, shown in first.items():
        names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert "Pebble" in shown.issuer.rfc4514_string(), gateway
        assert names.get_values_for_type(x509.DNSName) == [NAME]
    assert len({shown.serial_number for shown in first.values()}) == len(fleet.gateways)

    said = fleet.playbook("site.yml", *options)
    assert said.count("changed=0") == len(fleet.gateways), said[-1500:]

    (owner,) = fleet.owners()
    (spare,) = set(fleet.gateways) - {owner}
    fleet.ssh(spare, "certbot renew --force-renewal --no-random-sleep-on-renew")
    assert served(fleet, spare).serial_number != first[spare].serial_number
    assert served(fleet, owner).serial_number == first[owner].serial_number
