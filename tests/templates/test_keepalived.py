"""What the gateways of a fleet tell keepalived; the role has keepalived check the file itself."""

from __future__ import annotations

import re

import pytest

from tests.templates.render import render

CONF = "etc/keepalived/keepalived.conf.j2"
ADDRESSES = {"one": "10.0.0.1", "two": "10.0.0.2", "three": "10.0.0.3"}
NAMES: dict[str, object] = {
    "groups": {"gateway": list(ADDRESSES)},
    "hostvars": {host: {"vmlops_address": address} for host, address in ADDRESSES.items()},
    "vmlops_virtual_address": "10.0.0.9",
    "vmlops_server_names": ["emotions.example.org"],
}


def conf(host: str, **changes: object) -> str:
    names = {**NAMES, "inventory_hostname": host, "vmlops_address": ADDRESSES[host], **changes}
    return render("keepalived", CONF, environment="cluster", **names)


def test_each_gateway_announces_itself_to_each_of_the_others() -> None:
    found = conf("two")
    assert "unicast_src_ip 10.0.0.2\n" in found
    peers = re.search(r"unicast_peer \{(.*?)\}", found, re.DOTALL)
    assert peers is not None
    assert peers[1].split() == ["10.0.0.1", "10.0.0.3"]


def test_priorities_differ_and_nobody_takes_the_address_back() -> None:
    files = [conf(host) for host in ("one", "two", "three")]
    assert len({tuple(re.findall(r"priority (\d+)", file)) for file in files}) == 3
    for file in files:
        assert "state BACKUP\n" in file
        assert "nopreempt\n" in file


def test_the_check_asks_this_nginx_for_an_answer_by_a_name_that_it_serves() -> None:
    (script,) = re.findall(r'script "(.*)"', conf("one"))
    assert script.startswith("/usr/bin/curl ")
    assert "--fail" in script
    assert "--connect-to ::127.0.0.1:443" in script
    assert script.endswith("https://emotions.example.org/health")


@pytest.mark.parametrize(("address", "prefix"), [("10.0.0.9", 32), ("fd00::9", 128)])
def test_the_shared_address_is_one_address(address: str, prefix: int) -> None:
    assert f"        {address}/{prefix}\n" in conf("one", vmlops_virtual_address=address)
